"""The plan: which network trains on which batches, as plain integers; no JAX here.

Batch t is the t-th batch of the stream; a teacher that has completed t updates has seen
batches 0..t-1. A student's plan says which batches it learns and how many updates the
teacher has behind it then (method A.1, A.2; paper Eq. 5 and Alg. 1, 2):

- Lockstep: the student takes one step for each teacher step, in the same program.
- Replay: the student takes steps against the teacher as it stands, frozen.

`SCHEDULES` maps a plan's name to a function that returns a `Course`; `make_plan` merges
the courses of all students on the one teacher's clock and cuts them into ticks.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from spaced_kd.config import StudentConfig, space_interval_steps
from spaced_kd.errors import ConfigError


class Span(NamedTuple):
    """Batches start..stop-1."""

    start: int
    stop: int


class Member(NamedTuple):
    """A student in lockstep; at teacher step t it learns batch t - lag."""

    student: str
    lag: int = 0
    hard_only: bool = False


class Lockstep(NamedTuple):
    """Teacher steps start..stop-1, each with one step of every member."""

    start: int
    stop: int
    members: tuple[Member, ...]


class Replay(NamedTuple):
    """The student learns batches start..stop-1 from the teacher of `teacher_step`."""

    student: str
    start: int
    stop: int
    teacher_step: int


class Evaluate(NamedTuple):
    """Measure one network on the test split."""

    network: str


Segment = Lockstep | Replay
Tick = Segment | Evaluate


class Course(NamedTuple):
    """One student's part of the plan.

    lockstep: (teacher steps, how the student takes part).
    replays: (teacher step at which, batches), in order.
    """

    lockstep: tuple[tuple[Span, Member], ...] = ()
    replays: tuple[tuple[int, Span], ...] = ()


@dataclasses.dataclass(frozen=True)
class Clock:
    """The teacher's time: `steps_per_epoch` updates are one pass over the data."""

    steps_per_epoch: int
    num_epochs: int

    @property
    def total_steps(self) -> int:
        """Updates of the teacher in the whole run."""
        return self.steps_per_epoch * self.num_epochs


