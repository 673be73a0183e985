"""What a grid is: a whole run's config, and by cell the fields that differ there.

Plain Python, for config files: `learning_rates`, `batch_sizes`, or `make` for others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_collections

from spaced_kd import config as config_lib
from spaced_kd import registry
from spaced_kd.errors import ConfigError

ConfigDict = Any
"""An `ml_collections.ConfigDict`, whose fields no type checker knows."""

Overrides = Mapping[str, Any]
"""Dotted path of a field, without "config." -> its value."""

LEARNING_RATE: tuple[str, ...] = (
    "teacher.optim.learning_rate",
    "student.optim.learning_rate",
)
BATCH_SIZE: tuple[str, ...] = ("data.batch_size",)
_FIELDS = {"axis", "base", "cells", "note"}


@dataclass(frozen=True)
class Cell:
    """One run of a grid. name: of its folder; config: with the overrides applied."""

    name: str
    overrides: Overrides
    config: config_lib.Config

    @property
    def value(self) -> float | None:
        """The one number that all overrides give; None where they give no such."""
        values = set(self.overrides.values())
        value = values.pop() if len(values) == 1 else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if is_number else None

    @property
    def label(self) -> str:
        """The value, or the name where there is none."""
        return self.name if self.value is None else f"{self.value:g}"


def make(
    base: ConfigDict, cells: Mapping[str, Overrides], *, axis: str, note: str = ""
) -> ConfigDict:
    """Return the config of a grid.

    Args:
      base: of a whole run, as a config file returns it; `--config.base.FIELD=VALUE`
        overrides it in every cell.
      cells: name, which must be an identifier -> what it changes in `base`.
      axis: what is varied, for the table and the figure.
      note: told below the table: what to expect, and whose claim that is.
    """
    grid: ConfigDict = ml_collections.ConfigDict()
    grid.base, grid.axis, grid.note = base, axis, note
    grid.cells = {}
    for name, overrides in cells.items():
        grid.cells[name] = ml_collections.ConfigDict(overrides, allow_dotted_keys=True)
    return grid


def learning_rates(
    base: ConfigDict, rates: Sequence[float], note: str = ""
) -> ConfigDict:
    """Return a grid over the peak learning rate, the teacher's and every student's."""
    cells = {_name("lr", rate): dict.fromkeys(LEARNING_RATE, rate) for rate in rates}
    return make(base, cells, axis="learning rate", note=note)


def batch_sizes(base: ConfigDict, sizes: Sequence[int], note: str = "") -> ConfigDict:
    """Return a grid over the batch size, in examples.

    The learning rate stays. An interval of space stays the same in epochs, so that its
    steps change with the batches of an epoch (config.space_interval_steps).
    """
    cells = {_name("batch", size): dict.fromkeys(BATCH_SIZE, size) for size in sizes}
    return make(base, cells, axis="batch size", note=note)


def _name(what: str, value: float) -> str:
    return f"{what}_{value}".translate(str.maketrans(".-+", "___"))


def read(grid: ConfigDict) -> list[Cell]:
    """Return the cells with their validated configs, by rising value, then by name.

    Raises:
      ConfigError: not a grid, or the config of a cell cannot work; names the cell.
    """
    if set(grid) != _FIELDS:
        raise ConfigError(
            f"a grid's config has the fields {', '.join(sorted(_FIELDS))}, not "
            f"{', '.join(sorted(grid)[:8]) or 'none'}; make it with spaced_kd.grid."
            "cells, or give the config of a single run to spaced_kd.main."
        )
    if not grid.cells:
        raise ConfigError("config.cells is empty; give at least one.")
    found = [_cell(name, grid) for name in grid.cells]
    unknown = float("inf")
    return sorted(
        found, key=lambda c: (unknown if c.value is None else c.value, c.name)
    )


def _cell(name: str, grid: ConfigDict) -> Cell:
    if not name.isidentifier():
        raise ConfigError(
            f"config.cells.{name}: a cell's name must be letters, digits and '_', "
            "because a folder carries it."
        )
    overrides = grid.cells[name].to_dict()
    config: ConfigDict = grid.base.copy_and_resolve_references()
    try:
        for path, value in overrides.items():
            set_field(config, path, value)
        return Cell(name, overrides, config_lib.from_config_dict(config))
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"cell {name}: {error}") from error


def set_field(config: ConfigDict, path: str, value: Any) -> None:
    """Override a field by its dotted path.

    Raises:
      ConfigError: there is no such field.
    """
    *above, field = path.split(".")
    for name in above:
        config = registry.lookup(_fields(config), name, f"'{path}': field")
    registry.lookup(_fields(config), field, f"'{path}': field")
    config[field] = value


def _fields(node: Any) -> ConfigDict:
    return node if isinstance(node, ml_collections.ConfigDict) else {}
