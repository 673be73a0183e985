"""Sinkhorn distillation: how far a batch of students must be moved to the teachers.

loss = (1 - alpha) CE(z_s, y) + alpha soft(z_s, z_t; T) + w <P, D> / B

D_ij = |p_s,i - p_t,j|_1 between the softened probabilities of any two examples of the
global batch, p = softmax(z / T). P is the transport plan that Sinkhorn's iterations
find: exp(-D / lambda) with its rows, then its columns scaled to sum to 1, again and
again. The gradient flows through D and through the iterations. Source: Cui et al.,
"Sinkhorn Distance Minimization for Knowledge Distillation", LREC-COLING 2024, as
released (github.com/2018cx/SinKD, loss.py, class saliency_mse: lambda 0.1, 20
iterations, T = 2; script/student: alpha 0.9, weight 0.8, soft loss at T = 1).

Ours: the mean over the batch, where the released code multiplies the sum of its 16
examples by 0.002; T is the same in both terms; logarithms, so that lambda may be small.
Fields of the config: those of `kd` but features, and `sinkd_*`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Method, Sizes, make_mixture, no_params, taught_logits
from spaced_kd.parallel import BatchAxis

_NEVER = -1e30
"""The logarithm of no mass at all; finite, so that no gradient becomes NaN."""


def sinkhorn_distance(
    student: jax.Array,
    teacher: jax.Array,
    regularization: float,
    iterations: int,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return <P, D> / B as above, a scalar; between 0 and 2 for probabilities.

    Args:
      student: [B, C] points, one an example.
      teacher: [B, C].
      regularization: lambda > 0; towards 0 and with many iterations P becomes the
        cheapest pairing of students and teachers.
      iterations: of both scalings.
      mask: [B] bool, False for padding, which is neither moved nor counted.
    """
    cost = jnp.abs(student[:, None] - teacher[None]).sum(-1)
    count, keep = cost.shape[0], lambda log_plan: log_plan
    if mask is not None:
        count, pairs = mask.sum(), mask[:, None] & mask[None]
        keep = lambda log_plan: jnp.where(pairs, log_plan, _NEVER)

    def scale(log_plan, _):
        for axis in (1, 0):
            mass = jax.nn.logsumexp(log_plan, axis, keepdims=True)
            log_plan = keep(log_plan - mass)
        return log_plan, None

    log_plan, _ = lax.scan(scale, keep(-cost / regularization), length=iterations)
    return jnp.sum(jnp.exp(log_plan) * cost) / count


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the weights of `config`.

    Raises:
      ConfigError: unknown soft loss.
    """
    del sizes
    mixture = make_mixture(config, axis)

    def loss(params, student, teacher, batch, now):
        del params, now
        total, metrics = mixture(student, teacher.logits, batch)
        soften = lambda logits: jax.nn.softmax(logits / config.temperature)
        distance = sinkhorn_distance(
            axis.whole(soften(taught_logits(student))),
            axis.whole(soften(teacher.logits)),
            config.sinkd_regularization,
            config.sinkd_iterations,
            None if batch.mask is None else axis.whole(batch.mask),
        )
        total = total + config.sinkd_weight * distance
        return total, metrics | {"sinkhorn_loss": distance}

    return Method(no_params, loss)
