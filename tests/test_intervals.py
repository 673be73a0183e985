"""Intervals that change: every batch replayed once, in order, as a plain loop would."""

import itertools
import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import pytest

from spaced_kd import config as config_lib
from spaced_kd import intervals, schedule
from spaced_kd.config import StudentConfig
from spaced_kd.errors import ConfigError
from spaced_kd.intervals import Decision, Look
from spaced_kd.schedule import Clock, Decide, Lockstep, Replay

FIELDS = {
    "plan": "spaced",
    "space_interval_epochs": 0.5,
    "final_interval_epochs": 2.0,
    "remainder": "flush",
}


def _student(schedule_name, **fields) -> StudentConfig:
    return StudentConfig(**FIELDS | {"interval_schedule": schedule_name} | fields)


def _spans(plan):
    return [(s.start, s.stop, s.teacher_step) for s in plan if isinstance(s, Replay)]


def _lengths(student, clock):
    plan = schedule.make_plan({"s": student}, clock)
    return [stop - start for start, stop, _ in _spans(plan)]


def _brute_force(kind, first, final, growth, total, lengths_of_random):
    """Walk the stream batch by batch; exact fractions instead of floats."""
    spans, begin, number = [], 0, 0
    wanted = None
    for met in range(1, total + 1):
        if wanted is None:
            if kind == "linear":
                wanted = math.floor(first + Fraction((final - first) * begin, total))
            elif kind == "expanding":
                wanted = min(final, math.floor(first * growth**number))
            else:
                wanted = lengths_of_random[number]
        if met - begin == wanted:
            spans.append((begin, met, met))
            begin, number, wanted = met, number + 1, None
    return spans, begin


@hypothesis.given(
    kind=st.sampled_from(config_lib.OPEN_LOOP_INTERVALS),
    per_epoch=st.integers(1, 12),
    num_epochs=st.integers(1, 12),
    first=st.integers(1, 30),
    final=st.integers(1, 60),
    quarters=st.integers(5, 12),
    flush=st.booleans(),
)
def test_every_batch_is_replayed_once_in_order_when_its_interval_is_over(
    kind, per_epoch, num_epochs, first, final, quarters, flush
):
    """A gap, an overlap or a late teacher would break paper Eq. 5 for some batch."""
    clock = Clock(per_epoch, num_epochs)
    total = clock.total_steps
    hypothesis.assume(first <= total and final <= total)
    hypothesis.assume(kind != "expanding" or final >= first)
    student = _student(
        kind,
        space_interval_epochs=first / per_epoch,
        final_interval_epochs=final / per_epoch,
        interval_growth=quarters / 4,
        remainder="flush" if flush else "drop",
    )
    drawn = intervals.random(student, first, final, total)
    lengths = [next(drawn) for _ in range(total)]
    growth = Fraction(quarters, 4)
    expected, rest = _brute_force(kind, first, final, growth, total, lengths)
    if flush and rest < total:
        expected.append((rest, total, total))
    assert _spans(schedule.make_plan({"s": student}, clock)) == expected
    if flush:
        assert schedule.updates(schedule.make_plan({"s": student}, clock)) == {
            "teacher": total,
            "s": total,
        }


def test_linear_intervals_by_hand():
    """10 steps an epoch, from 5 to 20 over 100: 5 + floor(15 a / 100)."""
    found = _lengths(_student("linear"), Clock(10, 10))
    assert found == [5, 5, 6, 7, 8, 9, 11, 12, 14, 16, 7]


def test_linear_intervals_may_shrink():
    student = _student("linear", space_interval_epochs=2.0, final_interval_epochs=0.5)
    assert _lengths(student, Clock(10, 5)) == [20, 14, 9, 7]


def test_expanding_intervals_by_hand():
    """5 * 1.5^k: 5, 7.5, 11.25, 16.875, 25.3, of which 20 is the longest."""
    found = _lengths(_student("expanding"), Clock(10, 10))
    assert found == [5, 7, 11, 16, 20, 20, 20, 1]


def test_expanding_is_floored_but_not_by_float_noise():
    """100 * 1.15 is 114.99999999999999 in floating point, and 114 would be wrong."""
    student = _student(
        "expanding",
        interval_growth=1.15,
        space_interval_epochs=10.0,
        final_interval_epochs=20.0,
    )
    assert _lengths(student, Clock(10, 40))[:3] == [100, 115, 132]


