import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd.layers import BatchNorm, Dense
from spaced_kd.parallel import BatchAxis

X = np.random.default_rng(0).normal(2.0, 3.0, size=(8, 4, 4, 3)).astype(np.float32)
MASK = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)


def _apply(x, mask=None, train=True, axis=None):
    layer = BatchNorm(axis or BatchAxis())
    variables = BatchNorm().init(jax.random.key(0), x, train=False)
    return layer.apply(variables, x, train=train, mask=mask, mutable=["batch_stats"])


@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm_equals_numpy_over_the_real_examples(masked):
    """Statistics, epsilon, and PyTorch's unbiased running variance (momentum 0.1)."""
    real = X[MASK] if masked else X
    mean, var = real.mean((0, 1, 2)), real.var((0, 1, 2))
    out, state = _apply(X, jnp.asarray(MASK) if masked else None)
    expected = (X - mean) / np.sqrt(var + 1e-5)
    keep = MASK if masked else slice(None)
    np.testing.assert_allclose(out[keep], expected[keep], rtol=1e-4, atol=1e-5)
    stats = state["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4)
    unbiased = real.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * unbiased, rtol=1e-4)


def test_statistics_over_devices_equal_those_of_the_whole_batch():
    """Padding on one device only: a mean of means would be wrong."""
    whole, state = _apply(X, jnp.asarray(MASK))
    split = lambda a: jnp.asarray(a).reshape(4, 2, *a.shape[1:])
    apply = lambda x, m: _apply(x, m, axis=BatchAxis("d"))
    out, states = jax.vmap(apply, axis_name="d")(split(X), split(MASK))
    np.testing.assert_allclose(out.reshape(X.shape), whole, rtol=1e-4, atol=1e-5)
    for name in ("mean", "var"):
        rows = states["batch_stats"][name]
        np.testing.assert_allclose(rows[0], state["batch_stats"][name], rtol=1e-5)
        np.testing.assert_array_equal(rows[0], rows[3])


def test_eval_mode_reads_the_running_statistics_and_leaves_them():
    """An evaluation that moved them would change what a resumed run computes."""
    out, state = _apply(X, train=False)
    np.testing.assert_allclose(out, X / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert not state or np.all(state["batch_stats"]["mean"] == 0)


def test_dense_starts_as_pytorch_does():
    """U(+-1/sqrt(fan_in)) for weights and bias: variance 1 / (3 fan_in)."""
    params = Dense(400).init(jax.random.key(0), jnp.zeros((1, 300)))["params"]
    bound = 300**-0.5
    for value in params.values():
        assert np.abs(value).max() <= bound
        np.testing.assert_allclose(np.var(value), bound**2 / 3, rtol=0.15)
