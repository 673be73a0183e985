"""Lanczos and Hutch++ against known spectra, explicit Hessians and Hutchinson."""

import curved
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from spaced_kd.analysis import curvature, spectrum
from spaced_kd.errors import ConfigError

VALUES = np.array([9.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.0, -0.5, -3.0])


def run(risk, depth, num_starts=1, probe="gaussian"):
    key = jax.random.key(5)
    return spectrum.lanczos(risk, key, depth=depth, num_starts=num_starts, probe=probe)


def test_as_many_steps_as_parameters_find_every_eigenvalue():
    """Of a rotated diagonal matrix; more steps than parameters are not taken."""
    (found,) = run(curved.quadratic(curved.symmetric(VALUES)), 20)
    np.testing.assert_allclose(found.values, np.sort(VALUES), atol=1e-5)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-4)


@pytest.mark.parametrize(("num_chunks", "num_devices"), [(1, 1), (3, 1), (2, 4)])
def test_a_networks_extreme_eigenvalues_are_the_explicit_hessians(
    num_chunks, num_devices
):
    """By far fewer steps than parameters, on any chunks and devices."""
    (found,) = run(curved.classifier(num_chunks, num_devices), 25)
    expected = np.linalg.eigvalsh(curved.explicit_hessian())
    np.testing.assert_allclose(found.values[-3:], expected[-3:], rtol=1e-4)
    np.testing.assert_allclose(found.values[0], expected[0], rtol=1e-2)


def test_a_residual_bounds_the_distance_to_an_eigenvalue():
    """Also where the iteration has not converged."""
    values = np.linspace(-1, 3, 40) ** 3
    (found,) = run(curved.quadratic(curved.symmetric(values)), 8)
    distance = np.abs(found.values[:, None] - values).min(1)
    assert (distance <= found.residuals + 1e-5).all()
    assert found.residuals.max() > 0.1
    # Not vacuous: the smallest residuals say which values can be trusted.
    assert found.residuals[-1] < 1


def test_ritz_values_are_those_of_a_krylov_space_by_qr():
    """Against the space spanned by A^k v, orthonormalised by NumPy in float64."""
    matrix = curved.symmetric(VALUES)
    risk = curved.quadratic(matrix)
    (found,) = run(risk, 4)
    (key,) = curvature.keys_of(jax.random.key(5), 1)
    start = np.asarray(curvature.probe_of(key, len(VALUES), "gaussian"), np.float64)
    powers = [np.linalg.matrix_power(matrix, k) @ start for k in range(4)]
    basis, _ = np.linalg.qr(np.stack(powers, 1))
    values, vectors = np.linalg.eigh(basis.T @ matrix @ basis)
    ritz = basis @ vectors
    np.testing.assert_allclose(found.values, values, atol=1e-4)
    weights = (start @ ritz) ** 2 / (start @ start)
    np.testing.assert_allclose(found.weights, weights, atol=1e-5)
    residuals = np.linalg.norm(matrix @ ritz - ritz * values, axis=0)
    np.testing.assert_allclose(found.residuals, residuals, atol=1e-4)


def test_an_exhausted_krylov_space_ends_the_iteration():
    """A multiple of the identity is known after one step; the next would divide 0/0."""
    (found,) = run(curved.quadratic(2 * np.eye(4)), 4)
    np.testing.assert_allclose(found.values, 2, rtol=1e-5)
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-6)


def test_quadrature_gives_hutchinsons_samples():
    """P times the mean of a start's quadrature is v'Hv, whatever the depth."""
    risk = curved.regression()
    hutchinson = curvature.trace(risk, jax.random.key(5), num_probes=3)
    found = run(risk, 5, num_starts=3, probe="rademacher")
    samples = [96 * (run.weights @ run.values) for run in found]
    np.testing.assert_allclose(samples, hutchinson.samples, rtol=1e-5)


