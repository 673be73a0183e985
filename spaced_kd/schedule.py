"""The plan: which network trains on which batches, as plain integers; no JAX here.

Batch t is the t-th batch of the stream; a teacher that has completed t updates has seen
batches 0..t-1. A student's plan says which batches it learns and how many updates the
teacher has behind it then (method A.1, A.2; paper Eq. 5 and Alg. 1, 2):

- Lockstep: the student takes steps on the batches as they come, in the program of the
  teacher's step, if the run has a teacher.
- Replay: the student takes steps on earlier batches, against the teacher as it stands,
  frozen.

A student that is its own teacher (self KD) trains the deepest exit alone, as a teacher
would, on every batch that it does not meet in lockstep, and replays as others do (paper
Alg. 4).

A student whose interval changes with what the run measures makes the plan a function of
what was decided so far: a tick `Decide` stands wherever the run looks, and beyond the
next one the plan assumes that the student waits.

`SCHEDULES` maps a plan's name to a function that returns a `Course`; `make_plan` merges
the courses of all students on the one clock of the stream and `cut` divides them into
ticks.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from spaced_kd import intervals
from spaced_kd.config import (
    FEEDBACK_INTERVALS,
    LEADING,
    TWO_WAY,
    WITHOUT_TEACHER,
    StudentConfig,
    space_interval_steps,
    whole_steps,
)
from spaced_kd.errors import ConfigError
from spaced_kd.intervals import Look


class Span(NamedTuple):
    """Batches start..stop-1."""

    start: int
    stop: int


HARD, METHOD, LEAD, REPLAY = KINDS = "hard", "method", "lead", "replay"
"""Kinds of update: on the labels alone, on the loss of the student's method, and of a
method that trains two networks the first one ahead, the second one after it."""


class Member(NamedTuple):
    """A student in lockstep; at step t of the stream it learns batch t - lag.

    updates: those that it makes of each batch, one after another. refresh: it learns
    from the teacher as it stood at the last multiple of so many steps; 0: as it stands.
    """

    student: str
    lag: int = 0
    updates: tuple[str, ...] = (METHOD,)
    refresh: int = 0


class Lockstep(NamedTuple):
    """Batches start..stop-1 as they come: a step of the teacher, steps of the members.

    teacher: whether there is one, and it still trains.
    """

    start: int
    stop: int
    members: tuple[Member, ...]
    teacher: bool = True


class Replay(NamedTuple):
    """The student learns batches start..stop-1, when the stream is at `teacher_step`.

    So many updates the teacher has behind it, where the run has one.
    """

    student: str
    start: int
    stop: int
    teacher_step: int


class Evaluate(NamedTuple):
    """Measure one network on the test split."""

    network: str


class Decide(NamedTuple):
    """Look whether a student replays now what it has gathered (`intervals.Look`)."""

    student: str
    look: Look


Segment = Lockstep | Replay
Tick = Segment | Evaluate | Decide
Plan = tuple[Segment | Decide, ...]


class Course(NamedTuple):
    """One student's part of the plan.

    lockstep: (steps of the stream, how the student takes part).
    replays: (step of the stream at which, batches), in order. looks: when feedback
    looks at the student.
    """

    lockstep: tuple[tuple[Span, Member], ...] = ()
    replays: tuple[tuple[int, Span], ...] = ()
    looks: tuple[Look, ...] = ()


@dataclasses.dataclass(frozen=True)
class Clock:
    """The stream's time, and the teacher's: `steps_per_epoch` steps are one pass."""

    steps_per_epoch: int
    num_epochs: float

    @property
    def total_steps(self) -> int:
        """Batches of the whole training."""
        return round(self.steps_per_epoch * self.num_epochs)


def every_batch(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Learn every batch when it comes: online KD, plain self KD, or labels (Alg. 1, 3).

    Which of them is the method's business; the plan "none" comes with the labels.
    """
    del student
    return Course(lockstep=((Span(0, clock.total_steps), Member(name)),))


