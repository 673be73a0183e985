"""Who trained when, and on whose knowledge: plain integers from `plan.json`."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from spaced_kd.config import SELF_TAUGHT
from spaced_kd.schedule import HARD, METHOD

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
      alone. student: the student's steps, or those on the whole loss.
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

    first, last: the teacher's updates at the first and the last of these batches; where
      a network is its own teacher, the batches of the stream that it had met.
    frozen: that number stood still meanwhile.
    """

    start: int
    stop: int
    first: int
    last: int
    frozen: bool


def learns_alone(plan: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether a student has no teacher apart.

    Args:
      plan: `plan.json`.
      settings: the student's part of the config.
    """
    return "teacher" not in plan["networks"] or settings["method"] in SELF_TAUGHT


def lanes(segments: Iterable[Mapping[str, Any]], student: str) -> Lanes:
    """Return when the student and the teacher train, other students left out."""
    result = Lanes([], [])
    now = 0
    for segment in segments:
        start, stop = segment["start"], segment["stop"]
        if segment["kind"] == "lockstep":
            lag = segment["students"].get(student)
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
    """Return when a student without a teacher apart learns from what.

    Two updates that it makes of a batch at once stand in parallel.

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
            labels = kind == HARD or settings["method"] == "hard"
            _extend(result.lead if labels else result.student, block)
        now += block.steps
    return result


def _updates(segment: Mapping[str, Any], student: str) -> list[str]:
    """Return the kinds of update that a student makes of every batch of a segment."""
    if segment["kind"] == "lockstep":
        return segment["student_updates"].get(student, [])
    return [METHOD] if segment["student"] == student else []


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
    in lockstep it has met t batches at batch t, counted from 1.

    Args:
      segments: of `plan.json`.
      student: its name.
      settings: its part of the config.
    """
    if settings["method"] == "hard":
        return []
    itself = settings["method"] in SELF_TAUGHT
    after = int(itself or settings["online_teacher"] == "after")
    found = []
    for segment in segments:
        start, stop = segment["start"], segment["stop"]
        if METHOD not in _updates(segment, student):
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
            extra = 0 if lag else after
            updates = first + extra, stop - 1 + extra
            found.append(Knowledge(first - lag, stop - lag, *updates, False))
    return found


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