def test_random_intervals_fill_their_range_evenly():
    """Each of 16 lengths in 4,800 draws: 300 each, and 4 s.d. of a count are 68."""
    drawn = intervals.random(_student("random"), 20, 5, 0)
    counts = dict.fromkeys(range(5, 21), 0)
    for _ in range(4800):
        counts[next(drawn)] += 1
    assert all(232 < count < 368 for count in counts.values())


def test_random_intervals_depend_on_their_seed_alone():
    """Two runs that differ in another field must compare the same intervals."""
    clock = Clock(10, 20)
    one = _lengths(_student("random"), clock)
    assert one == _lengths(_student("random", kd_weight=0.1), clock)
    assert one != _lengths(_student("random", interval_seed=1), clock)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("gap", {"final_interval_epochs": 0.4}, ["=0.4", "5 to 100"]),
        ("linear", {"final_interval_epochs": 0.0}, ["=0", "needs 1 to 100"]),
        ("expanding", {"final_interval_epochs": 0.4}, ["=0.4", "4 of", "5 to 100"]),
        ("random", {"final_interval_epochs": 11.0}, ["110", "to 10."]),
        ("linear", {"plan": "lagged"}, ["plan='spaced'", "'lagged'", "constant"]),
        (
            "linear",
            {"method": "self_kd", "trigger": "released"},
            ["trigger='released'", "'interval'"],
        ),
    ],
)
def test_impossible_intervals_are_refused_in_one_line(kind, fields, words):
    """What cannot be done must not be done differently in silence."""
    with pytest.raises(ConfigError) as error:
        schedule.make_plan({"s": _student(kind, **fields)}, Clock(10, 10))
    assert "\n" not in str(error.value)
    for word in ["config.students.s", *words]:
        assert word in str(error.value)


def test_the_least_interval_named_in_the_error_works():
    student = _student("expanding", final_interval_epochs=0.5)
    assert _lengths(student, Clock(10, 2)) == [5, 5, 5, 5]


def test_a_network_that_teaches_itself_may_vary_its_interval():
    """Self KD leads itself over every batch, whatever the intervals."""
    student = _student("linear", method="self_kd", trigger="interval")
    plan = schedule.make_plan({"s": student}, Clock(10, 10), teacher=False)
    assert schedule.updates(plan) == {"s": 200}


FEEDBACK = {
    "kind": st.sampled_from(config_lib.FEEDBACK_INTERVALS),
    "quantum": st.integers(1, 9),
    "longest": st.integers(1, 40),
    "total": st.integers(1, 90),
    "chosen": st.lists(st.booleans(), max_size=90),
}


def _fed_back(kind, quantum, longest, total, chosen):
    student = _student(
        kind,
        space_interval_epochs=float(quantum),
        final_interval_epochs=float(longest),
    )
    decisions = {"s": chosen}
    return schedule.make_plan({"s": student}, Clock(1, total), decisions=decisions)


def _walk(quantum, longest, total, chosen):
    """The controller as a loop over batches: (start, stop of replays), looks."""
    spans, looks, chosen = [], [], list(chosen)
    begin, longest = 0, longest // quantum * quantum
    for met in range(1, total + 1):
        waited = met - begin
        if met == total:
            replay = True
        elif waited % quantum:
            continue
        elif not spans or waited == longest:
            replay = True
        else:
            replay = chosen.pop(0) if chosen else False
            looks.append((met, waited))
        if replay:
            spans.append((begin, met))
            begin = met
    return spans, looks


@hypothesis.settings(deadline=None)
@hypothesis.given(**FEEDBACK)
def test_feedback_replays_every_batch_once_whatever_is_decided(
    kind, quantum, longest, total, chosen
):
    """A batch left out, or seen twice, would make arms of unequal training."""
    hypothesis.assume(quantum <= longest <= total)
    plan = _fed_back(kind, quantum, longest, total, chosen)
    spans, looks = _walk(quantum, longest, total, chosen)
    assert _spans(plan) == [(start, stop, stop) for start, stop in spans]
    found = [tick.look for tick in plan if isinstance(tick, Decide)]
    assert [look for look in found if look.waited] == looks
    assert schedule.updates(plan) == {"teacher": total, "s": total}
    for before, tick in itertools.pairwise(plan):
        # The teacher has just made its last step before it.
        if isinstance(tick, Decide) and tick.look.waited:
            assert isinstance(before, Lockstep) and before.stop == tick.look.step
    if kind == "gap":
        # After every replay that an open look follows; and nothing trains in between.
        gauges = [look.step for look in found if not look.waited]
        assert gauges == [a for _, a in spans if any(s - w == a for s, w in looks)]
        for before, tick in itertools.pairwise(plan):
            if isinstance(tick, Decide) and not tick.look.waited:
                assert isinstance(before, Replay) and before.stop == tick.look.step
    else:
        assert len(found) == len(looks)


