"""The shape of a distillation method: two pure functions, composed by the step."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from spaced_kd.types import Batch, Metrics, ModelOutput, Params


class Method(NamedTuple):
    """What a student minimises.

    init(key, student_dim, teacher_dim) -> method parameters ({} if it has none); they
      belong to the student and its optimiser trains them. The dims are the widths of
      the two feature vectors.
    loss(method_params, student, teacher, batch, step) -> (scalar, metrics): student and
      teacher are ModelOutputs of this batch, the teacher's without gradient (None if
      `needs_teacher` is False); step is the student's completed updates. The scalar is
      already reduced over the global batch.
    needs_teacher: False spares the teacher's forward pass.
    trains_own_params: False leaves method parameters and their optimiser state exactly
      as they are (a zero gradient would still decay them).
    """

    init: Callable[[jax.Array, int, int], Params]
    loss: Callable[
        [Params, ModelOutput, ModelOutput | None, Batch, jax.Array],
        tuple[jax.Array, Metrics],
    ]
    needs_teacher: bool = True
    trains_own_params: bool = True
