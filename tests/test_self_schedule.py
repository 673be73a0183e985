"""The plan of a network that teaches itself, against the loops as they are written."""

import hypothesis
import hypothesis.strategies as st
import pytest

from spaced_kd import schedule
from spaced_kd.config import StudentConfig
from spaced_kd.errors import ConfigError
from spaced_kd.schedule import HARD, METHOD, Clock, Evaluate, Lockstep, Replay


def _student(**fields) -> StudentConfig:
    usual = {"method": "self_kd", "plan": "spaced", "remainder": "drop"}
    return StudentConfig(**usual | {"trigger": "interval"} | fields)


def _steps(plan, name="s"):
    """Every update of a student in order: (kind, batch)."""
    found = []
    for segment in plan:
        for t in range(segment.start, segment.stop):
            if isinstance(segment, Replay):
                found += [(METHOD, t)] * (segment.student == name)
            elif isinstance(segment, Lockstep):
                for member in segment.members:
                    if member.student == name:
                        found += [(kind, t) for kind in member.updates]
    return found


def _algorithm_4(total, interval):
    """The paper's loop, with the clearing inside the condition, as it must be meant."""
    found, waiting = [], []
    for t in range(total):
        waiting.append(t)
        found.append((HARD, t))
        if len(waiting) == interval:
            found += [(METHOD, j) for j in waiting]
            waiting = []
    return found


def _released(per_epoch, num_epochs, interval):
    """self_KD/train.py:177-261 in words: epochs from 0, but n = (epoch - 1) * ..."""
    found, waiting = [], []
    for epoch in range(num_epochs):
        for i in range(per_epoch):
            n = (epoch - 1) * per_epoch + i + 1
            batch = epoch * per_epoch + i
            waiting.append(batch)
            if n % interval == 0:
                found += [(METHOD, j) for j in waiting]
                waiting = []
            else:
                found.append((HARD, batch))
    return found


def _counts(steps):
    return sum(kind == HARD for kind, _ in steps), sum(k == METHOD for k, _ in steps)


# Method B.3: CIFAR-100, 391 batches an epoch, 80 epochs.
PAPER = Clock(391, 80)


@pytest.mark.parametrize(
    ("trigger", "interval", "hard", "full", "rounds"),
    [
        ("released", 4.0, 31260, 30107, 20),
        ("interval", 4.0, 31280, 31280, 20),
        ("released", 0.5, 31119, 31201, 161),
        ("interval", 1.5, 31280, 31058, 53),
    ],
)
def test_update_counts_of_spaced_self_kd(trigger, interval, hard, full, rounds):
    student = _student(space_interval_epochs=interval, trigger=trigger)
    plan = schedule.make_plan({"s": student}, PAPER, teacher=False)
    assert _counts(_steps(plan)) == (hard, full)
    assert schedule.updates(plan) == {"s": hard + full}
    assert sum(isinstance(segment, Replay) for segment in plan) == rounds


def test_the_released_replays_come_after_one_epoch_and_end_three_epochs_early():
    """Method B.3: the first of 391 batches, 19 of 1,564, the last 1,173 never."""
    student = _student(space_interval_epochs=4.0, trigger="released")
    plan = schedule.make_plan({"s": student}, PAPER, teacher=False)
    replays = [segment for segment in plan if isinstance(segment, Replay)]
    assert [r.teacher_step for r in replays] == [391 + 1564 * k for k in range(20)]
    assert [r.stop - r.start for r in replays] == [391] + [1564] * 19
    assert replays[-1].stop == 31280 - 1173


@hypothesis.given(
    per_epoch=st.integers(1, 20),
    num_epochs=st.integers(1, 9),
    interval=st.integers(1, 60),
    chunk=st.integers(1, 30),
    released=st.booleans(),
)
def test_spaced_self_kd_is_the_written_loop(
    per_epoch, num_epochs, interval, chunk, released
):
    """Every update of Alg. 4, or of the released loop, in its order, cut or uncut."""
    clock = Clock(per_epoch, num_epochs)
    hypothesis.assume(interval <= clock.total_steps)
    student = _student(
        space_interval_epochs=interval / per_epoch,
        trigger="released" if released else "interval",
    )
    plan = schedule.make_plan({"s": student}, clock, teacher=False)
    expected = (
        _released(per_epoch, num_epochs, interval)
        if released
        else _algorithm_4(clock.total_steps, interval)
    )
    assert _steps(plan) == expected
    ticks = schedule.cut(plan, chunk, per_epoch)
    trained = [tick for tick in ticks if not isinstance(tick, Evaluate)]
    assert _steps(trained) == expected
    assert schedule.updates(trained) == {"s": len(expected)}


def test_the_controls_have_the_updates_they_are_made_for():
    """Twice plain self KD, 1:1 interleaved: as many as spaced; half of it: as plain."""
    students = {
        "labels": _student(plan="none", method="hard"),
        "plain": _student(plan="online"),
        "double": _student(plan="online", epochs_factor=2.0),
        "interleaved": _student(plan="interleaved"),
        "spaced": _student(space_interval_epochs=4.0),
        "half": _student(space_interval_epochs=4.0, epochs_factor=0.5),
    }
    plan = schedule.make_plan(students, PAPER, teacher=False)
    two = (31280, 31280)
    expected = {"labels": (0, 31280), "plain": (0, 31280), "double": (0, 62560)}
    expected |= {"interleaved": two, "spaced": two, "half": (15640, 15640)}
    assert {name: _counts(_steps(plan, name)) for name in students} == expected
    for t in (0, 15639, 31279):
        place = 2 * t
        assert _steps(plan, "interleaved")[place : place + 2] == [
            (HARD, t),
            (METHOD, t),
        ]
    assert not any(isinstance(s, Lockstep) and s.teacher for s in plan)


