"""What workers leave in a task's place: it is held, finished, or has failed.

`held.json` stays behind when a worker dies. Whoever takes the task next counts that,
so that a task that kills its workers is given up.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import spaced_kd
from spaced_kd import workdir
from spaced_kd.errors import LockedError, PeerError, SpacedKDError, StorageError
from spaced_kd.sweep.tasks import Task, place
from spaced_kd.writers import read_json, storage_error

MAX_LOSSES = 3
"""A task that lost so many workers in a row, without coming further, has failed."""

_FINISHED, _FAILED, _HELD = "finished.json", "failed.json", "held.json"


class Mark(NamedTuple):
    """How far a task is.

    status: finished, failed, running or unfinished. worker: that has it, or had it
    when it died. error, code: of a failed one. losses: workers that died of it.
    """

    status: str
    worker: str = ""
    error: str = ""
    code: int = 0
    losses: int = 0


def look(root: Path, name: str) -> Mark:
    """Return what the files say.

    "running" may be a task whose worker has just died: only its lock would tell.

    Raises:
      CheckpointError: a file is damaged.
      StorageError: a file cannot be read.
    """
    where = place(root, name)
    if (where / _FINISHED).exists():
        return Mark("finished")
    failed = _content(where / _FAILED)
    if failed is not None:
        return Mark("failed", error=failed["error"], code=failed["code"])
    held = _content(where / _HELD)
    if held is not None:
        return Mark("running", held["worker"], losses=held["losses"])
    return Mark("unfinished")


def is_held(root: Path, name: str) -> bool:
    """Return whether a worker that lives has a task."""
    try:
        workdir.refuse_locked(place(root, name))
    except LockedError:
        return True
    return False


def is_recorded(task: Task, root: Path) -> bool:
    """Return whether these analyses of this very run are recorded as done."""
    content = _content(place(root, task.name) / _FINISHED)
    return content == _finished(task)


def finish(task: Task, root: Path) -> None:
    """Record that a task is done."""
    workdir.write_json(place(root, task.name) / _FINISHED, _finished(task))


def _finished(task: Task) -> dict[str, Any]:
    return {
        "analyses": task.analyses,
        "networks": list(task.networks),
        "start": workdir.last_start(task.folder) if task.analyses else "",
        "version": spaced_kd.__version__ if task.analyses else "",
    }


def fail(task: Task, root: Path, error: str, code: int) -> None:
    """Record why a task failed; `code`: the exit code for that."""
    content = {"error": error, "code": code}
    workdir.write_json(place(root, task.name) / _FAILED, content)


def renew(task: Task, root: Path, *, finished: bool) -> None:
    """Begin with a task anew: what failed is tried again, losses are forgotten.

    A task that a worker of an earlier sweep still has stays as it is.

    Raises:
      StorageError: the files cannot be written.
    """
    where = place(root, task.name)
    if finished and is_recorded(task, root):
        return
    with contextlib.suppress(LockedError), workdir.lock(where):
        for name in (_FAILED, _HELD):
            _remove(where / name)
        if finished:
            finish(task, root)
        else:
            _remove(where / _FINISHED)


@contextlib.contextmanager
def hold(task: Task, root: Path, worker: str) -> Iterator[bool]:
    """Have a task until the block ends; tell whether it is to be done.

    It is not if another worker has it, if it is finished or failed by now, or if it
    has been given up, which is recorded here.

    Raises:
      StorageError: the files cannot be written.
    """
    where = place(root, task.name)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(workdir.lock(where))
        except LockedError:
            yield False
            return
        mark = look(root, task.name)
        if mark.status in ("finished", "failed") or not _take(task, root, worker):
            yield False
            return
        try:
            yield True
        except (SpacedKDError, KeyboardInterrupt):
            _remove(where / _HELD)
            raise
        _remove(where / _HELD)


def _take(task: Task, root: Path, worker: str) -> bool:
    path = place(root, task.name) / _HELD
    before, reached = _content(path), progress(task)
    losses = 0
    if before is not None:
        losses = 1 + (before["losses"] if before["reached"] == reached else 0)
    if losses >= MAX_LOSSES:
        assert before is not None
        fail(
            task,
            root,
            f"its worker died {losses} times without coming further; the log of worker "
            f"{before['worker']} may say of what (memory?); run the same command to "
            "try again.",
            PeerError.code,
        )
        _remove(path)
        return False
    about = {"host": socket.gethostname(), "pid": os.getpid(), "worker": worker}
    workdir.write_json(path, about | {"losses": losses, "reached": reached})
    return True


def progress(task: Task) -> str:
    """Return what changes whenever something is saved of a run or its analyses."""
    newest = max((p.name for p in task.folder.glob("checkpoints/0*")), default="")
    measured = task.folder / "analysis.json"
    try:
        return f"{newest} {measured.stat().st_mtime_ns}"
    except OSError:
        return newest


def _content(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except StorageError:
        if path.exists():
            raise
        return None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("delete", path, error) from error
