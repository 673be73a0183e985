"""The folder of a run: one writer, one configuration, and where it ran.

It owns `.lock`, `config.json` and `env.json`; what else lies there belongs to others.
"""

import contextlib
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import spaced_kd
from spaced_kd import registry, seals
from spaced_kd.config import Config, fingerprint, science, to_dict
from spaced_kd.errors import CheckpointError, LockedError
from spaced_kd.writers import read_json, storage_error, write_whole

_log = logging.getLogger("spaced_kd")

_FORMAT = 1
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@contextlib.contextmanager
def lock(workdir: Path, instead: str = "--workdir") -> Iterator[None]:
    """Be the only writer of `workdir` (made if missing) until the block ends.

    The lock dies with the process, however it dies. It holds among the machines of a
    network filesystem only where that filesystem supports `flock` between them.

    Args:
      workdir: the folder.
      instead: the flag that chooses another one, for the message.

    Raises:
      LockedError: another process has it; names its pid, host and start time.
      StorageError: the folder cannot be made or written, or cannot be locked.
    """
    path = workdir / ".lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise storage_error("write", path, error) from error
    try:
        _take(descriptor, workdir, instead)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, workdir: Path, instead: str) -> None:
    path = workdir / ".lock"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_process()).encode())
    except BlockingIOError:
        # The winner may still be writing its name.
        time.sleep(0.2)
        raise _in_use(workdir, instead) from None
    except OSError as error:
        raise storage_error("lock", path, error) from error


def refuse_locked(workdir: Path) -> None:
    """Check that nobody has `workdir` locked; write nothing.

    Raises:
      LockedError: as for `lock`.
      StorageError: the lock cannot be looked at.
    """
    path = workdir / ".lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise storage_error("read", path, error) from error
    try:
        # Shared: an exclusive lock needs a file open for writing on some filesystems.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(workdir) from None
    except OSError as error:
        raise storage_error("lock", path, error) from error
    finally:
        os.close(descriptor)


def _in_use(workdir: Path, instead: str = "--workdir") -> LockedError:
    return LockedError(
        f"{workdir} is in use by {_holder(workdir / '.lock')}; wait for it, stop it, "
        f"or choose another {instead}."
    )


def _process() -> dict[str, Any]:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "time": now}


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return "process {pid} on {host}, started {time}".format_map(holder)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def claim(workdir: Path, config: Config, data_fingerprint: str) -> bool:
    """Tie `workdir` to a configuration and its data, or check that it already is.

    Fields that may change within a run (paths, progress, checkpoint cadence) are not
    compared; `config.json` takes over those of this start. A folder without
    `config.json` is taken as it is; nothing in it is deleted.

    Args:
      workdir: an existing folder.
      config: the resolved configuration.
      data_fingerprint: of the data set as used.

    Returns:
      Whether the folder was claimed before, by the same configuration and data.

    Raises:
      CheckpointError: by another one; names up to 5 fields with old and new values.
      StorageError: `config.json` cannot be read or written.
    """
    claimed = refuse_other(workdir, config, data_fingerprint)
    write_sealed(
        workdir / "config.json",
        {
            "config": to_dict(config),
            "data_fingerprint": data_fingerprint,
            "fingerprint": fingerprint(config),
            "format": _FORMAT,
            "science": science(config),
        },
    )
    return claimed


def refuse_other(workdir: Path, config: Config, data_fingerprint: str) -> bool:
    """Check, as `claim` does, that `workdir` is free or of this run; write nothing.

    Returns:
      Whether the folder was claimed before, by the same configuration and data.

    Raises:
      CheckpointError: as for `claim`.
      StorageError: `config.json` cannot be read.
    """
    path = workdir / "config.json"
    claimed = os.path.lexists(path)
    if claimed:
        _refuse_other(path, science(config), data_fingerprint)
    return claimed


