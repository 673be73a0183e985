"""The runs of a grid, one after another; what is finished is only read."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from spaced_kd import backend, results, stages, style, train, trained, workdir
from spaced_kd.config import DataConfig
from spaced_kd.errors import Interrupted, SpacedKDError, StorageError
from spaced_kd.grid import cells, figure
from spaced_kd.grid.cells import Cell, ConfigDict
from spaced_kd.grid.outcome import Entry, Outcome
from spaced_kd.interrupt import StopRequest
from spaced_kd.types import Dataset
from spaced_kd.writers import write_whole

_log = logging.getLogger("spaced_kd")


def run(
    grid: ConfigDict, workdir_path: str | Path, *, may_exit: bool = False
) -> Outcome:
    """Do the runs of a grid in `<workdir>/cells/<name>`, or what is left of them.

    Every cell is validated, with its data, before the first one trains. A cell that
    fails then is told of and the others still run; the same call again tries it anew.
    After every run `grid.json`, `grid.md` and `figures/grid.*` are written anew.

    Args:
      grid: from `spaced_kd.grid.cells`.
      workdir_path: where everything is written; made if missing.
      may_exit: as for `train.run`.

    Returns:
      What came of the cells.

    Raises:
      ConfigError: not a grid, or a cell that cannot work.
      Interrupted: a signal asked to stop; the same call continues.
      SpacedKDError: one of its kinds: data missing, a cell's folder holds another run,
        the workdir is in use, or the disk fails.
    """
    backend.configure()
    path = Path(workdir_path).expanduser().resolve()
    entries = _check(cells.read(grid), path)
    outcome = Outcome(grid.axis, grid.note, tuple(entries))
    # A signal in the last moments of a run would be forgotten with that run.
    with workdir.lock(path), StopRequest(may_exit=False) as stop:
        _write(outcome, path)
        for place, entry in enumerate(entries, start=1):
            cell = entry.cell
            if entry.results is not None:
                _log.info("cell %s: finished already", cell.name)
                continue
            if stop.requested:
                raise Interrupted(
                    f"by {stop.signal} before cell {cell.name}; run the same command "
                    "to continue with it."
                )
            _log.info("cell %s: %d of %d", cell.name, place, len(entries))
            outcome = outcome.replace(_train(cell, path, may_exit))
            _write(outcome, path)
    return outcome


def _folder(cell: Cell, path: Path) -> Path:
    return path / "cells" / cell.name


def _check(todo: Sequence[Cell], path: Path) -> list[Entry]:
    """Read the finished cells; refuse what could not be trained, writing nothing."""
    entries = []
    datasets: dict[DataConfig, Dataset] = {}
    for cell in todo:
        config, folder = cell.config, _folder(cell, path)
        if config.data not in datasets:
            datasets.clear()  # cells may differ in their data: one set at a time
        try:
            stages.load_data(config, datasets)
            workdir.refuse_other(folder, config, datasets[config.data].fingerprint)
            finished = trained.is_finished(folder)
            if not finished:
                stages.refuse_misfit(config, datasets)
        except SpacedKDError as error:
            raise type(error)(f"cell {cell.name}: {error}") from error
        entries.append(Entry(cell, results.load(folder) if finished else None))
    return entries


def _train(cell: Cell, path: Path, may_exit: bool) -> Entry:
    config = cell.config
    if config.stages and not config.stages_dir:
        # Cells that need the same stage train it once.
        config = dataclasses.replace(config, stages_dir=str(path / "stages"))
    try:
        return Entry(cell, train.run(config, _folder(cell, path), may_exit=may_exit))
    except (Interrupted, StorageError):
        raise
    except SpacedKDError as error:
        # Not kept whole: its traceback would hold the run's arrays.
        _log.error("error: cell %s: %s", cell.name, error)
        return Entry(cell, error=str(error), code=error.code)


def _write(outcome: Outcome, path: Path) -> None:
    write_whole(path / "grid.json", outcome.json())
    with style.drawing():
        drawn = figure.draw(outcome)
        if drawn is not None:
            style.save(drawn, path / "figures" / "grid")
    picture = "" if drawn is None else "\n![Accuracy](figures/grid.png)\n"
    write_whole(path / "grid.md", outcome.table().markdown() + picture)
