"""Eigenvalues of a mean loss's Hessian, their density, and the trace by Hutch++.

All examples lie on the devices, as stored (uint8, 3 kB for a CIFAR image), and a
product with the Hessian passes over all of them inside the compiled program. Lanczos
(matfree) keeps its whole basis, for full re-orthogonalisation: steps times parameters
float32 numbers, on every device (50 steps of a ResNet-18: 2.2 GB).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util, lax
from matfree import decomp

from spaced_kd import registry
from spaced_kd.analysis.curvature import (
    PROBES,
    LossSum,
    Risk,
    Trace,
    hvp,
    keys_of,
    of_layers,
    probe_of,
)
from spaced_kd.parallel import BatchAxis, SeedGroup, data_parallel

_ROUNDING = 100 * float(np.finfo(np.float32).eps)
"""A step of the Lanczos iteration below this, beside the largest, is only rounding."""


class Lanczos(NamedTuple):
    """What a Lanczos iteration from one vector came to, float64.

    values: [m] Ritz values, ascending: eigenvalues of H in the Krylov space. weights:
    [m], squared first components of their vectors; they sum to 1, and are the Gauss
    quadrature of the start's spectral measure. residuals: [m], |H y - value y| of the
    Ritz vectors y; an eigenvalue of H lies no farther from the value than that.
    """

    values: np.ndarray
    weights: np.ndarray
    residuals: np.ndarray


def lanczos(
    risk: Risk, key: jax.Array, *, depth: int, num_starts: int, probe: str
) -> list[Lanczos]:
    """Iterate from random vectors, each by itself.

    Args:
      risk: the loss, the place and the data.
      key: of the starts, which are the probes of `curvature.trace`.
      depth: steps, each a product with the Hessian; never more than parameters.
      num_starts: at least 1.
      probe: a key of `curvature.PROBES`.

    Raises:
      ConfigError: unknown probe.
    """
    registry.lookup(PROBES, probe, "probe")
    size = sum(leaf.size for leaf in jax.tree.leaves(risk.params))
    program = _tridiagonal(risk.loss_sum, risk.group, probe, min(depth, size))
    held = _held(risk)
    found = []
    for start in keys_of(key, num_starts):
        parts = program((risk.params, risk.fixed, risk.num_examples, start), held)
        found.append(_ritz(*(np.asarray(part, np.float64) for part in parts)))
    return found


def quadrature(runs: Sequence[Lanczos]) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the eigenvalues' distribution, weights of sum 1.

    Stochastic Lanczos quadrature: for f of few bends, sum of weights f(nodes) is nearly
    the mean of f over all eigenvalues (Ghorbani et al., "An Investigation into Neural
    Net Optimization via Hessian Eigenvalue Density", ICML 2019).

    Args:
      runs: from `lanczos`, of starts of their own.
    """
    nodes = np.concatenate([run.values for run in runs])
    return nodes, np.concatenate([run.weights for run in runs]) / len(runs)


def density(
    nodes: np.ndarray, weights: np.ndarray, grid: np.ndarray, width: float
) -> np.ndarray:
    """Return the density of eigenvalues, each smeared into a Gaussian.

    Args:
      nodes: of `quadrature`.
      weights: of `quadrature`.
      grid: [G] eigenvalues.
      width: standard deviation of the Gaussians, in units of eigenvalues, above 0.

    Returns:
      [G] float64, per unit of eigenvalue; over the whole axis it integrates to 1.
    """
    away = (grid[:, None] - nodes) / width
    return np.exp(-(away**2) / 2) @ weights / (width * np.sqrt(2 * np.pi))


