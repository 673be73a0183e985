import hypothesis
import hypothesis.strategies as st
import pytest

from spaced_kd import config as config_lib
from spaced_kd import schedule
from spaced_kd.config import StudentConfig
from spaced_kd.errors import ConfigError
from spaced_kd.schedule import Clock, Evaluate, Lockstep, Member, Replay


def _student(**fields) -> StudentConfig:
    return StudentConfig(**{"remainder": "drop"} | fields)


def _replays(plan, name="s"):
    return [seg for seg in plan if isinstance(seg, Replay) and seg.student == name]


def _learned(plan, name):
    """Every batch the student learns, in order, with the teacher's updates then."""
    pairs = []
    for seg in plan:
        for t in range(seg.start, seg.stop):
            if isinstance(seg, Replay) and seg.student == name:
                pairs.append((t, seg.teacher_step))
            if isinstance(seg, Lockstep):
                pairs += [(t - m.lag, t) for m in seg.members if m.student == name]
    return pairs


# Method A.2: epochs of the interval, I, rounds, student steps, never replayed.
CIFAR = [
    (0.5, 195, 160, 31200, 80),
    (1.0, 391, 80, 31280, 0),
    (1.5, 586, 53, 31058, 222),
    (2.0, 782, 40, 31280, 0),
    (2.5, 977, 32, 31264, 16),
]
TINY = [
    (0.5, 391, 160, 62560, 0),
    (1.0, 782, 80, 62560, 0),
    (1.5, 1173, 53, 62169, 391),
    (2.0, 1564, 40, 62560, 0),
]
CASES = [(391, *row) for row in CIFAR] + [(782, *row) for row in TINY]


@pytest.mark.parametrize(
    ("per_epoch", "epochs", "interval", "rounds", "steps", "left"), CASES
)
def test_step_counts_of_the_paper(per_epoch, epochs, interval, rounds, steps, left):
    """The released code's arithmetic over 80 epochs, from the specification's table."""
    clock = Clock(per_epoch, 80)
    student = _student(plan="spaced", space_interval_epochs=epochs)
    plan = schedule.make_plan({"s": student}, clock)
    assert schedule.interval_steps("s", student, clock) == interval
    assert len(_replays(plan)) == rounds
    assert schedule.updates(plan) == {"teacher": 80 * per_epoch, "s": steps}
    assert 80 * per_epoch - steps == left


