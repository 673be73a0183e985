"""Waits until other programs leave the machine alone; Linux only, else no waiting."""

import time
from pathlib import Path

BUSY = 0.15
"""Share of all cores' time below which a machine counts as quiet."""

_LOOK_SECONDS = 0.3


def wait(at_most_seconds: float) -> None:
    """Return as soon as the machine is quiet, or after the given time."""
    deadline = time.monotonic() + at_most_seconds
    while time.monotonic() < deadline:
        before = _cpu_times()
        if before is None:
            return
        time.sleep(_LOOK_SECONDS)
        after = _cpu_times() or before
        if busy_share(before, after) < BUSY:
            return


def busy_share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Return the share of time between two looks in which cores were not idle.

    Args:
      before: (idle, all) time of all cores, in any unit.
      after: likewise, later.
    """
    idle, whole = (late - early for early, late in zip(before, after, strict=True))
    return 1 - idle / whole if whole else 0.0


def _cpu_times() -> tuple[int, int] | None:
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return None
    fields = [int(field) for field in first.split()[1:9]]
    # The fourth and fifth are idle and waiting for a disk.
    return fields[3] + fields[4], sum(fields)