def hutch_plus_plus(
    risk: Risk, key: jax.Array, *, num_probes: int, probe: str = "rademacher"
) -> Trace:
    """Estimate the trace with most of the products spent on the largest eigenvalues.

    A third of the products sketches the range of H, a third gives its trace there
    exactly, the last one is Hutchinson's estimate of the rest (Meyer et al., "Hutch++:
    Optimal Stochastic Trace Estimation", SOSA 2021, Algorithm 1). Its error falls with
    1 / products, Hutchinson's with their square root, at the price of memory: about
    six times `num_probes` vectors of all parameters, on one device. The standard error
    is that of the last third, given the sketch.

    Args:
      risk: the loss, the place and the data.
      key: of the probes.
      num_probes: of each third, so a third of the products; never more than there are
        parameters.
      probe: a key of `curvature.PROBES`.

    Raises:
      ConfigError: unknown probe.
    """
    registry.lookup(PROBES, probe, "probe")
    flat, unravel = flatten_util.ravel_pytree(risk.params)
    count = min(num_probes, flat.size)
    held = _held(risk)
    program = _products(risk.loss_sum, risk.group)
    times = lambda v: program((risk.params, risk.fixed, risk.num_examples, v), held)
    draw = jax.vmap(lambda k: probe_of(k, flat.size, probe))
    sketched, left = jnp.split(draw(keys_of(key, 2 * count)), 2)
    basis = jnp.linalg.qr(times(sketched).T)[0].T
    rest = left - (left @ basis.T) @ basis
    # Row by row v o Hv: added up over a block's places it estimates the block's trace.
    inside = jax.vmap(unravel)(basis * times(basis))
    outside = jax.vmap(unravel)(rest * times(rest))
    return of_layers(jax.tree.map(_samples, inside, outside))


def _samples(inside: jax.Array, outside: jax.Array) -> np.ndarray:
    of_block = lambda x: np.asarray(x, np.float64).reshape(len(x), -1).sum(1)
    return of_block(inside).sum() + of_block(outside)


@functools.cache
def _tridiagonal(
    loss_sum: LossSum, group: SeedGroup, probe: str, depth: int
) -> Callable:
    decompose = decomp.tridiag_sym(
        depth, materialize=False, reortho="full", custom_vjp=False
    )

    def tridiagonal(args, held):
        *place, start = args
        product = _whole_product(loss_sum, group.axis, place, held)
        size = sum(leaf.size for leaf in jax.tree.leaves(place[0]))
        found = decompose(product, probe_of(start, size, probe))
        return *found.J_small, jnp.linalg.norm(found.residual)

    return data_parallel(tridiagonal, group.devices, in_axes=(None, 1))


@functools.cache
def _products(loss_sum: LossSum, group: SeedGroup) -> Callable:
    """Return program((params, fixed, N, vectors [count, P]), held) -> [count, P]."""

    def products(args, held):
        *place, vectors = args
        return lax.map(_whole_product(loss_sum, group.axis, place, held), vectors)

    return data_parallel(products, group.devices, in_axes=(None, 1))


def _whole_product(loss_sum: LossSum, axis: BatchAxis, place: Sequence, held: Any):
    """Return product(v [P]) -> Hv [P] of the mean loss over all chunks."""
    params, fixed, num_examples = place
    flat, unravel = flatten_util.ravel_pytree(params)

    def product(vector):
        def add(carry, chunk):
            loss = lambda w: loss_sum(unravel(w), fixed, chunk)
            return added(carry, hvp(loss, flat, vector)), None

        zeros = jnp.zeros_like(flat)
        (total, _), _ = lax.scan(add, (zeros, zeros), held)
        return axis.sum(total) / num_examples

    return product


def added(
    carry: tuple[jax.Array, jax.Array], term: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return (sum, what rounding added to it), one term on: Kahan's summation."""
    total, excess = carry
    term = term - excess
    after = total + term
    return after, (after - total) - term


def _held(risk: Risk) -> Any:
    """Return all chunks in one array each, [chunks, ...], on the devices."""
    stacked = jax.tree.map(lambda *own: np.stack(own), *risk.chunks)
    return risk.group.put(stacked) if len(risk.group.devices) == 1 else stacked


def _ritz(diagonal: np.ndarray, beside: np.ndarray, residual: np.ndarray) -> Lanczos:
    # Where the Krylov space is exhausted, a step is nothing but rounding: what follows
    # is not orthogonal to what was, and its "eigenvalues" may lie anywhere.
    steps_to = np.append(beside, residual)
    noise = _ROUNDING * max(np.nanmax(np.abs(diagonal)), np.nanmax(steps_to))
    count = int((steps_to > noise).cumprod()[:-1].sum()) + 1
    diagonal, steps_to = diagonal[:count], steps_to[:count]
    beside = np.diag(steps_to[:-1], 1)
    values, vectors = np.linalg.eigh(np.diag(diagonal) + beside + beside.T)
    return Lanczos(values, vectors[0] ** 2, np.abs(steps_to[-1] * vectors[-1]))
