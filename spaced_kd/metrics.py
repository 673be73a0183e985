"""What evaluation measures, from the logits of a whole split."""

import jax
import jax.numpy as jnp

from spaced_kd import losses
from spaced_kd.types import ENSEMBLE, Metrics, Predictions, exit_name


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


def exit_names(num_exits: int) -> tuple[str, ...]:
    """Return the exits' names, the deepest first: exit4, exit3, exit2, exit1."""
    return tuple(exit_name(number) for number in range(num_exits, 0, -1))


def ensemble(found: Predictions) -> jax.Array:
    """Return the mean of all exits' logits [N, C] (released self_KD/train.py:297)."""
    branches = _branches(found)
    return (found.logits + branches.sum(1)) / (1 + branches.shape[1])


def quoted(found: Predictions, quote: str) -> jax.Array:
    """Return the logits [N, C] that a network is judged by.

    Args:
      found: what it predicts; without branches (a peer that was left out, say) by
        its own logits in any case.
      quote: "deepest" exit, or "ensemble" (config.student.quote).
    """
    several = found.branch_logits is not None
    return ensemble(found) if several and quote == ENSEMBLE else found.logits


def by_exit(found: Predictions, labels: jax.Array) -> Metrics:
    """Return how good every exit of a network with branches is, and the ensemble.

    Args:
      found: of the whole split.
      labels: [N] int32.

    Returns:
      <exit>/acc1 in percent and <exit>/loss in nats, of each exit and of "ensemble";
      of each branch also its gap to the deepest exit, the teacher in self KD:
      <exit>/deepest_kl, the mean KL(deepest || branch) at temperature 1 in nats, and
      <exit>/deepest_agreement, the percentage of equal top-1 answers.
    """
    branches = _branches(found)
    names = exit_names(1 + branches.shape[1])
    # Slices, not one array of all: that would be another copy of the largest there is.
    by_name = {name: branches[:, k] for k, name in enumerate(names[1:])}
    measured: Metrics = {}
    everything = {names[0]: found.logits, **by_name, ENSEMBLE: ensemble(found)}
    for name, logits in everything.items():
        own = classification(logits, labels)
        measured[f"{name}/acc1"], measured[f"{name}/loss"] = own["acc1"], own["loss"]
    for name, logits in by_name.items():
        gap = teacher_gap(logits, found.logits, labels)
        measured[f"{name}/deepest_kl"] = gap["teacher_kl"]
        measured[f"{name}/deepest_agreement"] = gap["teacher_agreement"]
    return measured


def _branches(found: Predictions) -> jax.Array:
    assert found.branch_logits is not None, "the network has no branches"
    return found.branch_logits
