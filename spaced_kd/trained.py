"""Weights of a run's networks, read back from its newest checkpoint."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from spaced_kd import seals, writers
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
      CheckpointError: nothing saved yet, damaged, or of another run; or the run's logs
        are not those that it was saved with.
      StorageError: a file cannot be read.
    """
    folder = workdir / "checkpoints"
    line = CheckpointLine(folder, keep=1)
    saved = newest(line, folder)
    if saved.info.get("config") != config_fingerprint:
        raise CheckpointError(
            f"{saved.path} was saved by a run of another config; put this run's own "
            "checkpoints there."
        )
    refuse_altered_logs(workdir, saved)
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
    """Return whether a run has come to its end, with its last state and logs intact.

    Who asks goes on to believe what the run says, so everything is hashed: of large
    networks that takes seconds. "complete" of `results.json` is there for a glance.

    Raises:
      CheckpointError: there are checkpoints, but every one is damaged; or the logs of
        the finished run have been changed.
      StorageError: the folder cannot be read.
    """
    summary, log = workdir / "results.json", workdir / "metrics.jsonl"
    if not (summary.exists() and log.exists() and read_json(summary)["complete"]):
        return False
    saved = CheckpointLine(workdir / "checkpoints", keep=1).latest()
    # Behind a checkpoint that is not the last one there are more rows in the log.
    if saved is None or saved.info["offsets"]["metrics"] != log.stat().st_size:
        return False
    refuse_altered_logs(workdir, saved)
    return True


def refuse_altered_logs(workdir: Path, saved: Checkpoint) -> None:
    """Check a run's logs, as far as they go at a checkpoint, against their seals.

    A checkpoint of an older version has none, and nothing is checked.

    Raises:
      CheckpointError: a log is shorter or has been changed; names file and line.
      StorageError: a log cannot be read.
    """
    for name, wrong in altered_logs(workdir, saved).items():
        raise writers.altered(workdir / name, wrong)


def altered_logs(workdir: Path, saved: Checkpoint) -> dict[str, str]:
    """Return what is wrong with a run's logs at a checkpoint, by name of the file.

    Raises:
      StorageError: a log cannot be read.
    """
    found = {}
    for name, seal in seals.of_logs(saved.info).items():
        try:
            wrong = seals.altered(workdir / name, seal)
        except FileNotFoundError:
            wrong = "is missing"
        except OSError as error:
            raise writers.storage_error("read", workdir / name, error) from error
        if wrong:
            found[name] = wrong
    return found


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
