"""A run as it is compared, and in what two of them differ, from their files alone."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import results as results_lib
from spaced_kd.errors import CheckpointError
from spaced_kd.results import Results
from spaced_kd.tables import Table
from spaced_kd.writers import Row, read_json

ABSENT = "-"
"""Of a field that a run has not."""

_ENVIRONMENT = ("versions", "git", "devices", "platform", "xla_flags")
"""Parts of `env.json` that may move a number; its command and starts do not."""


class Run(NamedTuple):
    """Everything that is read from a workdir.

    name: of the folder, as it was given. described: `config.json`. env: {} without
    `env.json`.
    """

    name: str
    described: dict[str, Any]
    env: dict[str, Any]
    rows: list[Row]
    results: Results

    @property
    def config(self) -> dict[str, Any]:
        """All fields, nested."""
        return self.described["config"]

    @property
    def data_fingerprint(self) -> str:
        """Of the data as used."""
        return self.described["data_fingerprint"]


def read(workdir: Path) -> Run:
    """Read a run, finished or not; write nothing.

    Raises:
      CheckpointError: no run there, or a file is damaged.
      StorageError: a file cannot be read.
    """
    for name in ("config.json", "plan.json"):
        if not (workdir / name).is_file():
            raise CheckpointError(
                f"{workdir} holds no run (no {name}); give the --workdir of two runs."
            )
    described = read_json(workdir / "config.json")
    missing = {"config", "data_fingerprint", "fingerprint", "science"} - set(described)
    if missing:
        raise CheckpointError(
            f"{workdir / 'config.json'} lacks '{min(missing)}': it is of another "
            "version of spaced_kd; compare the runs with that."
        )
    plan = read_json(workdir / "plan.json")
    rows = results_lib.read_log(workdir / "metrics.jsonl")
    env = workdir / "env.json"
    return Run(
        str(workdir),
        described,
        read_json(env) if env.exists() else {},
        rows,
        results_lib.compute(described["config"], plan, rows),
    )


def science(a: Run, b: Run) -> Table:
    """Return the fields that differ among those that decide the numbers.

    A student or stage that one run has alone is one row.
    """
    return _table(*(_fold(_known(run.described["science"]), a, b) for run in (a, b)))


def operation(a: Run, b: Run) -> Table:
    """Return the fields that differ among paths, progress and checkpoints."""
    return _table(*(_fold(_operational(run), a, b) for run in (a, b)))


def environment(a: Run, b: Run) -> Table:
    """Return fingerprints, versions and devices that differ."""
    return _table(*map(_surroundings, (a, b)))


def _known(fields: Mapping[str, Any]) -> dict[str, str]:
    show = lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True)
    return {path: show(value) for path, value in fields.items()}


def _operational(run: Run) -> dict[str, str]:
    deciding = run.described["science"]
    return _known(
        {
            path: value
            for path, value in _flat(run.config)
            # What students inherit is already inside each student.
            if path not in deciding and "student" not in path.split(".")
        }
    )


def _surroundings(run: Run) -> dict[str, str]:
    parts = {name: run.env[name] for name in _ENVIRONMENT if name in run.env}
    prints = {n: run.described[n] for n in ("fingerprint", "data_fingerprint")}
    return _known(prints | dict(_flat(parts)))


def _fold(fields: Mapping[str, str], a: Run, b: Run) -> dict[str, str]:
    """Replace all fields of a student or stage that one run has alone by one."""
    folded = {}
    for path, value in fields.items():
        kind, name, *_ = (*path.split("."), "")
        named = kind in ("students", "stages") and name
        alone = named and not all(name in run.config.get(kind, {}) for run in (a, b))
        if alone:
            folded[f"{kind}.{name}"] = "(this run alone)"
        else:
            folded[path] = value
    return folded


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _table(a: Mapping[str, str], b: Mapping[str, str]) -> Table:
    rows = tuple(
        (path, a.get(path, ABSENT), b.get(path, ABSENT))
        for path in sorted({*a, *b})
        if a.get(path) != b.get(path)
    )
    return Table(("field", "A", "B"), rows)
