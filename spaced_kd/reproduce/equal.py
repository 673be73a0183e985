"""Tables made again at equal compute: what each student had reached by the same budget.

In the ranking all columns of a row are cut off at the budget of the least of them; in
a difference both sides are, at that of the lesser.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from spaced_kd import matched
from spaced_kd.errors import CheckpointError
from spaced_kd.matched import AtBudget
from spaced_kd.reproduce import compared, tables
from spaced_kd.reproduce.compared import Difference, Numbers
from spaced_kd.reproduce.items import TEACHER, Item, Row
from spaced_kd.reproduce.numbers import Number, shared_with
from spaced_kd.spread import Spread
from spaced_kd.sweep import state as states_lib
from spaced_kd.tables import Table

_UNITS = {"updates": "updates", "flops": "FLOPs", "seconds": "seconds"}
_TEACHERS = "The teacher's training is in no student's budget."


def tables_of(
    item: Item, numbers: Numbers, what: Iterable[str], root: Path
) -> list[Table]:
    """Return an item's rankings and differences, for each kind of budget.

    None of an item that shows anything but accuracies at the end of training.

    Args:
      item: a table.
      numbers: of its places.
      what: keys of `matched.WHAT`.
      root: where the runs lie.
    """
    if item.kind == "figure" or any(p.analysis or p.share < 1 for p in item.places):
        return []
    found = []
    for kind in what:
        found.append(_ranking(item, numbers, kind, root))
        differences = tables.differences(_differences(item, numbers, kind, root), item)
        if differences:
            lead = f"The same at equal {_UNITS[kind]}, those of the lesser side."
            found.append(differences._replace(notes=_notes(lead, kind)))
    return found


def _ranking(item: Item, numbers: Numbers, what: str, root: Path) -> Table:
    rows: list[tuple[str, ...]] = []
    shared = shared_with(item, numbers)
    for row in item.rows:
        columns = _students(row, numbers)
        found = None if row.label in shared else _at_equal(columns, what, root)
        for column, parts in sorted((found or {}).items(), key=_best_first):
            title = item.columns[column].title
            spent = Spread.of([v for part in parts for v in part.spent.per_seed])
            steps = Spread.of([step for part in parts for step in part.steps])
            numbers_shown = (str(_accuracy(parts)), spent.rounded(), steps.rounded())
            rows.append((row.label, title, *numbers_shown))
    titles = ("", "", "acc1\n%", f"spent\n{_UNITS[what]}", "at update")
    lead = (
        f"At equal {_UNITS[what]}: within a row the last evaluation at or before the "
        "largest budget that all of its students reach, best first."
    )
    return Table(titles, tuple(rows), _notes(lead, what))


def _notes(lead: str, what: str) -> tuple[str, ...]:
    return (lead, _TEACHERS, *filter(None, [matched.NOTES.get(what)]))


def _students(row: Row, numbers: Numbers) -> dict[str, Number]:
    return {
        column: numbers[place]
        for column, place in row.places.items()
        if place.network != TEACHER
    }


def _accuracy(parts: Iterable[AtBudget]) -> Spread:
    return Spread.of([value for part in parts for value in part.acc1.per_seed])


def _best_first(entry: tuple[str, list[AtBudget]]) -> float:
    mean = _accuracy(entry[1]).mean
    return float("inf") if mean is None else -mean


def _at_equal(
    columns: Mapping[str, Number], what: str, root: Path
) -> dict[str, list[AtBudget]] | None:
    """Return what students reach, an entry for each run; None if not comparable.

    That is so unless all are finished, in the same runs. A teacher's budget is not a
    student's.
    """
    if any(spot.network == TEACHER for n in columns.values() for spot in n.spots):
        return None
    runs = {tuple(spot.job for spot in n.spots) for n in columns.values()}
    finished = all(number.status == "finished" for number in columns.values())
    if len(runs) != 1 or not finished or len(columns) < 2:
        return None
    found: dict[str, list[AtBudget]] = {column: [] for column in columns}
    for place, job in enumerate(next(iter(runs))):
        names = {c: number.spots[place].network for c, number in columns.items()}
        folder = states_lib.folder(root, job)
        try:
            at = matched.at_equal(folder, what, list(dict.fromkeys(names.values())))
        except CheckpointError:
            return None  # of a version that did not count it
        for column, name in names.items():
            found[column].append(at.students[name])
    return found


def _differences(
    item: Item, numbers: Numbers, what: str, root: Path
) -> list[Difference]:
    return compared.differences(
        item, numbers, lambda columns: _cut_off(columns, what, root)
    )


def _cut_off(
    columns: Mapping[str, Number], what: str, root: Path
) -> Mapping[str, Number] | None:
    """Return the numbers of some columns at the budget that all of them reach."""
    found = _at_equal(columns, what, root)
    if found is None:
        return None
    return {
        column: Number("finished", _by_seed(parts), columns[column].spots)
        for column, parts in found.items()
    }


def _by_seed(parts: Iterable[AtBudget]) -> dict[int, float | None]:
    pairs = (zip(p.seeds, p.acc1.per_seed, strict=True) for p in parts)
    return {seed: value for pair in pairs for seed, value in pair}
