"""How far the jobs of a sweep are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spaced_kd.sweep import marks, tasks
from spaced_kd.sweep.job import Job

folder = tasks.folder


@dataclass(frozen=True)
class State:
    """A job and how far it is.

    status: finished | running | failed | unfinished. error, code: of a failed one, and
    the exit code for that.
    """

    job: Job
    status: str
    error: str = ""
    code: int = 0


def look(jobs: Sequence[Job], root: Path) -> list[State]:
    """Return the states that the files of a sweep tell.

    Raises:
      CheckpointError: a file is damaged.
      StorageError: a file cannot be read.
    """
    found = [(job, marks.look(root, job.name)) for job in jobs]
    return [State(job, mark.status, mark.error, mark.code) for job, mark in found]
