"""The runs of a config file at a budget: resolved configs by grid cell and seed."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import ml_collections

from spaced_kd import schedule
from spaced_kd.config import Config
from spaced_kd.errors import ConfigError, one_line
from spaced_kd.grid import cells
from spaced_kd.reproduce import budgets
from spaced_kd.reproduce.budgets import Budget

ConfigDict = Any
"""An `ml_collections.ConfigDict`, whose fields no type checker knows."""

Runs = dict[str, Config]
"""Name of a grid's cell -> its run; "" -> the run of a config file that is no grid."""


def folder(given: str = "") -> Path:
    """Return where the config files lie.

    Args:
      given: by the user; empty: beside the package, as in a checkout, else below the
        current folder.

    Raises:
      ConfigError: there are none.
    """
    beside = Path(__file__).parents[2] / "configs"
    tried = [Path(given).expanduser()] if given else [beside, Path("configs")]
    for candidate in tried:
        if (candidate / "paper").is_dir():
            return candidate
    raise ConfigError(
        f"no config files of the paper's tables in {tried[0]} (no folder 'paper' "
        "there); give the 'configs' folder of a checkout by --configs."
    )


def load(configs: Path, name: str, variant: str = "") -> ConfigDict:
    """Return what a config file's `get_config` returns.

    Args:
      configs: the folder of all config files.
      name: of the file, below `configs` and without ".py".
      variant: of the file; empty: its default.

    Raises:
      ConfigError: no such file, or it fails.
    """
    path = configs / f"{name}.py"
    spec = importlib.util.spec_from_file_location("config_file", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(*([variant] if variant else []))
    except (OSError, ImportError, AttributeError, ValueError, ConfigError) as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error


def runs(configs: Path, name: str, variant: str, budget: Budget) -> list[Runs]:
    """Return the runs of a config file, which together have all seeds of the budget.

    Args:
      configs, name, variant: as for `load`.
      budget: what becomes of the file's networks, data and length.

    Returns:
      One entry for all seeds; or one a seed, where a student decides by its own
      measurements when it learns, which several seeds cannot share.

    Raises:
      ConfigError: as for `load`, or a config that cannot work.
    """
    given = load(configs, name, variant)
    if "cells" not in given:
        given = cells.make(given, {"single": {}}, axis="")
        grid = _at_budget(given, budget)
        named = {"": cells.read(grid)[0].config}
    else:
        grid = _at_budget(given, budget)
        named = {cell.name: cell.config for cell in cells.read(grid)}
    return _by_seed(named)


def _at_budget(grid: ConfigDict, budget: Budget) -> ConfigDict:
    grid = grid.copy_and_resolve_references()
    budgets.apply(grid.base, budget)
    for path, value in budget.overrides:
        cells.set_field(grid.base, path, value)
    for name, overrides in grid.cells.items():
        changed = {
            path: budgets.override(path, value, budget)
            for path, value in overrides.to_dict().items()
        }
        grid.cells[name] = ml_collections.ConfigDict(changed, allow_dotted_keys=True)
    return grid


def _by_seed(named: Runs) -> list[Runs]:
    first = next(iter(named.values()))
    if not any(map(schedule.is_fed_back, first.students.values())):
        return [named]
    return [
        {
            cell: dataclasses.replace(config, seed=config.seed + k, num_seeds=1)
            for cell, config in named.items()
        }
        for k in range(first.num_seeds)
    ]
