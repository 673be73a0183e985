"""The distillation risk of paper Section 4.2, and the two parts of its Hessian's trace.

Task and distillation loss are half a squared error, so that the risk's Hessian is

    H = mean_i sum_c [grad f_c grad f_c' + beta_ic Hess f_c],
    beta = (1 - alpha) (f - y) + alpha (f - g)

(Eq. 6, there for one output; with several the losses add up over c). The trace is then
the Gauss-Newton part, mean sum |grad f|^2, plus the residual part, mean sum of
beta tr(Hess f). Nothing here is averaged before it is asked for: outputs are the
network's as they are, logits where it classifies.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import flatten_util

from spaced_kd.types import Params

Outputs = Callable[[Params], jax.Array]
"""params -> the network's outputs of some examples, [b, C]."""


class Parts(NamedTuple):
    """The trace in two parts; or one probe's v'Hv, whose mean over probes it is."""

    gauss_newton: jax.Array
    residual: jax.Array


def beta(
    outputs: jax.Array, labels: jax.Array, teacher: jax.Array, alpha: float
) -> jax.Array:
    """Return (1 - alpha) (f - y) + alpha (f - g), of the arguments' shape (Eq. 6).

    Args:
      outputs: f, any shape.
      labels: y, of that shape; one-hot where f are logits.
      teacher: g, of that shape.
      alpha: weight of the teacher in [0, 1].
    """
    return (1 - alpha) * (outputs - labels) + alpha * (outputs - teacher)


def risk(
    outputs: jax.Array, labels: jax.Array, teacher: jax.Array, alpha: float
) -> jax.Array:
    """Return (1 - alpha) (f - y)^2 / 2 + alpha (f - g)^2 / 2 (Eq. 2), elementwise.

    Args: as for `beta`, its derivative by the outputs.
    """
    squares = (1 - alpha) * (outputs - labels) ** 2 + alpha * (outputs - teacher) ** 2
    return squares / 2


def exact_parts(
    network: Callable[[Params, jax.Array], jax.Array],
    params: Params,
    inputs: jax.Array,
    betas: jax.Array,
) -> Parts:
    """Return both parts by one explicit Hessian an example; for small networks.

    Args:
      network: (params, one example) -> its only output, [].
      params: where.
      inputs: [n, ...].
      betas: [n].
    """
    flat, unravel = flatten_util.ravel_pytree(params)
    of_flat = lambda w, x: network(unravel(w), x)
    gradients = jax.vmap(jax.grad(of_flat), (None, 0))(flat, inputs)
    hessians = jax.vmap(jax.hessian(of_flat), (None, 0))(flat, inputs)
    traces = jnp.trace(hessians, axis1=-2, axis2=-1)
    return Parts(jnp.sum(gradients**2, -1).mean(), (betas * traces).mean())


def probed_parts(
    outputs: Outputs, params: Params, betas: jax.Array, vector: Params
) -> Parts:
    """Return v'Hv in its two parts, summed over examples and classes.

    |Jv|^2 by `derivative`; the other part is a product with the Hessian of sum beta f,
    beta held fast.

    Args:
      outputs: the network's, of some examples.
      params: where.
      betas: [b, C]; 0 leaves an example out of the second part alone.
      vector: v, of the structure and shapes of params; Hutchinson's probe.
    """
    tangent = derivative(outputs, params, vector)
    weighted = lambda p: jnp.sum(jax.lax.stop_gradient(betas) * outputs(p))
    return Parts(jnp.sum(tangent**2), _form(weighted, params, vector))


def probed_whole(
    outputs: Outputs,
    params: Params,
    targets: tuple[jax.Array, jax.Array],
    alpha: float,
    vector: Params,
) -> jax.Array:
    """Return v'Hv of the risk itself, without the identity, summed as `probed_parts`.

    Args:
      outputs: the network's, of some examples.
      params: where.
      targets: labels and the teacher's outputs, [b, C] each.
      alpha: weight of the teacher.
      vector: v.
    """
    total = lambda p: risk(outputs(p), *targets, alpha).sum()
    return _form(total, params, vector)


def linear_gap(outputs: Outputs, final: Params, before: Params) -> jax.Array:
    """Return (phi - phi*)' grad g at phi*, [b, C] (Def. 4.2 before |.| and mean).

    Args:
      outputs: the teacher's, g.
      final: phi*, where the paper takes the gradient.
      before: phi.
    """
    step = jax.tree.map(jnp.subtract, before, final)
    return derivative(outputs, final, step)


def derivative(outputs: Outputs, params: Params, vector: Params) -> jax.Array:
    """Return J v, [b, C]: of the outputs, along `vector`.

    Backward twice, as u -> J'u is linear: convolutions have no forward derivative on
    CPU (`spaced_kd.conv`).
    """
    found, back = jax.vjp(outputs, params)
    return jax.vjp(lambda u: back(u)[0], jnp.zeros_like(found))[1](vector)[0]


def signs(params: Params, key: jax.Array) -> Params:
    """Return a probe of the structure of params: independent entries of -1 and 1."""
    flat, unravel = flatten_util.ravel_pytree(params)
    return unravel(jax.random.rademacher(key, flat.shape, flat.dtype))


def _form(
    fn: Callable[[Params], jax.Array], params: Params, vector: Params
) -> jax.Array:
    """Return v'Hv of a scalar function, forward over reverse."""
    product = jax.jvp(jax.grad(fn), (params,), (vector,))[1]
    products = jax.tree.map(jnp.vdot, vector, product)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))
