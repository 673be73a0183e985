"""The runs of a grid: a sweep of its cells; what is finished is only read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spaced_kd import results, style
from spaced_kd.grid import cells, figure
from spaced_kd.grid.cells import Cell, ConfigDict
from spaced_kd.grid.outcome import Entry, Outcome
from spaced_kd.results import Results
from spaced_kd.sweep import run as sweep
from spaced_kd.sweep.job import Job
from spaced_kd.sweep.state import State, folder
from spaced_kd.writers import write_whole


def run(
    grid: ConfigDict,
    workdir_path: str | Path,
    *,
    engine: str = "local",
    workers: int = 1,
    options: Mapping[str, Any] | None = None,
    may_exit: bool = False,
) -> Outcome:
    """Do the runs of a grid in `<workdir>/cells/<name>`, or what is left of them.

    Every cell is validated, with its data, before the first one trains. A cell that
    fails then is told of and the others still run; the same call again tries it anew.
    After every run `grid.json`, `grid.md` and `figures/grid.*` are written anew.

    Args:
      grid: from `spaced_kd.grid.cells`.
      workdir_path: where everything is written; made if missing.
      engine: as for `spaced_kd.sweep.run.run`; so are workers, options and may_exit.

    Returns:
      What came of the cells.

    Raises:
      ConfigError: not a grid, or a cell or an engine that cannot work.
      Interrupted: a signal asked to stop; the same call continues.
      SpacedKDError: one of its kinds: data missing, a cell's folder holds another run,
        the workdir is in use, the disk fails, or workers that do nothing.
    """
    path = Path(workdir_path).expanduser().resolve()
    by_name = {cell.name: cell for cell in cells.read(grid)}
    jobs = [Job(cell.name, cell.config) for cell in by_name.values()]
    known: dict[str, Results] = {}
    written: list[Outcome] = []

    def changed(states: Sequence[State]) -> None:
        entries = (_entry(by_name[s.job.name], s, path, known) for s in states)
        outcome = Outcome(grid.axis, grid.note, tuple(entries))
        # That a cell begins changes nothing here.
        if written[-1:] != [outcome]:
            _write(outcome, path)
            written.append(outcome)

    sweep.run(
        jobs,
        path,
        engine=engine,
        workers=workers,
        options=options,
        may_exit=may_exit,
        changed=changed,
    )
    return written[-1]


def _entry(cell: Cell, state: State, path: Path, known: dict[str, Results]) -> Entry:
    """Return what came of a cell; what is known already is not read again."""
    if state.status == "finished" and cell.name not in known:
        known[cell.name] = results.load(folder(path, cell.name))
    return Entry(cell, known.get(cell.name), state.error, state.code)


def _write(outcome: Outcome, path: Path) -> None:
    write_whole(path / "grid.json", outcome.json())
    with style.drawing():
        drawn = figure.draw(outcome)
        if drawn is not None:
            style.save(drawn, path / "figures" / "grid")
    picture = "" if drawn is None else "\n![Accuracy](figures/grid.png)\n"
    write_whole(path / "grid.md", outcome.table().markdown() + picture)
