"""What whoever started a sweep sees: a line for each change, and the states."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from spaced_kd.sweep import marks, state
from spaced_kd.sweep.job import Job
from spaced_kd.sweep.marks import Mark
from spaced_kd.sweep.state import State
from spaced_kd.sweep.tasks import Task

Changed = Callable[[Sequence[State]], None]

_OVER = "finished", "failed"
_log = logging.getLogger("spaced_kd")


def ignore(states: Sequence[State]) -> None:
    """Do nothing with the states."""


class Watch:
    """Looks at the tasks' files, and tells what is new there."""

    def __init__(
        self, jobs: Sequence[Job], tasks: Sequence[Task], root: Path, changed: Changed
    ):
        """Look at nothing yet; arguments as for `run.run`."""
        self._jobs, self._tasks, self._root = jobs, tasks, root
        self._changed = changed
        self._marks: dict[str, Mark] = {}

    def look(self) -> list[State]:
        """Return the states of all jobs; log and tell what has changed."""
        before = self._marks
        # What is over stays so; the files of a large sweep are many.
        self._marks = {
            name: before[name]
            if name in before and before[name].status in _OVER
            else marks.look(self._root, name)
            for name in (task.name for task in self._tasks)
        }
        for task in self._tasks:
            if self._marks[task.name] != before.get(task.name):
                self._tell(task, self._marks[task.name], is_first=not before)
        found = [self._state(job) for job in self._jobs]
        if self._marks != before:
            self._changed(found)
        return found

    def _state(self, job: Job) -> State:
        mark = self._marks[job.name]
        return state.State(job, mark.status, mark.error, mark.code)

    def left(self) -> list[Task]:
        """Return the tasks that were neither finished nor failed at the last look."""
        return [t for t in self._tasks if self._marks[t.name].status not in _OVER]

    def signature(self) -> object:
        """Return what changes whenever some worker comes further, or dies of a task."""
        running = (t for t in self.left() if self._marks[t.name].status == "running")
        return self._marks, [marks.progress(task) for task in running]

    def _tell(self, task: Task, mark: Mark, *, is_first: bool) -> None:
        count = sum(one.status == "finished" for one in self._marks.values())
        done = f"{count} of {len(self._tasks)} finished"
        if mark.status == "finished":
            already = " already" if is_first else ""
            _log.info("%s: finished%s; %s", task.label, already, done)
        elif mark.status == "running":
            again = f", after {mark.losses} lost" if mark.losses else ""
            _log.info("%s: worker %s%s; %s", task.label, mark.worker, again, done)
        elif mark.status == "failed":
            _log.error("%s: failed: %s", task.label, mark.error)
