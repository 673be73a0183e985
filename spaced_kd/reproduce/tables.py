"""The paper's table with our numbers in it, and the table of paired differences."""

import csv
import io
from collections.abc import Iterable, Sequence

from spaced_kd.reproduce import paper
from spaced_kd.reproduce.compared import Difference, Numbers
from spaced_kd.reproduce.items import Item, Row
from spaced_kd.reproduce.numbers import shared_with
from spaced_kd.reproduce.paper import Number as Printed
from spaced_kd.statistics import Comparison
from spaced_kd.tables import Table

_UNEQUAL = 0.01
"""More than this share of training more or less is marked."""


def main(item: Item, numbers: Numbers, warning: str = "") -> Table:
    """Return the paper's table: in each cell ours, the paper's, and ours minus that.

    Args:
      item: the table, or a figure.
      numbers: of its places.
      warning: what must be known before any number is read; the first note.
    """
    shared = shared_with(item, numbers)
    rows = tuple(
        (
            row.label,
            *(
                _cell(item, row, column, numbers, shared.get(row.label, ""))
                for column in item.columns
            ),
        )
        for row in item.rows
    )
    titles = (column.title for column in item.columns.values())
    notes = (*filter(None, [warning]), *_notes(item, numbers))
    return Table(("", *titles), rows, notes)


def differences(found: Sequence[Difference], item: Item) -> Table | None:
    """Return the table of paired differences; None if the item asks for none."""
    if not found:
        return None
    titles = (
        "",
        "difference",
        "n",
        "points,\nmean ± s.d.",
        "95 % interval\nStudent's t",
        "95 % interval\nbootstrap, BCa",
        "p, permutation\n(least possible)",
        "p, Holm",
        "seeds for\n80 % power",
        "paper",
        "updates,\npasses",
    )
    rows = tuple(_difference_row(difference, item) for difference in found)
    return Table(titles, rows, tuple(_difference_notes(found)))


def long_csv(item: Item, numbers: Numbers) -> str:
    """Return all cells as CSV, one a line, for programs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        (
            *("item", "row", "column", "status", "n", "mean", "std", "by_seed"),
            *("paper", "minus_paper", "updates", "forward_passes", "backward_passes"),
            *("run", "network", "error"),
        )
    )
    for row in item.rows:
        for column in item.columns:
            writer.writerow(_csv_row(item, row, column, numbers))
    return out.getvalue()


def printed_in_paper(item: Item, row: Row, column: str) -> Printed | None:
    """Return the paper's number in a cell, if it has one."""
    table = _paper(item)
    return table.number(row.paper_label, column) if table else None


def _paper(item: Item) -> paper.Table | None:
    return None if item.kind == "study" else paper.load().table(item.paper_name)


def _csv_row(item: Item, row: Row, column: str, numbers: Numbers) -> tuple:
    place, printed = row.places.get(column), printed_in_paper(item, row, column)
    head = item.name, row.label, column
    if place is None:
        return (*head, "none", 0, *[""] * 3, _or_blank(printed), *[""] * 7)
    number = numbers[place]
    mean, std = number.spread.mean, number.spread.std
    minus = None if printed is None or mean is None else mean - float(printed)
    return (
        *(*head, number.status, len(number.by_seed), _or_blank(mean), _or_blank(std)),
        " ".join(f"{seed}:{value}" for seed, value in number.by_seed.items()),
        *(_or_blank(printed), _or_blank(minus), _or_blank(number.updates)),
        *(_or_blank(number.forward_passes), _or_blank(number.backward_passes)),
        " ".join(spot.job for spot in number.spots),
        number.spots[0].network,
        number.error,
    )


def _or_blank(value: object) -> str:
    return "" if value is None else str(value)