def _refuse_other(path: Path, fields: dict[str, Any], data_fingerprint: str) -> None:
    stored = read_json(path)
    old, old_data = stored.get("science"), stored.get("data_fingerprint")
    if stored.get("format") != _FORMAT or not isinstance(old, dict):
        raise CheckpointError(
            f"{path} was not written by this version of spaced_kd (format "
            f"{stored.get('format')!r}, not {_FORMAT}); choose another --workdir."
        )
    new = json.loads(json.dumps(fields))
    names = sorted(old | new)
    changed = [n for n in names if n not in old or n not in new or old[n] != new[n]]
    if changed:
        shown = "; ".join(
            f"config.{name}: {_show(name, old)} -> {_show(name, new)}"
            for name in changed[:5]
        )
        more = f" (+ {len(changed) - 5} more)" if len(changed) > 5 else ""
        raise CheckpointError(
            f"{path.parent} holds a run of another configuration: {shown}{more}; give "
            "the old values, or another --workdir."
        )
    if old_data != data_fingerprint:
        raise CheckpointError(
            f"the data of the run in {path.parent} has changed: data_fingerprint: "
            f"{old_data} -> {data_fingerprint}; restore the data, or choose another "
            "--workdir."
        )


def _show(name: str, fields: dict) -> str:
    return json.dumps(fields[name]) if name in fields else "absent"


def import_modules(workdir: Path) -> None:
    """Import the user's modules that the run in `workdir` names in `config.imports`.

    Raises:
      ConfigError: one of them cannot be imported.
      CheckpointError: `config.json` is damaged.
    """
    path = workdir / "config.json"
    if path.exists():
        config = read_json(path).get("config") or {}
        registry.import_modules(config.get("imports", ""))


def write_env(workdir: Path, devices_used: int) -> None:
    """Write `env.json`: versions, devices and command; add this start to `starts`.

    What has changed since the start before is kept in the new entry's `before`. Warns
    if the run had another number of devices then.

    Args:
      workdir: an existing folder.
      devices_used: by the run, in all its processes.

    Raises:
      CheckpointError: the present `env.json` is damaged.
      StorageError: `env.json` cannot be read or written.
    """
    path = workdir / "env.json"
    old = read_json(path) if path.exists() else {}
    starts = old.pop("starts", [])
    env = _environment(devices_used)
    _warn_of_other_devices(old.get("devices", {}), env["devices"])
    before = {name: old[name] for name in old if old[name] != env.get(name)}
    start = _process() | ({"before": before} if before else {})
    write_sealed(path, env | {"starts": [*starts, start]})


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and what its numbers rest on."""
    own = {"python": platform.python_version(), "spaced_kd": spaced_kd.__version__}
    return own | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _warn_of_other_devices(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, now = (
        (devices.get("used"), devices.get("processes", 1)) for devices in (old, new)
    )
    if before[0] is not None and before != now:
        _log.warning(
            "this run goes on with %d devices in %d processes, before %d in %d; "
            "its end will be close to that of an uninterrupted run, not bitwise equal.",
            *now,
            *before,
        )


def last_start(workdir: Path) -> str:
    """Return the SHA-256 of `env.json`, which no two starts share; "" without one."""
    try:
        return hashlib.sha256((workdir / "env.json").read_bytes()).hexdigest()
    except OSError:
        return ""


def waits_for_start(workdir: Path, start: str, seconds: float = 20.0) -> bool:
    """Return whether `last_start` is or becomes `start`: network filesystems lag."""
    deadline = time.monotonic() + seconds
    while last_start(workdir) != start:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _environment(devices_used: int) -> dict[str, Any]:
    devices = jax.devices()
    return {
        "command": sys.argv,
        "devices": {
            "backend": jax.default_backend(),
            "count": len(devices),
            "kind": devices[0].device_kind,
            "processes": jax.process_count(),
            "used": devices_used,
        },
        "git": _git(Path(__file__).parent),
        "platform": platform.platform(),
        "versions": versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _git(folder: Path) -> dict[str, Any] | None:
    """Return commit and dirty flag of the checkout that tracks `folder`, else None."""
    # An installed package may lie inside somebody's repository, which ignores it.
    if not _run_git(folder, "ls-files", "."):
        return None
    commit = _run_git(folder, "rev-parse", "HEAD")
    changes = _run_git(folder, "status", "--porcelain")
    return {"commit": commit or None, "dirty": changes != ""}


def _run_git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def write_json(path: Path, value: Any) -> None:
    """Replace a file by `value` as JSON, keys sorted; see `write_whole`.

    Raises:
      ValueError: NaN or infinity in `value` (a bug of the caller); nothing is written.
      StorageError: the file cannot be written.
    """
    text = json.dumps(value, allow_nan=False, indent=2, sort_keys=True) + "\n"
    write_whole(path, text)


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Do as `write_json` with a seal, by which `read_json` notices a later change."""
    write_json(path, seals.sealed(value))
