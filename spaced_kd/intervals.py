"""Where a spaced student replays, if its interval changes: plain integers, no JAX here.

Open-loop courses are known before the run (`open_loop`). Every interval is at least one
step, all are consecutive, and what is left at the end is for `remainder` to say.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator

from spaced_kd.config import StudentConfig

Lengths = Callable[[StudentConfig, int, int, int], Iterator[int]]
"""(student, first, final, total) -> the interval lengths in order, without an end."""


def linear(student: StudentConfig, first: int, final: int, total: int) -> Iterator[int]:
    """Yield intervals that grow or shrink evenly along the stream.

    One that begins at batch a is first + floor((final - first) a / total) steps long.
    """
    del student
    begin = 0
    while True:
        length = first + (final - first) * min(begin, total) // total
        yield length
        begin += length


def expanding(
    student: StudentConfig, first: int, final: int, total: int
) -> Iterator[int]:
    """Yield intervals that grow by a factor: the k-th is floor(first g^k), k from 0.

    "Expanded rehearsal" of Landauer and Bjork (1978), with an upper end.
    """
    del total
    exact = float(first)
    while True:
        # The product of, say, 10 and 1.1 is 11.000...2: round away float noise first.
        yield math.floor(round(min(exact, final), 6))
        exact = min(exact * student.interval_growth, final)


def random(student: StudentConfig, first: int, final: int, total: int) -> Iterator[int]:
    """Yield independent intervals, uniform over first..final: a control without order.

    The k-th is a pure function of (interval_seed, k), the same for every repetition.
    """
    del total
    low, high = min(first, final), max(first, final)
    for k in itertools.count():
        digest = hashlib.sha256(f"{student.interval_seed} {k}".encode()).digest()
        # 2^256 values over a few: the bias is far below anything that could be seen.
        yield low + int.from_bytes(digest, "big") % (high - low + 1)


OPEN_LOOP: dict[str, Lengths] = {
    "linear": linear,
    "expanding": expanding,
    "random": random,
}


def open_loop(
    student: StudentConfig, first: int, final: int, total: int
) -> tuple[int, ...]:
    """Return the steps of the stream after which a student replays, up to `total`.

    Args:
      student: its `interval_schedule` is a key of OPEN_LOOP.
      first: interval in steps that it begins with.
      final: interval in steps at the end, or the longest one.
      total: steps of the stream.
    """
    lengths = OPEN_LOOP[student.interval_schedule](student, first, final, total)
    ends = itertools.accumulate(lengths)
    return tuple(itertools.takewhile(lambda end: end <= total, ends))
