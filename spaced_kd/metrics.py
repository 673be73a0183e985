"""What evaluation measures, from the logits of a whole split."""

import jax
import jax.numpy as jnp

from spaced_kd import losses
from spaced_kd.types import Metrics


def is_correct(logits: jax.Array, labels: jax.Array, k: int = 1) -> jax.Array:
    """Return [B] bool: is the label among the k largest logits [B, C]?

    A tie counts as wrong unless fewer than k other classes reach the label's logit, so
    a network that answers the same for every class scores 0, not 100 %. So does NaN.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    return jnp.sum(~(logits < own), axis=-1) <= k


def classification(logits: jax.Array, labels: jax.Array) -> Metrics:
    """Return acc1 and acc5 in percent, and loss (mean cross-entropy, nats).

    Args:
      logits: [N, C] of every example of the split, each exactly once.
      labels: [N] int32.
    """
    count = labels.shape[0]
    return {
        "acc1": 100.0 * is_correct(logits, labels).sum() / count,
        "acc5": 100.0
        * is_correct(logits, labels, min(5, logits.shape[-1])).sum()
        / count,
        "loss": losses.cross_entropy(logits, labels).mean(),
    }


def teacher_gap(
    logits: jax.Array, teacher_logits: jax.Array, labels: jax.Array
) -> Metrics:
    """Return how far a student is from its teacher on the same examples.

    Args:
      logits: [N, C] of the student.
      teacher_logits: [N, C] of the teacher as it stands.
      labels: [N] int32.

    Returns:
      teacher_kl: mean KL(teacher || student) at temperature 1, nats;
      teacher_agreement: percent of equal top-1 answers; teacher_acc1: percent.
    """
    count = labels.shape[0]
    same = logits.argmax(-1) == teacher_logits.argmax(-1)
    return {
        "teacher_kl": losses.kl_divergence(logits, teacher_logits, 1.0).mean(),
        "teacher_agreement": 100.0 * same.sum() / count,
        "teacher_acc1": 100.0 * is_correct(teacher_logits, labels).sum() / count,
    }
