"""What analyses have found, as sections of the page."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import style
from spaced_kd.analysis import ANALYSES, records
from spaced_kd.analysis.base import Drawn, Found
from spaced_kd.errors import CheckpointError
from spaced_kd.results import network_order
from spaced_kd.tables import Table

_log = logging.getLogger("spaced_kd")


class Section(NamedTuple):
    """One analysis in the page. name: also of its pictures."""

    name: str
    title: str
    about: str
    options: str
    table: Table | None


def read(
    workdir: Path, described: Mapping[str, Any], plan: Mapping[str, Any]
) -> dict[str, Found]:
    """Return what was found in a run, by analysis, in the order of `ANALYSES`.

    A file that is damaged, or what another version wrote, is left out with a warning:
    training must not fail for it.

    Args:
      workdir: of the run.
      described: `config.json`.
      plan: `plan.json`.
    """
    order = network_order(described["config"], plan)
    updates = {name: plan["networks"][name]["updates"] for name in order}
    try:
        stored = records.read(workdir, described["fingerprint"])
    except CheckpointError as error:
        _log.warning("the report leaves analyses out: %s", error)
        return {}
    found = {}
    for name, analysis in ANALYSES.items():
        if name not in stored:
            continue
        names = [field.name for field in dataclasses.fields(analysis.options)]
        if records.is_current(stored[name], names):
            found[name] = records.found(stored[name], described["config"], updates)
        else:
            _log.warning(
                "the report leaves the analysis '%s' out, which another version wrote; "
                "run it again",
                name,
            )
    return found


def figures(
    found: Mapping[str, Found], networks: Iterable[str]
) -> dict[str, list[Drawn]]:
    """Draw the figures of every analysis: name -> figures.

    Args:
      found: by analysis.
      networks: of the run, in the order of tables.
    """
    looks = style.line_looks(name for name in networks if name != "teacher")
    return {
        name: list(ANALYSES[name].figures(one, looks)) for name, one in found.items()
    }


def sections(found: Mapping[str, Found]) -> list[Section]:
    """Return the texts and tables."""
    return [
        Section(
            name,
            ANALYSES[name].title,
            ANALYSES[name].about,
            ", ".join(f"{key}={value}" for key, value in one.options.items()),
            table(name, one),
        )
        for name, one in found.items()
    ]


def table(name: str, found: Found) -> Table | None:
    """Return an analysis's table, with a note of what was measured too early."""
    drawn = ANALYSES[name].table(found) if found.rows or found.once else None
    if drawn is None or not found.preliminary:
        return drawn
    return drawn._replace(notes=(found.preliminary, *drawn.notes))
