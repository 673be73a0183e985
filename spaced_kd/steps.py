"""The teacher step, the student step, and how they compose into a chunk.

All are pure functions. The teacher is an argument of a student's step and never part of
what a replay carries from step to step: it is frozen by construction. No gradient
reaches a teacher's outputs: `make_student_step`, `make_teacher_step`.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd import optim
from spaced_kd.data.augment import fetch
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.keys import SeedKeys
from spaced_kd.methods import hard
from spaced_kd.methods.base import Method, Phase
from spaced_kd.models.base import Model
from spaced_kd.parallel import BatchAxis
from spaced_kd.passes import run_model
from spaced_kd.schedule import HARD, LEAD, REPLAY, Lockstep, Member, Replay, Segment
from spaced_kd.shuffle import shuffle_examples
from spaced_kd.state import Frozen, NetState, SeedState
from spaced_kd.types import Batch, Metrics, ModelOutput, Variables
from spaced_kd.update import Network, extended, make_update


class Teacher(NamedTuple):
    """The run's teacher.

    method: what it learns by; the labels alone unless the config says otherwise. tutor:
    the network that its method learns from. fixed: it was trained before this run and
    stays as it is. ema_decay: of the moving average of its weights, 0: none.
    """

    network: Network
    method: Method
    tutor: Model | None = None
    fixed: bool = False
    ema_decay: float = 0.0


class Student(NamedTuple):
    """A student's network and what its steps need to know about the teacher.

    teacher_bn: "batch" or "running" statistics in the teacher's extra forward pass.
    teacher_noise: whether the teacher's DropPath is active in what the student sees.
    online_teacher: "before" or "after" the teacher's update on the same batch.
    replay: which stream a replay reads, see `views.Streams`.
    label_smoothing: in steps on the labels alone; the method knows its own.
    shuffle_teacher: whether the student sees the outputs of shuffled examples.
    teacher_weights: whose outputs it sees, see `NetState.weighing`.
    """

    network: Network
    method: Method
    teacher_bn: str
    teacher_noise: bool
    online_teacher: str
    replay: str
    label_smoothing: float = 0.0
    shuffle_teacher: bool = False
    teacher_weights: str = "live"


class DeviceData(NamedTuple):
    """The training split on the device. image: [N, H, W, C] uint8; label: [N] int32."""

    image: jax.Array
    label: jax.Array


class Slots(NamedTuple):
    """Which examples the networks see at one or several steps of the stream.

    step: [...] int32, place in the stream; gives the augmentation key.
    index: [..., b] int32, rows of `DeviceData`; -1 is padding.
    example: [..., b] int32, rows of the training split, likewise; None: those of index.
    """

    step: Any
    index: Any
    example: Any = None


class Role(enum.IntEnum):
    """Whose random numbers: a frozen teacher must not drop what its student drops."""

    TEACHER = 0
    STUDENT = 1
    FROZEN_TEACHER = 2
    SHUFFLE = 3
    AGAIN = 4


TeacherStep = Callable[
    [NetState, Batch, jax.Array, ModelOutput | None],
    tuple[NetState, ModelOutput, Metrics],
]
StudentStep = Callable[
    [NetState, Batch, jax.Array, ModelOutput | None, jax.Array],
    tuple[NetState, Metrics],
]
TeacherForward = Callable[[Variables, Batch, jax.Array], ModelOutput]


def make_teacher_step(network: Network, phase: Phase, axis: BatchAxis) -> TeacherStep:
    """Return teacher_step(state, batch, key, tutor) -> (state, outputs, metrics).

    One update, in the paper on the cross-entropy (Eq. 3). tutor: outputs of the network
    that teaches the teacher, None without one. The outputs are those of the forward
    pass that the update came from, that is of the teacher before this update, with the
    batch's BatchNorm statistics.
    """
    update = make_update(network, phase, axis)

    def teacher_step(state, batch, key, tutor):
        return update(state, batch, key, lax.stop_gradient(tutor), state.step)

    return teacher_step


def make_student_step(network: Network, phase: Phase, axis: BatchAxis) -> StudentStep:
    """Return student_step(state, batch, key, teacher_outputs, stream_step).

    The result is (state, metrics): one update of the student on the phase's loss
    (paper Eq. 2; Eq. 4 where it is its own teacher). Reads the teacher's outputs on the
    same batch, through which no gradient flows; nothing of the teacher changes.
    stream_step: as for `make_update`.
    """
    update = make_update(network, phase, axis)

    def student_step(state, batch, key, teacher_outputs, stream_step):
        teacher_outputs = lax.stop_gradient(teacher_outputs)
        state, _, measured = update(state, batch, key, teacher_outputs, stream_step)
        return state, measured

    return student_step


def make_teacher_forward(
    model: Model, teacher_bn: str, noise: bool = True
) -> TeacherForward:
    """Return forward(variables, batch, key) -> outputs of a teacher that stays fixed.

    teacher_bn "batch" normalises with the statistics of this very batch, "running" with
    the teacher's own averages. Neither moves the averages. noise: whether DropPath is
    active, as in the released vit/ (never with "running", which is eval mode).

    Deviation: the released replay runs the frozen teacher in train mode and lets the
    averages move, which changes nothing but its logged teacher accuracy.
    """

    def forward(variables, batch, key):
        if teacher_bn == "running":
            outputs = model.apply(variables, batch.image, train=False)
            return cast(ModelOutput, outputs)
        return run_model(model, variables, batch, key if noise else None)[0]

    return forward


def lockstep(
    teacher: Teacher | None,
    students: dict[str, Student],
    segment: Lockstep,
    axis: BatchAxis,
    spec: AugmentSpec,
):
    """Return step(states, frozen, data, keys, slots) -> (states, metrics) of one seed.

    One step of the teacher, if the segment has it, and the steps of every member (paper
    Alg. 1, 3). `slots` holds the stream's batch under "stream", and under a member's
    name its own where it lags. `frozen` holds the network that stays as it is in the
    whole run, the tutor or a fixed teacher, if there is one.
    """
    teacher_update = None
    if segment.teacher and teacher:
        teacher_update = _teacher_update(teacher, axis, spec)
    member_steps = {
        member: _member_step(teacher, students[member.student], member, axis, spec)
        for member in segment.members
    }

    def step(states: SeedState, frozen, data, keys: SeedKeys, slots):
        batch = _fetch(data, keys.augment, slots["stream"], axis, spec)
        states, out, views = dict(states), {}, None
        if teacher_update:
            old = states["teacher"]
            new, outputs, out["teacher"] = teacher_update(old, batch, keys, frozen)
            states["teacher"] = new
            views = _Views(outputs, old.weighing, new.weighing)
        elif teacher and teacher.fixed:
            fixed = lambda weights: frozen.variables
            views = _Views(None, fixed, fixed)
        for member in segment.members:
            name = member.student
            own = batch
            if member.lag:
                own = _fetch(data, keys.augment, slots[name], axis, spec)
            states[name], out[name] = member_steps[member](
                states[name], own, keys, views, slots["stream"].step
            )
        return states, out

    return step


def replay(
    teacher: Teacher | None, student: Student, axis: BatchAxis, spec: AugmentSpec
):
    """Return step(state, frozen, data, keys, slots) -> (state, metrics) of one seed.

    One step of the student against the frozen teacher (paper Eq. 5), or where it is its
    own teacher on the whole loss (Alg. 4). `frozen` holds the teacher's variables, {}
    where the run has none. The student's name is no part of it: students that differ in
    when they replay are one program to the compiler's cache.
    """
    phase = _phase_of(student, REPLAY, axis)
    forward = _forward_for(teacher, student, phase)
    student_step = make_student_step(student.network, phase, axis)

    def step(state: NetState, frozen: Frozen, data, keys: SeedKeys, slots):
        same = student.replay == "exact"
        augment_key = keys.augment if same else keys.replay_augment
        batch = _fetch(data, augment_key, slots["stream"], axis, spec)
        outputs = None
        if forward:
            key = _noise(keys, Role.FROZEN_TEACHER, state.step)
            outputs = forward(frozen.variables, batch, key)
            outputs = _shown(student, outputs, batch, keys, state.step, axis)
        again = _noise(keys, Role.AGAIN, state.step)
        batch = extended(phase, state, batch, again, axis, spec)
        key = _noise(keys, Role.STUDENT, state.step)
        # The rate of the teacher's last update: at the end of an epoch still its own.
        now = jnp.maximum(frozen.step - 1, 0)
        return student_step(state, batch, key, outputs, now)

    return step


def compose(step: Callable, how: str) -> Callable:
    """Return chunk(states, frozen, data, keys, slots): a row of steps, seeds abreast.

    Args:
      step: what `lockstep` or `replay` returns.
      how: "scan" rolls the leading axis of `slots` into one `lax.scan`; "loop" expects
        slots of a single step, for a caller that loops (to debug).

    In `chunk`, states (what `step` takes first), frozen, keys and slots are tuples with
    one entry a seed, all updated in the same body; metrics come back stacked over the
    steps.
    """

    def chunk(states, frozen, data, keys, slots):
        def body(carry, at):
            pairs = [
                step(*seed, data, key, slot)
                for *seed, key, slot in zip(carry, frozen, keys, at, strict=True)
            ]
            return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)

        if how == "scan":
            return lax.scan(body, states, slots)
        states, measured = body(states, jax.tree.map(lambda x: x[0], slots))
        return states, jax.tree.map(lambda x: x[None], measured)

    return chunk


class _Views(NamedTuple):
    """outputs: of the teacher's training pass, None where it does not train.

    before, after: its update, "live" or "ema" -> variables (`NetState.weighing`).
    """

    outputs: ModelOutput | None
    before: Callable[[str], Variables]
    after: Callable[[str], Variables]


def _teacher_update(teacher: Teacher, axis: BatchAxis, spec: AugmentSpec):
    """Return update(state, batch, keys, frozen) -> (state, outputs, metrics)."""
    phase = teacher.method.whole
    teacher_step = make_teacher_step(teacher.network, phase, axis)
    # A trained teacher's teacher is in eval mode, as in every released offline KD.
    tutor = teacher.tutor and make_teacher_forward(teacher.tutor, "running")

    def update(state, batch, keys, frozen):
        key = _noise(keys, Role.TEACHER, state.step)
        taught = tutor(frozen.variables, batch, key) if tutor else None
        again = _noise(keys, Role.AGAIN, state.step)
        passed = extended(phase, state, batch, again, axis, spec)
        state, outputs, measured = teacher_step(state, passed, key, taught)
        if teacher.ema_decay:
            mean, newest = state.average, state.params["net"]
            mean = optim.average(mean, newest, teacher.ema_decay, state.step)
            state = state.replace(average=mean)
        # What a method adds to a batch comes after it.
        own = jax.tree.map(lambda rows: rows[: len(batch.label)], outputs)
        return state, own, measured

    return update


def _member_step(
    teacher: Teacher | None,
    student: Student,
    member: Member,
    axis: BatchAxis,
    spec: AugmentSpec,
) -> Callable[..., tuple[NetState, Metrics]]:
    """Return step(state, batch, keys, views, stream_step), all updates of a member.

    The metrics are those of its last update.
    """
    updates = [
        _member_update(teacher, student, member, axis, spec, kind)
        for kind in member.updates
    ]

    def step(state, batch, keys, views, stream_step):
        if member.refresh:
            due = stream_step % member.refresh == 0
            state = _holding(state, views.before(student.teacher_weights), due)
        measured: Metrics = {}
        for update in updates:
            state, measured = update(state, batch, keys, views, stream_step)
        return state, measured

    return step


def _member_update(
    teacher: Teacher | None,
    student: Student,
    member: Member,
    axis: BatchAxis,
    spec: AugmentSpec,
    kind: str,
):
    phase = _phase_of(student, kind, axis)
    student_step = make_student_step(student.network, phase, axis)
    forward = _forward_for(teacher, student, phase)

    def update(state, batch, keys, views, stream_step):
        if forward is None:
            outputs = None
        elif views.outputs is None or _needs_forward(student, member):
            key = _noise(keys, Role.FROZEN_TEACHER, state.step)
            outputs = forward(_seen(student, member, state, views), batch, key)
        else:
            # Paper Alg. 1 as released: the teacher's own training pass, before its
            # update; costs nothing.
            outputs = views.outputs
        if outputs is not None:
            outputs = _shown(student, outputs, batch, keys, state.step, axis)
        again = _noise(keys, Role.AGAIN, state.step)
        batch = extended(phase, state, batch, again, axis, spec)
        key = _noise(keys, Role.STUDENT, state.step)
        return student_step(state, batch, key, outputs, stream_step)

    return update


def _seen(
    student: Student, member: Member, state: NetState, views: _Views
) -> Variables:
    """Return the variables of the teacher that a student in lockstep learns from."""
    if member.refresh:
        return state.held
    # The lag alone says how far a teacher that is constantly ahead is.
    updated = student.online_teacher == "after" and not member.lag
    view = views.after if updated else views.before
    return view(student.teacher_weights)


def _holding(state: NetState, teacher: Variables, due: jax.Array) -> NetState:
    """Return a student's state, where it is due with the teacher as it stands now."""
    # A branch: most steps then leave the teacher's weights unread.
    held = lax.cond(due, lambda: teacher, lambda: state.held)
    return state.replace(held=held)


