"""What the user is told about speed and time left."""

import io

import pytest

from spaced_kd.errors import ConfigError
from spaced_kd.progress import Meter, duration, make_progress


class FakeClock:
    """A clock that stands still until told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def plain(total_cost: float = 100.0):
    clock, stream = FakeClock(), io.StringIO()
    return make_progress("plain", total_cost, stream, clock), clock, stream


def test_a_line_holds_percent_phase_speed_and_time_left():
    """Breaks if any of the four is wrong at a constant speed."""
    progress, clock, stream = plain(total_cost=1000.0)
    clock.now += 300.0  # compilation
    progress.update(20.0, phase="replay spaced_1_5", images=999)
    for step in range(1, 28):
        clock.now += 1.25
        progress.update(20.0 + 10 * step, phase="replay spaced_1_5", images=15_431)
    clock.now += 10.0
    progress.update(370.0, phase="replay spaced_1_5", images=123_450)
    last = stream.getvalue().splitlines()[-1]
    # 630 of 1,000 are left; 8 a second.
    assert last == "  37 %  replay spaced_1_5   12,345 img/s   ETA 1 min 19 s"


def test_compilation_does_not_count_in_any_phase():
    """Breaks if the first chunk of a phase, which compiles, spoils the estimate."""
    clock = FakeClock()
    meter = Meter(100.0, clock)
    for phase, done in (("lockstep", 1), ("replay a", 2), ("replay b", 3)):
        clock.now += 500.0
        meter.update(done, phase, images=7)
    assert meter.seconds_left is None and meter.images_per_second is None
    clock.now += 2.0
    meter.update(4.0, "lockstep", images=10)
    assert meter.images_per_second == pytest.approx(5.0)
    assert meter.seconds_left == pytest.approx(2.0 * 96)


def test_a_continued_run_does_not_count_the_work_of_earlier_starts():
    """Breaks if a resume at 50 % looks infinitely fast."""
    clock = FakeClock()
    meter = Meter(100.0, clock)
    clock.now += 1.0
    meter.update(50.0, "lockstep", images=10)
    clock.now += 1.0
    meter.update(51.0, "lockstep", images=10)
    assert meter.seconds_left == pytest.approx(49.0)


def test_the_estimate_follows_a_change_of_speed():
    """Breaks if the rate is a mean since the start, or only of the last call."""
    clock = FakeClock()
    meter = Meter(1e6, clock)
    for _ in range(100):
        clock.now += 1.0
        meter.update(meter._done_cost + 10.0, "lockstep", images=0)
    just_before = meter.seconds_left
    clock.now += 10.0
    meter.update(meter._done_cost + 10.0, "lockstep", images=0)
    assert just_before < meter.seconds_left < 2 * just_before
    for _ in range(60):
        clock.now += 10.0
        meter.update(meter._done_cost + 10.0, "lockstep", images=0)
    assert meter.seconds_left == pytest.approx(1e6 - meter._done_cost, rel=0.01)


def test_lines_come_at_each_ten_percent_and_else_every_ten_seconds():
    """Breaks if a log file is flooded, or silent for long."""
    progress, clock, stream = plain(total_cost=1000.0)
    for done in range(1, 1001):
        clock.now += 0.01
        progress.update(done, phase="lockstep", images=1)
    percents = [int(line.split("%")[0]) for line in stream.getvalue().splitlines()]
    assert percents == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]

    progress, clock, stream = plain(total_cost=1e9)
    for done in range(1, 101):
        clock.now += 1.0
        progress.update(done, phase="lockstep", images=1)
    assert len(stream.getvalue().splitlines()) == 10


def test_a_hundred_percent_is_shown_only_when_all_is_done():
    """Breaks if 99.7 % is rounded up."""
    progress, clock, stream = plain(total_cost=1000.0)
    for done in (997.0, 1000.0):
        clock.now += 11.0
        progress.update(done, phase="eval", images=1, note="loss 1.5")
    first, last = stream.getvalue().splitlines()
    assert first.startswith("  99 %") and last.startswith(" 100 %")
    assert last.endswith("ETA 0 s   loss 1.5")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (80, "1 min 20 s"),
        (7500, "2 h 05 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_durations_have_two_units(seconds, text):
    """Breaks if carries between units are lost."""
    assert duration(seconds) == text


def test_none_is_silent_and_auto_suits_the_stream():
    """Breaks if a log file gets a bar, or a silent run prints."""
    for mode, stream in (("none", Terminal()), ("auto", io.StringIO())):
        progress = make_progress(mode, 1.0, stream, FakeClock())
        progress.update(1.0, phase="lockstep", images=1)
        progress.say("hello")
        progress.close()
        text = stream.getvalue()
        assert text == "" if mode == "none" else text.endswith("hello\n")
        assert "\x1b" not in text
    stream = Terminal()
    progress = make_progress("auto", 1.0, stream, FakeClock())
    progress.close()
    assert "\x1b" in stream.getvalue()


def test_the_bar_shows_the_same_text_and_takes_no_markup():
    """Breaks if "[...]" in a name or note is swallowed by the terminal library."""
    clock, stream = FakeClock(), Terminal()
    progress = make_progress("bar", 10.0, stream, clock)
    for done in (1.0, 2.0, 3.0):
        clock.now += 2.0
        progress.update(done, phase="replay [red]a", images=20, note="n[1]")
    progress.say("resumed [bold]at tick 3")
    progress.close()
    text = stream.getvalue()
    assert "resumed [bold]at tick 3" in text
    assert "30 %" in text and "10 img/s   ETA 14 s" in text
    assert "replay [red]a" in text and "n[1]" in text


def test_an_unknown_mode_is_a_config_error():
    """Breaks if a typing error is found by a traceback."""
    with pytest.raises(ConfigError, match="did you mean 'plain'"):
        make_progress("plane", 1.0, io.StringIO())


def test_a_stream_that_is_gone_does_not_end_the_run():
    """Breaks if closing the terminal kills hours of training."""
    progress, clock, stream = plain()
    stream.close()
    clock.now += 20.0
    progress.update(50.0, phase="lockstep", images=1)
    progress.close()


def test_work_without_cost_is_done():
    """Breaks if an empty run divides by zero."""
    progress, clock, stream = plain(total_cost=0.0)
    clock.now += 20.0
    progress.update(0.0, phase="eval", images=0)
    assert stream.getvalue().startswith(" 100 %")
