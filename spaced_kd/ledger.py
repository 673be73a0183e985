"""What a run costs, counted from its plan: passes, images, and plan.json."""

import collections
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from spaced_kd import schedule, steps
from spaced_kd.config import LEADING, NO_TEACHER, Config
from spaced_kd.experiment import Experiment, Networks
from spaced_kd.flops import forward_flops
from spaced_kd.parallel import BatchAxis
from spaced_kd.schedule import (
    METHOD,
    REPLAY,
    Decide,
    Evaluate,
    Lockstep,
    Replay,
    Segment,
    Tick,
)


def tick_costs(parts: Experiment) -> list[float]:
    """Return each tick's work in forward passes over a training batch (backward: 2)."""
    networks = parts.networks(BatchAxis())
    return [_cost(parts, networks, tick) for tick in parts.ticks]


def tick_images(parts: Experiment, tick: Tick) -> int:
    """Return how many training images a tick feeds, once for every update."""
    if not isinstance(tick, Segment):
        return 0
    updates = sum(schedule.rates_of(tick).values()) * parts.config.num_seeds
    return (tick.stop - tick.start) * parts.config.data.batch_size * updates


def _cost(parts: Experiment, networks: Networks, tick: Tick) -> float:
    seeds = parts.config.num_seeds
    if isinstance(tick, Evaluate):
        return seeds * len(parts.dataset.test.label) / parts.config.data.batch_size
    if isinstance(tick, Decide):
        return decision_images(parts, tick.student) / parts.config.data.batch_size
    per_step = steps.passes_per_step(tick, networks.teacher, networks.students).values()
    return seeds * (tick.stop - tick.start) * sum(f + 2.0 * b for f, b in per_step)


def decision_images(parts: Experiment, name: str) -> int:
    """Return how many images pass a network forward for one look of feedback.

    Of `gap` as many through the teacher as through the student; of `plateau` none.
    """
    student = parts.config.students[name]
    if student.interval_schedule != "gap":
        return 0
    return 2 * min(student.gap_images, len(parts.dataset.train.label))


def describe_plan(parts: Experiment) -> dict:
    """Return plan.json: who trains on what, and what it costs, in batches.

    "decisions" are the looks of feedback; their passes, in batches rounded up, are part
    of "forward_passes". "input" is what the networks see: [H, W, C] of an image, how an
    evaluation brings images to that size (`config.data`), mean and standard deviation
    that normalise pixels in [0, 1], and the number of classes. "passes" of a segment
    are [forward, backward] that one step of it spends for a network
    (`steps.passes_per_step`); "forward_flops" are those of one batch.
    """
    networks_of_run = parts.networks(BatchAxis())
    passes = {name: [0, 0] for name in parts.updates}
    looks = collections.Counter(
        tick.student for tick in parts.plan if isinstance(tick, Decide)
    )
    segments = []
    trained = [segment for segment in parts.plan if isinstance(segment, Segment)]
    for segment in trained:
        length = segment.stop - segment.start
        per_step = steps.passes_per_step(
            segment, networks_of_run.teacher, networks_of_run.students
        )
        for name, spent in per_step.items():
            passes[name][0] += length * spent[0]
            passes[name][1] += length * spent[1]
        segments.append(_segment(segment, per_step))
    flops = _flops(parts, networks_of_run)
    networks = {
        name: _network(parts, name, passes[name], looks[name], flops[name])
        for name in parts.updates
    }
    return {
        "steps_per_epoch": parts.clock.steps_per_epoch,
        "batch_size": parts.config.data.batch_size,
        "total_steps": max(segment.stop for segment in trained),
        "order": [n for n in ("teacher", *parts.config.students) if n in networks],
        "input": {
            "image_shape": list(parts.image_shape),
            # Of the config: where the host crops, the devices' part says nothing of it.
            "image_size": parts.config.data.image_size,
            "eval_resize": parts.config.data.eval_resize,
            "interpolation": parts.config.data.interpolation,
            "mean": list(parts.spec.mean),
            "std": list(parts.spec.std),
            "num_classes": parts.dataset.num_classes,
        },
        "tutor_forward_flops": flops.get("tutor"),
        "networks": networks,
        "segments": segments,
    }


def _segment(segment: Segment, passes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "start": segment.start,
        "stop": segment.stop,
        "passes": {name: list(spent) for name, spent in passes.items()},
    }
    if isinstance(segment, Replay):
        return row | {
            "kind": "replay",
            "student": segment.student,
            "teacher_step": segment.teacher_step,
        }
    return row | {
        "kind": "lockstep",
        "teacher": segment.teacher,
        "students": {m.student: m.lag for m in segment.members},
        "student_updates": {m.student: m.updates for m in segment.members},
        "teacher_refresh": {m.student: m.refresh for m in segment.members if m.refresh},
    }


