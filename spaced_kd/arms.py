"""The students that the paper's tables compare, for the files in `configs/`.

Each function returns students by name, for `config.students`; those of self KD are in
spaced_kd/recipes.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from spaced_kd.config import INTERVALS, TWO_WAY, student

ConfigDict = Any
"""An `ml_collections.ConfigDict`, whose fields no type checker knows."""

# Our reading: paper Figure 3 is a drawing, and the text gives no grid.
_WINDOW_EPOCHS = 10
_WINDOW_STARTS = range(0, 80, _WINDOW_EPOCHS)


def interval_sweep() -> dict[str, ConfigDict]:
    """Return the students of paper Table 6: 0.5 to 2 epochs of space and the limits."""
    spaced = {
        _named("spaced", interval): student(
            plan="spaced", space_interval_epochs=interval
        )
        for interval in (0.5, 1.0, 1.5, 2.0)
    }
    limits = {name: student(plan=name) for name in ("online", "offline")}
    return {"baseline": student(plan="none")} | limits | spaced


def adaptive(epochs: Sequence[float]) -> dict[str, ConfigDict]:
    """Return students of constant intervals, and one of each varying one among them.

    Args:
      epochs: the constant intervals, rising; the first and the last are the range of
        those that vary.
    """
    constant = {
        _named("spaced", interval): student(
            plan="spaced", space_interval_epochs=interval
        )
        for interval in epochs
    }
    varying = {
        name: student(
            plan="spaced",
            space_interval_epochs=epochs[0],
            interval_schedule=name,
            final_interval_epochs=epochs[-1],
        )
        for name in INTERVALS
        if name != "constant"
    }
    limits = {name: student(plan=name) for name in ("online", "offline")}
    return {"baseline": student(plan="none")} | limits | constant | varying


def loss_swap(field: str, losses: Iterable[str]) -> dict[str, ConfigDict]:
    """Return the students of paper Table 3: online and spaced, with each of the losses.

    Args:
      field: of the student, "feature_loss" or "soft_loss".
      losses: what it becomes.
    """
    swapped = {
        f"{plan}_{loss}": student(plan=plan, **{field: loss})
        for loss in losses
        for plan in ("online", "spaced")
    }
    return {"baseline": student(plan="none")} | swapped


def pair() -> dict[str, ConfigDict]:
    """Return the students of paper Tables 9 and 10, whichever network teaches them.

    The tables' "Baseline" is the teacher itself, which every run reports; baseline here
    is the student on the labels alone.
    """
    return {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
        "offline": student(plan="offline"),
    }


def constant_ahead() -> dict[str, ConfigDict]:
    """Return the students of paper Table 11, in both readings of "ahead".

    delayed_*: learn each batch when the teacher is so far beyond it. late_*: learn the
    teacher's current batch, but begin so much later. No epoch of space is `online`.
    """
    readings = {"delayed": "delayed", "late": "late_start"}
    apart = {
        _named(name, interval): student(
            plan="constant_ahead", space_interval_epochs=interval, ahead=ahead
        )
        for name, ahead in readings.items()
        for interval in (0.5, 1.0, 1.5, 2.0, 2.5)
    }
    return {"online": student(plan="online")} | apart


def critical_period() -> dict[str, ConfigDict]:
    """Return the students of paper Figure 3, for 80 epochs at 1.5 epochs of space.

    window_A_B: spaced from epoch A to B alone. from_A: from A to the end. spaced_1_5 is
    what from_0 would be, and window_70_80 is from_70. All flush what is left of their
    window, so that every student has the teacher's number of updates.
    """
    windows = {
        f"window_{start}_{start + _WINDOW_EPOCHS}": (start, start + _WINDOW_EPOCHS)
        for start in _WINDOW_STARTS
    }
    to_the_end = {f"from_{start}": (start, 0) for start in _WINDOW_STARTS[1:-1]}
    limits = {
        "online": student(plan="online"),
        "spaced_1_5": student(
            plan="spaced", space_interval_epochs=1.5, remainder="flush"
        ),
    }
    return limits | {
        name: student(
            plan="critical_period",
            space_interval_epochs=1.5,
            window_start_epochs=float(start),
            window_stop_epochs=float(stop),
        )
        for name, (start, stop) in (windows | to_the_end).items()
    }


METHOD_FIELDS: dict[str, dict[str, Any]] = {
    "kd": {},
    "pld": {"temperature": 4.0},
    "sinkd": {"temperature": 2.0},
    "taid": {"kd_weight": 1.0, "temperature": 1.0},
    "nd": {},
    "diswot": {},
    "ofa": {"kd_weight": 0.5, "temperature": 1.0},
    "dho": {
        "kd_weight": 0.5,
        "temperature": 2.0,
        "arch": {"second_head": True},
    },
    "label_mix": {"kd_weight": 0.4},
    "shake": {"temperature": 4.0},
    "dml": {"temperature": 1.0},
    "dlb": {},
    "ps_kd": {},
}
"""What each method is set to where it is compared with others: its own authors' choice
as far as it carries over (docs/methods.md)."""


def plain_and_spaced(*methods: str, **fields: Any) -> dict[str, ConfigDict]:
    """Return two students of each method, which differ in the plan alone.

    Args:
      *methods: keys of `METHOD_FIELDS`.
      **fields: of the spaced ones, beside the plan.
    """
    plans = {"plain": {"plan": "online"}, "spaced": {"plan": "spaced"} | fields}
    return {
        f"{method}_{name}": student(method=method, **METHOD_FIELDS[method], **plan)
        for method in methods
        for name, plan in plans.items()
    }


def as_many_updates(*methods: str) -> dict[str, ConfigDict]:
    """Return the controls for methods whose spaced student makes twice the updates.

    METHOD_twice: both updates of a batch when it comes. METHOD_longer: the plain
    student, for twice the epochs; not of methods that train two networks, of which a
    spaced update trains one and a plain one both.

    Args:
      *methods: keys of `METHOD_FIELDS`, of one network that is its own teacher or of
        two that teach one another.
    """
    plans = {
        "twice": {"plan": "interleaved"},
        "longer": {"plan": "online", "epochs_factor": 2.0},
    }
    return {
        f"{method}_{name}": student(method=method, **METHOD_FIELDS[method], **plan)
        for method in methods
        for name, plan in plans.items()
        if name != "longer" or method not in TWO_WAY
    }


def _named(name: str, epochs: float) -> str:
    return f"{name}_{epochs:.1f}".replace(".", "_")
