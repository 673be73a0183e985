"""Exact Hessian-vector products of a mean loss over a whole data set, and its trace.

H v = d/de grad L(w + e v) at e = 0, forward over reverse: `jax.jvp` of `jax.grad`. The
loss is a mean over N examples that come in chunks. A trace keeps one chunk, one probe
and one product on the device, however many there are of each; its time grows with
probes times examples (benchmarks/hessian_cost.py).

The trace by Hutchinson: E[v'Hv] = tr H for probes v of independent entries with mean 0
and variance 1. Its variance is 2 |H|^2 with Gaussian entries, and with random signs
(Rademacher) 2 (|H|^2 - sum of H_ii^2), |.| the Frobenius norm. Paper Theorem 4.4 is
about this trace.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util, lax

from spaced_kd import registry
from spaced_kd.analysis import chunks
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import Params

LossSum = Callable[[Params, Any, Any], jax.Array]
"""(params, fixed, chunk) -> the loss summed over the chunk's examples, []. Programs are
compiled once for all functions that are equal and hash alike."""

PROBES: dict[str, Callable[..., jax.Array]] = {
    "rademacher": jax.random.rademacher,
    "gaussian": jax.random.normal,
}
"""Distribution of a probe's entries -> sampler(key, shape, dtype)."""


class Risk(NamedTuple):
    """The mean loss over a data set, at one place.

    loss_sum: the loss. params: where its Hessian is taken. fixed: what stands still
      (BatchNorm's averages). chunks: of the data, all of the same shapes, in memory;
      where several devices share them, leaves have a leading axis of devices.
    num_examples: N, in all chunks, padding not counted. group: the devices.
    """

    loss_sum: LossSum
    params: Params
    fixed: Any
    chunks: Sequence[Any]
    num_examples: int
    group: SeedGroup


class Trace(NamedTuple):
    """A trace, or an estimate of it.

    mean: of the samples. standard_error: of that mean; None for a single sample, 0
      where the trace is exact. samples: [samples] float64.
    layers: the same of each parameter's own block of the Hessian, by its path
      ("stem_conv/kernel"); the blocks' traces add up to the whole.
    """

    mean: float
    standard_error: float | None
    samples: np.ndarray
    layers: dict[str, "Trace"]


def hvp(loss: Callable[[Params], jax.Array], params: Params, vector: Params) -> Params:
    """Return H v, exact up to rounding, which is float32's on every device.

    Args:
      loss: of the parameters alone.
      params: where.
      vector: v, of the structure, shapes and dtypes of params.
    """
    with jax.default_matmul_precision("float32"):
        return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def trace(
    risk: Risk, key: jax.Array, *, num_probes: int, probe: str = "rademacher"
) -> Trace:
    """Estimate the trace of the Hessian (Hutchinson), a sample a probe.

    Args:
      risk: its chunks are each passed once.
      key: probes are a function of it alone, the same for every chunk and on any
        number of devices.
      num_probes: at least 1.
      probe: a key of `PROBES`.

    Raises:
      ConfigError: unknown probe.
    """
    registry.lookup(PROBES, probe, "probe")
    program = quadratic_forms(risk.loss_sum, risk.group, probe)
    return of_layers(_mean_over_chunks(program, risk, keys_of(key, num_probes)))


def exact_trace(risk: Risk) -> Trace:
    """Return the trace by one product for each parameter; for small networks."""
    program = _diagonal(risk.loss_sum, risk.group)
    return of_layers(_mean_over_chunks(program, risk, ()), exact=True)


def keys_of(key: jax.Array, count: int) -> jax.Array:
    """Return the keys of `count` probes, as numbers, [count, ...] uint32."""
    return jax.random.key_data(jax.random.split(key, count))


def probe_of(key_data: jax.Array, size: int, probe: str) -> jax.Array:
    """Return a probe, [size] float32.

    Args:
      key_data: a row of `keys_of`.
      size: of all parameters, which lie in the order of `ravel_pytree`.
      probe: a key of `PROBES`.
    """
    return PROBES[probe](jax.random.wrap_key_data(key_data), (size,), jnp.float32)


def of_layers(samples: Params, exact: bool = False) -> Trace:
    """Return the trace whose parts are the blocks of the parameters.

    Args:
      samples: in the structure of the parameters, [samples] float64 of each block.
      exact: there is one sample, which is no estimate.
    """
    layers = {
        "/".join(str(getattr(k, "key", k)) for k in path): _estimate(own, exact)
        for path, own in jax.tree_util.tree_leaves_with_path(samples)
    }
    whole = np.sum([layer.samples for layer in layers.values()], axis=0)
    return _estimate(whole, exact)._replace(layers=layers)


@functools.cache
def quadratic_forms(loss_sum: LossSum, group: SeedGroup, probe: str) -> Callable:
    """Return program((params, fixed, keys), chunk) -> v'Hv of the chunk's summed loss.

    Compiled by its first call. The result has the structure of the parameters, with
    [probes] float32 for the block of each.

    Args:
      loss_sum: the loss.
      group: the devices.
      probe: a key of `PROBES`.
    """

    def forms(args, chunk):
        params, fixed, keys = args
        flat, unravel = flatten_util.ravel_pytree(params)
        loss = lambda w: loss_sum(unravel(w), fixed, chunk)

        def form(key):
            vector = probe_of(key, flat.size, probe)
            return jax.tree.map(jnp.sum, unravel(vector * hvp(loss, flat, vector)))

        # One probe after another: memory does not grow with their number.
        return lax.map(form, keys)

    return chunks.program(forms, group)


@functools.cache
def _diagonal(loss_sum: LossSum, group: SeedGroup) -> Callable:
    """Return program((params, fixed, ()), chunk) -> traces of the blocks, [1] each."""

    def traces(args, chunk):
        params, fixed, _ = args
        flat, unravel = flatten_util.ravel_pytree(params)
        loss = lambda w: loss_sum(unravel(w), fixed, chunk)

        def entry(place):
            unit = jnp.zeros_like(flat).at[place].set(1.0)
            return hvp(loss, flat, unit)[place]

        diagonal = lax.map(entry, jnp.arange(flat.size))
        return jax.tree.map(lambda own: own.sum()[None], unravel(diagonal))

    return chunks.program(traces, group)


def _mean_over_chunks(program: Callable, risk: Risk, own: Any) -> Any:
    # In float64, and so on the host: a sum of many chunks loses nothing.
    total: Any = None
    for chunk in risk.chunks:
        found = program((risk.params, risk.fixed, own), chunk)
        found = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
        total = found if total is None else jax.tree.map(np.add, total, found)
    return jax.tree.map(lambda x: x / risk.num_examples, total)


def _estimate(samples: np.ndarray, exact: bool) -> Trace:
    error = 0.0 if exact else None
    if len(samples) > 1:
        error = float(samples.std(ddof=1) / np.sqrt(len(samples)))
    return Trace(float(samples.mean()), error, samples, {})