def test_a_replay_does_not_wait_for_steps_that_nobody_takes():
    """With one student, the released trigger's batch has no segment of its own."""
    student = _student(space_interval_epochs=1.0, trigger="released")
    plan = schedule.make_plan({"s": student}, Clock(3, 2), teacher=False)
    assert [(s.start, s.stop) for s in plan] == [(0, 2), (0, 3), (3, 5), (3, 6)]


def test_networks_that_share_nothing_have_segments_of_their_own():
    """A program for each, instead of one for every set that is at work at one time."""
    students = {
        "a": _student(plan="online"),
        "b": _student(space_interval_epochs=1.0),
        "c": _student(plan="online", epochs_factor=1.5),
    }
    clock = Clock(4, 2)
    apart = schedule.make_plan(students, clock, teacher=False)
    kinds = {s._replace(start=0, stop=0) for s in apart if isinstance(s, Lockstep)}
    assert [len(s.members) for s in kinds] == [1, 1, 1]
    together = schedule.make_plan(students, clock, teacher=False, together=True)
    sizes = [len(s.members) for s in together if isinstance(s, Lockstep)]
    assert sizes == [3, 3, 1]
    for name in students:
        assert _steps(apart, name) == _steps(together, name)


def test_beside_a_teacher_which_ends_earlier():
    """A run may compare both kinds; the teacher stops after its own epochs."""
    students = {
        "kd": StudentConfig(),
        "own": _student(plan="online", epochs_factor=1.5),
    }
    plan = schedule.make_plan(students, Clock(4, 2))
    assert schedule.updates(plan) == {"teacher": 8, "kd": 8, "own": 12}
    assert [s.teacher for s in plan if isinstance(s, Lockstep)] == [True, False]


@pytest.mark.parametrize("rate", [1, 2])
def test_two_updates_a_batch_are_evaluated_after_every_epoch_of_updates(rate):
    """391 is odd: an evaluation at exact multiples alone would come every other."""
    plan_name = "online" if rate == 1 else "interleaved"
    plan = schedule.make_plan(
        {"s": _student(plan=plan_name)}, Clock(391, 3), teacher=False
    )
    done, found = 0, []
    for tick in schedule.cut(plan, 32, 391):
        if isinstance(tick, Evaluate):
            found.append(done)
        else:
            done += rate * (tick.stop - tick.start)
    assert done == 391 * 3 * rate
    expected = [391 * k for k in range(1, 3 * rate + 1)]
    assert found == [n + n % rate for n in expected]


def test_what_a_network_cannot_do_alone():
    with pytest.raises(ConfigError, match="needs a teacher apart"):
        schedule.make_plan({"s": _student(plan="constant_ahead")}, Clock(4, 8))
    longer = {"s": StudentConfig(plan="online", epochs_factor=2.5)}
    with pytest.raises(ConfigError, match=r"s\.epochs_factor=2.5.*config\.num_epochs"):
        schedule.make_plan(longer, Clock(4, 2))
    with pytest.raises(ConfigError, match="rounds to 0; give at least 0.12"):
        schedule.make_plan({"s": _student(epochs_factor=0.01)}, Clock(4, 2))
    with pytest.raises(ConfigError, match="plan='interleaved'"):
        schedule.make_plan({"s": _student(space_interval_epochs=0.01)}, Clock(4, 2))


def test_a_network_on_labels_may_train_longer_than_the_teacher():
    """It does not look at the teacher, whatever its plan is called."""
    longer = {"s": StudentConfig(method="hard", plan="online", epochs_factor=1.5)}
    plan = schedule.make_plan(longer, Clock(4, 2), teacher=False)
    assert schedule.updates(plan) == {"s": 12}


@pytest.mark.parametrize(
    "fields",
    [
        {"plan": "offline", "remainder": "flush"},
        {"plan": "critical_period", "space_interval_epochs": 0.5},
        {"space_interval_epochs": 0.75, "remainder": "flush"},
    ],
)
def test_only_a_released_trigger_takes_the_step_on_the_labels(fields):
    """Not the end of a run, nor of a window: 12 batches, 12 steps on their labels."""
    kinds = {
        trigger: _counts(
            _steps(
                schedule.make_plan(
                    {"s": _student(trigger=trigger, **fields)},
                    Clock(4, 3),
                    teacher=False,
                )
            )
        )[0]
        for trigger in ("interval", "released")
    }
    # Intervals of 3 from step 1 on: at 1, 4, 7 and 10; the rest is flushed at 12.
    triggers = 4 if fields.get("plan") is None else 0
    assert kinds == {"interval": 12, "released": 12 - triggers}


@pytest.mark.parametrize("outside", ["online", "hard_only"])
def test_a_window_of_spacing(outside):
    """Inside, Alg. 4; outside, plain self KD or labels alone; every batch once."""
    student = _student(
        plan="critical_period",
        space_interval_epochs=0.5,
        window_start_epochs=1.0,
        window_stop_epochs=2.0,
        outside=outside,
    )
    plan = schedule.make_plan({"s": student}, Clock(4, 3), teacher=False)
    kind = METHOD if outside == "online" else HARD
    inside = [(k, t + 4) for k, t in _algorithm_4(4, 2)]
    around = [(kind, t) for t in range(12)]
    assert _steps(plan) == around[:4] + inside + around[8:]
