"""All that is known of some tables at a moment, and the files that show it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spaced_kd import style
from spaced_kd.provenance import Provenance
from spaced_kd.reproduce import (
    budgets,
    compared,
    equal,
    figures,
    numbers,
    page,
    tables,
)
from spaced_kd.reproduce.compared import Difference
from spaced_kd.reproduce.items import Item, Place
from spaced_kd.reproduce.numbers import Number, Runs
from spaced_kd.reproduce.planner import Plan
from spaced_kd.sweep import state as states_lib
from spaced_kd.sweep.state import State
from spaced_kd.tables import Table
from spaced_kd.writers import leftovers, storage_error, write_whole

FILE = "reproduce.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the numbers of a workdir have in common; a workdir has one of each.

    budget, num_seeds, variant: of the runs. metric: a key of `numbers.METRICS`. equal:
    keys of `matched.WHAT`, by which tables are made again.
    """

    budget: str
    num_seeds: int
    variant: str
    metric: str
    equal: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """What must be known before any number is read; "" at full size."""
        return budgets.find(self.budget).warning


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Tables, the state of their runs, and their numbers."""

    settings: Settings
    items: tuple[Item, ...]
    plan: Plan
    states: tuple[State, ...]
    runs: Runs
    root: Path
    numbers: Mapping[Place, Number]

    @classmethod
    def of(
        cls,
        settings: Settings,
        items: Sequence[Item],
        plan: Plan,
        states: Sequence[State],
        runs: Runs,
        root: Path,
    ) -> "Outcome":
        """Read the numbers of what is finished."""
        found = numbers.read(plan, states, runs, settings.metric)
        return cls(settings, tuple(items), plan, tuple(states), runs, root, found)

    @property
    def code(self) -> int:
        """The exit code of the first run that failed, else 0."""
        return next((state.code for state in self.states if state.code), 0)

    def differences(self) -> dict[str, list[Difference]]:
        """Return the paired differences by name of the item."""
        return {i.name: compared.differences(i, self.numbers) for i in self.items}

    def moved(self, item: Item, since: "Outcome") -> bool:
        """Return whether a number of an item is another than at `since`."""
        return any(self.numbers[p] != since.numbers[p] for p in item.places)


def write(outcome: Outcome, folder: Path) -> None:
    """Write all tables, those at equal budget, figures and the page.

    The same runs give the same bytes.

    Raises:
      StorageError: a file cannot be written.
    """
    differences = outcome.differences()
    shown = {
        i.name: _tables(i, outcome, differences[i.name], whole=True)
        for i in outcome.items
    }
    _write_tables(outcome, shown, differences, folder)
    drawn = _draw(outcome, folder / "figures")
    sections = [
        page.Section(i.name, _heading(i), shown[i.name], drawn[i.name])
        for i in outcome.items
    ]
    text = page.build(
        _shown_settings(outcome.settings),
        sections,
        [_row(state, outcome) for state in outcome.states],
        outcome.settings.warning,
    )
    write_whole(folder / "index.html", text)


def write_tables(outcome: Outcome, folder: Path, since: Outcome | None) -> None:
    """Write the tables alone: the rest takes longer than a small run.

    Args:
      outcome: what is known.
      folder: of the tables' folder.
      since: what was known when all was last written; tables of the same numbers stay.

    Raises:
      StorageError: a file cannot be written.
    """
    differences = outcome.differences()
    new = [i for i in outcome.items if since is None or outcome.moved(i, since)]
    shown = {i.name: _tables(i, outcome, differences[i.name], whole=False) for i in new}
    _write_tables(outcome, shown, differences, folder)


def _write_tables(
    outcome: Outcome,
    shown: Mapping[str, Sequence[Table]],
    differences: Mapping[str, Sequence[Difference]],
    folder: Path,
) -> None:
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for unfinished in (*leftovers(folder), *leftovers(folder / "tables")):
            unfinished.unlink()
    except OSError as error:
        raise storage_error("write", folder, error) from error
    for item in (item for item in outcome.items if item.name in shown):
        stem, made = folder / "tables" / item.name, shown[item.name]
        text = "\n".join(table.markdown() for table in made)
        write_whole(stem.with_suffix(".md"), f"# {_heading(item)}\n\n{text}")
        latex = "\n".join(table.latex() for table in made)
        write_whole(stem.with_suffix(".tex"), f"% {_heading(item)}\n{latex}")
        write_whole(stem.with_suffix(".csv"), tables.long_csv(item, outcome.numbers))
    write_whole(folder / FILE, _json(outcome, differences))


def _heading(item: Item) -> str:
    if item.kind == "study":
        return item.title
    return f"{item.kind.capitalize()} {item.name.removeprefix(item.kind)}: {item.title}"


def _tables(
    item: Item, outcome: Outcome, found: Sequence[Difference], *, whole: bool
) -> list[Table]:
    differences = tables.differences(found, item)
    settings = outcome.settings
    # Only at the budget smoke is our own study not what its file says.
    study = item.kind == "study" and settings.budget != "smoke"
    warning = "" if study else settings.warning
    budgets_shown = settings.equal if whole else ()
    return [
        tables.main(item, outcome.numbers, warning),
        *([differences] if differences else []),
        *equal.tables_of(item, outcome.numbers, budgets_shown, outcome.root),
    ]


def _draw(outcome: Outcome, folder: Path) -> dict[str, list[tuple[str, bytes]]]:
    with style.drawing():
        return {
            item.name: [
                (caption, style.save(figure, folder / stem))
                for stem, caption, figure in figures.draw(item, outcome.numbers)
            ]
            for item in outcome.items
        }


def _shown_settings(settings: Settings) -> dict[str, Any]:
    shown = dataclasses.asdict(settings)
    return {
        "budget": shown["budget"],
        "seeds": shown["num_seeds"],
        "whom to follow": shown["variant"] or "as each table says",
        "accuracy": {
            "last": "the last evaluation",
            "mean5": "mean of the last five evaluations",
            "best": "best evaluation on the test set, optimistic",
        }[shown["metric"]],
    }


def _row(state: State, outcome: Outcome) -> page.Run:
    name, facts = state.job.name, {"error": state.error or "-"}
    if state.status == "finished":
        facts = _facts(outcome.runs[name].provenance)
    report = states_lib.folder(outcome.root, name) / "report.html"
    href = f"cells/{name}/report.html" if report.exists() else ""
    return page.Run(name, href, state.status, facts)


def _facts(found: Provenance) -> dict[str, str]:
    return {
        "config": found.config[:12],
        "data": found.data[:12],
        "code": ", then ".join(map(_code, found.code)),
        "devices": ", then ".join(
            f"{d['used']} x {d['kind']} ({d['backend']})" for d in found.devices
        ),
        "restarts": str(found.restarts),
        "log": found.log_sha256[:12] + ("" if found.sealed else " (not sealed)"),
    }


def _code(code: Mapping[str, Any]) -> str:
    return " ".join(str(value)[:12] for value in code.values() if value)


def _json(outcome: Outcome, differences: Mapping[str, Sequence[Difference]]) -> str:
    content = {
        "settings": dataclasses.asdict(outcome.settings),
        "items": {
            item.name: _item(item, outcome, differences[item.name])
            for item in outcome.items
        },
        "runs": {state.job.name: _run(state, outcome) for state in outcome.states},
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _item(item: Item, outcome: Outcome, found: Sequence[Difference]) -> dict[str, Any]:
    return {
        "cells": [
            {
                "row": row.label,
                "column": column,
                "status": number.status,
                "by_seed": {str(seed): v for seed, v in number.by_seed.items()},
                "runs": [spot.job for spot in number.spots],
                "network": number.spots[0].network,
            }
            for row in item.rows
            for column, place in row.places.items()
            for number in [outcome.numbers[place]]
        ],
        "differences": [
            {
                "row": d.row.label,
                "column": d.column,
                "reference": d.reference,
                "comparison": d.comparison and dataclasses.asdict(d.comparison),
                "p_holm": d.p_holm,
                "updates": d.updates,
                "passes": d.passes,
            }
            for d in found
        ],
    }


def _run(state: State, outcome: Outcome) -> dict[str, Any]:
    about: dict[str, Any] = {"status": state.status}
    if state.error:
        about |= {"error": state.error, "code": state.code}
    if state.status == "finished":
        about["provenance"] = outcome.runs[state.job.name].provenance.to_dict()
    return about
