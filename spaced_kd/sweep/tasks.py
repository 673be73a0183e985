"""Tasks of workers: a job's run, or a stage that several jobs' runs begin with.

They lie in `<root>/jobs/<name>/task.json`, so that a worker on any machine that sees
the folder finds them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spaced_kd import config as config_lib
from spaced_kd import stages, workdir
from spaced_kd.config import Config
from spaced_kd.sweep.job import Job
from spaced_kd.writers import read_json, storage_error

_ORDER = "order.json"


@dataclass(frozen=True)
class Task:
    """A run and the analyses that follow it.

    name: of the job; of a stage: with a dot, which no job's has. folder: of the run.
    needs: names of the tasks that must be finished before.
    """

    name: str
    folder: Path
    config: Config
    analyses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.name if "." in self.name else f"cell {self.name}"


def folder(root: Path, name: str) -> Path:
    """Return the folder of a job's run."""
    return root / "cells" / name


def place(root: Path, name: str) -> Path:
    """Return the folder in which workers say how far a task is."""
    return root / "jobs" / name


def of_job(job: Job, root: Path, datasets: stages.Datasets) -> list[Task]:
    """Return what a job takes: its stages, each after those it needs, and its run.

    Jobs that need the same stage get the same task.

    Args:
      job: to be done.
      root: of the sweep.
      datasets: of the run and its stages.
    """
    config, path = job.config, folder(root, job.name)
    if config.stages and not config.stages_dir:
        config = dataclasses.replace(config, stages_dir=str(root / "stages"))
    before = _stages(config, path, datasets)
    # What a worker reads from the file is what one in this process is given.
    analyses = json.loads(json.dumps(job.analyses))
    return [*before, Task(job.name, path, config, analyses, _names(before))]


def _stages(config: Config, path: Path, datasets: stages.Datasets) -> list[Task]:
    found: list[Task] = []
    shared = str(stages.root(config, path)) if config.stages else ""
    for name, where in stages.folders(config, path, datasets).items():
        stage = dataclasses.replace(config.stages[name], stages_dir=shared)
        before = _stages(stage, where, datasets)
        # The folder's name has the hash of all that decides the stage's numbers.
        task = Task(f"stage.{where.name}", where, stage, needs=_names(before))
        found += [*before, task]
    return list({task.name: task for task in found}.values())


def _names(tasks: Sequence[Task]) -> tuple[str, ...]:
    return tuple(task.name for task in tasks)


def write_all(tasks: Sequence[Task], root: Path) -> None:
    """Write the tasks, in the order in which workers look at them.

    Raises:
      StorageError: they cannot be written.
    """
    for task in tasks:
        content = {
            "analyses": task.analyses,
            "config": config_lib.to_dict(task.config),
            "folder": str(task.folder),
            "needs": task.needs,
        }
        path = place(root, task.name) / "task.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error("write", path, error) from error
        workdir.write_json(path, content)
    workdir.write_json(root / "jobs" / _ORDER, {"tasks": _names(tasks)})


def read_all(root: Path) -> list[Task]:
    """Return the tasks of a sweep, as `write_all` was given them.

    Raises:
      CheckpointError: a file is damaged.
      StorageError: a file cannot be read.
      ConfigError: a config of another version.
    """
    names = read_json(root / "jobs" / _ORDER)["tasks"]
    return [_read(name, place(root, name) / "task.json") for name in names]


def _read(name: str, path: Path) -> Task:
    content = read_json(path)
    return Task(
        name,
        Path(content["folder"]),
        config_lib.from_dict(content["config"]),
        content["analyses"],
        tuple(content["needs"]),
    )
