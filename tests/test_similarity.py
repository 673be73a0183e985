"""Alignment of features and comparison of parameter vectors, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd.analysis import similarity

rng = np.random.default_rng(0)
FEATURES = rng.normal(size=(40, 6)) * [3, 1, 1, 0.5, 0.1, 2] + 5


def test_alignment_ignores_rotation_scale_and_offset():
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    moved = -0.3 * FEATURES @ turn + rng.normal(size=6)
    assert similarity.linear_cka(FEATURES, moved) == pytest.approx(1.0, abs=1e-12)


def test_alignment_is_that_of_the_kernels_where_widths_differ():
    """By the n x n form: <HKH, L> over the norms (Kornblith et al., Section 3)."""
    other = np.maximum(FEATURES[:, :4] @ rng.normal(size=(4, 9)), 0)
    centring = np.eye(40) - 1 / 40
    k, l = (centring @ z @ z.T @ centring for z in (FEATURES, other))
    expected = np.sum(k * l) / np.sqrt(np.sum(k * k) * np.sum(l * l))
    assert 0.05 < expected < 0.95
    found = similarity.linear_cka(FEATURES, other)
    assert found == pytest.approx(expected, rel=1e-12)
    assert similarity.linear_cka(other, FEATURES) == pytest.approx(expected, rel=1e-12)


def test_float32_features_are_added_up_in_float64():
    """Far from zero, where float32 sums would lose what varies."""
    far = (FEATURES + 1000).astype(np.float32)
    other = far[:, :3] ** 2
    expected = similarity.linear_cka(far.astype(np.float64), other.astype(np.float64))
    assert similarity.linear_cka(far, other) == pytest.approx(expected, rel=1e-9)


def test_constant_features_are_aligned_with_nothing():
    """A dead network gives the same features for every image: 0 / 0."""
    dead = np.full((40, 3), 0.1)
    assert similarity.linear_cka(FEATURES, dead) is None
    assert similarity.linear_cka(dead, FEATURES) is None


def test_vectors_are_compared_as_one_long_vector_each():
    shapes = [(), (3,), (4, 5), (3, 3, 2, 4)]
    first, second = ([rng.normal(size=s).astype("f4") for s in shapes] for _ in "12")
    found = similarity.compare(
        dict(enumerate(map(jnp.asarray, first))),
        dict(enumerate(map(jnp.asarray, second))),
    )
    a, b = (np.concatenate([x.ravel() for x in v]) for v in (first, second))
    a, b = a.astype("f8"), b.astype("f8")
    norms = np.linalg.norm(a), np.linalg.norm(b)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-6)
    assert found.distance == pytest.approx(np.linalg.norm(a - b), rel=1e-6)
    cosine = a @ b / norms[0] / norms[1]
    assert found.cosine == pytest.approx(cosine, rel=1e-5)


def test_a_vector_is_at_distance_zero_from_itself_and_of_cosine_one():
    tree = {"kernel": jnp.asarray(rng.normal(size=(50, 70)), jnp.float32)}
    found = similarity.compare(tree, tree)
    assert found.distance == 0
    assert found.cosine == pytest.approx(1.0, abs=1e-12)


def test_a_zero_vector_has_no_angle():
    zero = {"w": jnp.zeros(3)}
    assert similarity.compare(zero, {"w": jnp.ones(3)}).cosine is None