def _cell(item: Item, row: Row, column: str, numbers: Numbers, same_as: str) -> str:
    """Return a cell's text; `same_as`: label of an earlier row of the same numbers."""
    place, printed = row.places.get(column), printed_in_paper(item, row, column)
    theirs = "" if printed is None else f"paper {printed}"
    if place is None:
        return "\n".join(filter(None, ("-", theirs)))
    number = numbers[place]
    if same_as:
        return "\n".join(filter(None, (f"as {same_as}", theirs)))
    if number.status != "finished":
        return "\n".join(filter(None, (number.status.upper(), theirs)))
    if number.picture is not None:
        return "drawn"
    spread = number.spread
    if spread.mean is None:
        return "\n".join(filter(None, ("not finite", theirs)))
    ours = f"{spread} (n={len(number.by_seed)})"
    if printed is not None:
        theirs += f", {spread.mean - float(printed):+.{printed.decimals}f}"
    return "\n".join(filter(None, (ours, theirs)))


def _difference_row(difference: Difference, item: Item) -> tuple[str, ...]:
    name = f"{item.columns[difference.column].title} - "
    best = item.best.get(difference.reference)
    name += best.title if best else item.columns[difference.reference].title
    theirs = _papers_difference(difference, item)
    found = difference.comparison
    if found is None:
        return (difference.row.label, name, "0", *["-"] * 6, theirs, "-")
    return (
        difference.row.label,
        name,
        str(found.n),
        _signed(found),
        _interval(found.t_interval),
        _interval(found.bca_interval),
        "-" if found.p_value is None else f"{found.p_value:.3g} ({found.p_least:.2g})",
        "-" if difference.p_holm is None else f"{difference.p_holm:.3g}",
        "-" if found.seeds_needed is None else f"{found.seeds_needed:,}",
        theirs,
        ", ".join(map(_share, (difference.updates, difference.passes))),
    )


def _papers_difference(difference: Difference, item: Item) -> str:
    table = _paper(item)
    if table is None:
        return "-"
    own, other = difference.column, difference.reference
    return str(table.difference(difference.row.paper_label, own, other) or "-")


def _signed(found: Comparison) -> str:
    if found.mean is None:
        return "-"
    spread = "" if found.std is None else f" ± {found.std:.2f}"
    return f"{found.mean:+.2f}{spread}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else "[{:+.2f}, {:+.2f}]".format(*ends)


def _share(excess: float | None) -> str:
    if excess is None:
        return "-"
    mark = " †" * (abs(excess) > _UNEQUAL)
    return f"{100 * excess:+.3g} %{mark}"


def _difference_notes(found: Iterable[Difference]) -> Iterable[str]:
    found = list(found)
    yield (
        "Differences are taken within a seed, whose students share the teacher, the "
        "batches and their order. p: two-sided permutation test of the paired "
        "differences, which cannot be less than the number in brackets for so few "
        "seeds. Holm: adjusted over this table's differences. Seeds: for a paired t "
        "test to find the observed effect at the 5 % level."
    )
    if any(
        excess is not None and abs(excess) > _UNEQUAL
        for d in found
        for excess in (d.updates, d.passes)
    ):
        yield (
            "† so much more or less training than what is subtracted: updates, and "
            "forward passes with a backward one as two. Not a comparison at equal "
            "compute; --equal=updates, flops or seconds makes one."
        )


def _notes(item: Item, numbers: Numbers) -> Iterable[str]:
    here = [numbers[place] for place in item.places]
    waiting = sum(number.status in ("unfinished", "running") for number in here)
    if waiting:
        yield f"UNFINISHED: {waiting} of {len(here)} cells have no number yet."
    errors = {n.error: None for n in here if n.status == "failed"}
    yield from (f"FAILED: {error}" for error in errors)
    yield from item.notes
    yield from (f"{row.label}: {note}" for row in item.rows for note in row.notes)
    table = _paper(item)
    for note in table.notes if table else ():
        about = ", ".join((*note.rows, *note.columns))
        yield f"The paper{f', {about}' if about else ''}: {note.text}"
    if table:
        yield from (f"The paper: {note}" for note in paper.load().notes)
