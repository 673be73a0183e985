"""Who trained when, and on whose knowledge: plain integers from `plan.json`."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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
    """What a student and its teacher do, as if they were alone."""

    teacher: list[Block]
    student: list[Block]

    @property
    def end(self) -> int:
        """Training steps that both take together; steps in parallel count once."""
        blocks = [*self.teacher, *self.student]
        return max((block.at + block.steps for block in blocks), default=0)


class Knowledge(NamedTuple):
    """Batches start..stop-1 were learned from a teacher of so many updates.

    first, last: the teacher's updates at the first and the last of these batches.
    frozen: it did not move meanwhile.
    """

    start: int
    stop: int
    first: int
    last: int
    frozen: bool


def lanes(segments: Iterable[Mapping[str, Any]], student: str) -> Lanes:
    """Return when the student and the teacher train, other students left out."""
    result = Lanes([], [])
    now = 0
    for segment in segments:
        start, stop = segment["start"], segment["stop"]
        if segment["kind"] == "lockstep":
            _extend(result.teacher, Block(now, start, stop))
            lag = segment["students"].get(student)
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

    Args:
      segments: of `plan.json`.
      student: its name.
      settings: its part of the config.
    """
    if settings["plan"] == "none":
        return []
    learns_online = settings["outside"] != "hard_only"
    if settings["plan"] != "critical_period":
        learns_online = True
    after = int(settings["online_teacher"] == "after")
    found = []
    for segment in segments:
        start, stop = segment["start"], segment["stop"]
        if segment["kind"] == "replay":
            if segment["student"] == student:
                teacher_step = segment["teacher_step"]
                found.append(Knowledge(start, stop, teacher_step, teacher_step, True))
        elif student in segment["students"] and learns_online:
            lag = segment["students"][student]
            first = max(start, lag)
            if first < stop:
                # A lag alone says how far the teacher is ahead.
                extra = 0 if lag else after
                updates = first + extra, stop - 1 + extra
                found.append(Knowledge(first - lag, stop - lag, *updates, False))
    return found


def window(plan: Mapping[str, Any]) -> int:
    """Return how many training steps the enlarged timeline shows."""
    every = (net["space_interval_steps"] for net in plan["networks"].values())
    intervals = sorted(steps for steps in every if steps)
    if not intervals:
        return SHOWN_PERIODS * plan["steps_per_epoch"]
    # Each interval takes its steps twice, by the teacher and by the student.
    return 2 * SHOWN_PERIODS * intervals[len(intervals) // 2]
