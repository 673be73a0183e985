"""Where a run's numbers are from: configuration, code, data, devices, restarts."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spaced_kd import seals, stages
from spaced_kd.errors import CheckpointError
from spaced_kd.provenance.files import (
    SEALED,
    claims_end,
    lacks_seal,
    newest,
    read,
    rows_after,
)
from spaced_kd.recorder import METRICS
from spaced_kd.writers import storage_error


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a run's numbers are from; `to_dict` is JSON-able.

    config, data: fingerprints. finished: whether it has come to its end.
    starts: how often the run was started; restarts are one less.
    code: version, git commit and whether the checkout had changes; devices: backend,
      kind, how many were used, and by how many processes; packages: versions of JAX and
      Flax. Each once for every change between starts, the first start's first.
    log_sha256: of metrics.jsonl as it is now; "" without.
    sealed: whether the newest checkpoint sealed the logs. unsealed: files that nothing
      seals.
    stages: role -> what `stages.json` says of a trained network that the run began
      with: its hashes, and its own parents.
    analyses: name -> version and devices that made it.
    """

    config: str
    data: str
    finished: bool
    starts: int
    code: tuple[dict[str, Any], ...]
    devices: tuple[dict[str, Any], ...]
    packages: tuple[dict[str, str], ...]
    log_sha256: str
    sealed: bool
    unsealed: tuple[str, ...]
    stages: dict[str, Any]
    analyses: dict[str, dict[str, str]]

    @property
    def restarts(self) -> int:
        """Starts after the first."""
        return max(self.starts - 1, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return dataclasses.asdict(self)


def of(workdir: Path) -> Provenance:
    """Return where the numbers of a run are from, as its files say.

    Hashes the log, and of a checkpoint only the manifest: takes no longer than
    `results.load`. It believes what it reads; `verify` does not.

    Args:
      workdir: of the run, finished or not.

    Raises:
      CheckpointError: a file is damaged, or has been changed since it was sealed.
      StorageError: a file cannot be read.
    """
    if not (workdir / "config.json").exists():
        raise CheckpointError(f"{workdir} holds no run (no config.json).")
    content = {name: read(workdir / name) for name in SEALED}
    described = content["config.json"]
    env, found = content["env.json"], content["analysis.json"].get("found", {})
    every, saved, missing = environments(env), newest(workdir), unsealed(workdir)
    return Provenance(
        config=described["fingerprint"],
        data=described["data_fingerprint"],
        finished=claims_end(workdir) and not rows_after(workdir, saved),
        starts=len(every),
        code=_changes(map(_code, every)),
        devices=_changes(map(_devices, every)),
        packages=_changes(map(_packages, every)),
        log_sha256=_sha256(workdir / METRICS),
        sealed=METRICS not in missing,
        unsealed=missing,
        stages=content[stages.FILE],
        analyses={
            name: {key: str(record["about"].get(key)) for key in ("version", "devices")}
            for name, record in found.items()
        },
    )


def unsealed(workdir: Path) -> tuple[str, ...]:
    """Return which files of a run nothing seals; the log stands for both logs.

    Raises:
      CheckpointError: the description of a checkpoint is damaged.
      StorageError: a file cannot be read.
    """
    saved = newest(workdir)
    is_sealed = saved is not None and bool(seals.of_logs(saved.info))
    others = [name for name in SEALED if lacks_seal(workdir / name)]
    return (*([] if is_sealed else [METRICS]), *others)


def environments(env: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the environment of every start, the first one first.

    Args:
      env: `env.json`: that of the last start, and of each start what was otherwise
        before it.
    """
    now = {name: value for name, value in env.items() if name != "starts"}
    found = []
    for start in reversed(env.get("starts") or []):
        found.append(now)
        # Of another program's file nothing is believed, and a report still shows it.
        now = now | (start.get("before", {}) if isinstance(start, Mapping) else {})
    return found[::-1]


def _code(env: Mapping[str, Any]) -> dict[str, Any]:
    git = env.get("git") or {}
    return {
        "version": env.get("versions", {}).get("spaced_kd"),
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
    }


def _devices(env: Mapping[str, Any]) -> dict[str, Any]:
    names = ("backend", "kind", "used", "processes")
    return {name: env.get("devices", {}).get(name) for name in names}


def _packages(env: Mapping[str, Any]) -> dict[str, str]:
    return {name: env.get("versions", {}).get(name) for name in ("jax", "flax")}


def _changes(values: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Leave out what is as it was at the start before."""
    kept: list[dict[str, Any]] = []
    for value in values:
        if not kept or kept[-1] != value:
            kept.append(value)
    return tuple(kept)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise storage_error("read", path, error) from error
