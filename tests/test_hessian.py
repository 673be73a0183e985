"""Curvature against explicit Hessians, quadratics of known trace, and each other."""

from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import flatten_util

from spaced_kd import losses
from spaced_kd.analysis import hessian
from spaced_kd.errors import ConfigError
from spaced_kd.models.small_cnn import SmallCNN
from spaced_kd.types import ModelOutput

rng = np.random.default_rng(0)
SYMMETRIC = (lambda a: jnp.asarray(a + a.T, jnp.float32))(rng.normal(size=(6, 6)))
POINT = {"a": jnp.ones(4), "b": {"c": jnp.full(2, 2.0)}}


def quadratic(params, chunk):
    """w'Aw / 2, of Hessian A, for each of the chunk's examples."""
    w, _ = flatten_util.ravel_pytree(params)
    return len(chunk) * 0.5 * w @ SYMMETRIC @ w


IMAGES = jnp.asarray(rng.normal(size=(12, 4, 4, 2)), jnp.float32)
LABELS = jnp.asarray(rng.integers(0, 3, 12))


def classifier():
    """A small CNN's summed cross-entropy in eval mode, and its parameters."""
    model = SmallCNN(3, channels=(2, 3))
    variables = model.init(jax.random.key(0), IMAGES, train=False)

    def loss_sum(params, chunk):
        rest = {k: v for k, v in variables.items() if k != "params"}
        outputs = model.apply({"params": params, **rest}, chunk[0], train=False)
        logits = cast(ModelOutput, outputs).logits
        return losses.cross_entropy(logits, chunk[1]).sum()

    return loss_sum, variables["params"]


def chunked(count):
    size = len(LABELS) // count
    return [
        (IMAGES[k : k + size], LABELS[k : k + size])
        for k in range(0, len(LABELS), size)
    ]


@pytest.fixture(scope="module")
def small():
    """A small CNN, its explicit Hessian of the mean loss."""
    loss_sum, params = classifier()
    flat, unravel = flatten_util.ravel_pytree(params)
    mean = lambda w: loss_sum(unravel(w), (IMAGES, LABELS)) / len(LABELS)
    return loss_sum, params, np.asarray(jax.jit(jax.hessian(mean))(flat))


def test_a_product_is_the_explicit_hessians(small):
    """Through convolutions, BatchNorm in eval mode and ReLU."""
    loss_sum, params, explicit = small
    flat, unravel = flatten_util.ravel_pytree(params)
    vector = jnp.asarray(rng.normal(size=flat.size), jnp.float32)
    mean = lambda p: loss_sum(p, (IMAGES, LABELS)) / len(LABELS)
    found = jax.jit(lambda v: hessian.hvp(mean, params, unravel(v)))(vector)
    found, _ = flatten_util.ravel_pytree(found)
    np.testing.assert_allclose(found, explicit @ vector, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_the_exact_trace_is_the_explicit_hessians(small, count):
    loss_sum, params, explicit = small
    found = hessian.exact_trace(loss_sum, params, chunked(count), len(LABELS))
    np.testing.assert_allclose(found, np.trace(explicit), rtol=1e-4)


def test_chunks_change_nothing_and_layers_add_up(small):
    """The same probes for every chunk, or each would be a trace of another sample."""
    loss_sum, params, explicit = small
    run = lambda count: hessian.trace(
        loss_sum,
        params,
        chunked(count),
        len(LABELS),
        jax.random.key(3),
        num_probes=200,
    )
    whole, parts = run(1), run(4)
    np.testing.assert_allclose(parts.samples, whole.samples, rtol=1e-3, atol=1e-5)
    sizes = {
        "/".join(k.key for k in path): leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    assert set(whole.layers) == set(sizes)
    np.testing.assert_allclose(
        sum(layer.mean for layer in whole.layers.values()), whole.mean, rtol=1e-6
    )
    assert abs(whole.mean - np.trace(explicit)) < 4 * whole.standard_error
    # Each layer's own block, found by its place in the flat vector.
    place = 0
    for name, size in sizes.items():
        block = np.trace(explicit[place : place + size, place : place + size])
        layer = whole.layers[name]
        assert abs(layer.mean - block) < 4.5 * layer.standard_error + 1e-6, name
        place += size


@pytest.mark.parametrize("probe", hessian.PROBES)
def test_samples_have_the_mean_and_variance_that_theory_says(probe):
    """On a quadratic, whose Hessian is known everywhere."""
    found = hessian.trace(
        quadratic,
        POINT,
        [jnp.zeros(3), jnp.zeros(3)],
        6,
        jax.random.key(0),
        num_probes=20_000,
        probe=probe,
    )
    matrix = np.asarray(SYMMETRIC, np.float64)
    squares = (matrix**2).sum()
    if probe == "rademacher":
        squares -= (np.diag(matrix) ** 2).sum()
    assert abs(found.mean - np.trace(matrix)) < 4 * found.standard_error
    np.testing.assert_allclose(found.samples.var(), 2 * squares, rtol=0.05)
    error = np.sqrt(2 * squares / 20_000)
    np.testing.assert_allclose(found.standard_error, error, rtol=0.05)


def test_hutch_plus_plus_is_exact_where_the_sketch_spans_the_range():
    """Of six dimensions four of rank, by five probes; and better than Hutchinson."""
    values = np.array([9.0, -4.0, 2.0, 0.5, 0.0, 0.0])
    vectors, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    matrix = jnp.asarray(vectors * values @ vectors.T, jnp.float32)
    loss = lambda w, chunk: len(chunk) * 0.5 * w @ matrix @ w
    found = hessian.hutch_plus_plus(
        loss, jnp.ones(6), [jnp.zeros(2)], 2, jax.random.key(1), num_products=15
    )
    np.testing.assert_allclose(found, values.sum(), rtol=1e-4)


def test_hutch_plus_plus_is_unbiased_and_errs_less_than_hutchinson():
    """At equal products, on a spectrum that falls; the other's error by its formula."""
    size, products, runs = 60, 30, 10
    vectors, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = vectors * (1.0 / np.arange(1, size + 1) ** 1.5) @ vectors.T
    held = jnp.asarray(matrix, jnp.float32)
    loss = lambda w, chunk: len(chunk) * 0.5 * w @ held @ w
    errors = np.array(
        [
            hessian.hutch_plus_plus(
                loss,
                jnp.ones(size),
                [jnp.zeros(2)],
                2,
                jax.random.key(seed),
                num_products=products,
            )
            - np.trace(matrix)
            for seed in range(runs)
        ]
    )
    assert abs(errors.mean()) < 4 * errors.std(ddof=1) / np.sqrt(runs)
    squares = (matrix**2).sum() - (np.diag(matrix) ** 2).sum()
    assert np.sqrt((errors**2).mean()) < 0.5 * np.sqrt(2 * squares / products)


def test_an_unknown_probe_is_told():
    with pytest.raises(ConfigError, match="probe='gausian' is unknown; did you mean"):
        hessian.trace(
            quadratic,
            POINT,
            [jnp.zeros(1)],
            1,
            jax.random.key(0),
            num_probes=1,
            probe="gausian",
        )
