"""Interleaved timing and the arithmetic of paired ratios; plain Python."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Times = dict[str, list[float]]
"""Variant -> seconds, one a round; the k-th of all variants belong together."""

ONLINE_TO_SPACED = 7 / 6
"""Most that a spaced step may cost over an online one: 7 passes for 6."""


class Row(NamedTuple):
    """One line of the result.

    case: letter of the case. name: what was compared. value: median of the ratios of
    each round, or another figure. low, high: of the rounds. limit: most it may be, None
    where nothing is promised. note: why there is no value, or what else was seen.
    """

    case: str
    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return ok, over, or nothing where there is no value or no limit."""
        if self.value is None or self.limit is None:
            return ""
        return "ok" if self.value <= self.limit else "over"


def students_limit(students: int) -> float:
    """Return the cost of K students on one teacher over K separate runs.

    A spaced pair costs 3 passes for its teacher and 4 for its student, in units of a
    forward pass over a batch.
    """
    return (3 + 4 * students) / (7 * students)


def interleave(
    variants: Mapping[str, Callable[[], float]],
    rounds: int,
    gate: Callable[[], None] = lambda: None,
) -> Times:
    """Time variants in turns, after one untimed call of each.

    The order is rotated from round to round, so that none always follows the same one.

    Args:
      variants: each returns the seconds that it took, in a unit of its own choice.
      rounds: times that each is measured.
      gate: called before each measurement; may wait for a quiet machine.
    """
    names = list(variants)
    for name in names:
        variants[name]()
    times: Times = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            gate()
            times[name].append(variants[name]())
    return times


def compare(
    case: str,
    name: str,
    over: Sequence[float],
    under: Sequence[float],
    limit: float | None = None,
    note: str = "",
) -> Row:
    """Return the median of the rounds' ratios, with their range.

    Args:
      case: letter of the case.
      name: of the comparison.
      over: seconds of what is judged, by round.
      under: seconds of what it is compared with, by round.
      limit: most that the ratio may be.
      note: see `Row`.
    """
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    middle = statistics.median(ratios)
    return Row(case, name, middle, min(ratios), max(ratios), limit, note)


def roofline(
    flops: float, num_bytes: float, peak_flops: float, peak_bytes: float
) -> float:
    """Return the least seconds that a program can take on a device.

    Args:
      flops: floating-point operations of the program.
      num_bytes: that it moves to and from memory.
      peak_flops: operations a second of the device.
      peak_bytes: bytes a second of its memory.
    """
    return max(flops / peak_flops, num_bytes / peak_bytes)
