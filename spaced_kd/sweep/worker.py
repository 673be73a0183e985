"""`python -m spaced_kd.sweep.worker`: a worker in a process of its own.

Started by an engine, not by hand. It stops, and saves, when it gets SIGTERM, SIGINT or
Slurm's SIGUSR2, when `<root>/stop` appears, or when its standard input ends: whoever
started it is gone then.
"""

import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from spaced_kd import backend, flags
from spaced_kd.errors import SpacedKDError
from spaced_kd.interrupt import StopRequest
from spaced_kd.sweep import tasks, work

STOP = "stop"
"""Name of the file that asks all workers of a sweep to stop."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags and work; return the exit code.

    Args:
      argv: program name and arguments.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("spaced_kd").setLevel(logging.INFO)
    try:
        values = flags.parse(argv, _define)
        root = Path(values.root)
        backend.configure()
        asked = threading.Event()
        # Slurm sends it to every process of a job whose time is up.
        signal.signal(signal.SIGUSR2, lambda *_: asked.set())
        with StopRequest(may_exit=False) as stop:
            threading.Thread(target=_watch, args=(root, asked), daemon=True).start()
            work.pull(tasks.read_all(root), root, values.name, stop, may_exit=True)
    except SpacedKDError as error:
        return flags.report(error)
    return 0


def _define(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("root", None, "of the sweep", values)
    absl_flags.DEFINE_string("name", "worker", "in messages", values)


def _watch(root: Path, asked: threading.Event) -> None:
    """Send one SIGTERM, since a second one would end the process without saving."""
    while not (asked.is_set() or (root / STOP).exists() or is_alone(0)):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def is_alone(descriptor: int) -> bool:
    """Return whether a pipe has ended, as it does with the process that holds it.

    Takes half a second where it has not.
    """
    readable, _, _ = select.select([descriptor], [], [], 0.5)
    return bool(readable) and not os.read(descriptor, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
