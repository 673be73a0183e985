"""Tables made again at equal compute: what each student had reached by the same budget.

Within a row all columns are cut off at the budget of the least of them, and ranked.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from spaced_kd import matched
from spaced_kd.matched import Matched
from spaced_kd.reproduce.items import TEACHER, Item, Place, Row
from spaced_kd.reproduce.numbers import Number
from spaced_kd.sweep import state as states_lib
from spaced_kd.tables import Table

_UNITS = {"updates": "updates", "flops": "FLOPs", "seconds": "seconds"}


def tables(
    item: Item, numbers: Mapping[Place, Number], what: Iterable[str], root: Path
) -> list[Table]:
    """Return an item's accuracies at equal budget, a table for each kind of budget.

    None of an item that shows anything but accuracies at the end of training.

    Args:
      item: a table.
      numbers: of its places.
      what: keys of `matched.WHAT`.
      root: where the runs lie.
    """
    if item.kind != "table" or any(p.analysis or p.share < 1 for p in item.places):
        return []
    return [_table(item, numbers, kind, root) for kind in what]


def _table(item: Item, numbers: Mapping[Place, Number], what: str, root: Path) -> Table:
    rows: list[tuple[str, ...]] = []
    notes: dict[str, None] = {}
    for row in item.rows:
        found = _at_equal(row, numbers, what, root)
        if found is None:
            continue
        at, names = found
        cells = at.cells()
        rows += [(row.label, names[name], *rest) for name, *rest in cells.rows]
        notes |= dict.fromkeys(n for n in cells.notes if not n.startswith("At most"))
    titles = ("", "", "acc1\n%", f"spent\n{_UNITS[what]}", "at update")
    lead = (
        f"At equal {_UNITS[what]}: within a row the last evaluation at or before the "
        "largest budget that all of its students reach, best first."
    )
    return Table(titles, tuple(rows), (lead, *notes))


def _at_equal(
    row: Row, numbers: Mapping[Place, Number], what: str, root: Path
) -> tuple[Matched, dict[str, str]] | None:
    """Return what a row's students reach, and their columns; None if not comparable.

    That is so unless they are students of one finished run.
    """
    columns = {
        column: numbers[place]
        for column, place in row.places.items()
        if place.network != TEACHER
    }
    runs = {tuple(spot.job for spot in n.spots) for n in columns.values()}
    finished = all(number.status == "finished" for number in columns.values())
    if len(runs) != 1 or not finished or len(columns) < 2:
        return None
    job, *others = next(iter(runs))
    if others:
        return None
    names = {number.spots[0].network: column for column, number in columns.items()}
    return matched.at_equal(states_lib.folder(root, job), what, list(names)), names