def _fetch(data: DeviceData, key, slot: Slots, axis: BatchAxis, spec) -> Batch:
    position = axis.positions(slot.index.shape[0])
    step_key = jax.random.fold_in(key, slot.step)
    batch = fetch(data.image, data.label, slot.index, position, step_key, spec)
    raw = data.image[jnp.maximum(slot.index, 0)]
    example = slot.index if slot.example is None else slot.example
    return batch._replace(raw=raw, example=example)


def _phase_of(student: Student, kind: str, axis: BatchAxis) -> Phase:
    """Return what an update of a kind minimises (see `schedule` for the kinds)."""
    method = student.method
    if kind == HARD:
        return hard.make_loss(axis, student.label_smoothing).whole
    special = {LEAD: method.lead, REPLAY: method.replay}.get(kind)
    return special or method.whole


def _forward_for(
    teacher: Teacher | None, student: Student, phase: Phase
) -> TeacherForward | None:
    """Return the extra pass of a teacher at rest, None where the loss needs none."""
    if teacher is None or not phase.needs_teacher:
        return None
    return make_teacher_forward(
        teacher.network.model, student.teacher_bn, student.teacher_noise
    )


def _shown(
    student: Student,
    outputs: ModelOutput,
    batch: Batch,
    keys: SeedKeys,
    step: jax.Array,
    axis: BatchAxis,
) -> ModelOutput:
    if not student.shuffle_teacher:
        return outputs
    return shuffle_examples(outputs, batch.mask, _noise(keys, Role.SHUFFLE, step), axis)


