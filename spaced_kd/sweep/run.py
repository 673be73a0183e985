"""Do a set of runs: check all of them, then have workers do what is left."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import analyze, backend, stages, trained, workdir
from spaced_kd.config import DataConfig
from spaced_kd.errors import ConfigError, SpacedKDError
from spaced_kd.interrupt import StopRequest
from spaced_kd.sweep import crew, engines, marks, tasks, work
from spaced_kd.sweep.job import Job, refuse_names
from spaced_kd.sweep.state import State
from spaced_kd.sweep.tasks import Task
from spaced_kd.sweep.watch import Changed, Watch, ignore
from spaced_kd.types import Dataset

_log = logging.getLogger("spaced_kd")

_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"


class _Checked(NamedTuple):
    """A job, its own task, and what must be done before that."""

    job: Job
    task: Task
    before: list[Task]
    finished: bool


def check(jobs: Sequence[Job], root: str | Path) -> list[State]:
    """Validate all jobs with their data, and say how far they are; writes nothing.

    A job that failed is told as such; `run` tries it again.

    Args:
      jobs: with names of their own.
      root: of the sweep.

    Raises:
      SpacedKDError: the first job that cannot work, by name: a config or an analysis
        that cannot be, data missing, a folder that holds another run.
    """
    path = Path(root).expanduser().resolve()
    return [
        State(one.job, "finished") if one.finished else _unfinished(one.job, path)
        for one in _check(jobs, path)
    ]


def _unfinished(job: Job, root: Path) -> State:
    if marks.is_held(root, job.name):
        return State(job, "running")
    mark = marks.look(root, job.name)
    # Other marks may be of workers that died, or of a run that is not there any more.
    status = mark.status if mark.status == "failed" else "unfinished"
    return State(job, status, mark.error, mark.code)


def run(
    jobs: Sequence[Job],
    root: str | Path,
    *,
    engine: str = "local",
    workers: int = 1,
    options: Mapping[str, Any] | None = None,
    may_exit: bool = False,
    changed: Changed = ignore,
) -> list[State]:
    """Do the jobs in `<root>/cells/<name>`, or what is left of them.

    Every job is validated, with its data, before the first one trains. Stages that
    several jobs need are trained once, in `<root>/stages`, unless their config names
    another folder. A job that fails is told of and the others still run; the same call
    again tries it anew. One that kills its workers is given up after
    `marks.MAX_LOSSES` deaths without any progress between them.

    Args:
      jobs: with names of their own, in the order in which they are begun.
      root: where everything is written; made if missing. Workers on other machines
        must reach it, and `flock` must work between them.
      engine: key of `engines.ENGINES`. One worker of engine "local" works in this
        process; all others are processes of their own.
      workers: how many at most.
      options: of the engine.
      may_exit: as for `train.run`, in this process.
      changed: called with all states at the beginning and whenever one has changed.

    Returns:
      The states of all jobs, finished or failed.

    Raises:
      Interrupted: a signal asked to stop; the same call continues.
      StorageError: the disk fails.
      PeerError: workers end again and again without doing anything.
      SpacedKDError: as for `check`; the root is in use; or an engine that cannot work.
    """
    given = options or {}
    chosen = engines.find(engine)
    if workers < 1:
        raise ConfigError(f"--workers={workers} is too small; give at least 1.")
    chosen.check(given)
    backend.configure()
    path = Path(root).expanduser().resolve()
    in_process = engine == "local" and workers == 1
    with contextlib.nullcontext() if in_process else _small():
        checked = _check(jobs, path)
    # A signal in the last moments of a run would be forgotten with that run.
    with workdir.lock(path), StopRequest(may_exit=False) as stop:
        todo = _lay_out(checked, path)
        watch = Watch(jobs, todo, path, changed)
        watch.look()
        if in_process:
            while watch.left():
                work.pull(
                    todo, path, "here", stop, may_exit=may_exit, changed=watch.look
                )
                watch.look()
                if watch.left():  # a worker of an earlier sweep has it
                    time.sleep(work.POLL_SECONDS)
        elif watch.left():
            with chosen.open(path, workers, given) as start:
                crew.work(start, workers, path, watch, stop)
        return watch.look()


@contextlib.contextmanager
def _small() -> Iterator[None]:
    """Let JAX start here without taking the GPUs' memory, which is the workers'."""
    if _PREALLOCATE in os.environ:
        yield
        return
    os.environ[_PREALLOCATE] = "false"
    try:
        yield
    finally:
        del os.environ[_PREALLOCATE]


def _check(jobs: Sequence[Job], root: Path) -> list[_Checked]:
    refuse_names(jobs)
    found = []
    datasets: dict[DataConfig, Dataset] = {}
    for job in jobs:
        if job.config.data not in datasets:
            datasets.clear()  # jobs may differ in their data: one set at a time
        try:
            found.append(_check_one(job, root, datasets))
        except SpacedKDError as error:
            raise type(error)(f"cell {job.name}: {error}") from error
    return found


def _check_one(job: Job, root: Path, datasets: dict[DataConfig, Dataset]) -> _Checked:
    """Read what a job has done; refuse what could not be trained or analysed."""
    config, path = job.config, tasks.folder(root, job.name)
    analyze.settings_of(job.analyses, job.analyses)
    stages.load_data(config, datasets)
    workdir.refuse_other(path, config, datasets[config.data].fingerprint)
    *before, own = tasks.of_job(job, root, datasets)
    is_trained = trained.is_finished(path)
    if not is_trained:
        stages.refuse_misfit(config, datasets)
    finished = is_trained and (not job.analyses or marks.is_recorded(own, root))
    # A run that is trained needs its stages no more.
    return _Checked(job, own, [] if is_trained else before, finished)


def _lay_out(checked: Sequence[_Checked], root: Path) -> list[Task]:
    """Write what is to be done; forget what failed before."""
    (root / crew.STOP).unlink(missing_ok=True)
    finished = {one.task.name: one.finished for one in checked}
    before = {task.name: task for one in checked for task in one.before}
    finished |= {n: trained.is_finished(task.folder) for n, task in before.items()}
    todo: dict[str, Task] = {}
    for one in checked:
        todo |= {task.name: task for task in one.before} | {one.task.name: one.task}
    for name, task in todo.items():
        marks.renew(task, root, finished=finished[name])
    tasks.write_all(list(todo.values()), root)
    return list(todo.values())
