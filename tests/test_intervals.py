"""Intervals that change: every batch replayed once, in order, as a plain loop would."""

import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import pytest

from spaced_kd import config as config_lib
from spaced_kd import intervals, schedule
from spaced_kd.config import StudentConfig
from spaced_kd.errors import ConfigError
from spaced_kd.schedule import Clock, Replay

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
    """10 * 1.1 is 11.000000000000002 and 100 * 1.1 * 1.1 is 121.00000000000001."""
    student = _student(
        "expanding",
        interval_growth=1.1,
        space_interval_epochs=10.0,
        final_interval_epochs=12.1,
    )
    assert _lengths(student, Clock(10, 40))[:3] == [100, 110, 121]


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


def test_every_name_has_intervals():
    assert set(intervals.OPEN_LOOP) == set(config_lib.OPEN_LOOP_INTERVALS)
