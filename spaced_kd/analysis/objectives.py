"""Losses of a trained network as functions of its parameters alone, in eval mode."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from spaced_kd import losses
from spaced_kd.analysis import chunks
from spaced_kd.analysis.curvature import Risk
from spaced_kd.analysis.subject import Subject, outputs_of
from spaced_kd.config import MethodConfig
from spaced_kd.data.augment import prepare_eval
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.methods.base import make_soft_loss
from spaced_kd.models.base import Model
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import Params, Split

_READ = (
    "kd_weight",
    "soft_loss",
    "temperature",
    "temperature_squared",
    "label_smoothing",
)
"""Fields of a student's config that the loss "kd" depends on."""


class Taught(NamedTuple):
    """A `chunks.Chunk` and the teacher's logits of it, [b, C]; None: no teacher."""

    image: Any
    label: Any
    weight: Any
    targets: Any


PerExample = Callable[[MethodConfig, jax.Array, Taught], jax.Array]
"""(config, logits [b, C], chunk) -> the loss of each example, [b]."""


def _cross_entropy(config: MethodConfig, logits: jax.Array, chunk: Taught):
    del config
    return losses.cross_entropy(logits, chunk.label)


def _distillation(config: MethodConfig, logits: jax.Array, chunk: Taught):
    hard = losses.cross_entropy(logits, chunk.label, config.label_smoothing)
    soft = make_soft_loss(config)(logits, chunk.targets)
    return (1 - config.kd_weight) * hard + config.kd_weight * soft


def _squared_error(config: MethodConfig, logits: jax.Array, chunk: Taught):
    del config
    wanted = jax.nn.one_hot(chunk.label, logits.shape[-1])
    return losses.squared_distance(logits, wanted) / 2


LOSSES: dict[str, PerExample] = {
    "ce": _cross_entropy,
    # (1 - alpha) CE + alpha soft(z_s, z_t; T), by the student's own fields. No feature
    # term: as released it is a norm over the batch and no mean over examples.
    "kd": _distillation,
    # Half the squared distance of the logits to the label's unit vector; paper Theorem
    # 4.4 has it for a single output.
    "mse": _squared_error,
}
"""Name -> loss of one example, without label smoothing where it has no teacher."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """A `curvature.LossSum`: a loss of `LOSSES` summed over a `Taught` chunk.

    Equal ones share compiled programs. config: of defaults but for what the loss reads.
    """

    model: Model
    spec: AugmentSpec
    loss: str
    config: MethodConfig

    def __call__(self, params: Params, fixed: Any, chunk: Taught) -> jax.Array:
        """Return the sum, []; `fixed` holds all variables but the parameters."""
        image = prepare_eval(chunk.image, self.spec)
        logits = outputs_of(self.model, {**fixed, "params": params}, image).logits
        return (chunk.weight * LOSSES[self.loss](self.config, logits, chunk)).sum()


def applies(loss: str, subject: Subject) -> bool:
    """Return whether a network has this loss: "kd" needs a teacher."""
    return loss != "kd" or subject.teacher is not None


def risk_of(subject: Subject, loss: str, split: Split, chunk_size: int) -> Risk:
    """Return a network's mean loss over a split, as `curvature` and `spectrum` take it.

    In eval mode: BatchNorm uses its running averages, which stand still, of the teacher
    as of the network.

    Args:
      subject: the network.
      loss: a key of `LOSSES` that applies to it.
      split: in memory, un-augmented.
      chunk_size: examples in a chunk, all devices together.
    """
    model: Any = subject.model
    config = MethodConfig()
    taught = None
    if loss == "kd":
        config = MethodConfig(**{f: getattr(subject.settings, f) for f in _READ})
        assert subject.teacher is not None
        taught = subject.teacher
    fixed = {k: v for k, v in subject.variables.items() if k != "params"}
    return Risk(
        loss_sum=Objective(model, subject.run.spec, loss, config),
        params=subject.variables["params"],
        fixed=fixed,
        chunks=_chunks(split, chunk_size, subject.run.group, taught),
        num_examples=len(split.label),
        group=subject.run.group,
    )


def _chunks(
    split: Split, size: int, group: SeedGroup, teacher: Subject | None
) -> list[Taught]:
    own = chunks.of(split, size, group)
    if teacher is None:
        return [Taught(*chunk, None) for chunk in own]
    logits = jax.device_get(teacher.predict(teacher.variables, split).logits)
    # Cut like the images, in whose place they stand.
    beside = chunks.of(Split(logits, split.label), size, group)
    pairs = zip(own, beside, strict=True)
    return [Taught(*chunk, targets.image) for chunk, targets in pairs]
