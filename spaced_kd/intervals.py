"""Where a spaced student replays, if its interval changes: plain integers, no JAX here.

Open-loop courses are known before the run (`open_loop`). Feedback looks at what the run
measured: `feedback` is the course as a pure function of what was decided so far, and
`judge_gap` and `judge_plateau` decide. Every interval is at least one step, all are
consecutive, and what is left at the end is for `remainder` to say.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

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


class Look(NamedTuple):
    """When feedback looks: at this step of the stream, so many after the last replay.

    waited: 0: only to know what later looks compare with.
    """

    step: int
    waited: int


class Decision(NamedTuple):
    """What a look found.

    step, waited: as of the `Look`. measured: KL(teacher || student) in nats (gap), or
    the last replay's mean loss (plateau). threshold: what it was compared with, None
    if with nothing. replay: whether what has been gathered is replayed now; None where
    nothing was to be decided.
    """

    step: int
    waited: int
    measured: float
    threshold: float | None
    replay: bool | None


def feedback(
    quantum: int, longest: int, total: int, chosen: Iterable[bool], gauges: bool
) -> tuple[tuple[int, ...], tuple[Look, ...]]:
    """Return where a student replays and where the run looks, given what was decided.

    It looks at every multiple of the quantum; the first interval is one quantum, the
    longest is not looked at because it must end.

    Args:
      quantum: steps, the shortest interval.
      longest: steps; rounded down to a multiple of the quantum.
      total: steps of the stream, where all ends.
      chosen: whether it was replayed, at every look so far with something to decide;
        beyond, it is assumed to wait.
      gauges: whether to look after every replay, too.
    """
    longest -= longest % quantum
    decided = iter(chosen)
    stops, looks, last = [quantum], [], quantum
    while last < total:
        end = min(last + longest, total)
        open_steps = range(last + quantum, end, quantum)
        if gauges and open_steps:
            looks.append(Look(last, 0))
        for step in open_steps:
            looks.append(Look(step, step - last))
            if next(decided, False):
                end = step
                break
        if end < total or end - last == longest:
            stops.append(end)
        last = end
    return tuple(stops), tuple(looks)


def choices(decisions: Iterable[Decision]) -> tuple[bool, ...]:
    """Return what `feedback` needs of decisions: those that decided something."""
    return tuple(d.replay for d in decisions if d.replay is not None)


def judge_gap(
    student: StudentConfig, look: Look, measured: float, earlier: Sequence[Decision]
) -> Decision:
    """Replay when the gap has grown by `gap_growth` since the last replay.

    Args:
      student: its settings.
      look: where the run stands.
      measured: the gap there.
      earlier: what was decided before, for this student.
    """
    if not look.waited:
        return Decision(*look, measured, None, None)
    after_replay = next(d for d in reversed(earlier) if not d.waited)
    threshold = student.gap_growth * after_replay.measured
    return Decision(*look, measured, threshold, measured >= threshold)


def judge_plateau(
    student: StudentConfig, look: Look, losses: Sequence[float], last: int, quantum: int
) -> Decision:
    """Replay when an interval is over that grows each time the loss has not fallen.

    Args:
      student: its settings.
      look: where the run stands.
      losses: mean over each replay so far, at least of the last two.
      last: length of the last interval, steps.
      quantum: steps; intervals are multiples of it.
    """
    threshold, wanted = None, last
    if len(losses) > 1:
        threshold = (1.0 - student.plateau_tolerance) * losses[-2]
        if losses[-1] > threshold:
            quanta = last * student.interval_growth / quantum
            wanted = math.ceil(round(quanta, 6)) * quantum
    return Decision(*look, losses[-1], threshold, look.waited >= wanted)


def mean_loss(points: Iterable[tuple[int, float]], start: int, stop: int) -> float:
    """Return the mean over updates start..stop-1.

    Args:
      points: (updates after it, mean loss of the updates since the point before), in
        order; some end at `start` and at `stop`.
      start: updates before the first.
      stop: updates after the last.
    """
    parts, before = [], start
    for step, loss in points:
        if start < step <= stop:
            parts.append((step - before) * loss)
            before = step
    return math.fsum(parts) / (stop - start)
