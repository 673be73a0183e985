"""Weights of a run's networks, read back from its newest checkpoint."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from spaced_kd.checkpoint import Checkpoint, CheckpointLine
from spaced_kd.errors import CheckpointError
from spaced_kd.types import Variables
from spaced_kd.writers import read_json


def read(workdir: Path, config_fingerprint: str) -> dict[str, np.ndarray]:
    """Return the newest state of a run by tree path.

    Args:
      workdir: of the run.
      config_fingerprint: of the run (`config.fingerprint`).

    Raises:
      CheckpointError: nothing saved yet, damaged, or of another run.
    """
    folder = workdir / "checkpoints"
    line = CheckpointLine(folder, keep=1)
    saved = newest(line, folder)
    if saved.info.get("config") != config_fingerprint:
        raise CheckpointError(
            f"{saved.path} was saved by a run of another config; put this run's own "
            "checkpoints there."
        )
    return line.read(saved)


def network(
    arrays: Mapping[str, Any], repetition: int, name: str
) -> tuple[Variables, int]:
    """Return a network's variables, without a peer's, and its updates so far.

    Args:
      arrays: what `read` returns.
      repetition: which, from 0.
      name: "teacher", or a student's name.
    """
    path = f"{repetition}/{name}"
    params = below(arrays, f"{path}/params/net/")
    stats = below(arrays, f"{path}/batch_stats/")
    variables = alone({"params": params, "batch_stats": stats})
    return variables, int(arrays[f"{path}/step"])


def averaged(arrays: Mapping[str, Any], prefix: str, variables: Variables) -> Variables:
    """Return a network's variables with the moving average of its weights.

    Args:
      arrays: that hold the average, by tree path.
      prefix: of its paths, up to "average/".
      variables: of the network.
    """
    return {**variables, "params": below(arrays, f"{prefix}average/")}


def is_finished(workdir: Path) -> bool:
    """Return whether a run has come to its end and its last state is intact.

    Raises:
      CheckpointError: there are checkpoints, but every one is damaged.
      StorageError: the folder cannot be read.
    """
    summary, log = workdir / "results.json", workdir / "metrics.jsonl"
    if not (summary.exists() and log.exists() and read_json(summary)["complete"]):
        return False
    saved = CheckpointLine(workdir / "checkpoints", keep=1).latest()
    # Behind a checkpoint that is not the last one there are more rows in the log.
    return saved is not None and saved.info["offsets"]["metrics"] == log.stat().st_size


def alone(variables: Variables) -> Variables:
    """Return a network's variables without those of a peer it was trained with."""
    return {
        kind: {name: value for name, value in tree.items() if name != "peer"}
        for kind, tree in variables.items()
    }


def newest(line: CheckpointLine, folder: Path) -> Checkpoint:
    """Return the newest checkpoint that verifies.

    Raises:
      CheckpointError: there is none.
    """
    saved = line.latest()
    if saved is None:
        raise CheckpointError(f"nothing is saved in {folder} yet; let the run go on.")
    return saved


def below(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the tree of those arrays whose names start with `prefix`."""
    found = {
        tuple(name.removeprefix(prefix).split("/")): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
    return traverse_util.unflatten_dict(found)


def digest(variables: Variables) -> str:
    """Return the SHA-256 of all weights and their names, hex."""
    sha = hashlib.sha256()
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    for name, value in sorted(flat.items()):
        array = np.asarray(value)
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
