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


def last(
    workdir: Path, repetition: int, network: str, config_fingerprint: str
) -> tuple[Variables, int]:
    """Return a network's variables, without a peer's, and its updates so far.

    Args:
      workdir: of the run.
      repetition: which, from 0.
      network: "teacher", or a student's name.
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
    arrays, name = line.read(saved), f"{repetition}/{network}"
    params = below(arrays, f"{name}/params/net/")
    stats = below(arrays, f"{name}/batch_stats/")
    variables = alone({"params": params, "batch_stats": stats})
    return variables, int(arrays[f"{name}/step"])


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
