"""What both halves of this package read of a workdir."""

import json
from pathlib import Path
from typing import Any

from spaced_kd import seals, stages
from spaced_kd.checkpoint import Checkpoint, CheckpointLine
from spaced_kd.recorder import METRICS
from spaced_kd.writers import read_json

SEALED = "config.json", "plan.json", "env.json", stages.FILE, "analysis.json"
"""JSON files of a workdir that carry their own seal, where they exist."""


def read(path: Path) -> dict[str, Any]:
    """Return a JSON file, {} if there is none.

    Raises:
      CheckpointError: it is damaged, or has been changed since it was sealed.
      StorageError: it cannot be read.
    """
    return read_json(path) if path.exists() else {}


def lacks_seal(path: Path) -> bool:
    """Return whether there is a JSON object without a seal; `read` tells of damage."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(content, dict) and seals.KEY not in content


def newest(workdir: Path) -> Checkpoint | None:
    """Return the last checkpoint of a run by its manifest; None before the first.

    Raises:
      CheckpointError: a manifest is damaged.
      StorageError: the folder cannot be read.
    """
    found = CheckpointLine(workdir / "checkpoints", keep=None).stored()
    return found[max(found)] if found else None


def claims_end(workdir: Path) -> bool:
    """Return whether `results.json` says that the run is complete."""
    return bool(read(workdir / "results.json").get("complete"))


def rows_after(workdir: Path, saved: Checkpoint | None) -> int:
    """Return by how many bytes the log is longer than at a checkpoint."""
    log = workdir / METRICS
    size = log.stat().st_size if log.exists() else 0
    return size - (saved.info["offsets"]["metrics"] if saved else 0)
