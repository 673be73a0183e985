"""What a user sees while a run goes on: how far, how fast, how long still.

Work is measured in a cost that the caller defines and that already counts replays and
evaluations, so that the time left is right although the teacher finishes early. Nothing
here is kept or logged; warnings belong into `logging`.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO

from spaced_kd import registry

PLAIN_SECONDS = 10.0
"""Least time between two plain lines, but for those at each ten percent."""

RATE_SECONDS = 60.0
"""Time after which a measured rate has lost 63 % of its weight."""

Clock = Callable[[], float]


class Progress(Protocol):
    """Shows the progress of one run."""

    def update(
        self, done_cost: float, *, phase: str, images: int, note: str = ""
    ) -> None:
        """Report that all work up to `done_cost` is done.

        Args:
          done_cost: finished work since the beginning of the run (not of this start),
            in the unit of `total_cost`.
          phase: one of a few names, e.g. "replay spaced_1_5". The first report of each
            is left out of the rates, because it contains compilation.
          images: images trained on or evaluated since the last report.
          note: what changes all the time, e.g. a loss; shown at the end of the line.
        """
        ...

    def say(self, line: str) -> None:
        """Show a line that stays."""
        ...

    def close(self) -> None:
        """Leave the stream tidy; must be called last."""
        ...


def make_progress(
    mode: str,
    total_cost: float,
    stream: TextIO | None = None,
    clock: Clock = time.monotonic,
) -> Progress:
    """Return a progress display.

    Args:
      mode: bar, plain (lines), none (silent), or auto (bar on a terminal, else plain).
      total_cost: all work of the run, in the caller's unit.
      stream: where to; standard error by default.
      clock: seconds, rising.

    Raises:
      ConfigError: unknown mode.
    """
    output = stream or sys.stderr
    if mode == "auto":
        mode = "bar" if output.isatty() else "plain"
    make = registry.lookup(DISPLAYS, mode, "config.progress")
    return make(Meter(total_cost, clock), output)


class Meter:
    """Exponentially weighted rates of the recent past."""

    def __init__(self, total_cost: float, clock: Clock):
        """Start measuring at the first `update`."""
        self.total_cost = total_cost
        self.now = clock()
        self.fraction = 0.0
        self._clock = clock
        self._done_cost = 0.0
        self._seen: set[str] = set()
        self._cost = self._images = self._seconds = 0.0

    def update(self, done_cost: float, phase: str, images: int) -> None:
        """Take a report in (see `Progress.update`)."""
        before, self.now = self.now, self._clock()
        if phase in self._seen:
            elapsed = self.now - before
            decay = math.exp(-elapsed / RATE_SECONDS)
            self._seconds = decay * self._seconds + elapsed
            self._cost = decay * self._cost + done_cost - self._done_cost
            self._images = decay * self._images + images
        self._seen.add(phase)
        self._done_cost = done_cost
        done = done_cost / self.total_cost if self.total_cost else 1.0
        self.fraction = min(max(done, 0.0), 1.0)

    @property
    def images_per_second(self) -> float | None:
        """Recent throughput, None while unknown."""
        return self._images / self._seconds if self._seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Remaining cost / recent rate, None while unknown."""
        if self._cost <= 0:
            return None
        left = max(self.total_cost - self._done_cost, 0.0)
        return left * self._seconds / self._cost

    def text(self) -> str:
        """Return speed and time left, e.g. `12,345 img/s   ETA 1 min 20 s`."""
        speed, left = self.images_per_second, self.seconds_left
        shown = "?" if speed is None else f"{speed:,.0f}"
        return f"{shown} img/s   ETA {'?' if left is None else duration(left)}"


def duration(seconds: float) -> str:
    """Return a time in the two largest units, e.g. `2 h 05 min`."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24:02d} h"
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    if minutes:
        return f"{minutes} min {whole % 60:02d} s"
    return f"{whole} s"


class SilentProgress:
    """Shows nothing."""

    def __init__(self, meter: Meter, stream: TextIO):
        """Ignore both."""
        del meter, stream

    def update(
        self, done_cost: float, *, phase: str, images: int, note: str = ""
    ) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class PlainProgress:
    """Lines for log files: every ten seconds at most, and at each ten percent."""

    def __init__(self, meter: Meter, stream: TextIO):
        """Write nothing before the first `update`."""
        self._meter = meter
        self._stream = stream
        self._shown_at = meter.now
        self._shown_tenth = 0

    def update(
        self, done_cost: float, *, phase: str, images: int, note: str = ""
    ) -> None:
        """Report progress, if it is time for a line."""
        self._meter.update(done_cost, phase, images)
        tenth = math.floor(10 * self._meter.fraction)
        recent = self._meter.now - self._shown_at < PLAIN_SECONDS
        if recent and tenth <= self._shown_tenth:
            return
        self._shown_at = self._meter.now
        self._shown_tenth = tenth
        percent = math.floor(100 * self._meter.fraction)
        line = f"{percent:4d} %  {phase}   {self._meter.text()}"
        self.say(f"{line}   {note}" if note else line)

    def say(self, line: str) -> None:
        """Show a line that stays."""
        # A terminal that was closed (OSError) or a captured stream that is gone
        # (ValueError) must not end a run of hours.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Do nothing; every line is complete."""


class BarProgress:
    """A bar that redraws itself, in a terminal or a notebook; gone at the end."""

    def __init__(self, meter: Meter, stream: TextIO):
        """Show an empty bar."""
        from rich import console, progress

        self._meter = meter
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.percentage:>3.0f} %", markup=False),
            progress.TextColumn("{task.description}", markup=False),
            console=console.Console(file=stream),
            transient=True,
        )
        self._task = self._bar.add_task("compiling", total=1.0)
        self._bar.start()

    def update(
        self, done_cost: float, *, phase: str, images: int, note: str = ""
    ) -> None:
        """Move the bar."""
        self._meter.update(done_cost, phase, images)
        description = "   ".join(filter(None, (phase, self._meter.text(), note)))
        self._bar.update(
            self._task, completed=self._meter.fraction, description=description
        )

    def say(self, line: str) -> None:
        """Show a line that stays, above the bar."""
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()


DISPLAYS: dict[str, Callable[[Meter, TextIO], Progress]] = {
    "bar": BarProgress,
    "plain": PlainProgress,
    "none": SilentProgress,
}
