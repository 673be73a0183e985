"""The shape of a distillation method, and the mixture of two losses most start from."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from spaced_kd import losses, registry, state
from spaced_kd.config import StudentConfig
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import Batch, Metrics, ModelOutput, Params


class Method(NamedTuple):
    """What a student minimises.

    init(key, student, teacher) -> method parameters ({} if it has none); they belong to
      the student and its optimiser trains them. student and teacher (None without one)
      are outputs for a single image, which tell widths.
    loss(method_params, student, teacher, batch, step) -> (scalar, metrics): student and
      teacher are ModelOutputs of this batch, the teacher's without gradient (None if
      `needs_teacher` is False); step is the student's completed updates. The scalar is
      already reduced over the global batch.
    needs_teacher: False spares the teacher's forward pass.
    trains: parts of the student (`state.PARTS`) that the loss reaches beside the trunk.
      The others and their optimiser state stay exactly as they are (a zero gradient
      would still decay them). With "branches", the student must have some.
    needs_soft_head: True refuses a student without a head of its own for soft targets.
    """

    init: Callable[[jax.Array, ModelOutput, ModelOutput | None], Params]
    loss: Callable[
        [Params, ModelOutput, ModelOutput | None, Batch, jax.Array],
        tuple[jax.Array, Metrics],
    ]
    needs_teacher: bool = True
    trains: tuple[str, ...] = (state.METHOD, state.SOFT_HEAD)
    needs_soft_head: bool = False


def make_soft_loss(
    config: StudentConfig,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Return soft(student_logits, teacher_logits) -> [B], as `config` chooses it.

    At its temperature, and times temperature^2 if it says so (never for a loss of
    `losses.ON_RAW_LOGITS`, which has no temperature to make up for).

    Raises:
      ConfigError: unknown soft loss.
    """
    fn = registry.lookup(losses.SOFT_LOSSES, config.soft_loss, "student.soft_loss")
    softened = config.soft_loss not in losses.ON_RAW_LOGITS
    squared = config.temperature_squared == "yes" and softened
    scale = config.temperature**2 if squared else 1.0
    return lambda student, teacher: scale * fn(student, teacher, config.temperature)


def taught_logits(student: ModelOutput) -> jax.Array:
    """Return [B, C], what soft targets train: a head of their own, if there is one."""
    return student.logits if student.soft_logits is None else student.soft_logits


def make_mixture(
    config: StudentConfig, axis: BatchAxis
) -> Callable[[ModelOutput, jax.Array, Batch], tuple[jax.Array, Metrics]]:
    """Return mixture(student, targets, batch) -> (scalar, its parts).

    (1 - alpha) CE(z_s, y) + alpha soft(z_s, targets), each the mean over the global
    batch; alpha is `kd_weight`, targets are logits [B, C].

    Raises:
      ConfigError: unknown soft loss.
    """
    soft_fn = make_soft_loss(config)

    def mixture(student, targets, batch):
        hard = losses.cross_entropy(student.logits, batch.label, config.label_smoothing)
        soft = soft_fn(taught_logits(student), targets)
        hard_loss = losses.batch_mean(hard, batch.mask, axis)
        soft_loss = losses.batch_mean(soft, batch.mask, axis)
        total = (1 - config.kd_weight) * hard_loss + config.kd_weight * soft_loss
        return total, {"hard_loss": hard_loss, "soft_loss": soft_loss}

    return mixture
