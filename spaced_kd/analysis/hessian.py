"""Exact Hessian-vector products of a loss over a whole data set, and its trace.

H v = d/de grad L(w + e v) at e = 0, forward over reverse: `jax.jvp` of `jax.grad`. The
loss is a mean over N examples, given as sums over chunks of them, so that memory is
that of one chunk and one probe, however many there are; time grows with both.

The trace by Hutchinson: E[v'Hv] = tr H for probes v of independent entries with mean 0
and variance 1. Its variance is 2 |H|^2 with Gaussian entries, and with random signs
(Rademacher) 2 (|H|^2 - sum of H_ii^2), |.| the Frobenius norm. Paper Theorem 4.4 is
about this trace.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util, lax

from spaced_kd import registry
from spaced_kd.types import Params

LossSum = Callable[[Params, Any], jax.Array]
"""(params, chunk) -> the loss summed over the chunk's examples, []."""

PROBES: dict[str, Callable[..., jax.Array]] = {
    "rademacher": jax.random.rademacher,
    "gaussian": jax.random.normal,
}
"""Distribution of a probe's entries -> sampler(key, shape, dtype)."""


class Trace(NamedTuple):
    """An estimate of a trace.

    mean: of the samples. standard_error: of that mean; NaN for a single probe.
    samples: [probes] float64, v'Hv. layers: the same of each parameter's own block of
    the Hessian, by its path ("stem_conv/kernel"); the blocks' traces add up to the
    whole.
    """

    mean: float
    standard_error: float
    samples: np.ndarray
    layers: dict[str, "Trace"]


def hvp(loss: Callable[[Params], jax.Array], params: Params, vector: Params) -> Params:
    """Return H v, exact up to rounding.

    Args:
      loss: of the parameters alone.
      params: where.
      vector: v, of the structure, shapes and dtypes of params.
    """
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def trace(
    loss_sum: LossSum,
    params: Params,
    chunks: Iterable[Any],
    num_examples: int,
    key: jax.Array,
    *,
    num_probes: int,
    probe: str = "rademacher",
) -> Trace:
    """Estimate the trace of the Hessian of the mean loss (Hutchinson).

    Args:
      loss_sum: the loss; what is not in `params` (BatchNorm's averages) stands still.
      params: where.
      chunks: of the data, all of the same shapes; each is passed once.
      num_examples: N, in all chunks, padding not counted.
      key: probes are a function of it alone, the same for every chunk.
      num_probes: at least 1.
      probe: a key of `PROBES`.

    Raises:
      ConfigError: unknown probe.
    """
    draw = registry.lookup(PROBES, probe, "probe")
    keys = jax.random.split(key, num_probes)

    @jax.jit
    def forms(chunk):
        def form(one):
            vector = _random_like(params, one, draw)
            product = hvp(lambda p: loss_sum(p, chunk), params, vector)
            return jax.tree.map(jnp.vdot, vector, product)

        # One probe after another: memory does not grow with their number.
        return lax.map(form, keys)

    total: Any = None
    for chunk in chunks:
        found = jax.tree.map(lambda x: np.asarray(x, np.float64), forms(chunk))
        total = found if total is None else jax.tree.map(np.add, total, found)
    mean = jax.tree.map(lambda x: x / num_examples, total)
    layers = {
        "/".join(str(getattr(k, "key", k)) for k in path): _estimate(samples)
        for path, samples in jax.tree_util.tree_leaves_with_path(mean)
    }
    whole = np.sum([layer.samples for layer in layers.values()], axis=0)
    return _estimate(whole)._replace(layers=layers)


def exact_trace(
    loss_sum: LossSum, params: Params, chunks: Iterable[Any], num_examples: int
) -> float:
    """Return the trace by one product for each parameter; for small networks.

    Arguments as for `trace`.
    """
    flat, unravel = flatten_util.ravel_pytree(params)

    @jax.jit
    def diagonal_sum(chunk):
        loss = lambda w: loss_sum(unravel(w), chunk)

        def entry(place):
            unit = jnp.zeros_like(flat).at[place].set(1.0)
            return hvp(loss, flat, unit)[place]

        return lax.map(entry, jnp.arange(flat.size)).sum()

    return sum(float(diagonal_sum(chunk)) for chunk in chunks) / num_examples


def hutch_plus_plus(
    loss_sum: LossSum,
    params: Params,
    chunks: Iterable[Any],
    num_examples: int,
    key: jax.Array,
    *,
    num_products: int,
) -> float:
    """Estimate the trace with most of the products spent on the largest eigenvalues.

    A third of the products sketches the range of H, a third gives its trace there
    exactly, the last one is Hutchinson's estimate of the rest (Meyer et al., "Hutch++:
    Optimal Stochastic Trace Estimation", SOSA 2021, Algorithm 1). Its error falls with
    1 / products, Hutchinson's with the square root, at the price of num_products / 3
    vectors in memory.

    Args:
      loss_sum: as for `trace`.
      params: where.
      chunks: as for `trace`; passed three times, so not a generator.
      num_examples: as for `trace`.
      key: of the probes.
      num_products: a multiple of 3, at most three times the number of parameters.
    """
    flat, unravel = flatten_util.ravel_pytree(params)
    count = num_products // 3
    chunks = list(chunks)

    @jax.jit
    def products(vectors, chunk):
        loss = lambda w: loss_sum(unravel(w), chunk)
        return lax.map(lambda v: hvp(loss, flat, v), vectors)

    def times_hessian(vectors: jax.Array) -> jax.Array:
        total = jnp.zeros_like(vectors)
        for chunk in chunks:
            total = total + products(vectors, chunk)
        return total / num_examples

    sketch_key, rest_key = jax.random.split(key)
    sketch = jax.random.rademacher(sketch_key, (count, flat.size), flat.dtype)
    basis = jnp.linalg.qr(times_hessian(sketch).T)[0]
    inside = jnp.vdot(basis.T, times_hessian(basis.T))
    rest = jax.random.rademacher(rest_key, (count, flat.size), flat.dtype)
    rest = rest - (rest @ basis) @ basis.T
    return float(inside + jnp.vdot(rest, times_hessian(rest)) / count)


def _random_like(params: Params, key: jax.Array, draw: Callable) -> Params:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        draw(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def _estimate(samples: np.ndarray) -> Trace:
    error = float("nan")
    if len(samples) > 1:
        error = float(samples.std(ddof=1) / np.sqrt(len(samples)))
    return Trace(float(samples.mean()), error, samples, {})
