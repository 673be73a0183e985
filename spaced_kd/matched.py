"""Accuracies at equal budget, from the files of a workdir and nothing else.

A student's budget is what its own training takes, with the teacher's forward passes
that it asks for. The teacher's training is shared by all of them and counted apart.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spaced_kd import registry, spending
from spaced_kd.results import metric_prefix, network_order, read_log
from spaced_kd.spending import Cost
from spaced_kd.spread import Spread
from spaced_kd.tables import Table
from spaced_kd.writers import Row, read_json

WHAT = {
    "updates": spending.updates,
    "flops": spending.flops,
    "seconds": spending.seconds,
}
"""Budgets."""

NOTES = {
    "flops": "FLOPs: of the networks' passes, counted from their programs; the "
    "teacher's passes that a student asks for are its own.",
    "seconds": "Seconds are an attribution: networks that train in one program share "
    "its time by their passes, seeds equally. Compilation is in them, evaluations are "
    "not.",
}
"""What to know of some of them."""

_ROUNDING = 1e-9
"""By which share two sums of the same operations may differ."""

_Track = list[tuple[float, Row]]
"""One seed's evaluations by rising step: (spent by then, row)."""


@dataclasses.dataclass(frozen=True)
class AtBudget:
    """A student's last evaluation at or before a budget; values in the order of seeds.

    acc1: percent, on the test set; None for a seed that was first evaluated later.
    spent: by then, in the unit of the budget. steps: updates by then. cut_off: a seed
      was evaluated again, beyond the budget.
    """

    seeds: tuple[int, ...]
    acc1: Spread
    spent: Spread
    steps: tuple[int | None, ...]
    cut_off: bool


@dataclasses.dataclass(frozen=True)
class Matched:
    """Students at the largest budget that all of them reach.

    what: one of `WHAT`. budget: of one seed; None where no student was evaluated.
    teacher: what its own training has taken, of one seed, which is in no student's
      budget; None without one that this run trains.
    complete: every student has been evaluated after its last update.
    """

    what: str
    budget: float | None
    students: dict[str, AtBudget]
    teacher: float | None
    complete: bool

    def cells(self) -> Table:
        """Return the table's texts, the most accurate student first."""
        order = sorted(self.students, key=self._place)
        rows = tuple(
            (name, str(at.acc1), at.spent.rounded(), Spread.of(at.steps).rounded())
            for name, at in ((name, self.students[name]) for name in order)
        )
        titles = ("network", "acc1\n%", f"spent\n{self.what}", "at update\n")
        return Table(titles, rows, tuple(self._notes()))

    def _place(self, name: str) -> float:
        mean = self.students[name].acc1.mean
        return float("inf") if mean is None else -mean

    def _notes(self) -> Iterable[str]:
        if not self.complete:
            yield "UNFINISHED: a student has not come to its end, which is the budget."
        if self.budget is not None:
            yield (
                f"At most {self.budget:,.6g} {self.what} a seed, the largest budget "
                "that all reach: the last evaluation at or before it."
            )
        if self.teacher is not None:
            yield (
                f"Not in it: the teacher's training, {self.teacher:,.6g} {self.what}, "
                "which all share."
            )
        if any(at.cut_off for at in self.students.values()):
            yield (
                "A student that is cut off before its end has not had the low learning "
                "rates that a training of this length would have ended with."
            )
        if self.what in NOTES:
            yield NOTES[self.what]


def at_equal(
    workdir: Path, what: str, networks: Sequence[str] | None = None
) -> Matched:
    """Return what students of a run reach at equal budget.

    Args:
      workdir: of the run, finished or not.
      what: "updates"; "flops", operations of their passes; or "seconds", an attribution
        of the time that was measured (`spaced_kd.spending`).
      networks: students to compare; all by default.

    Raises:
      ConfigError: no such budget or student.
      CheckpointError: a file is damaged, or of a version that did not count.
      StorageError: a file cannot be read.
    """
    cost_of = registry.lookup(WHAT, what, "what")
    config = read_json(workdir / "config.json")["config"]
    plan = read_json(workdir / "plan.json")
    for name in networks or ():
        registry.lookup(config["students"], name, "networks")
    names = networks or [n for n in network_order(config, plan) if n != "teacher"]
    rows = read_log(workdir / "metrics.jsonl")
    cost = cost_of(workdir, plan, rows)
    tracks = {name: _tracks(rows, name, cost) for name in names}
    every = [track for by_seed in tracks.values() for track in by_seed.values()]
    budget = min((track[-1][0] for track in every), default=None)
    return Matched(
        what=what,
        budget=budget,
        students={name: _at(tracks[name], name, budget) for name in names},
        teacher=_teacher(plan, rows, cost),
        complete=all(
            len(tracks[name]) == config["num_seeds"]
            and all(
                track[-1][1]["step"] >= plan["networks"][name]["updates"]
                for track in tracks[name].values()
            )
            for name in names
        ),
    )


def _tracks(rows: Iterable[Row], name: str, cost: Cost) -> dict[int, _Track]:
    found: dict[int, _Track] = {}
    for row in rows:
        if row["phase"] == "eval" and row["network"] == name:
            found.setdefault(row["seed"], []).append((cost(row), row))
    for track in found.values():
        track.sort(key=lambda entry: entry[1]["step"])
    return dict(sorted(found.items()))


def _at(by_seed: Mapping[int, _Track], name: str, budget: float | None) -> AtBudget:
    last: list[tuple[float | None, Row]] = []
    cut_off = False
    for track in by_seed.values():
        limit = (budget or 0.0) * (1 + _ROUNDING)
        reached = [entry for entry in track if entry[0] <= limit]
        cut_off = cut_off or len(reached) < len(track)
        last.append(reached[-1] if reached else (None, {}))
    key = f"eval/{metric_prefix(name)}acc1"
    return AtBudget(
        seeds=tuple(by_seed),
        acc1=Spread.of([row.get(key) for _, row in last]),
        spent=Spread.of([spent for spent, _ in last]),
        steps=tuple(row.get("step") for _, row in last),
        cut_off=cut_off,
    )


def _teacher(plan: Mapping[str, Any], rows: Iterable[Row], cost: Cost) -> float | None:
    if not plan["networks"].get("teacher", {}).get("updates"):
        return None
    own = [row for row in rows if row["network"] == "teacher"]
    evaluations = [row for row in own if row["phase"] == "eval"]
    return max(map(cost, evaluations), default=None)
