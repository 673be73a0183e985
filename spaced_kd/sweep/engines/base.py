"""What an engine is, and how each of them starts the process of a worker."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Options = Mapping[str, Any]

SAVE_SECONDS = 60.0
"""That a worker may take to save; Slurm sends its signal 90 seconds ahead."""


class Worker(Protocol):
    """A worker that was started, or waits for its turn in a queue."""

    def code(self) -> int | None:
        """Return its exit code, of any kind where it was lost; None: not ended."""
        ...

    def withdraw(self) -> None:
        """Take it out of the queue, if it still waits there."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


Start = Callable[[str], Worker]
"""Starts a worker of this name."""


@dataclass(frozen=True)
class Engine:
    """A way to start workers.

    check: (options); raises ConfigError for what cannot work, and writes nothing.
    open: (root of the sweep, workers, options) -> a block in which workers run.
    """

    check: Callable[[Options], None]
    open: Callable[[Path, int, Options], AbstractContextManager[Start]]


def log_of(root: Path, name: str) -> Path:
    """Return the file that gets a worker's output."""
    return root / "jobs" / "logs" / f"{name}.log"


def launch(
    root: Path, name: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a worker in a process of its own, which stops when this one is gone.

    Args:
      root: of the sweep.
      name: of the worker.
      environment: variables to set.
    """
    command = [sys.executable, "-m", "spaced_kd.sweep.worker"]
    log_of(root, name).parent.mkdir(parents=True, exist_ok=True)
    with log_of(root, name).open("ab") as log:
        return subprocess.Popen(
            [*command, f"--root={root}", f"--name={name}"],
            # Nothing is ever written into it: it ends with the process that holds it.
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=os.environ | dict(environment or {}),
            # Ctrl-C in a terminal reaches every process of a session.
            start_new_session=True,
        )


def attend(process: subprocess.Popen[bytes]) -> int:
    """Return a worker's exit code when it ends; if anything comes between, it saves."""
    try:
        return process.wait()
    except BaseException:
        leave(process)
        # A cluster may kill it as soon as this process, which it knows, has ended.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SAVE_SECONDS)
        raise


def leave(process: subprocess.Popen[bytes]) -> None:
    """Ask a worker to save and stop."""
    if process.stdin is not None:
        process.stdin.close()
