"""Loss and accuracy of a network with other weights than its own."""

import math
from typing import SupportsFloat

from spaced_kd import evaluate
from spaced_kd.analysis.subject import Subject
from spaced_kd.types import Params, Split, Variables

Scores = dict[str, float | None]
"""loss: mean cross-entropy, nats; None if it is not finite. acc1: percent."""

METRICS = {"acc1": "top-1 accuracy, %", "loss": "cross-entropy, nats"}
"""Keys of `Scores` -> their names on an axis."""


def of(subject: Subject, variables: Variables, split: Split) -> Scores:
    """Return what `variables` score on a split, in eval mode.

    Of the exit that the network is quoted by (`quote` of its config), as in training.

    Args:
      subject: whose architecture it is.
      variables: in place of its own.
      split: in memory.
    """
    found = subject.predict(variables, split)
    measured = evaluate.measure(found, split.label, None, subject.quote)
    return {"loss": finite(measured["loss"]), "acc1": float(measured["acc1"])}


def of_params(subject: Subject, params: Params, split: Split) -> Scores:
    """Return `of` these parameters, with the subject's running statistics."""
    return of(subject, {**subject.variables, "params": params}, split)


def finite(value: SupportsFloat) -> float | None:
    """Return a number; None for NaN and infinity, which JSON does not have."""
    number = float(value)
    return number if math.isfinite(number) else None
