"""The shape of a distillation method: two pure functions, composed by the step."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from spaced_kd import state
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
    """

    init: Callable[[jax.Array, ModelOutput, ModelOutput | None], Params]
    loss: Callable[
        [Params, ModelOutput, ModelOutput | None, Batch, jax.Array],
        tuple[jax.Array, Metrics],
    ]
    needs_teacher: bool = True
    trains: tuple[str, ...] = (state.METHOD, state.SOFT_HEAD)
