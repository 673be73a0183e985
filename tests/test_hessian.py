"""Curvature against explicit Hessians, quadratics of known trace, and each other."""

import curved
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import flatten_util
from matfree import stochtrace

from spaced_kd.analysis import curvature
from spaced_kd.errors import ConfigError

SYMMETRIC = (lambda a: a + a.T)(np.random.default_rng(0).normal(size=(6, 6)))
POINT = {"a": jnp.ones(4), "b": {"c": jnp.full(2, 2.0)}}


def test_a_product_is_the_explicit_hessians():
    """Through convolutions, BatchNorm in eval mode and ReLU."""
    risk = curved.classifier(1)
    flat, unravel = flatten_util.ravel_pytree(risk.params)
    vector = np.random.default_rng(1).normal(size=flat.size)
    (chunk,) = risk.chunks
    mean = lambda p: risk.loss_sum(p, risk.fixed, chunk) / risk.num_examples
    product = jax.jit(lambda v: curvature.hvp(mean, risk.params, unravel(v)))
    found, _ = flatten_util.ravel_pytree(product(jnp.asarray(vector, jnp.float32)))
    expected = curved.explicit_hessian() @ vector
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("num_chunks", "num_devices"), [(1, 1), (3, 1), (2, 4)])
def test_the_exact_trace_is_the_explicit_hessians(num_chunks, num_devices):
    """Whole and block by block, whatever padding chunks and devices need."""
    risk = curved.classifier(num_chunks, num_devices)
    found = curvature.exact_trace(risk)
    diagonal = np.diag(curved.explicit_hessian())
    np.testing.assert_allclose(found.mean, diagonal.sum(), rtol=1e-5)
    assert found.standard_error == 0
    blocks = curved.places(risk.params)
    assert set(found.layers) == set(blocks)
    for name, place in blocks.items():
        expected = diagonal[place].sum()
        np.testing.assert_allclose(found.layers[name].mean, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def estimate():
    """Of the small CNN, by 200 probes, of all images at once."""
    risk = curved.classifier(1)
    return curvature.trace(risk, jax.random.key(3), num_probes=200)


@pytest.mark.parametrize(("num_chunks", "num_devices"), [(4, 1), (2, 4)])
def test_neither_chunks_nor_devices_change_a_sample(estimate, num_chunks, num_devices):
    """The same probes for every part, or each would be a trace of another sample."""
    risk = curved.classifier(num_chunks, num_devices)
    parts = curvature.trace(risk, jax.random.key(3), num_probes=200)
    scale = np.abs(estimate.samples).max()
    np.testing.assert_allclose(parts.samples, estimate.samples, atol=1e-5 * scale)


def test_samples_scatter_about_the_explicit_trace(estimate):
    """Whole and block by block, by their own standard errors; blocks add up."""
    diagonal = np.diag(curved.explicit_hessian())
    assert abs(estimate.mean - diagonal.sum()) < 4 * estimate.standard_error
    parts = [layer.mean for layer in estimate.layers.values()]
    np.testing.assert_allclose(sum(parts), estimate.mean, rtol=1e-9)
    for name, place in curved.places(curved.variables()["params"]).items():
        layer = estimate.layers[name]
        error = abs(layer.mean - diagonal[place].sum())
        assert error < 4.5 * layer.standard_error + 1e-6, name


def test_a_linear_classifiers_trace_is_its_closed_form():
    """Convex: the Hessian is the Gauss-Newton matrix, mean of xx' (diag p - pp')."""
    found = curvature.exact_trace(curved.regression())
    expected = np.trace(curved.regression_hessian())
    np.testing.assert_allclose(found.mean, expected, rtol=1e-5)


def test_matfrees_estimate_is_ours():
    """Of probes of its own, with the closed form's matrix, by both standard errors."""
    matrix = jnp.asarray(curved.regression_hessian(), jnp.float32)
    found = curvature.trace(curved.regression(), jax.random.key(1), num_probes=200)
    estimate = stochtrace.estimator_monte_carlo_mean_and_sem(
        stochtrace.monte_carlo_trace(), stochtrace.sampler_signs(jnp.ones(96), num=200)
    )
    mean, error = estimate(lambda v: matrix @ v, jax.random.key(2))
    assert found.standard_error is not None
    both = np.hypot(found.standard_error, error)
    assert abs(found.mean - mean) < 4 * both
    np.testing.assert_allclose(found.standard_error, error, rtol=0.25)


@pytest.mark.parametrize("probe", curvature.PROBES)
def test_samples_have_the_mean_and_variance_that_theory_says(probe):
    """On a quadratic, whose Hessian is known everywhere."""
    risk = curved.quadratic(SYMMETRIC, POINT)
    found = curvature.trace(risk, jax.random.key(0), num_probes=20_000, probe=probe)
    squares = (SYMMETRIC**2).sum()
    if probe == "rademacher":
        squares -= (np.diag(SYMMETRIC) ** 2).sum()
    assert found.standard_error is not None
    assert abs(found.mean - np.trace(SYMMETRIC)) < 4 * found.standard_error
    np.testing.assert_allclose(found.samples.var(), 2 * squares, rtol=0.05)
    error = np.sqrt(2 * squares / 20_000)
    np.testing.assert_allclose(found.standard_error, error, rtol=0.05)


def test_a_single_probe_has_no_standard_error():
    """A figure without an error bar, not one of length 0 or NaN."""
    risk = curved.quadratic(SYMMETRIC)
    found = curvature.trace(risk, jax.random.key(0), num_probes=1)
    assert found.standard_error is None


@pytest.mark.real_compiler
def test_more_probes_need_no_more_memory():
    """What the compiled program reserves beside its arguments and results."""
    risk = curved.regression(1)
    (chunk,) = risk.chunks

    def reserved(num_probes):
        program = curvature.quadratic_forms(risk.loss_sum, risk.group, "rademacher")
        keys = curvature.keys_of(jax.random.key(0), num_probes)
        compiled = program.lower((risk.params, risk.fixed, keys), chunk).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert reserved(4) > 4 * 96
    assert reserved(16) == reserved(4)


def test_an_unknown_probe_is_told():
    """With the nearest name."""
    risk = curved.quadratic(SYMMETRIC)
    with pytest.raises(ConfigError, match="probe='gausian' is unknown; did you mean"):
        curvature.trace(risk, jax.random.key(0), num_probes=1, probe="gausian")
