"""Paired differences between a row's columns, and how sure they are."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from spaced_kd import statistics
from spaced_kd.reproduce.items import Item, Place, Row
from spaced_kd.reproduce.numbers import Number
from spaced_kd.statistics import Comparison

Pair = tuple[Number, Number]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Column minus reference of one row, by seed.

    comparison: None unless both are finished. p_holm: adjusted over all differences of
    the table, those that several rows share counted once. updates, passes: how much
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
    """Return the differences that a table asks for, row by row."""
    found: list[Difference] = []
    keys: list[tuple] = []
    for row in item.rows:
        for column, reference in item.comparisons:
            own, other = row.places.get(column), row.places.get(reference)
            if own is None or other is None:
                continue
            pair = numbers[own], numbers[other]
            found.append(_difference(row, column, reference, pair))
            keys.append((_what(own, pair[0]), _what(other, pair[1])))
    return _adjusted(found, keys)


def _what(place: Place, number: Number) -> tuple:
    """Return what a number is, whichever row shows it."""
    return number.spots, place.share, place.exit, place.analysis, place.measure


def _difference(row: Row, column: str, reference: str, pair: Pair) -> Difference:
    own, other = pair
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


def _adjusted(found: Sequence[Difference], keys: Iterable[tuple]) -> list[Difference]:
    """Adjust the p-values; rows that share their runs are one hypothesis."""
    by_key: dict[tuple, float | None] = {}
    keys = list(keys)
    for key, difference in zip(keys, found, strict=True):
        comparison = difference.comparison
        by_key[key] = comparison.p_value if comparison else None
    adjusted = dict(zip(by_key, statistics.holm(list(by_key.values())), strict=True))
    return [
        dataclasses.replace(difference, p_holm=adjusted[key])
        for key, difference in zip(keys, found, strict=True)
    ]
