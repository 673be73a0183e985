"""Who trained when, and on whose knowledge: plain integers from `plan.json`."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from spaced_kd.config import LEADING, SELF_TAUGHT, TWO_WAY
from spaced_kd.schedule import HARD, LEAD, METHOD, REPLAY

SHOWN_PERIODS = 4
"""Intervals, or epochs, that the enlarged timeline shows."""


class Block(NamedTuple):
    """Consecutive training steps of one network.

    at: training step at which it begins, on the clock of one student and its teacher.
    start, stop: the batches learned are start..stop-1.
    """

    at: int
    start: int
    stop: int

    @property
    def steps(self) -> int:
        """How many there are."""
        return self.stop - self.start


class Lanes(NamedTuple):
    """What a student and its teacher do, as if they were alone.

    lead: the teacher's steps; of a network without a teacher apart, those on the labels
      alone; of two networks that teach one another, the peer's. student: the student's
      steps, or those on the whole loss.
    """

    lead: list[Block]
    student: list[Block]

    @property
    def end(self) -> int:
        """Training steps that both take together; steps in parallel count once."""
        blocks = [*self.lead, *self.student]
        return max((block.at + block.steps for block in blocks), default=0)


class Knowledge(NamedTuple):
    """Batches start..stop-1 were learned from a teacher of so many updates.

    first, last: the teacher's or the peer's updates at the first and the last of these
      batches; where a network is its own teacher, the batches that it had met.
    frozen: that number stood still meanwhile.
    """

    start: int
    stop: int
    first: int
    last: int
    frozen: bool


def learns_alone(plan: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether no teacher sets a student's pace.

    Args:
      plan: `plan.json`.
      settings: the student's part of the config.
    """
    return settings["method"] in LEADING or "teacher" not in plan["networks"]


def is_taught_by_finished(plan: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether a student learns from a teacher that this run does not train.

    Args:
      plan: `plan.json`.
      settings: the student's part of the config.
    """
    return not learns_alone(plan, settings) and not trains_teacher(plan)


def trains_teacher(plan: Mapping[str, Any]) -> bool:
    """Return whether a run has a teacher that it trains itself."""
    teacher = plan["networks"].get("teacher")
    return teacher is not None and teacher["updates"] > 0


def lanes(segments: Iterable[Mapping[str, Any]], student: str) -> Lanes:
    """Return when the student and the teacher train, other students left out."""
    result = Lanes([], [])
    now = 0
    for segment in segments:
        start, stop = segment["start"], segment["stop"]
        if segment["kind"] == "lockstep":
            lag = segment["students"].get(student)
            if lag is None and not segment["teacher"]:
                continue
            if segment["teacher"]:
                _extend(result.lead, Block(now, start, stop))
            if lag is not None and stop > lag:
                # A student that lags has nothing to learn before the lag is over.
                first = max(start, lag)
                _extend(
                    result.student, Block(now + first - start, first - lag, stop - lag)
                )
        elif segment["student"] == student:
            _extend(result.student, Block(now, start, stop))
        else:
            continue
        now += stop - start
    return result


def own_lanes(
    segments: Iterable[Mapping[str, Any]], student: str, settings: Mapping[str, Any]
) -> Lanes:
    """Return when a student that sets its own pace, or its peer, learns from what.

    Two updates that are made of a batch at once stand in parallel.

    Args:
      segments: of `plan.json`.
      student: its name.
      settings: its part of the config.
    """
    result = Lanes([], [])
    now = 0
    for segment in segments:
        kinds = _updates(segment, student)
        if not kinds:
            continue
        lag = segment["students"][student] if segment["kind"] == "lockstep" else 0
        block = Block(now, segment["start"] - lag, segment["stop"] - lag)
        for kind in kinds:
            for lane in _lanes_of(kind, settings["method"], result):
                _extend(lane, block)
        now += block.steps
    return result


def _lanes_of(kind: str, method: str, both: Lanes) -> list[list[Block]]:
    if method in TWO_WAY and kind == METHOD:
        return [both.lead, both.student]
    leads = kind in (HARD, LEAD) or method == "hard"
    return [both.lead if leads else both.student]


def _updates(segment: Mapping[str, Any], student: str) -> list[str]:
    """Return the kinds of update that a student makes of every batch of a segment."""
    if segment["kind"] == "lockstep":
        return segment["student_updates"].get(student, [])
    return [REPLAY] if segment["student"] == student else []


def _extend(blocks: list[Block], new: Block) -> None:
    if blocks:
        last = blocks[-1]
        if last.at + last.steps == new.at and last.stop == new.start:
            blocks[-1] = Block(last.at, last.start, new.stop)
            return
    blocks.append(new)


def knowledge(
    segments: Iterable[Mapping[str, Any]], student: str, settings: Mapping[str, Any]
) -> list[Knowledge]:
    """Return how far the teacher was for every batch the student learned from it.

    A network that is its own teacher has met a batch itself when it learns it, so that
    in lockstep it has met t batches at batch t, counted from 1. Two networks that
    learn a batch at once see one another as they were before it.

    Args:
      segments: of `plan.json`.
      student: its name.
      settings: its part of the config.
    """
    if settings["method"] == "hard":
        return []
    found = []
    for segment in segments:
        start, stop = segment["start"], segment["stop"]
        kinds = _updates(segment, student)
        if METHOD not in kinds and REPLAY not in kinds:
            continue
        if segment["kind"] == "replay":
            teacher_step = segment["teacher_step"]
            found.append(Knowledge(start, stop, teacher_step, teacher_step, True))
            continue
        # Earlier versions did not write it.
        refresh = segment.get("teacher_refresh", {}).get(student)
        if refresh:
            found += _held(start, stop, refresh)
            continue
        lag = segment["students"][student]
        first = max(start, lag)
        if first < stop:
            # A lag alone says how far the teacher is ahead.
            extra = 0 if lag else _has_met(kinds, settings)
            updates = first + extra, stop - 1 + extra
            found.append(Knowledge(first - lag, stop - lag, *updates, False))
    return found


def _has_met(kinds: list[str], settings: Mapping[str, Any]) -> int:
    """Return 1 if who teaches has learned the very batch that it teaches, else 0."""
    if settings["method"] in TWO_WAY:
        return int(REPLAY in kinds)
    itself = settings["method"] in SELF_TAUGHT
    return int(itself or settings["online_teacher"] == "after")


def _held(start: int, stop: int, refresh: int) -> list[Knowledge]:
    """Return a teacher that stands as it was at the last multiple of `refresh`."""
    edges = sorted({start, *range(0, stop, refresh), stop})
    edges = edges[edges.index(start) :]
    known = ((a, b, a // refresh * refresh) for a, b in itertools.pairwise(edges))
    return [Knowledge(a, b, steps, steps, True) for a, b, steps in known]


def window(plan: Mapping[str, Any]) -> int:
    """Return how many training steps the enlarged timeline shows."""
    every = (net["space_interval_steps"] for net in plan["networks"].values())
    intervals = sorted(steps for steps in every if steps)
    if not intervals:
        return SHOWN_PERIODS * plan["steps_per_epoch"]
    # Each interval takes its steps twice: ahead, and in the replay.
    return 2 * SHOWN_PERIODS * intervals[len(intervals) // 2]