def no_kd(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Train on the labels alone, on the teacher's batches."""
    del student
    return Course(lockstep=((Span(0, clock.total_steps), Member(name)),))


def online(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Learn every batch together with the teacher (paper Alg. 1)."""
    del student
    return Course(lockstep=((Span(0, clock.total_steps), Member(name)),))


def spaced(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Replay the last I batches at every multiple of I (paper Eq. 5, Alg. 2)."""
    interval = interval_steps(name, student, clock)
    whole = Span(0, clock.total_steps)
    return Course(replays=_rounds(whole, interval, student.remainder))


def offline(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Learn everything from the finished teacher ("max" in paper Table 6)."""
    del name, student
    total = clock.total_steps
    return Course(replays=((total, Span(0, total)),))


def constant_ahead(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Follow a teacher that stays I updates ahead and is never frozen (Table 11)."""
    interval = interval_steps(name, student, clock)
    if interval == clock.total_steps:
        raise ConfigError(
            f"student '{name}': a teacher that is always {interval} of "
            f"{clock.total_steps} steps ahead leaves the student none; shorten "
            "space_interval_epochs, or take plan='offline'."
        )
    lag = interval if student.ahead == "delayed" else 0
    return Course(
        lockstep=((Span(interval, clock.total_steps), Member(name, lag=lag)),)
    )


def critical_period(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Space inside a window of the training only (paper Figure 3)."""
    interval = interval_steps(name, student, clock)
    window = _window(name, student, clock)
    if interval > window.stop - window.start:
        raise ConfigError(
            f"student '{name}': an interval of {interval} steps is longer than its "
            f"window of {window.stop - window.start} steps; widen "
            "window_start_epochs..window_stop_epochs or shorten space_interval_epochs."
        )
    member = Member(name, hard_only=student.outside == "hard_only")
    outside = (Span(0, window.start), Span(window.stop, clock.total_steps))
    return Course(
        lockstep=tuple((span, member) for span in outside if span.start < span.stop),
        replays=_rounds(window, interval, student.remainder),
    )


SCHEDULES: dict[str, Callable[[str, StudentConfig, Clock], Course]] = {
    "none": no_kd,
    "online": online,
    "spaced": spaced,
    "offline": offline,
    "constant_ahead": constant_ahead,
    "critical_period": critical_period,
}

WITH_INTERVAL = (spaced, constant_ahead, critical_period)
"""The schedules that read `space_interval_epochs`."""


def interval_steps(name: str, student: StudentConfig, clock: Clock) -> int:
    """Return the space interval I in steps.

    Raises:
      ConfigError: it rounds to zero, or is longer than the training.
    """
    epochs, per_epoch = student.space_interval_epochs, clock.steps_per_epoch
    interval = space_interval_steps(student, per_epoch)
    field = f"config.students.{name}.space_interval_epochs={epochs:g}"
    if interval < 1:
        # Rounded up, so that the value in the message works when typed in.
        smallest = math.ceil(1e4 / per_epoch) / 1e4
        raise ConfigError(
            f"{field} is {epochs * per_epoch:.3g} of {per_epoch} steps an epoch, which "
            f"rounds to 0; give at least {smallest:g} (1 step), or plan='online'."
        )
    if interval > clock.total_steps:
        raise ConfigError(
            f"{field} ({interval} steps) is longer than the training, "
            f"config.num_epochs={clock.num_epochs} ({clock.total_steps} steps): the "
            f"student would never train; give at most {clock.num_epochs}, or "
            "plan='offline'."
        )
    return interval


def _window(name: str, student: StudentConfig, clock: Clock) -> Span:
    per_epoch = clock.steps_per_epoch
    start = round(student.window_start_epochs * per_epoch)
    stop = round((student.window_stop_epochs or clock.num_epochs) * per_epoch)
    if not 0 <= start < stop <= clock.total_steps:
        raise ConfigError(
            f"student '{name}': window {student.window_start_epochs:g}.."
            f"{student.window_stop_epochs:g} epochs is empty or reaches beyond "
            f"config.num_epochs={clock.num_epochs}; give start < stop <= "
            f"{clock.num_epochs} (stop 0: the end)."
        )
    return Span(start, stop)


def _rounds(
    window: Span, interval: int, remainder: str
) -> tuple[tuple[int, Span], ...]:
    stops = list(range(window.start + interval, window.stop + 1, interval))
    spans = [Span(stop - interval, stop) for stop in stops]
    replayed = stops[-1] if stops else window.start
    if remainder == "flush" and replayed < window.stop:
        spans.append(Span(replayed, window.stop))
    return tuple((span.stop, span) for span in spans)


def make_plan(
    students: Mapping[str, StudentConfig], clock: Clock
) -> tuple[Segment, ...]:
    """Return the uncut plan of a run: Lockstep and Replay segments in execution order.

    At a teacher step at which several students replay, they do so one after another;
    the order does not matter, since no network reads a student.

    Raises:
      ConfigError: an interval or window that cannot work.
    """
    courses = {
        name: SCHEDULES[student.plan](name, student, clock)
        for name, student in students.items()
    }
    borders = {0, clock.total_steps}
    for course in courses.values():
        borders.update(edge for span, _ in course.lockstep for edge in span)
        borders.update(at for at, _ in course.replays)
    segments: list[Segment] = []
    for start, stop in _pairs(sorted(borders)):
        members = tuple(
            member
            for course in courses.values()
            for span, member in course.lockstep
            if span.start <= start and stop <= span.stop
        )
        segments.append(Lockstep(start, stop, members))
        segments.extend(
            Replay(name, span.start, span.stop, stop)
            for name, course in courses.items()
            for at, span in course.replays
            if at == stop
        )
    return tuple(segments)


def cut(
    plan: Iterable[Segment], chunk_steps: int, evaluate_every_steps: int
) -> tuple[Tick, ...]:
    """Cut a plan into ticks of at most `chunk_steps` steps, with evaluations between.

    Every network is evaluated whenever its own update count is a multiple of
    `evaluate_every_steps`, and after its last update.

    Deviation: the released code evaluates both networks after each epoch of the
    teacher, so that a spaced student is measured twice without having changed (or not
    at all after an update) and has fewer candidates for "best" than an online one.
    """
    plan = tuple(plan)
    totals = updates(plan)
    done = dict.fromkeys(totals, 0)
    ticks: list[Tick] = []
    for segment in plan:
        movers = moved_by(segment)
        position = 0
        length = segment.stop - segment.start
        while position < length:
            to_evaluation = min(
                evaluate_every_steps - done[name] % evaluate_every_steps
                for name in movers
            )
            size = min(chunk_steps, length - position, to_evaluation)
            start = segment.start + position
            ticks.append(segment._replace(start=start, stop=start + size))
            position += size
            for name in movers:
                done[name] += size
                if done[name] % evaluate_every_steps == 0 or done[name] == totals[name]:
                    ticks.append(Evaluate(name))
    return tuple(ticks)


def moved_by(segment: Segment) -> tuple[str, ...]:
    """Return the networks whose parameters a segment updates, the teacher first."""
    if isinstance(segment, Replay):
        return (segment.student,)
    return ("teacher", *(member.student for member in segment.members))


def updates(plan: Iterable[Segment]) -> dict[str, int]:
    """Return how many updates each network gets, the teacher first."""
    counts = {"teacher": 0}
    for segment in plan:
        for name in moved_by(segment):
            counts[name] = counts.get(name, 0) + segment.stop - segment.start
    return counts


def _pairs(values: list[int]) -> Iterable[tuple[int, int]]:
    return zip(values[:-1], values[1:], strict=True)
