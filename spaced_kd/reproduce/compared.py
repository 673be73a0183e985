"""Paired differences between a row's columns, and how sure they are."""

import dataclasses
from collections.abc import Mapping

from spaced_kd import statistics
from spaced_kd.reproduce.items import Item, Place, Row
from spaced_kd.reproduce.numbers import Number, shared_with
from spaced_kd.statistics import Comparison


@dataclasses.dataclass(frozen=True)
class Difference:
    """Column minus reference of one row, by seed.

    comparison: None unless both are finished. p_holm: adjusted over all differences of
    the table. updates, passes: how much
    more training than the reference, as a share of that; None unless finished.
    """

    row: Row
    column: str
    reference: str
    comparison: Comparison | None
    p_holm: float | None = None
    updates: float | None = None
    passes: float | None = None


def differences(item: Item, numbers: Mapping[Place, Number]) -> list[Difference]:
    """Return the differences that a table asks for, row by row.

    Rows that have the very same numbers as an earlier one are left out.
    """
    shared = shared_with(item, numbers)
    found = [
        _difference(row, column, reference, numbers)
        for row in item.rows
        if row.label not in shared
        for column, reference in item.comparisons
        if column in row.places and reference in row.places
    ]
    adjusted = statistics.holm([d.comparison and d.comparison.p_value for d in found])
    pairs = zip(found, adjusted, strict=True)
    return [dataclasses.replace(d, p_holm=p) for d, p in pairs]


def _difference(
    row: Row, column: str, reference: str, numbers: Mapping[Place, Number]
) -> Difference:
    own, other = numbers[row.places[column]], numbers[row.places[reference]]
    if not (own.by_seed and other.by_seed):
        return Difference(row, column, reference, None)
    shared = [seed for seed in own.by_seed if seed in other.by_seed]
    minus = [_minus(own.by_seed[s], other.by_seed[s]) for s in shared]
    return Difference(
        row,
        column,
        reference,
        statistics.compare(minus),
        updates=_excess(own.updates, other.updates),
        passes=_excess(own.passes, other.passes),
    )


def _minus(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other


def _excess(own: int | None, other: int | None) -> float | None:
    return (own - other) / other if own is not None and other else None
