"""What analyses have found, as sections of the page."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import style
from spaced_kd.analysis import ANALYSES, records
from spaced_kd.analysis.base import Drawn, Found
from spaced_kd.results import network_order
from spaced_kd.tables import Table


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

    Args:
      workdir: of the run.
      described: `config.json`.
      plan: `plan.json`.

    Raises:
      CheckpointError: `analysis.json` is damaged or of another run.
    """
    order = network_order(described["config"], plan)
    updates = {name: plan["networks"][name]["updates"] for name in order}
    stored = records.read(workdir, described["fingerprint"])
    return {
        name: records.found(stored[name], described["config"], updates)
        for name in ANALYSES
        if name in stored
    }


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
            ANALYSES[name].table(one),
        )
        for name, one in found.items()
    ]
