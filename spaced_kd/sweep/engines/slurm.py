"""Workers as jobs of a Slurm cluster, through submitit.

Options are those of `submitit.AutoExecutor.update_parameters` (timeout_min,
gpus_per_node, cpus_per_task, partition, ...); `cluster` is "slurm", or "local" for the
same with processes of this machine. A job that is preempted, or whose time is up, saves
and is queued again.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spaced_kd.errors import ConfigError, PeerError, one_line
from spaced_kd.sweep.engines.base import (
    SAVE_SECONDS,
    Engine,
    Options,
    Start,
    attend,
    launch,
    leave,
)

_CLUSTERS = "slurm", "local"
_SLURM = ("partition", "account", "qos", "constraint", "time", "mem", "exclude")
_DEFAULTS = {"timeout_min": 24 * 60, "name": "spaced_kd"}
_MAX_TIMEOUTS = 1000
"""A worker whose time is up begins again; what it had goes on from its checkpoint."""


class Attend:
    """What a job runs: a worker, which it asks to save when its time is up."""

    def __init__(self, root: Path, name: str):
        """Start nothing yet; pickled on its way to the job."""
        self._root, self._name = root, name
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Return the worker's exit code."""
        self._process = launch(self._root, self._name)
        return attend(self._process)

    def checkpoint(self) -> Any:
        """Let the worker save; return what is to be queued again, as submitit asks."""
        import submitit

        if self._process is not None:
            leave(self._process)
            # Not `wait`: this runs in a signal handler, inside a call of it.
            deadline = time.monotonic() + SAVE_SECONDS
            while _lives(self._process.pid) and time.monotonic() < deadline:
                time.sleep(0.1)
        return submitit.helpers.DelayedSubmission(Attend(self._root, self._name))


def _lives(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


class _Worker:
    def __init__(self, job: Any):
        self._job = job

    def code(self) -> int | None:
        if not self._job.done():
            return None
        try:
            return self._job.result()
        # Lost with its node, cancelled, or killed: submitit has an error for each.
        except Exception:  # noqa: BLE001
            return -signal.SIGKILL

    def withdraw(self) -> None:
        if self._job.state in ("PENDING", "REQUEUED", "UNKNOWN"):
            self._job.cancel()

    def kill(self) -> None:
        self._job.cancel()


def _executor(folder: Path, options: Options) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            "engine 'slurm' needs submitit; pip install 'spaced_kd[slurm]'."
        ) from error
    cluster = options.get("cluster", _CLUSTERS[0])
    if cluster not in _CLUSTERS:
        raise ConfigError(
            f"engine 'slurm': cluster={cluster!r} is unknown; give one of "
            f"{', '.join(_CLUSTERS)}."
        )
    given = _DEFAULTS | {name: options[name] for name in options if name != "cluster"}
    named = {f"slurm_{n}" if n in _SLURM else n: value for n, value in given.items()}
    try:
        found = submitit.AutoExecutor(
            folder,
            cluster=cluster,
            slurm_max_num_timeout=_MAX_TIMEOUTS,
            local_max_num_timeout=_MAX_TIMEOUTS,
        )
        found.update_parameters(**named)
    # Each of submitit's checks has its own kind.
    except Exception as error:
        raise ConfigError(f"engine 'slurm': {one_line(error)}") from error
    return found


def _check(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _executor(Path(folder), options)


@contextlib.contextmanager
def _open(root: Path, workers: int, options: Options) -> Iterator[Start]:
    del workers
    executor = _executor(root / "jobs" / "slurm", options)

    def start(name: str) -> _Worker:
        try:
            return _Worker(executor.submit(Attend(root, name)))
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise PeerError(
                f"Slurm takes no worker: {one_line(error)}; the same command continues."
            ) from error

    yield start


ENGINE = Engine(_check, _open)