def _noise(keys: SeedKeys, role: Role, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(keys.noise, role), step)


def passes_per_step(
    segment: Segment, teacher: Teacher | None, students: Mapping[str, Student]
) -> dict[str, tuple[int, int]]:
    """Return network -> (forward, backward) passes that one step spends for it.

    A forward pass of the teacher that is made for a student's sake counts as the
    student's. Online students that see the teacher before its update, with the batch's
    statistics, need none: they share the teacher's training pass. What is computed
    twice to save memory (remat, micro-batches) counts once; SAM's two passes are two.
    """
    alone = BatchAxis()
    if isinstance(segment, Replay):
        student = students[segment.student]
        phase = _phase_of(student, REPLAY, alone)
        spent = _passes(student.network, phase, teacher is not None)
        return {segment.student: spent}
    passes = {}
    if segment.teacher and teacher:
        passes["teacher"] = _passes(teacher.network, teacher.method.whole, True)
    for member in segment.members:
        student = students[member.student]
        extra = not segment.teacher or _needs_forward(student, member)
        extra = extra and teacher is not None
        spent = [
            _passes(student.network, _phase_of(student, kind, alone), extra)
            for kind in member.updates
        ]
        passes[member.student] = (sum(f for f, _ in spent), sum(b for _, b in spent))
    return passes


def _passes(network: Network, phase: Phase, extra: bool) -> tuple[int, int]:
    taught = int(extra and phase.needs_teacher)
    own = phase.batches * (2 if network.sam_rho else 1)
    return own + taught, own


def _needs_forward(student: Student, member: Member) -> bool:
    """Whether the teacher's own training pass is not what the student shall see."""
    other_teacher = student.online_teacher == "after" or student.teacher_bn == "running"
    earlier = member.lag > 0 or member.refresh > 0
    averaged = student.teacher_weights == "ema"
    return earlier or averaged or other_teacher or not student.teacher_noise


def slots_axes(slots: Any) -> Any:
    """Return for `parallel.data_parallel` which axis of `slots` the devices share."""
    shared = lambda rows: None if rows is None else 1
    return jax.tree.map(
        lambda s: Slots(None, 1, shared(s.example)),
        slots,
        is_leaf=lambda s: isinstance(s, Slots),
    )