@hypothesis.settings(deadline=None)
@hypothesis.given(
    **FEEDBACK,
    chunk=st.integers(1, 12),
    every=st.integers(1, 20),
    which=st.integers(0, 89),
)
def test_a_decision_changes_nothing_that_came_before_it(
    kind, quantum, longest, total, chosen, chunk, every, which
):
    """The position of a run is an index into its ticks, and must stay the same one."""
    hypothesis.assume(quantum <= longest <= total)
    whole = _fed_back(kind, quantum, longest, total, chosen)
    ticks = schedule.cut(whole, chunk, every, {"s": quantum})
    asked = [k for k, t in enumerate(ticks) if isinstance(t, Decide) and t.look.waited]
    hypothesis.assume(asked)
    number = which % len(asked)
    plan = _fed_back(kind, quantum, longest, total, chosen[:number])
    so_far = schedule.cut(plan, chunk, every, {"s": quantum})
    assert so_far[: asked[number] + 1] == ticks[: asked[number] + 1]
    assert schedule.updates(so_far) == schedule.updates(ticks)


@hypothesis.settings(deadline=None)
@hypothesis.given(**FEEDBACK)
def test_the_teacher_is_parted_alike_whatever_is_decided(
    kind, quantum, longest, total, chosen
):
    """Ticks of other lengths are other programs, whose rounding may differ."""
    hypothesis.assume(quantum <= longest <= total)
    plans = (
        _fed_back(kind, quantum, longest, total, bits) for bits in (chosen, [], [True])
    )
    teacher = [[t for t in plan if isinstance(t, Lockstep)] for plan in plans]
    assert teacher[0] == teacher[1] == teacher[2]


def test_the_gap_is_compared_with_that_after_the_last_replay():
    """Growth 1.5: 0.3 nats after the replay call for one at 0.45, not at 0.44."""
    student = _student("gap", gap_growth=1.5)
    first = intervals.judge_gap(student, Look(5, 0), 0.1, [])
    assert first == Decision(5, 0, 0.1, None, None)
    earlier = [
        first,
        Decision(10, 5, 0.6, 0.15, True),
        Decision(10, 0, 0.3, None, None),
    ]
    waits = intervals.judge_gap(student, Look(15, 5), 0.44, earlier)
    assert (waits.threshold, waits.replay) == (pytest.approx(0.45), False)
    earlier.append(waits)
    assert intervals.judge_gap(student, Look(20, 10), 0.451, earlier).replay is True
    assert intervals.choices(earlier) == (True, False)


@pytest.mark.parametrize(
    ("losses", "waited", "threshold", "replay"),
    [
        ([2.0], 10, None, True),
        # Fell by 10 %, of which 5 % are asked: the interval of 10 stays.
        ([2.0, 1.8], 10, 1.9, True),
        # Fell by 4 %: the next is 10 * 1.25 = 12.5, in quanta of 5 up to 15.
        ([9.0, 2.0, 1.92], 10, 1.9, False),
        ([9.0, 2.0, 1.92], 15, 1.9, True),
    ],
)
def test_the_interval_grows_where_the_loss_has_not_fallen(
    losses, waited, threshold, replay
):
    student = _student("plateau", plateau_tolerance=0.05, interval_growth=1.25)
    look = Look(40, waited)
    found = intervals.judge_plateau(student, look, losses, last=10, quantum=5)
    wanted = None if threshold is None else pytest.approx(threshold)
    assert found == (40, waited, losses[-1], wanted, replay)


def test_the_mean_of_a_replay_weighs_its_ticks_by_their_steps():
    """Updates 10..19: 4 of 1.0 and 6 of 2.0; what is before and after is not meant."""
    points = [(5, 9.0), (10, 9.0), (14, 1.0), (20, 2.0), (25, 9.0)]
    assert intervals.mean_loss(points, 10, 20) == pytest.approx(1.6)


def test_every_name_has_intervals():
    assert set(intervals.OPEN_LOOP) == set(config_lib.OPEN_LOOP_INTERVALS)
