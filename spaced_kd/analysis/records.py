"""`analysis.json` of a workdir: what analyses have found, row by row."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import spaced_kd
from spaced_kd.analysis.base import Found, Row, Values
from spaced_kd.errors import CheckpointError
from spaced_kd.workdir import write_sealed
from spaced_kd.writers import read_json

FILE = "analysis.json"
_FORMAT = 1


@dataclasses.dataclass
class Record:
    """What one analysis has found, as it lies in the file.

    options: of the analysis. about: version, devices and files that were read. once:
    values of the whole run, None before they were measured. rows: `Row` with "weights"
    (SHA-256 of what was measured), "seconds" and, instead of "values", None where it
    does not apply.
    """

    options: dict[str, Any]
    about: dict[str, Any]
    once: Values | None
    rows: list[dict[str, Any]]


def read(workdir: Path, fingerprint: str) -> dict[str, Record]:
    """Return the records of a run by analysis; {} if nothing was analysed yet.

    Args:
      workdir: of the run.
      fingerprint: of its config.

    Raises:
      CheckpointError: damaged, changed, of another run or another version.
      StorageError: it cannot be read.
    """
    path = workdir / FILE
    if not path.exists():
        return {}
    content = read_json(path, "restore it, or move it away and analyse again")
    if content.get("format") != _FORMAT or content.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{path} is of another run or another version of spaced_kd; move it away."
        )
    try:
        return {name: Record(**record) for name, record in content["found"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{path} is damaged ({error}); move it away."
        raise CheckpointError(message) from error


def write(workdir: Path, fingerprint: str, records: Mapping[str, Record]) -> None:
    """Replace the file.

    Raises:
      StorageError: it cannot be written.
    """
    found = {name: dataclasses.asdict(record) for name, record in records.items()}
    content = {"format": _FORMAT, "fingerprint": fingerprint, "found": found}
    write_sealed(workdir / FILE, content)


def continued(
    record: Record | None, options: dict[str, Any], devices: str, inputs: Any
) -> Record:
    """Return a record to go on with.

    One with other options, of another version, of other files or from other devices is
    not continued: a table must not mix them.

    Args:
      record: an older one, which is left as it is.
      options: of the analysis.
      devices: what they are.
      inputs: `Analysis.inputs`.
    """
    about = {"version": spaced_kd.__version__, "devices": devices, "inputs": inputs}
    if record and record.options == options and record.about == about:
        return dataclasses.replace(record)
    return Record(options, about, None, [])


def is_current(record: Record, options: Iterable[str]) -> bool:
    """Return whether this version of an analysis wrote a record, and can read it.

    Args:
      record: of it.
      options: names of those that it has now.
    """
    same = record.about.get("version") == spaced_kd.__version__
    return same and set(record.options) == set(options)


def place(row: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return which network a row is about, and when: there is one row for each."""
    return row["network"], row["seed"], row["step"]


def key(row: Mapping[str, Any]) -> tuple:
    """Return `place` and the weights: what a measured row stands for."""
    return *place(row), *row["weights"]


def found(
    record: Record, config: Mapping[str, Any], updates: Mapping[str, int]
) -> Found:
    """Return what tables and figures are made of.

    Args:
      record: of an analysis.
      config: "config" of `config.json`.
      updates: of the run's networks when it is complete, in the order of tables.
    """
    order = {name: place for place, name in enumerate(updates)}
    rows = [
        Row(*(row[field] for field in Row._fields))
        for row in record.rows
        if row["values"] is not None
    ]
    rows.sort(key=lambda row: (order[row.network], row.seed, row.step))
    return Found(config, record.options, record.once or {}, rows, updates)


def finite(value: Any) -> Any:
    """Return JSON-able values with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
