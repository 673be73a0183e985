"""Paired differences between a row's columns, and how sure they are."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spaced_kd import held_out, statistics
from spaced_kd.reproduce.items import Best, Item, Place, Row
from spaced_kd.reproduce.numbers import Number, shared_with, what
from spaced_kd.statistics import Comparison

Numbers = Mapping[Place, Number]
Prepare = Callable[[Mapping[str, Number]], Mapping[str, Number] | None]
"""Column -> its number, to the same or None."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Column minus reference of one row, by seed.

    comparison: None unless both are finished. p_holm: adjusted over all differences of
    the table. updates, passes: how much more training than the reference, as a share of
    that; None unless finished.
    """

    row: Row
    column: str
    reference: str
    comparison: Comparison | None = None
    p_holm: float | None = None
    updates: float | None = None
    passes: float | None = None


def differences(
    item: Item, numbers: Numbers, prepare: Prepare = lambda columns: columns
) -> list[Difference]:
    """Return the differences that a table asks for, row by row.

    Rows that have the very same numbers as an earlier one are left out.

    Args:
      item: the table.
      numbers: of its places.
      prepare: what becomes of the numbers of the columns that are compared, e.g. those
        at equal budget; None: they cannot be.
    """
    shared = shared_with(item, numbers)
    found = []
    for row in item.rows:
        for column, reference in item.comparisons:
            among = [c for c in _among(item, reference) if c != column]
            if row.label in shared or not {column, *among} <= set(row.places):
                continue
            columns = {name: numbers[row.places[name]] for name in (column, *among)}
            if len({what(row.places[name], n) for name, n in columns.items()}) == 1:
                continue  # a student is no control for itself
            used = prepare(columns)
            known = _of(used, column, among, item.best.get(reference)) if used else {}
            found.append(Difference(row, column, reference, **known))
    adjusted = statistics.holm([d.comparison and d.comparison.p_value for d in found])
    pairs = zip(found, adjusted, strict=True)
    return [dataclasses.replace(d, p_holm=p) for d, p in pairs]


def _among(item: Item, reference: str) -> tuple[str, ...]:
    """Return the columns that a reference is one of; mostly it is one itself."""
    return item.best[reference].among if reference in item.best else (reference,)


def _of(
    used: Mapping[str, Number], column: str, among: Sequence[str], best: Best | None
) -> dict[str, Any]:
    """Return the fields of a difference, to one column or to the best of several."""
    scores = _paired(used)
    if scores is None:
        return {}
    own, other = used[column], used[among[0]]
    if best is None:
        pairs = zip(scores[column], scores[among[0]], strict=True)
        minus = [a - b for a, b in pairs]
    elif not best.elsewhere:
        minus = held_out.minus_luckiest(scores, column, among).per_seed
    elif len(scores[column]) > 1:
        minus = held_out.minus_best(scores, column, among).per_seed
    else:
        return {}
    return {
        "comparison": _compare(tuple(minus)),
        "updates": _excess(own.updates, other.updates),
        "passes": _excess(own.passes, other.passes),
    }


@functools.cache
def _compare(differences: tuple[float | None, ...]) -> Comparison:
    # Tables are made again whenever a run has changed: most differences are not new.
    return statistics.compare(differences)


def _paired(used: Mapping[str, Number]) -> dict[str, list[float]] | None:
    """Return the values of the seeds that all have; None where one is missing."""
    seeds = [
        seed
        for seed in next(iter(used.values())).by_seed
        if all(seed in number.by_seed for number in used.values())
    ]
    scores = {name: [n.by_seed[seed] for seed in seeds] for name, n in used.items()}
    known = {n: [v for v in values if v is not None] for n, values in scores.items()}
    return known if seeds and known == scores else None


def _excess(own: float | None, other: float | None) -> float | None:
    return (own - other) / other if own is not None and other else None