@hypothesis.given(
    per_epoch=st.integers(1, 40),
    num_epochs=st.integers(1, 12),
    interval=st.integers(1, 480),
    chunk=st.integers(1, 50),
    every=st.integers(1, 60),
    flush=st.booleans(),
)
def test_a_spaced_student_learns_every_batch_once_in_order_behind_the_teacher(
    per_epoch, num_epochs, interval, chunk, every, flush
):
    """Paper Eq. 5: batch t meets the teacher of k(t) = ceil((t + 1) / I) I updates."""
    clock = Clock(per_epoch, num_epochs)
    hypothesis.assume(interval <= clock.total_steps)
    student = _student(
        plan="spaced",
        space_interval_epochs=interval / per_epoch,
        remainder="flush" if flush else "drop",
    )
    plan = schedule.make_plan({"s": student}, clock)
    total = clock.total_steps
    count = total if flush else total - total % interval
    expected = [(t, min((t // interval + 1) * interval, total)) for t in range(count)]
    assert _learned(plan, "s") == expected
    ticks = schedule.cut(plan, chunk, every)
    trained = [t for t in ticks if not isinstance(t, Evaluate)]
    assert _learned(trained, "s") == expected
    assert all(t.stop - t.start <= chunk for t in trained)
    assert schedule.updates(trained) == schedule.updates(plan)


@hypothesis.given(
    per_epoch=st.integers(1, 9),
    num_epochs=st.integers(1, 6),
    chunk=st.integers(1, 12),
    interval=st.integers(1, 20),
)
def test_every_network_is_evaluated_on_its_own_epochs_and_at_its_end(
    per_epoch, num_epochs, chunk, interval
):
    """Otherwise 'last' could be stale, and arms have unequal chances for 'best'."""
    clock = Clock(per_epoch, num_epochs)
    hypothesis.assume(interval <= clock.total_steps)
    students = {
        "s": _student(plan="spaced", space_interval_epochs=interval / per_epoch),
        "late": _student(plan="offline", remainder="flush"),
        "on": _student(plan="online"),
    }
    plan = schedule.make_plan(students, clock)
    seen = {name: [] for name in schedule.updates(plan)}
    done = dict.fromkeys(seen, 0)
    for tick in schedule.cut(plan, chunk, per_epoch):
        if isinstance(tick, Evaluate):
            seen[tick.network].append(done[tick.network])
        else:
            for name in schedule.rates_of(tick):
                done[name] += tick.stop - tick.start
    for name, total in schedule.updates(plan).items():
        expected = set(range(per_epoch, total + 1, per_epoch)) | {total}
        assert seen[name] == sorted(expected)


def test_online_and_no_kd_take_every_teacher_step():
    plan = schedule.make_plan(
        {"a": _student(plan="none"), "b": _student(plan="online")}, Clock(4, 3)
    )
    assert plan == (Lockstep(0, 12, (Member("a"), Member("b"))),)


def test_lagged_learns_every_batch_behind_the_last_multiple():
    """In time with the teacher's steps, which other students' replays may part."""
    students = {
        "s": _student(plan="lagged", space_interval_epochs=0.5),
        "other": _student(plan="spaced", space_interval_epochs=0.75),
    }
    plan = schedule.make_plan(students, Clock(4, 3))
    learned = [seg for seg in plan if isinstance(seg, Lockstep)]
    assert [(seg.start, seg.stop) for seg in learned] == [
        (0, 3),
        (3, 6),
        (6, 9),
        (9, 12),
    ]
    assert {seg.members for seg in learned} == {(Member("s", refresh=2),)}


def test_lagged_needs_a_teacher():
    with pytest.raises(
        ConfigError, match=r"students\.s\.plan='lagged'.*'hard'"
    ) as error:
        schedule.make_plan({"s": _student(plan="lagged", method="hard")}, Clock(4, 3))
    assert "\n" not in str(error.value)


def test_offline_learns_everything_from_the_finished_teacher():
    plan = schedule.make_plan({"s": _student(plan="offline")}, Clock(4, 3))
    assert plan == (Lockstep(0, 12, ()), Replay("s", 0, 12, 12))


def test_constant_ahead_delayed_keeps_the_gap():
    """Table 11, reading 1: batch b_t meets the teacher of t + I updates."""
    student = _student(plan="constant_ahead", space_interval_epochs=0.5)
    plan = schedule.make_plan({"s": student}, Clock(4, 3))
    assert _learned(plan, "s") == [(t, t + 2) for t in range(10)]


def test_constant_ahead_late_start_sees_the_current_batch():
    """Table 11, reading 2: the student only starts late."""
    student = _student(
        plan="constant_ahead", space_interval_epochs=0.5, ahead="late_start"
    )
    plan = schedule.make_plan({"s": student}, Clock(4, 3))
    assert _learned(plan, "s") == [(t, t) for t in range(2, 12)]


def test_critical_period_of_the_paper():
    """Method D.5: 3910 steps are 6 rounds of 586 and a short one of 394."""
    student = _student(
        plan="critical_period",
        window_start_epochs=20.0,
        window_stop_epochs=30.0,
        remainder="flush",
    )
    plan = schedule.make_plan({"s": student}, Clock(391, 80))
    sizes = [seg.stop - seg.start for seg in _replays(plan)]
    assert sizes == [586] * 6 + [394]
    batches = [t for t, _ in _learned(plan, "s")]
    assert batches == list(range(31280))
    outside = [seg for seg in plan if isinstance(seg, Lockstep) and seg.members]
    assert [(seg.start, seg.stop) for seg in outside] == [(0, 7820), (11730, 31280)]


def test_critical_period_without_teaching_outside():
    student = _student(
        plan="critical_period",
        space_interval_epochs=1.0,
        window_start_epochs=1.0,
        outside="hard_only",
    )
    plan = schedule.make_plan({"s": student}, Clock(4, 3))
    assert plan[0] == Lockstep(0, 4, (Member("s", updates=("hard",)),))
    assert [seg.teacher_step for seg in _replays(plan)] == [8, 12]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"space_interval_epochs": 90.0}, ["90", "80", "31280", "plan='offline'"]),
        ({"space_interval_epochs": 0.001}, ["0.001", "391", "0.0026", "online"]),
        ({"space_interval_epochs": 0.0}, ["rounds to 0"]),
        (
            {"plan": "critical_period", "window_start_epochs": 79.5},
            ["586", "196", "window"],
        ),
        (
            {"plan": "critical_period", "window_stop_epochs": 81.0},
            ["81", "num_epochs=80"],
        ),
        (
            {"plan": "constant_ahead", "space_interval_epochs": 80.0},
            ["31280 of 31280", "offline"],
        ),
    ],
)
def test_impossible_intervals_are_refused_with_the_numbers(fields, words):
    """The released code trains no student at all, silently (reliability 1)."""
    student = _student(**{"plan": "spaced"} | fields)
    with pytest.raises(ConfigError) as error:
        schedule.make_plan({"s": student}, Clock(391, 80))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_the_smallest_interval_named_in_the_error_works():
    student = _student(plan="spaced", space_interval_epochs=0.0026)
    assert schedule.interval_steps("s", student, Clock(391, 80)) == 1


def test_interval_is_floored_but_not_by_float_noise():
    """10 * 0.7 is 6.999... in floating point; the released int() would say 6."""
    student = _student(plan="spaced", space_interval_epochs=0.7)
    assert schedule.interval_steps("s", student, Clock(10, 80)) == 7
    student = _student(plan="spaced", space_interval_epochs=0.79)
    assert schedule.interval_steps("s", student, Clock(10, 80)) == 7


def test_every_plan_name_has_a_schedule():
    assert set(schedule.SCHEDULES) == set(config_lib.PLANS)
