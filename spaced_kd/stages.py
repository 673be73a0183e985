"""Runs that train a teacher for another run: where they lie, and what they gave.

A stage is an ordinary run in a folder named by the hash of all that decides its
numbers, so that it is trained once and found again by whoever needs the same.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from spaced_kd import config as config_lib
from spaced_kd import data, experiment, results, trained
from spaced_kd.config import Config, DataConfig
from spaced_kd.errors import CheckpointError, ConfigError
from spaced_kd.experiment import Experiment
from spaced_kd.types import Dataset, Variables
from spaced_kd.writers import read_json

FILE = "stages.json"
"""In a workdir: which trained networks the run began with."""

ROLES = "teacher", "tutor"
"""What a network of a stage can be in a run."""

Datasets = Mapping[DataConfig, Dataset]
"""Of a run and of its stages, by `Config.data`."""

Given = dict[str, list[Variables]]
"""Role -> variables by repetition."""


class Source(NamedTuple):
    """Where a trained network is from. name, config: of the stage; network: of it."""

    name: str
    config: Config
    network: str


def sources(config: Config) -> dict[str, Source]:
    """Return role -> source of every network that a run takes over."""
    found = {}
    for role in ROLES:
        name, _, network = getattr(config, role).stage.partition("/")
        if name:
            found[role] = Source(name, config.stages[name], network)
    return found


def load_data(config: Config, datasets: dict[DataConfig, Dataset]) -> None:
    """Add to `datasets` what a run and its stages use, where it is missing.

    Raises:
      SpacedKDError: as for `data.load`.
    """
    if config.data not in datasets:
        datasets[config.data] = data.load(config.data)
    for stage in config.stages.values():
        load_data(stage, datasets)


def key(config: Config, datasets: Datasets) -> str:
    """Return the hash of a run's config, data and parents, hex.

    Args:
      config: of the run.
      datasets: of the run and its stages.
    """
    parents = sorted(key(stage, datasets) for stage in config.stages.values())
    own = config_lib.fingerprint(config), datasets[config.data].fingerprint
    text = json.dumps([*own, parents])
    return hashlib.sha256(text.encode()).hexdigest()


def folders(config: Config, workdir: Path, datasets: Datasets) -> dict[str, Path]:
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


def refuse_misfit(config: Config, datasets: Datasets) -> None:
    """Check, before anything is trained, that trained networks fit into a run.

    Args:
      config: of the run.
      datasets: as for `key`.

    Raises:
      ConfigError: one does not fit, or the run or a stage cannot work.
    """
    own = experiment.build(config, datasets[config.data])
    for role, (name, stage, network) in sources(config).items():
        parts = experiment.build(stage, datasets[stage.data])
        field = f"config.{role}.stage='{name}/{network}'"
        if _shapes(parts, network) != _shapes(own, role):
            raise ConfigError(
                f"{field} learns from {_seen(parts)}, but this run has {_seen(own)}; "
                f"its weights do not fit: give config.stages.{name} the run's "
                "config.data."
            )
        if (parts.spec.mean, parts.spec.std) != (own.spec.mean, own.spec.std):
            raise ConfigError(
                f"{field} learns from pixels that are normalised otherwise than in "
                f"this run (config.stages.{name}.data.normalization="
                f"'{stage.data.normalization}', config.data.normalization="
                f"'{config.data.normalization}'); give both the same."
            )


def _shapes(parts: Experiment, network: str) -> Any:
    variables = experiment.state_template(parts)[0][network].variables
    return jax.tree.map(lambda leaf: leaf.shape, trained.alone(variables))


def _seen(parts: Experiment) -> str:
    size = "x".join(map(str, parts.image_shape))
    return f"{size} images of {parts.dataset.num_classes} classes"


def take(
    config: Config, workdir: Path, datasets: Datasets
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
    for role, source in sources(config).items():
        folder = where[source.name]
        given[role] = _variables(source, folder)
        origins[role] = {
            "model": getattr(config, role).model,
            "folder": os.path.relpath(folder, workdir),
            "key": key(source.config, datasets),
            "data_fingerprint": datasets[source.config.data].fingerprint,
            "weights": [trained.digest(variables) for variables in given[role]],
        } | _about(source, folder)
    _refuse_changed(workdir / FILE, origins)
    return given, origins


def _variables(source: Source, folder: Path) -> list[Variables]:
    wanted = results.load(folder).networks[source.network].updates
    arrays = trained.read(folder, config_lib.fingerprint(source.config))
    found = []
    for repetition in range(source.config.num_seeds):
        variables, updates = trained.network(arrays, repetition, source.network)
        if updates != wanted:
            raise CheckpointError(
                f"{folder} (stage '{source.name}') is not finished: {source.network} "
                f"has {updates} of {wanted} updates; run the same command again, which "
                "goes on with it."
            )
        found.append(variables)
    return found


def _about(source: Source, folder: Path) -> dict[str, Any]:
    """Return what a stage says of itself, its own stages included."""
    found = results.load(folder).networks[source.network]
    own = folder / FILE
    return {
        "stage": source.name,
        "network": source.network,
        "config_fingerprint": config_lib.fingerprint(source.config),
        "updates": found.updates,
        "forward_passes": found.forward_passes,
        "backward_passes": found.backward_passes,
        "acc1_last": list(found.acc1_last.per_seed),
        "parents": read_json(own) if own.exists() else {},
    }


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
