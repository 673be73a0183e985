"""What a worker does: task after task, until nothing is left that it could take."""

import contextlib
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from spaced_kd import analyze, train
from spaced_kd.errors import Interrupted, SpacedKDError, StorageError, one_line
from spaced_kd.interrupt import StopRequest
from spaced_kd.sweep import marks
from spaced_kd.sweep.tasks import Task

_OUT_OF_MEMORY = 9
"""Exit code for what a device could not do, mostly for want of memory."""

POLL_SECONDS = 0.3
"""Between two looks at tasks that wait for others."""


def pull(
    tasks: Sequence[Task],
    root: Path,
    worker: str,
    stop: StopRequest,
    *,
    may_exit: bool,
    changed: Callable[[], object] = lambda: None,
) -> None:
    """Do every task that is to be done and that nobody else has.

    Returns where others have all that is left; waits where that is what a task needs.

    Args:
      tasks: in order of preference.
      root: of the sweep.
      worker: name of this one.
      stop: asked before every task.
      may_exit: as for `train.run`.
      changed: called when a task begins and when it ends.

    Raises:
      Interrupted: a signal asked to stop.
      StorageError: the disk fails; other tasks would meet the same.
    """
    while True:
        took = waits = False
        for task in tasks:
            if marks.look(root, task.name).status in ("finished", "failed"):
                continue
            if stop.requested:
                raise Interrupted(
                    f"by {stop.signal} before {task.label}; run the same command to "
                    "continue with it."
                )
            if not _is_ready(task, root):
                waits = True
                continue
            with marks.hold(task, root, worker) as held:
                if held:
                    took = True
                    changed()
                    _do(task, root, may_exit)
            if took:
                changed()
                break
        if not took:
            if not waits:
                return
            time.sleep(POLL_SECONDS)


def _is_ready(task: Task, root: Path) -> bool:
    found = [(name, marks.look(root, name)) for name in task.needs]
    for name, mark in found:
        if mark.status == "failed":
            marks.fail(task, root, f"{name}: {mark.error}", mark.code)
            return False
    return all(mark.status == "finished" for _, mark in found)


def _do(task: Task, root: Path, may_exit: bool) -> None:
    try:
        train.run(task.config, task.folder, may_exit=may_exit)
        if task.analyses:
            _analyse(task)
        marks.finish(task, root)
    except (Interrupted, StorageError):
        raise
    except SpacedKDError as error:
        marks.fail(task, root, str(error), error.code)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        marks.fail(task, root, f"{one_line(error)[:300]}.", _OUT_OF_MEMORY)
    finally:
        # The next task's programs and arrays may need all of the memory.
        gc.collect()
        jax.clear_caches()


def _analyse(task: Task) -> None:
    with _interruptible():
        try:
            analyze.analyze(
                task.folder,
                list(task.analyses),
                networks=task.networks,
                options=task.analyses,
                num_devices=task.config.num_devices,
            )
        except KeyboardInterrupt as error:
            name = str(error) or "Ctrl-C"
            raise Interrupted(
                f"by {name} in the analyses of {task.label}; run the same command to "
                "continue with them."
            ) from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a signal end the block at once: what was measured is on the disk."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    numbers = signal.SIGTERM, signal.SIGINT
    old = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
