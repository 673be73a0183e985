"""Plackett-Luce distillation: the student learns the teacher's order of the classes.

loss = sum_k alpha_k [logsumexp_{l >= k} z_s(pi_l) - z_s(pi_k)]

pi is the label first, then all other classes by descending z_t; alpha_k is the
teacher's probability softmax(z_t / T) of class pi_k. The term k = 1 is the cross-
entropy with the label, weighted by the teacher's trust in it, so there is no hard loss
beside it and no weight between two. Source: Bassam, Zhu and Bian, "PLD: A Choice-
Theoretic List-Wise Knowledge Distillation", NeurIPS (arXiv:2506.12542), Sections 4.1
and 4.2 and Appendix C, from which T is the temperature of the weights alone (4 in its
CIFAR-100 experiments). Field of the config: `temperature`.

Ours: a DeiT with a distillation head learns the order with the mean of both heads, the
logits that evaluation reads.
"""

import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd import losses
from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Method, Sizes, no_params
from spaced_kd.parallel import BatchAxis


def plackett_luce(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    temperature: float,
) -> jax.Array:
    """Return the teacher-weighted list-wise loss above, in nats, per example.

    Args:
      student_logits: [B, C].
      teacher_logits: [B, C].
      labels: [B] int32 in [0, C).
      temperature: of the weights, > 0.

    Returns:
      [B], not averaged; not negative, convex in the student's logits and blind to a
      constant added to them.
    """
    classes = jnp.arange(student_logits.shape[-1])
    worth = jnp.where(classes == labels[:, None], jnp.inf, teacher_logits)
    order = jnp.argsort(worth, axis=-1, descending=True)
    chosen = jnp.take_along_axis(student_logits, order, axis=-1)
    remaining = lax.cumlogsumexp(chosen, axis=1, reverse=True)
    weights = jax.nn.softmax(teacher_logits / temperature)
    weights = jnp.take_along_axis(weights, order, axis=-1)
    return jnp.sum(weights * (remaining - chosen), axis=-1)


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method at the temperature of `config`.

    Its metric hard_loss, the cross-entropy, is measured for comparison and is no part
    of the loss.
    """
    del sizes

    def loss(params, student, teacher, batch, now):
        del params, now
        logits = student.logits
        if student.soft_logits is not None:
            logits = (logits + student.soft_logits) / 2
        ranking = plackett_luce(logits, teacher.logits, batch.label, config.temperature)
        total = losses.batch_mean(ranking, batch.mask, axis)
        hard = losses.cross_entropy(logits, batch.label)
        hard_loss = losses.batch_mean(hard, batch.mask, axis)
        return total, {"hard_loss": hard_loss, "soft_loss": total}

    return Method(no_params, loss)
