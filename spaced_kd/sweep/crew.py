"""Workers in processes of their own: started, started again when lost, stopped."""

import contextlib
import logging
import time
from pathlib import Path

from spaced_kd.errors import Interrupted, PeerError, StorageError
from spaced_kd.interrupt import StopRequest
from spaced_kd.sweep.engines.base import Start, Worker, log_of
from spaced_kd.sweep.watch import Watch
from spaced_kd.sweep.worker import STOP

POLL_SECONDS = 1.0
"""Between two looks at workers and tasks."""

MAX_IDLE_STARTS = 3
"""Starts of each worker, in a row, after which nothing has become different."""

_log = logging.getLogger("spaced_kd")


def work(start: Start, count: int, root: Path, watch: Watch, stop: StopRequest) -> None:
    """Return when workers have done, or failed in, all tasks.

    Args:
      start: of the engine.
      count: of workers, at most.
      root: of the sweep.
      watch: of its tasks.
      stop: asked all the time.

    Raises:
      Interrupted: a signal asked to stop; the workers have saved.
      StorageError: a worker's disk fails.
      PeerError: workers end again and again without doing anything.
    """
    names = [f"worker-{k}" for k in range(min(count, len(watch.left())))]
    crew: dict[str, Worker] = {}
    idle, signature = 0, watch.signature()
    try:
        while True:
            lost = _lost(crew, root)
            watch.look()
            if not watch.left():
                return
            if stop.requested:
                raise Interrupted(
                    f"by {stop.signal}; the workers save and stop: run the same "
                    "command to continue."
                )
            # A worker that ends well leaves what is left to the others.
            again = lost if crew else names
            new = watch.signature()
            idle, signature = (0 if new != signature else idle), new
            if idle + len(again) > MAX_IDLE_STARTS * len(names):
                raise PeerError(
                    f"workers ended {idle} times without doing anything; see "
                    f"{log_of(root, names[0])}, then run the same command again."
                )
            crew |= {name: start(name) for name in again}
            idle += len(again)
            time.sleep(POLL_SECONDS)
    finally:
        _stop(crew, root)


def _lost(crew: dict[str, Worker], root: Path) -> list[str]:
    """Take out of the crew who has ended; return who did not end well."""
    codes = {name: worker.code() for name, worker in crew.items()}
    for name, code in codes.items():
        if code is None:
            continue
        del crew[name]
        if code == StorageError.code:
            raise StorageError(
                f"worker {name} cannot write; see {log_of(root, name)}, free space or "
                "make it accessible, then run the same command again."
            )
        if code:
            _log.warning("worker %s was lost (exit code %d)", name, code)
    return [name for name, code in codes.items() if code]


def _stop(crew: dict[str, Worker], root: Path) -> None:
    """Ask all workers to save and stop, and wait; a signal here kills them."""
    with contextlib.suppress(OSError):
        (root / STOP).touch()
    try:
        for worker in crew.values():
            worker.withdraw()
        while any(worker.code() is None for worker in crew.values()):
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        for worker in crew.values():
            worker.kill()
        raise
    finally:
        with contextlib.suppress(OSError):
            (root / STOP).unlink(missing_ok=True)
