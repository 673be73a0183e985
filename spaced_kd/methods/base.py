"""The shape of a distillation method, and the mixture of two losses most start from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from spaced_kd import losses, registry, state
from spaced_kd.config import MethodConfig
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import Batch, Metrics, ModelOutput, Params


class Sizes(NamedTuple):
    """What a method may have to know of its run.

    updates: of the network that learns by it, in the whole run and of any kind (labels
    alone, replays). batch_size: of the global batch. num_examples: of the training
    split. image_shape: (height, width, channels) of `Batch.raw`.
    """

    updates: int
    steps_per_epoch: int
    batch_size: int
    num_examples: int
    num_classes: int
    image_shape: tuple[int, int, int]


class Now(NamedTuple):
    """When a loss is taken.

    step: [] int32, the learner's completed updates. memory: what the method remembers,
    () if it has no `Memory`.
    """

    step: jax.Array | int
    memory: Any = ()


Loss = Callable[
    [Params, ModelOutput, ModelOutput | None, Batch, Now], tuple[jax.Array, Metrics]
]
View = Callable[[jax.Array, jax.Array, jax.Array], Batch]


class Memory(NamedTuple):
    """What a method keeps from update to update; a part of every checkpoint.

    start(student, teacher) -> memory before the first update, a pytree of arrays; the
      arguments are those of `Method.init`.
    remember(memory, student, teacher, batch, metrics) -> memory after an update, from
      what the loss was taken of. Every device must come to the same: what belongs to
      examples is collected with `axis.whole` first.
    extend(memory, batch, view) -> the batch that passes the network instead, and that
      the loss and `remember` see: the batch's own rows, and more of them after it.
      view(raw, label, example) -> Batch augments images of a whole global batch ([B,
      ...], as `Batch.raw` collected) with random numbers of its own, and gives this
      device's share. None: the batch as it comes.
    """

    start: Callable[[ModelOutput, ModelOutput | None], Any]
    remember: Callable[[Any, ModelOutput, ModelOutput | None, Batch, Metrics], Any]
    extend: Callable[[Any, Batch, View], Batch] | None = None


class Phase(NamedTuple):
    """What one kind of update is made of; the fields are those of `Method`."""

    loss: Loss
    trains: tuple[str, ...]
    needs_teacher: bool = True
    memory: Memory | None = None
    batches: int = 1


class Method(NamedTuple):
    """What a network minimises.

    init(key, student, teacher) -> method parameters ({} if it has none); they belong to
      the student and its optimiser trains them. student and teacher (None without one)
      are outputs for a single image, which tell widths.
    loss(method_params, student, teacher, batch, now) -> (scalar, metrics): student and
      teacher are ModelOutputs of this batch, the teacher's without gradient (None if
      `needs_teacher` is False). The scalar is already reduced over the global batch.
    needs_teacher: False spares the teacher's forward pass.
    trains: parts of the student (`state.PARTS`) that the loss reaches. The others and
      their optimiser state stay exactly as they are (a zero gradient would still decay
      them). With "branches", the student must have some.
    memory: what it keeps from update to update, beside trained parameters.
    needs_maps: whether it reads `ModelOutput.maps`.
    needs_soft_head: whether the network must have a head of its own for soft targets.
    batches: how many batches, of equally many rows and each normalised by itself, an
      update passes through the network; more than one only with `Memory.extend`.
    lead, replay: of a method that trains two networks, what the first learns ahead and
      the second in the replay, where `loss` trains both at once. Without them the lead
      is on the labels alone and the replay on `loss`.
    """

    init: Callable[[jax.Array, ModelOutput, ModelOutput | None], Params]
    loss: Loss
    needs_teacher: bool = True
    trains: tuple[str, ...] = (state.TRUNK, state.METHOD, state.SOFT_HEAD)
    memory: Memory | None = None
    needs_maps: bool = False
    needs_soft_head: bool = False
    batches: int = 1
    lead: Phase | None = None
    replay: Phase | None = None

    @property
    def whole(self) -> Phase:
        """An update on the method's own loss."""
        return Phase(
            self.loss, self.trains, self.needs_teacher, self.memory, self.batches
        )


def no_params(
    key: jax.Array, student: ModelOutput, teacher: ModelOutput | None
) -> Params:
    """Return {}: the `init` of a method without parameters of its own."""
    del key, student, teacher
    return {}


def make_soft_loss(
    config: MethodConfig,
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
    config: MethodConfig, axis: BatchAxis
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
