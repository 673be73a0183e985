"""What came of a grid: numbers of the finished cells, and the state of the others.

A run that is not finished, or failed, has no number here, whatever its log holds.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from spaced_kd.config import reference_names
from spaced_kd.grid.cells import Cell
from spaced_kd.results import NetworkResult, Results
from spaced_kd.spread import Difference
from spaced_kd.tables import Table


class Entry(NamedTuple):
    """A cell and what came of it.

    results: of a finished run. error, code: why it failed, and the exit code for that.
    """

    cell: Cell
    results: Results | None = None
    error: str = ""
    code: int = 0

    @property
    def status(self) -> str:
        """One of finished, failed, unfinished."""
        if self.results is not None:
            return "finished"
        return "failed" if self.error else "unfinished"

    def difference(self, student: str, reference: str) -> Difference | None:
        """Return student minus reference, last accuracy in points, paired by seed."""
        if self.results is None:
            return None
        return self.results.students[student].acc1_last_minus.get(reference)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; accuracies in percent, on the test set."""
        about = {
            "value": self.cell.value,
            "overrides": dict(self.cell.overrides),
            "status": self.status,
        }
        if self.results is not None:
            networks = self.results.networks.items()
            return about | {"networks": {name: _numbers(net) for name, net in networks}}
        return about | ({"error": self.error, "code": self.code} if self.error else {})


def _numbers(net: NetworkResult) -> dict[str, Any]:
    return {
        "seeds": net.seeds,
        "updates": net.updates,
        "space_interval_steps": net.space_interval_steps,
        "acc1_last": dataclasses.asdict(net.acc1_last),
        "acc1_last_minus": {
            reference: dataclasses.asdict(difference)
            for reference, difference in net.acc1_last_minus.items()
        },
    }


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All cells of a grid. axis, note: as for `cells.make`."""

    axis: str
    note: str
    entries: tuple[Entry, ...]

    @property
    def code(self) -> int:
        """The exit code of the first cell that failed, else 0."""
        return next((entry.code for entry in self.entries if entry.code), 0)

    @property
    def students(self) -> list[str]:
        """The students of every cell, in the order of a run's table."""
        return list(self.entries[0].cell.config.students)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The differences told of: (student, reference).

        Those of every student that a teacher teaches, to the run's first reference.
        """
        config = self.entries[0].cell.config
        references = reference_names(config.reference)
        known = [name for name in references if name in config.students][:1]
        return [
            (name, reference)
            for reference in known
            for name, student in config.students.items()
            if student.plan != "none" and name not in references
        ]

    def json(self) -> str:
        """Return the content of `grid.json`."""
        content = {
            "axis": self.axis,
            "complete": all(entry.results for entry in self.entries),
            "cells": {entry.cell.name: entry.to_dict() for entry in self.entries},
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def table(self) -> Table:
        """Return a row for each cell."""
        titles = (
            self.axis,
            "updates",
            "interval\nsteps",
            *(f"acc1 last\n{name}, %" for name in self.students),
            *(f"{name} minus\n{reference}, points" for name, reference in self.pairs),
        )
        rows = tuple(map(self._row, self.entries))
        return Table(titles, rows, tuple(self._notes()))

    def _row(self, entry: Entry) -> tuple[str, ...]:
        if entry.results is None:
            blanks = len(self.students) + len(self.pairs) + 1
            return (entry.cell.label, entry.status, *["-"] * blanks)
        nets = [entry.results.students[name] for name in self.students]
        intervals = (net.space_interval_steps for net in nets)
        return (
            entry.cell.label,
            _distinct(net.updates for net in nets),
            _distinct(steps for steps in intervals if steps is not None),
            *(str(net.acc1_last) for net in nets),
            *(str(entry.difference(*pair) or "-") for pair in self.pairs),
        )

    def _is_unequal(self, entry: Entry) -> bool:
        if entry.results is None:
            return False
        nets = [entry.results.students[name] for name in self.students]
        return len({net.updates for net in nets}) > 1

    def _notes(self) -> Iterable[str]:
        for entry in self.entries:
            if entry.error:
                yield f"FAILED: cell {entry.cell.name}: {entry.error}"
        if any(entry.status == "unfinished" for entry in self.entries):
            yield "UNFINISHED: the same command does the cells that are left."
        seeds = self.entries[0].cell.config.num_seeds
        yield (
            "Accuracy: last evaluation on the test set, mean ± s.d. of "
            f"{seeds} seed{'s' * (seeds > 1)}."
        )
        if self.pairs:
            yield (
                "Differences are paired by seed: mean ± s.d. and, from 3 seeds on, "
                "Student's 95 % interval of the mean."
            )
        if any(map(self._is_unequal, self.entries)):
            yield (
                "Where there are two numbers of updates, a student whose last interval "
                "is not full made fewer: its difference is not at equal updates."
            )
        if self.note:
            yield self.note


def _distinct(counts: Iterable[int]) -> str:
    """Return e.g. `600`, or `600 / 594` where the students differ."""
    return " / ".join(f"{count:,}" for count in dict.fromkeys(counts)) or "-"
