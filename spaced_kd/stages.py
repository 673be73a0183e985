"""Runs that train a teacher for another run: where they lie, and what they gave.

A stage is an ordinary run in a folder named by the hash of all that decides its
numbers, so that it is trained once and found again by whoever needs the same.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spaced_kd import config as config_lib
from spaced_kd import results, trained
from spaced_kd.config import Config, DataConfig
from spaced_kd.errors import CheckpointError
from spaced_kd.types import Dataset, Variables
from spaced_kd.writers import read_json

FILE = "stages.json"
"""In a workdir: which trained networks the run began with."""

Given = dict[str, list[Variables]]
"""Role ("teacher" or "tutor") -> variables by repetition."""


def key(config: Config, datasets: Mapping[DataConfig, Dataset]) -> str:
    """Return the hash of a run's config, data and parents, hex.

    Args:
      config: of the run.
      datasets: of this run and of its stages, by `Config.data`.
    """
    parents = sorted(key(stage, datasets) for stage in config.stages.values())
    data = datasets[config.data].fingerprint
    text = json.dumps([config_lib.fingerprint(config), data, parents])
    return hashlib.sha256(text.encode()).hexdigest()


def folders(
    config: Config, workdir: Path, datasets: Mapping[DataConfig, Dataset]
) -> dict[str, Path]:
    """Return where each stage of a run is trained and kept.

    Args:
      config: of the run.
      workdir: of the run.
      datasets: as for `key`.
    """
    above = root(config, workdir)
    return {
        name: above / f"{name}-{key(stage, datasets)[:16]}"
        for name, stage in config.stages.items()
    }


def root(config: Config, workdir: Path) -> Path:
    """Return the folder of a run's stages, and of their own stages."""
    if config.stages_dir:
        return Path(config.stages_dir).expanduser().resolve()
    return workdir / "stages"


def take(
    config: Config, workdir: Path, datasets: Mapping[DataConfig, Dataset]
) -> tuple[Given, dict[str, Any]]:
    """Return the trained networks that a run begins with, and where they are from.

    Args:
      config: of the run; its stages are finished.
      workdir: of the run.
      datasets: as for `key`.

    Returns:
      The networks, and what belongs into `stages.json`.

    Raises:
      CheckpointError: a stage is damaged or unfinished, or its weights are not those
        that this run began with.
    """
    given: Given = {}
    origins: dict[str, Any] = {}
    where = folders(config, workdir, datasets)
    for role in ("teacher", "tutor"):
        name, _, network = getattr(config, role).stage.partition("/")
        if not name:
            continue
        stage, folder = config.stages[name], where[name]
        found = results.load(folder).networks[network]
        if not found.complete:
            raise CheckpointError(
                f"{folder} (stage '{name}') is not finished; run the same command "
                "again, which goes on with it."
            )
        run = config_lib.fingerprint(stage)
        given[role] = [
            trained.last(folder, repetition, network, run)[0]
            for repetition in range(config.num_seeds)
        ]
        origins[role] = {
            "stage": name,
            "network": network,
            "folder": os.path.relpath(folder, workdir),
            "key": key(stage, datasets),
            "config_fingerprint": run,
            "data_fingerprint": datasets[stage.data].fingerprint,
            "updates": found.updates,
            "acc1_last": list(found.acc1_last.per_seed),
            "weights": [trained.digest(variables) for variables in given[role]],
        }
    _refuse_changed(workdir / FILE, origins)
    return given, origins


def _refuse_changed(path: Path, origins: Mapping[str, Any]) -> None:
    if not path.exists():
        return
    for role, before in read_json(path).items():
        if before["weights"] != origins[role]["weights"]:
            raise CheckpointError(
                f"{path.parent} began with another {role} than {before['folder']} "
                "holds now: its weights have changed; restore that folder, or choose "
                "another --workdir."
            )
