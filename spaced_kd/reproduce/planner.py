"""From places in tables to the runs that have their numbers, as few as possible.

Students that share everything but themselves (teacher, data, seeds) share a run: a
teacher is trained once for all tables that look at its students. Students of one config
file stay in one run, because their differences are taken within it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from spaced_kd import config as config_lib
from spaced_kd.config import Config, StudentConfig
from spaced_kd.errors import SpacedKDError
from spaced_kd.reproduce import source
from spaced_kd.reproduce.budgets import Budget
from spaced_kd.reproduce.items import TEACHER, Item, Place
from spaced_kd.sweep.job import Job
from spaced_kd.writers import read_json

MOST_STUDENTS = 12
"""In one run: a program of many more compiles for long, whereas a second teacher costs
a few percent (architecture 2: K students cost 3 + 4 K forward passes)."""


@dataclasses.dataclass(frozen=True)
class Spot:
    """A network in a run. seeds: those of the run's that count here, in order."""

    job: str
    network: str
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All jobs, and where each place is found: in one run, or in one a seed."""

    jobs: tuple[Job, ...]
    spots: Mapping[Place, tuple[Spot, ...]]


@dataclasses.dataclass
class _Run:
    """A run in the making. name: "" until nothing is added any more."""

    stem: str
    base: Config
    students: dict[str, StudentConfig]
    name: str = ""
    analyses: dict[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    analysed: set[str] = dataclasses.field(default_factory=set)

    @property
    def config(self) -> Config:
        return dataclasses.replace(self.base, students=self.students)


@dataclasses.dataclass(frozen=True)
class _Claim:
    """What one run of a config file must have. students: those that places want."""

    stem: str
    config: Config
    students: Mapping[str, StudentConfig]
    places: tuple[Place, ...]

    @property
    def base(self) -> Config:
        return dataclasses.replace(self.config, students={})


def plan(
    items: Iterable[Item], configs: Path, budget: Budget, root: Path, variant: str = ""
) -> Plan:
    """Return the runs that all numbers of some tables need.

    The same items give the same runs again, once these lie on the disk.

    Args:
      items: the tables and figures.
      configs: folder of the config files.
      budget: what becomes of each file.
      root: where runs of an earlier plan may lie: what they have is not done again.
      variant: whom the paper's config files follow; empty: as the tables say.

    Raises:
      ConfigError: a config file that cannot be read or cannot work.
    """
    known: dict[str, list[_Run]] = {}
    for run in _on_disk(root):
        known.setdefault(_key(run.base), []).append(run)
    places = list(dict.fromkeys(place for item in items for place in item.places))
    claims = list(_claims(places, configs, budget, variant))
    for claim in claims:
        _make_room(known.setdefault(_key(claim.base), []), claim)
    for siblings in known.values():
        for run in siblings:
            run.name = run.name or _name(run)
    used: dict[str, _Run] = {}
    spots: dict[Place, list[Spot]] = {place: [] for place in places}
    for claim in claims:
        run = _least(known[_key(claim.base)], claim.students)
        used[run.name] = run
        # Paths and the like are those of now, whatever a run on the disk had.
        run.base = claim.base
        for place, network in _networks(run, claim).items():
            spots[place].append(Spot(run.name, network, _seeds(run.base)))
            if place.analysis:
                cheaper = budget.analyses.get(place.analysis, {})
                run.analyses[place.analysis] = {**dict(place.options), **cheaper}
                run.analysed.add(network)
    jobs = tuple(_job(run) for run in used.values())
    return Plan(jobs, {place: tuple(found) for place, found in spots.items()})


def _claims(
    places: Iterable[Place], configs: Path, budget: Budget, variant: str
) -> Iterator[_Claim]:
    files: dict[tuple[str, str], list[Place]] = {}
    for place in places:
        follows = place.variant or ("" if _is_own(place.config) else variant)
        files.setdefault((place.config, follows), []).append(place)
    for (name, chosen), wanted in files.items():
        for runs in source.runs(configs, name, chosen, budget):
            for cell, config in runs.items():
                here = tuple(place for place in wanted if place.cell == cell)
                if here:
                    stem = "_".join(filter(None, (name.rpartition("/")[2], cell)))
                    yield _Claim(stem, config, _wanted(config, here), here)


def _make_room(siblings: list[_Run], claim: _Claim) -> None:
    """See to it that one of some runs has a claim's students."""
    students = claim.students
    if any(_has(run, students) for run in siblings):
        return
    run = next((run for run in siblings if _has_room(run, students)), None)
    if run is None:
        run = _Run(claim.stem, claim.base, {})
        siblings.append(run)
    for name, student in students.items():
        if student not in run.students.values():
            run.students[name] = student


def _has(run: _Run, students: Mapping[str, StudentConfig]) -> bool:
    return set(students.values()) <= set(run.students.values())


def _has_room(run: _Run, students: Mapping[str, StudentConfig]) -> bool:
    if run.name:
        return False
    new = {n: s for n, s in students.items() if s not in run.students.values()}
    fits = len(run.students) + len(new) <= MOST_STUDENTS
    return fits and not any(name in run.students for name in new)


def _least(runs: Iterable[_Run], students: Mapping[str, StudentConfig]) -> _Run:
    """Return the run with the least besides some students.

    Chosen when all runs are complete, so that the next plan, which finds those that
    were used on the disk, chooses the same.
    """
    complete = (run for run in runs if _has(run, students))
    return min(complete, key=lambda run: (len(run.students), run.name))


def _networks(run: _Run, claim: _Claim) -> dict[Place, str]:
    """Return what the network of each place is called in a run."""
    names = {student: name for name, student in run.students.items()}
    return {
        place: TEACHER
        if place.network == TEACHER
        else names[claim.config.students[place.network]]
        for place in claim.places
    }


def _is_own(config: str) -> bool:
    """Return whether a config file is not the paper's, and has no paper to follow."""
    return config.startswith("digits")


def _wanted(config: Config, places: Iterable[Place]) -> dict[str, StudentConfig]:
    """Return the students in places; a teacher alone has all of its file's."""
    names = {place.network for place in places}
    if names == {TEACHER}:
        return dict(config.students)
    return {name: s for name, s in config.students.items() if name in names}


def _on_disk(root: Path) -> Iterator[_Run]:
    for path in sorted((root / "cells").glob("*/config.json")):
        try:
            stored = read_json(path)["config"]
            config = config_lib.from_config_dict(ml_collections.ConfigDict(stored))
        except (SpacedKDError, KeyError, TypeError):
            continue  # of another version: nothing of ours, and left alone
        base = dataclasses.replace(config, students={})
        name = path.parent.name
        yield _Run(name.rpartition("-")[0], base, dict(config.students), name)


def _key(base: Config) -> str:
    """Return what students of one run have in common, as a hash."""
    return config_lib.fingerprint(base)


def _name(run: _Run) -> str:
    text = json.dumps([run.stem, config_lib.fingerprint(run.config)])
    return f"{run.stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _seeds(base: Config) -> tuple[int, ...]:
    return tuple(base.seed + k for k in range(base.num_seeds))


def _job(run: _Run) -> Job:
    config = dataclasses.replace(run.config, progress="none")
    return Job(run.name, config, run.analyses, tuple(sorted(run.analysed)))