def lagged(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Learn every batch when it comes, from a teacher frozen at each multiple of I.

    0 to I - 1 updates stale, in the first interval untrained: as frozen as in a replay,
    and never ahead. A control; in no paper.
    """
    if student.method in WITHOUT_TEACHER:
        raise ConfigError(
            f"config.students.{name}.plan='lagged' is about the run's teacher, which "
            f"method='{student.method}' does not look at; take plan='online'."
        )
    member = Member(name, refresh=interval_steps(name, student, clock))
    return Course(lockstep=((Span(0, clock.total_steps), member),))


def interleaved(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Learn every batch twice when it comes: as ahead of a replay, then as in it.

    The number of updates of spaced self KD without its spacing (method B.3).
    """
    member = Member(name, updates=_own_kinds(student))
    return Course(lockstep=((Span(0, clock.total_steps), member),))


def spaced(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Replay the last I batches at every multiple of I (paper Eq. 5, Alg. 2).

    Or when the intervals that `interval_schedule` says are over, one after another.
    """
    interval = interval_steps(name, student, clock)
    whole, first = Span(0, clock.total_steps), interval
    if varies(student):
        final = final_interval_steps(name, student, clock)
        stops = intervals.open_loop(student, interval, final, whole.stop)
        return Course(replays=_replays(whole, stops, student.remainder))
    if _is_released(student):
        first = _released_triggers(clock, interval)[0]
    return Course(replays=_rounds(whole, interval, student.remainder, first))


def _fed_back(
    name: str, student: StudentConfig, clock: Clock, chosen: Iterable[bool]
) -> Course:
    """Replay when feedback said so; see `intervals.feedback`."""
    first = interval_steps(name, student, clock)
    final = final_interval_steps(name, student, clock)
    gauges = student.interval_schedule == "gap"
    total = clock.total_steps
    stops, looks = intervals.feedback(first, final, total, chosen, gauges)
    replays = _replays(Span(0, total), stops, student.remainder)
    return Course(replays=replays, looks=looks)


def offline(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Learn everything from the finished teacher ("max" in paper Table 6)."""
    del name, student
    total = clock.total_steps
    return Course(replays=((total, Span(0, total)),))


def constant_ahead(name: str, student: StudentConfig, clock: Clock) -> Course:
    """Follow a teacher that stays I updates ahead and is never frozen (Table 11)."""
    if student.method in LEADING:
        raise ConfigError(
            f"student '{name}': plan='constant_ahead' needs a teacher apart, and with "
            f"method='{student.method}' a network is its own; take plan='spaced'."
        )
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
    updates = (HARD,) if student.outside == "hard_only" else (METHOD,)
    member = Member(name, updates=updates)
    outside = (Span(0, window.start), Span(window.stop, clock.total_steps))
    return Course(
        lockstep=tuple((span, member) for span in outside if span.start < span.stop),
        replays=_rounds(window, interval, student.remainder, interval),
    )


SCHEDULES: dict[str, Callable[[str, StudentConfig, Clock], Course]] = {
    "none": every_batch,
    "online": every_batch,
    "lagged": lagged,
    "interleaved": interleaved,
    "spaced": spaced,
    "offline": offline,
    "constant_ahead": constant_ahead,
    "critical_period": critical_period,
}

WITH_INTERVAL = (spaced, constant_ahead, critical_period, lagged)
"""The schedules that read `space_interval_epochs`; the first one may vary it."""


def is_fed_back(student: StudentConfig) -> bool:
    """Return whether a student's interval changes with what the run measures."""
    return varies(student) and student.interval_schedule in FEEDBACK_INTERVALS


def varies(student: StudentConfig) -> bool:
    """Return whether a student's interval changes along training."""
    return student.plan == "spaced" and student.interval_schedule != "constant"


def interval_steps(name: str, student: StudentConfig, clock: Clock) -> int:
    """Return the space interval I in steps.

    Raises:
      ConfigError: it rounds to zero, or is longer than the training.
    """
    epochs, per_epoch = student.space_interval_epochs, clock.steps_per_epoch
    interval = space_interval_steps(student, per_epoch)
    field = f"config.students.{name}.space_interval_epochs={epochs:g}"
    if interval < 1:
        instead = "interleaved" if student.method in LEADING else "online"
        # Rounded up, so that the value in the message works when typed in.
        smallest = math.ceil(1e4 / per_epoch) / 1e4
        raise ConfigError(
            f"{field} is {epochs * per_epoch:.3g} of {per_epoch} steps an epoch, which "
            f"rounds to 0; give at least {smallest:g} (1 step), or plan='{instead}'."
        )
    if interval > clock.total_steps:
        raise ConfigError(
            f"{field} ({interval} steps) is longer than the training, "
            f"num_epochs={clock.num_epochs:g} ({clock.total_steps} steps): the "
            f"student would never train; give at most {clock.num_epochs:g}, or "
            "plan='offline'."
        )
    return interval


def final_interval_steps(name: str, student: StudentConfig, clock: Clock) -> int:
    """Return in steps where a varying interval ends, or its upper end.

    Raises:
      ConfigError: it rounds to zero, is longer than the training, or shorter than the
        first interval where intervals only grow; or the trigger is the released one.
    """
    schedule, epochs = student.interval_schedule, student.final_interval_epochs
    field = f"config.students.{name}.final_interval_epochs={epochs:g}"
    if _is_released(student):
        raise ConfigError(
            f"config.students.{name}.interval_schedule='{schedule}' changes the "
            "interval, and trigger='released' counts in equal ones; set "
            "trigger='interval'."
        )
    first = interval_steps(name, student, clock)
    final = whole_steps(epochs, clock.steps_per_epoch)
    # Only these two may end below their beginning.
    least = 1 if schedule in ("linear", "random") else first
    if least <= final <= clock.total_steps:
        return final
    raise ConfigError(
        f"{field} is {final} of {clock.steps_per_epoch} steps an epoch; "
        f"interval_schedule='{schedule}' needs {least} to {clock.total_steps} steps: "
        f"give {math.ceil(1e4 * least / clock.steps_per_epoch) / 1e4:g} to "
        f"{clock.num_epochs:g}."
    )


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
    window: Span, interval: int, remainder: str, first: int
) -> tuple[tuple[int, Span], ...]:
    stops = range(window.start + first, window.stop + 1, interval)
    return _replays(window, stops, remainder)


def _replays(
    window: Span, stops: Iterable[int], remainder: str
) -> tuple[tuple[int, Span], ...]:
    """Return the replays of a window, one at each stop of what came since the last."""
    stops = list(stops)
    if remainder == "flush" and window.stop not in stops:
        stops.append(window.stop)
    spans = (Span(*pair) for pair in _pairs([window.start, *stops]))
    return tuple((span.stop, span) for span in spans)


def _shown(name: str, student: StudentConfig, span: Span) -> Span:
    """Return which of the buffered batches a replay shows: the last ones.

    They came in random order, so that any of them are a random share of the examples.
    """
    length = span.stop - span.start
    count = round(student.replay_fraction * length)
    if count:
        return Span(span.stop - count, span.stop)
    short = student.remainder == "flush" and student.plan != "offline"
    raise ConfigError(
        f"config.students.{name}.replay_fraction={student.replay_fraction:g} of a "
        f"replay of {length} batch{'es' * (length > 1)} rounds to 0; give at least "
        f"{math.ceil(1e4 / length) / 1e4:g}"
        f"{', or remainder=' + repr('drop') if short else ''}."
    )


def _is_released(student: StudentConfig) -> bool:
    self_kd = student.plan == "spaced" and student.method == "self_kd"
    return self_kd and student.trigger == "released"


def _own_kinds(student: StudentConfig) -> tuple[str, str]:
    """Return the kinds of update of such a student, ahead of a replay and in it."""
    return (LEAD, REPLAY) if student.method in TWO_WAY else (HARD, METHOD)


def _released_triggers(clock: Clock, interval: int) -> range:
    """Return where the released self KD replays: n mod I == 0 (method B.3).

    There n = step + 1 - steps_per_epoch, because epochs are counted from 0 and meant
    to be counted from 1.
    """
    first = (clock.steps_per_epoch - 1) % interval + 1
    return range(first, clock.total_steps + 1, interval)


def _lead_itself(
    name: str, student: StudentConfig, course: Course, clock: Clock
) -> Course:
    """Add what a network does that is its own teacher, where it is not in lockstep."""
    skipped = ()
    if _is_released(student):
        interval = interval_steps(name, student, clock)
        triggers = _released_triggers(clock, interval)
        skipped = tuple((Span(at - 1, at), None) for at in triggers)
    taken = sorted((*course.lockstep, *skipped), key=lambda entry: entry[0])
    edges = [0, *(edge for span, _ in taken for edge in span), clock.total_steps]
    free = (Span(*pair) for pair in zip(edges[::2], edges[1::2], strict=True))
    lead = ((span, Member(name, updates=_own_kinds(student)[:1])) for span in free)
    own = (entry for entry in lead if entry[0].start < entry[0].stop)
    return course._replace(lockstep=(*course.lockstep, *own))


def make_plan(
    students: Mapping[str, StudentConfig],
    clock: Clock,
    *,
    teacher: bool = True,
    together: bool = False,
    decisions: Mapping[str, Iterable[bool]] | None = None,
) -> Plan:
    """Return the uncut plan of a run: Lockstep and Replay segments in execution order.

    And a Decide wherever feedback looks: before a replay that it may call for, or after
    one. What comes before the next open one does not depend on it.

    Students that do not depend on one another in a stretch of the stream, because they
    replay or because there is no teacher, learn it one after another; the order does
    not matter, since no network reads a student.

    Args:
      students: by name.
      clock: the run's; a student's `epochs_factor` may end it before or after that.
      teacher: whether the run has one that trains.
      together: keep students without a teacher in one segment all the same, so that
        each batch is fetched once. Then a program is compiled for every set of them
        that is at work at one time, not one for each.
      decisions: of students with feedback, whether they replayed at each look so far
        (`intervals.choices`).

    Raises:
      ConfigError: an interval, window or number of epochs that cannot work.
    """
    courses = {
        name: _course(name, student, clock, teacher, (decisions or {}).get(name, ()))
        for name, student in students.items()
    }
    borders = {0, *([clock.total_steps] if teacher else [])}
    for course in courses.values():
        borders.update(edge for span, _ in course.lockstep for edge in span)
        borders.update(at for at, _ in course.replays)
        borders.update(look.step for look in course.looks)
    segments: list[Segment | Decide] = []
    for start, stop in _pairs(sorted(borders)):
        members = tuple(
            member
            for course in courses.values()
            for span, member in course.lockstep
            if span.start <= start and stop <= span.stop
        )
        leads = teacher and stop <= clock.total_steps
        groups = [members] if leads or together else [(m,) for m in members]
        segments.extend(Lockstep(start, stop, g, leads) for g in groups if g or leads)
        looks = [
            Decide(name, look)
            for name, course in courses.items()
            for look in course.looks
            if look.step == stop
        ]
        segments.extend(decide for decide in looks if decide.look.waited)
        segments.extend(
            Replay(name, span.start, span.stop, stop)
            for name, course in courses.items()
            for at, span in course.replays
            if at == stop
        )
        segments.extend(decide for decide in looks if not decide.look.waited)
    return tuple(segments)


def _course(
    name: str,
    student: StudentConfig,
    clock: Clock,
    teacher: bool,
    chosen: Iterable[bool],
) -> Course:
    own = student_clock(student, clock)
    if teacher and own != clock and student.method not in WITHOUT_TEACHER:
        raise ConfigError(
            f"config.students.{name}.epochs_factor={student.epochs_factor:g}, but this "
            "student learns from the run's teacher; leave it at 1, and set "
            "config.num_epochs."
        )
    if own.total_steps < 1:
        raise ConfigError(
            f"config.students.{name}.epochs_factor={student.epochs_factor:g} of "
            f"{clock.total_steps} steps rounds to 0; give at least "
            f"{1 / clock.total_steps:.2g}."
        )
    kind = SCHEDULES[student.plan]
    if student.interval_schedule != "constant" and kind in WITH_INTERVAL[1:]:
        raise ConfigError(
            f"config.students.{name}.interval_schedule='{student.interval_schedule}' "
            f"is for plan='spaced', not '{student.plan}'; set it to 'constant'."
        )
    if is_fed_back(student):
        return _fed_back(name, student, own, chosen)
    course = kind(name, student, own)
    shown = ((at, _shown(name, student, span)) for at, span in course.replays)
    course = course._replace(replays=tuple(shown))
    if student.method in LEADING:
        return _lead_itself(name, student, course, own)
    return course


def student_clock(student: StudentConfig, clock: Clock) -> Clock:
    """Return the part of the stream's time that a student takes part in."""
    epochs = clock.num_epochs * student.epochs_factor
    return dataclasses.replace(clock, num_epochs=epochs)


def cut(
    plan: Iterable[Segment | Decide],
    chunk_steps: int,
    evaluate_every_steps: int,
    replay_steps: Mapping[str, int] | None = None,
) -> tuple[Tick, ...]:
    """Cut a plan into ticks of at most `chunk_steps` steps, with evaluations between.

    In replays of the students in `replay_steps`, of at most so many.

    Every network is evaluated whenever its own update count reaches, or with two
    updates a step passes, a multiple of `evaluate_every_steps`, and at its end.

    Deviation: the released code evaluates both networks after each epoch of the
    teacher, so that a spaced student is measured twice without having changed (or not
    at all after an update) and has fewer candidates for "best" than an online one.
    """
    plan = tuple(plan)
    totals = updates(plan)
    done = dict.fromkeys(totals, 0)
    ticks: list[Tick] = []
    for segment in plan:
        if isinstance(segment, Decide):
            ticks.append(segment)
            continue
        rates = rates_of(segment)
        position = 0
        length = segment.stop - segment.start
        most = chunk_steps
        if isinstance(segment, Replay):
            most = min(most, (replay_steps or {}).get(segment.student, most))
        while position < length:
            to_evaluation = min(
                -(-(evaluate_every_steps - done[name] % evaluate_every_steps) // rate)
                for name, rate in rates.items()
            )
            size = min(most, length - position, to_evaluation)
            start = segment.start + position
            ticks.append(segment._replace(start=start, stop=start + size))
            position += size
            for name, rate in rates.items():
                before, done[name] = done[name], done[name] + rate * size
                passed = done[name] // evaluate_every_steps
                if (
                    passed > before // evaluate_every_steps
                    or done[name] == totals[name]
                ):
                    ticks.append(Evaluate(name))
    return tuple(ticks)


def rates_of(segment: Segment) -> dict[str, int]:
    """Return which networks a segment updates, and how often a step: teacher first."""
    if isinstance(segment, Replay):
        return {segment.student: 1}
    teacher = {"teacher": 1} if segment.teacher else {}
    return teacher | {m.student: len(m.updates) for m in segment.members}


def updates(plan: Iterable[Tick]) -> dict[str, int]:
    """Return how many updates each network gets, the teacher first if there is one."""
    counts: dict[str, int] = {}
    for segment in plan:
        if not isinstance(segment, Segment):
            continue
        for name, rate in rates_of(segment).items():
            counts[name] = counts.get(name, 0) + rate * (segment.stop - segment.start)
    return counts


def _pairs(values: list[int]) -> Iterable[tuple[int, int]]:
    return zip(values[:-1], values[1:], strict=True)