def test_the_density_integrates_to_one_and_its_mean_is_the_trace():
    """By quadrature rules of SciPy on the grid."""
    matrix = curved.regression_hessian()
    found = run(curved.regression(), 12, num_starts=40, probe="rademacher")
    grid = np.linspace(-0.5, 3, 4001)
    density = spectrum.density(*spectrum.quadrature(found), grid, width=0.02)
    np.testing.assert_allclose(integrate.simpson(density, x=grid), 1, rtol=1e-6)
    mean = integrate.simpson(density * grid, x=grid)
    samples = np.array([96 * (run.weights @ run.values) for run in found])
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(96 * mean - np.trace(matrix)) < 4 * error


def test_the_density_is_the_smeared_spectrum():
    """Of a quadratic, at full depth, over many starts."""
    found = run(curved.quadratic(curved.symmetric(VALUES)), 10, num_starts=400)
    grid = np.linspace(-5, 12, 500)
    density = spectrum.density(*spectrum.quadrature(found), grid, width=0.8)
    shapes = np.exp(-(((grid[:, None] - VALUES) / 0.8) ** 2) / 2)
    expected = shapes.mean(1) / (0.8 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(density, expected, atol=0.02)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_hutch_plus_plus_is_exact_where_the_sketch_spans_the_range(num_devices):
    """Of six dimensions four of rank, by five probes; block by block too."""
    matrix = curved.symmetric([9.0, -4.0, 2.0, 0.5, 0.0, 0.0])
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones((2, 2))}}
    risk = curved.quadratic(matrix, params, num_devices)
    found = spectrum.hutch_plus_plus(risk, jax.random.key(1), num_probes=5)
    np.testing.assert_allclose(found.mean, 7.5, rtol=1e-4)
    np.testing.assert_allclose(found.samples, 7.5, rtol=1e-4)
    diagonal = np.diag(matrix)
    for name, place in curved.places(params).items():
        expected = diagonal[place].sum()
        np.testing.assert_allclose(found.layers[name].mean, expected, rtol=1e-4)


def test_hutch_plus_plus_is_unbiased_and_errs_less_than_hutchinson():
    """At equal products, on a spectrum that falls; the other's error by its formula."""
    products, runs = 30, 12
    matrix = curved.symmetric(1.0 / np.arange(1, 61) ** 1.5)
    risk = curved.quadratic(matrix, {"a": jnp.ones(20), "b": jnp.ones(40)})
    found = [
        spectrum.hutch_plus_plus(risk, jax.random.key(seed), num_probes=products // 3)
        for seed in range(runs)
    ]
    errors = np.array([one.mean for one in found]) - np.trace(matrix)
    assert abs(errors.mean()) < 4 * errors.std(ddof=1) / np.sqrt(runs)
    squares = (matrix**2).sum() - (np.diag(matrix) ** 2).sum()
    root_mean_square = np.sqrt((errors**2).mean())
    assert root_mean_square < 0.5 * np.sqrt(2 * squares / products)
    # Its own standard error, of ten probes each, tells how far off it is.
    stated = np.sqrt(np.mean([(one.standard_error or 0) ** 2 for one in found]))
    np.testing.assert_allclose(stated, root_mean_square, rtol=0.6)
    block = np.array([one.layers["a"].mean for one in found])
    error = block.std(ddof=1) / np.sqrt(runs)
    assert abs(block.mean() - np.diag(matrix)[:20].sum()) < 4 * error


def test_a_long_sum_loses_nothing():
    """Ten thousand terms each too small for the sum to notice, as of many chunks."""
    terms = jnp.full((10_000, 2), 3e-8, jnp.float32)
    start = (jnp.ones(2), jnp.zeros(2))
    step = jax.jit(
        lambda: jax.lax.scan(lambda c, t: (spectrum.added(c, t), None), start, terms)
    )
    ((total, _), _) = step()
    np.testing.assert_allclose(total, 1 + 3e-4, rtol=1e-6)


def test_an_unknown_probe_is_told():
    """Before anything is compiled."""
    risk = curved.quadratic(np.eye(2))
    with pytest.raises(ConfigError, match="probe='sphere' is unknown"):
        run(risk, 2, probe="sphere")
    with pytest.raises(ConfigError, match="probe='sphere' is unknown"):
        key = jax.random.key(0)
        spectrum.hutch_plus_plus(risk, key, num_probes=1, probe="sphere")