def _network(
    parts: Experiment, name: str, passes: Sequence[int], looks: int, flops: int | None
) -> dict[str, Any]:
    student = parts.config.students.get(name)
    interval = None
    if student and schedule.SCHEDULES[student.plan] in schedule.WITH_INTERVAL:
        own = schedule.student_clock(student, parts.clock)
        interval = schedule.interval_steps(name, student, own)
    row: dict[str, Any] = {
        "updates": parts.updates[name],
        "forward_passes": passes[0],
        "backward_passes": passes[1],
        "space_interval_steps": interval,
        "plan": student.plan if student else None,
        "forward_flops": flops,
    }
    if student and schedule.varies(student):
        images = looks * decision_images(parts, name)
        measuring = math.ceil(images / parts.config.data.batch_size)
        row["forward_passes"] += measuring
        row |= {
            "interval_schedule": student.interval_schedule,
            "intervals_steps": intervals_of(parts, name),
            "decisions": looks,
            "decision_forward_passes": measuring,
        }
    return row


def intervals_of(parts: Experiment, name: str) -> list[int]:
    """Return a spaced student's intervals in steps of the stream, in order."""
    ends = [
        segment.teacher_step
        for segment in parts.plan
        if isinstance(segment, Replay) and segment.student == name
    ]
    return [stop - start for start, stop in itertools.pairwise([0, *ends])]


def _flops(parts: Experiment, networks: Networks) -> dict[str, int | None]:
    models = {name: networks.model(name) for name in parts.updates}
    if networks.teacher and networks.teacher.tutor:
        models["tutor"] = networks.teacher.tutor
    shape = (parts.config.data.batch_size, *parts.image_shape)
    counts = forward_flops(models.values(), shape)
    return {name: counts[model] for name, model in models.items()}


def summary(parts: Experiment) -> list[str]:
    """Return what will happen, a line for each network, to be told beforehand."""
    total, seeds = parts.clock.total_steps, parts.config.num_seeds
    lines = [
        f"{_teachers_work(parts.config, total)} {parts.config.num_epochs} epochs of "
        f"{parts.clock.steps_per_epoch} steps, {seeds} seed{'s' if seeds > 1 else ''}"
    ]
    for name, student in parts.config.students.items():
        own = schedule.student_clock(student, parts.clock)
        line = f"{name} ({student.method}, {student.plan}): "
        line += f"{parts.updates[name]:,} updates"
        if own != parts.clock:
            line += f" in {own.num_epochs:g} epochs"
        if schedule.SCHEDULES[student.plan] in schedule.WITH_INTERVAL:
            steps_ahead = schedule.interval_steps(name, student, own)
            line += f", interval {student.space_interval_epochs:g} epochs = "
            line += f"{steps_ahead:,} steps"
            if schedule.varies(student):
                line += f" at first ({student.interval_schedule})"
        rounds, left = _rounds_and_left(parts, name, own.total_steps)
        if rounds:
            least = "at least " * schedule.is_fed_back(student)
            line += f", {least}{rounds} replay{'s' if rounds > 1 else ''}"
        if left:
            what = "replayed" if student.method in LEADING else "learned"
            line += f"; {left:,} batches of the stream are never {what}"
        lines.append(line)
    return lines


def _teachers_work(config: Config, total: int) -> str:
    teacher, tutor = config.teacher, config.tutor
    if teacher.model == NO_TEACHER:
        return "no teacher;"
    if teacher.stage:
        return f"teacher {teacher.model}, trained in stage {teacher.stage};"
    how = "" if teacher.method == "hard" else f" ({teacher.method})"
    if tutor.stage:
        how += f", taught by {tutor.model} of stage {tutor.stage}"
    return f"teacher {teacher.model}{how}: {total:,} updates in"


def _rounds_and_left(parts: Experiment, name: str, batches: int) -> tuple[int, int]:
    """Return a student's replays, and how many batches its method never learns."""
    rounds, learned = 0, 0
    for segment in parts.plan:
        if isinstance(segment, Replay) and segment.student == name:
            rounds, learned = rounds + 1, learned + segment.stop - segment.start
        elif isinstance(segment, Lockstep):
            for member in segment.members:
                last = member.updates[-1]
                if member.student == name and last in (METHOD, REPLAY):
                    learned += segment.stop - segment.start
    return rounds, batches - learned
