"""One Markdown table of constant and varying intervals, from finished runs.

    python benchmarks/adaptive_table.py runs/digits_adaptive

Reads every run below the folder, one seed each (configs/digits_adaptive.py).
Accuracies are those of the last evaluation, mean and s.d. over seeds. Differences are
paired by seed, with Student's 95 % interval: to the constant interval that is best on
all other seeds, and to the one that is best on these very seeds. Passes are means.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from spaced_kd import held_out, results
from spaced_kd.results import NetworkResult
from spaced_kd.spread import Spread
from spaced_kd.tables import Table

TITLES = (
    "student",
    "interval, steps",
    "updates",
    "passes fwd / bwd",
    "accuracy, last",
    "minus best constant, chosen on other seeds",
    "minus best constant of these seeds",
)


def interval(nets: Sequence[NetworkResult]) -> str:
    """Return the shortest and the longest interval of all seeds, and their number."""
    if not nets[0].interval_schedule:
        return str(nets[0].space_interval_steps or "-")
    # What is left at the end is no interval that was chosen.
    every = [steps for net in nets for steps in net.intervals_steps[:-1]]
    counts = statistics.fmean(len(net.intervals_steps) for net in nets)
    return f"{min(every)} to {max(every)}, {counts:.1f} replays"


def row(
    name: str,
    nets: Sequence[NetworkResult],
    scores: Mapping[str, Sequence[float]],
    constants: Sequence[str],
) -> tuple[str, ...]:
    """Return a student's row.

    Args:
      name: of the student.
      nets: its results, one a seed.
      scores: last accuracies of all students, one a seed.
      constants: students of constant intervals.
    """
    forward = statistics.fmean(net.forward_passes for net in nets)
    backward = statistics.fmean(net.backward_passes for net in nets)
    enough = len(nets) > 1
    return (
        name,
        interval(nets),
        f"{nets[0].updates:,}",
        f"{forward:,.0f} / {backward:,.0f}",
        str(Spread.of(scores[name])),
        str(held_out.minus_best(scores, name, constants)) if enough else "-",
        str(held_out.minus_luckiest(scores, name, constants)) if enough else "-",
    )


def main(folder: Path) -> None:
    """Print the table of all runs in a folder that have finished."""
    found = [results.load(path.parent) for path in sorted(folder.glob("*/plan.json"))]
    runs = [run.students for run in found if run.complete]
    by_name = {name: [run[name] for run in runs] for name in runs[0]}
    scores = {
        name: [v for net in nets for v in net.acc1_last.per_seed if v is not None]
        for name, nets in by_name.items()
    }
    constants = [
        name
        for name, (net, *_) in by_name.items()
        if net.plan == "spaced" and not net.interval_schedule
    ]
    rows = tuple(row(name, nets, scores, constants) for name, nets in by_name.items())
    notes = [f"n={len(runs)}; unfinished runs left out: {len(found) - len(runs)}"]
    if len(runs) > 1:
        best = held_out.chosen(scores, constants)
        notes.append(f"best constant on the other seeds: {', '.join(best)}")
    print(Table(TITLES, rows, tuple(notes)).markdown())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
