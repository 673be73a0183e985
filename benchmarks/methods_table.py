"""One Markdown table of all methods, plain against spaced, from finished runs.

    python benchmarks/methods_table.py runs/digits_methods

Reads every run below the folder whose students are called METHOD_plain and
METHOD_spaced (configs/digits_methods.py). Accuracies are those of the last evaluation,
mean and s.d. over seeds; differences are paired by seed, with Student's 95 % interval.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from spaced_kd import results
from spaced_kd.results import NetworkResult
from spaced_kd.spread import Difference
from spaced_kd.tables import Table

TITLES = (
    "method",
    "run",
    "labels alone",
    "plain",
    "spaced",
    "updates plain / spaced",
    "spaced - plain",
    "spaced - twice",
    "spaced - longer",
)


def last(net: NetworkResult) -> str:
    """Return the last accuracy of a network that has finished."""
    return str(net.acc1_last) if net.complete else "unfinished"


def minus(net: NetworkResult, base: NetworkResult | None) -> str:
    """Return the paired difference of the last accuracies, "" where there is none."""
    if base is None or not (net.complete and base.complete):
        return ""
    pairs = zip(net.acc1_last.per_seed, base.acc1_last.per_seed, strict=True)
    return str(
        Difference.of([a - b for a, b in pairs if a is not None and b is not None])
    )


def rows(run: str, students: Mapping[str, NetworkResult]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each method of a run.

    Args:
      run: its folder's name.
      students: of its results.
    """
    for name, plain in students.items():
        method = name.removesuffix("_plain")
        if method == name:
            continue
        spaced = students[f"{method}_spaced"]
        yield (
            method,
            run,
            last(students["baseline"]),
            last(plain),
            last(spaced),
            f"{plain.updates:,} / {spaced.updates:,}",
            minus(spaced, plain),
            minus(spaced, students.get(f"{method}_twice")),
            minus(spaced, students.get(f"{method}_longer")),
        )


def main(folder: Path) -> None:
    """Print the table of all runs in a folder."""
    found = [
        row
        for path in sorted(folder.glob("*/plan.json"))
        for row in rows(path.parent.name, results.load(path.parent).students)
    ]
    print(Table(TITLES, tuple(found)).markdown())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
