"""Checkpoints that are either whole or absent: commit, verify, restore, prune.

The only file that knows Orbax. It does not know what the state means nor when to save
it, and expects to be the only writer (`workdir.lock`); several processes may read.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent import futures
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from spaced_kd.errors import CheckpointError, NonFiniteError, StorageError

_FORMAT = 1
_MANIFEST = "manifest.json"
_ARRAYS = "arrays"
# ".old-00000007" is what a second save at tick 7 replaces, until that one is verified.
_NAME = re.compile(r"(?:\.old-)?(\d{8,})")
_TEMP = re.compile(r"\.tmp-\d+-[0-9a-f]{32}")
_log = logging.getLogger("spaced_kd")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. info: what the caller gave to `save`."""

    path: Path
    tick: int
    info: dict[str, Any]


class CheckpointLine:
    """The newest `keep` checkpoints of one state, each in `<root>/<tick:08d>`.

    A save goes into a hidden folder, is flushed, renamed, read back from disk and
    verified; only then are older ones deleted. So whenever the process is killed, every
    checkpoint that counted before still does, or a newer one does. A checkpoint counts
    if the SHA-256 of every file and of every array agrees with its manifest.
    """

    def __init__(self, root: Path, keep: int | None):
        """Name the folder; nothing is read or written yet.

        Args:
          root: folder of this line alone; created by the first save.
          keep: how many verified checkpoints stay, the newest included; at least 1.
            None: all.
        """
        if keep is not None and keep < 1:
            raise ValueError(f"keep={keep} is too small; give at least 1.")
        self._root = Path(root).absolute()
        self._keep = keep
        self._verified: set[Path] = set()

    def save(self, tick: int, tree: Any, info: dict[str, Any]) -> Checkpoint:
        """Write `tree` and `info` at `tick`; return when both are verified on disk.

        A checkpoint that already stands at this tick is replaced. The host copy is
        taken before returning, so the caller may donate `tree` afterwards.

        Args:
          tick: position in the run, >= 0.
          tree: pytree of jax arrays, wherever they live; no typed PRNG keys.
          info: JSON-able; `Checkpoint.info` gives it back equal.

        Raises:
          NonFiniteError: a floating leaf holds NaN or infinity; nothing was written.
          StorageError: too little space, or the disk failed; earlier checkpoints stay.
        """
        if json.loads(json.dumps(info, allow_nan=False)) != info:
            raise ValueError("info does not survive JSON; use lists and string keys.")
        arrays = _to_host(tree)
        _refuse_non_finite(arrays, tick)
        final = self._root / f"{tick:08d}"
        temp = self._root / f".tmp-{tick}-{uuid.uuid4().hex}"
        with _storage_errors(f"checkpoint at tick {tick} did not get to {self._root}"):
            self._root.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            _refuse_full_disk(self._root, arrays, tick)
            try:
                _write(temp, tick, arrays, info)
                sys.audit("spaced_kd.checkpoint", "rename", tick)
                self._make_way(final)
                temp.rename(final)
                _fsync(self._root)
            finally:
                _remove_unfinished(temp)
            self._verify_written(final, tick)
            self._prune(tick)
        return Checkpoint(final, tick, info)

    def latest(self) -> Checkpoint | None:
        """Return the checkpoint with the highest tick that verifies; None without any.

        Whatever else lies in the folder is skipped with one warning and left alone.

        Raises:
          CheckpointError: there are checkpoints, but every one is damaged.
          StorageError: the folder cannot be read.
        """
        with _storage_errors(f"checkpoints in {self._root} could not be listed"):
            reasons = {path: _foreign(path) for path in self._entries()}
        for path, reason in reasons.items():
            if reason:
                _log.warning("%s is skipped: %s.", path, reason)
        candidates = [path for path, reason in reasons.items() if not reason]
        for path in sorted(candidates, key=_rank, reverse=True):
            try:
                manifest, _ = _load(path)
            except _Damaged as error:
                _log.warning("%s is skipped: %s.", path, error)
                continue
            self._verified.add(path)
            return Checkpoint(path, manifest["tick"], manifest["info"])
        if candidates:
            raise CheckpointError(
                f"none of the {len(candidates)} checkpoints in {self._root} is intact; "
                "nothing was deleted; restore that folder from a backup, or start anew "
                "with another --workdir."
            )
        return None

    def stored(self) -> dict[int, Checkpoint]:
        """Return what the folder holds, by rising tick; `read` verifies the arrays.

        Raises:
          CheckpointError: a manifest is damaged.
          StorageError: the folder cannot be read.
        """
        with _storage_errors(f"checkpoints in {self._root} could not be listed"):
            paths = [path for path in self._entries() if not _foreign(path)]
        found = {}
        for path in sorted(paths, key=_rank):
            try:
                manifest = _read_manifest(path)
            except _Damaged as error:
                raise _unreadable(path, error) from error
            tick = manifest["tick"]
            found[tick] = Checkpoint(path, tick, manifest["info"])
        return found

    def read(self, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
        """Return what was saved by tree path, for one who wants a part of it.

        The names are those of the manifest, e.g. "0/teacher/params/net/head/bias".

        Raises:
          CheckpointError: damaged.
        """
        try:
            return _load(checkpoint.path)[1]
        except _Damaged as error:
            raise _unreadable(checkpoint.path, error) from error

    def restore(self, checkpoint: Checkpoint, template: Any) -> Any:
        """Return the saved tree, bitwise, as arrays that jax owns (safe to donate).

        Args:
          checkpoint: from `save` or `latest`.
          template: pytree of arrays or `jax.ShapeDtypeStruct`s with the structure,
            shapes and dtypes that are expected. Leaves that are pinned to devices say
            where the result goes; the others go to the default device.

        Raises:
          CheckpointError: damaged, or not of `template`'s structure, shapes and dtypes.
        """
        path = checkpoint.path
        wanted = _named_leaves(template)
        try:
            _refuse_mismatch(path, _read_manifest(path)["leaves"], wanted)
            _, arrays = _load(path)
        except _Damaged as error:
            raise CheckpointError(
                f"checkpoint {path} is damaged: {error}; run again to continue from an "
                "older one."
            ) from error
        leaves = [_place(arrays[name], leaf) for name, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def _entries(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        ours = lambda name: _NAME.fullmatch(name) or _TEMP.fullmatch(name)
        entries = sorted(self._root.iterdir())
        return [p for p in entries if not p.name.startswith(".") or ours(p.name)]

    def _verifies(self, path: Path) -> bool:
        """Whether `path` was found intact, by this process, now or before."""
        if path not in self._verified:
            with contextlib.suppress(_Damaged):
                _load(path)
                self._verified.add(path)
        return path in self._verified

    def _make_way(self, final: Path) -> None:
        """Move what stands at `final` aside; a kill then costs no checkpoint."""
        if not os.path.lexists(final):
            return
        if not _is_ours(final):
            aside = final.with_name(f"{final.name}.aside-{uuid.uuid4().hex[:8]}")
            _log.warning("%s is no checkpoint of ours; moved to %s.", final, aside.name)
            final.rename(aside)
        elif self._verifies(final):
            old = final.with_name(f".old-{final.name}")
            self._discard(old)
            final.rename(old)
        else:
            self._discard(final)

    def _verify_written(self, final: Path, tick: int) -> None:
        sys.audit("spaced_kd.checkpoint", "verify", tick)
        self._verified.discard(final)
        try:
            _load(final)
        except _Damaged as error:
            self._discard(final)
            raise StorageError(
                f"checkpoint at tick {tick} does not read back from {final}: {error}; "
                "check the disk, then run again to continue from an older one."
            ) from error
        self._verified.add(final)

    def _prune(self, tick: int) -> None:
        """Delete what is older than the newest `keep` verified ones."""
        kept = 1
        newest = _rank(self._root / f"{tick:08d}")
        ours = [p for p in self._entries() if _is_ours(p)]
        for path in sorted(ours, key=_rank, reverse=True):
            if _rank(path) >= newest:
                continue
            if _rank(path)[0] != tick:
                if self._keep is None:
                    continue
                if kept < self._keep and self._verifies(path):
                    kept += 1
                    continue
            sys.audit("spaced_kd.checkpoint", "prune", tick)
            self._discard(path)

    def _discard(self, path: Path) -> None:
        """Delete a checkpoint; renamed first, so that no half of it is ever seen."""
        if not _is_ours(path):
            return
        self._verified.discard(path)
        doomed = self._root / f".tmp-{_rank(path)[0]}-{uuid.uuid4().hex}"
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for path in self._entries():
            if _TEMP.fullmatch(path.name):
                # It refuses links, and does not follow those inside.
                shutil.rmtree(path, ignore_errors=True)


def is_better(candidate: float, best: float | None) -> bool:
    """Whether a metric to be maximised beats the best; NaN and infinity never do.

    Args:
      candidate: the new value.
      best: the best value before, None if there is none.
    """
    return math.isfinite(candidate) and (best is None or not candidate <= best)


class _Damaged(Exception):
    """Why a directory is not an intact checkpoint."""


def _unreadable(path: Path, error: _Damaged) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path} is damaged: {error}; where a run is going on it may have "
        "been replaced: try again."
    )


@contextlib.contextmanager
def _storage_errors(what: str):
    try:
        yield
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        raise StorageError(
            f"{what} ({reason}); earlier checkpoints were left alone; free some space "
            "or mend the disk, then run again."
        ) from error


@contextlib.contextmanager
def _quiet_orbax():
    """Keep Orbax from logging tracebacks of errors that we report in one line."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        # Orbax would wait for all processes of a run; here, each works on its own.
        own = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        yield ocp.Checkpointer(
            # Weights barely compress, and compression takes 4 times as long.
            ocp.PyTreeCheckpointHandler(
                use_compression=False, multiprocessing_options=own
            ),
            multiprocessing_options=own,
        )
    finally:
        logger.setLevel(level)


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Return tree path ("teacher/params/net/Dense_0/kernel") -> leaf, in tree order."""
    named = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "value"
        if name in named:
            raise ValueError(f"two leaves of the tree are called '{name}'.")
        named[name] = leaf
    return named


def _to_host(tree: Any) -> dict[str, np.ndarray]:
    leaves = _named_leaves(tree)
    for name, leaf in leaves.items():
        # Others may have dtypes (int64) that come back from jax as something else.
        if not isinstance(leaf, jax.Array):
            raise TypeError(f"{name} is a {type(leaf).__name__}; give a jax array.")
    return jax.device_get(leaves)


def _refuse_non_finite(arrays: dict[str, np.ndarray], tick: int) -> None:
    for name, value in arrays.items():
        if jnp.issubdtype(value.dtype, jnp.inexact):
            bad = value.size - np.count_nonzero(np.isfinite(value))
            if bad:
                raise NonFiniteError(
                    f"{name}: {bad} of {value.size} values are NaN or infinite at tick "
                    f"{tick}; nothing was saved, earlier checkpoints are intact; try a "
                    "lower learning rate."
                )


def _refuse_full_disk(root: Path, arrays: dict[str, np.ndarray], tick: int) -> None:
    needed = 1.2 * sum(value.nbytes for value in arrays.values())
    free = shutil.disk_usage(root).free
    if free < needed:
        raise StorageError(
            f"checkpoint at tick {tick} needs {needed / 1e6:.1f} MB in {root}, but "
            f"{free / 1e6:.1f} MB are free; earlier checkpoints are intact; free some "
            "space, then run again."
        )


def _write(temp: Path, tick: int, arrays: dict[str, np.ndarray], info: dict) -> None:
    sys.audit("spaced_kd.checkpoint", "write", tick)
    temp.mkdir()
    leaves = {
        name: {"shape": list(v.shape), "dtype": str(v.dtype), "sha256": digest}
        for (name, v), digest in zip(
            arrays.items(), _in_threads(_digest, arrays.values()), strict=True
        )
    }
    # Orbax refuses arrays without elements; their shape says everything about them.
    solid = {name: value for name, value in arrays.items() if value.size}
    try:
        with _quiet_orbax() as checkpointer:
            checkpointer.save(temp / _ARRAYS, args=ocp.args.PyTreeSave(solid))
    except OSError:
        raise
    except Exception as error:  # TensorStore has no type of its own for "disk full".
        # "RESOURCE_EXHAUSTED: Error writing "...": Failed writing "...": <reason>"
        raise OSError(str(error).split("\n")[0].split('": ')[-1]) from error
    sys.audit("spaced_kd.checkpoint", "manifest", tick)
    files = sorted(p for p in temp.rglob("*") if p.is_file())
    body = {
        "tick": tick,
        "info": info,
        "leaves": leaves,
        "files": dict(
            zip(
                (p.relative_to(temp).as_posix() for p in files),
                _in_threads(_file_digest, files),
                strict=True,
            )
        ),
    }
    manifest = {"format": _FORMAT, "sha256": _json_digest(body), "body": body}
    (temp / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
    for path in [*temp.rglob("*"), temp]:
        _fsync(path)


def _remove_unfinished(temp: Path) -> None:
    # After an error the threads of TensorStore may go on writing for a moment.
    for _ in range(40):
        if not temp.exists():
            return
        shutil.rmtree(temp, ignore_errors=True)
        time.sleep(0.05)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _in_threads(hash_of: Callable[[T], str], values: Iterable[T]) -> list[str]:
    """Hashing releases the interpreter lock; large states are hashed several times."""
    with futures.ThreadPoolExecutor() as pool:
        return list(pool.map(hash_of, values))


def _digest(value: np.ndarray) -> str:
    data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return hashlib.sha256(data.data).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _rank(path: Path) -> tuple[int, bool]:
    """Order by tick; at one tick, a replaced checkpoint comes before the newer one."""
    match = _NAME.fullmatch(path.name)
    assert match, path
    return int(match[1]), not path.name.startswith(".")


def _foreign(path: Path) -> str | None:
    """Return why `path` is not even a damaged checkpoint of ours, None if it may be."""
    if _TEMP.fullmatch(path.name):
        return "it is left over from a save cut short; the next save removes it"
    if path.is_symlink() or not path.is_dir():
        return "it is a file or a link, not a folder"
    if not _NAME.fullmatch(path.name):
        return "its name is not a tick of 8 digits"
    if not (path / _MANIFEST).exists() and not (path / _ARRAYS).exists():
        return f"it has no {_MANIFEST}"
    return None


def _is_ours(path: Path) -> bool:
    """Whether this file may delete or move `path`: a real folder with our manifest."""
    return _foreign(path) is None and (path / _MANIFEST).is_file()


def _load(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return manifest and arrays, every byte verified.

    Files are verified before Orbax parses them: what it does with damaged ones (raise,
    log, allocate by a wrong shape, return wrong values) is not promised anywhere.
    """
    manifest = _read_manifest(path)
    names = list(manifest["files"])
    try:
        found = _in_threads(_file_digest, [path / name for name in names])
    except OSError as error:
        raise _Damaged(f"{error.filename} cannot be read ({error.strerror})") from error
    for name, digest in zip(names, found, strict=True):
        if digest != manifest["files"][name]:
            raise _Damaged(f"{name} does not have the bytes that were written")
    return manifest, _read_arrays(path / _ARRAYS, manifest["leaves"])


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        known, digest, body = (manifest[k] for k in ("format", "sha256", "body"))
    except OSError as error:
        raise _Damaged(f"{_MANIFEST} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _Damaged(f"{_MANIFEST} is not a manifest of ours") from error
    if known != _FORMAT:
        raise _Damaged(f"its format is {known!r}, this version reads {_FORMAT}")
    if _json_digest(body) != digest:
        raise _Damaged(f"{_MANIFEST} does not have the bytes that were written")
    if body["tick"] != _rank(path)[0]:
        raise _Damaged(f"it was saved at tick {body['tick']}, its name says another")
    return body


def _read_arrays(path: Path, leaves: dict[str, Any]) -> dict[str, np.ndarray]:
    try:
        with _quiet_orbax() as checkpointer:
            stored = checkpointer.restore(path)
    except Exception as error:  # What Orbax raises on damage is not documented.
        reason = " ".join(str(error).split())[:200]
        raise _Damaged(f"Orbax cannot read it ({reason})") from error
    arrays = {}
    for name, leaf in leaves.items():
        spec = _struct(leaf)
        empty = None if spec.size else np.zeros(spec.shape, spec.dtype)
        value = np.asarray(stored.get(name, empty))
        if _spec(value) != _spec(spec):
            raise _Damaged(f"{name} does not have the values that were saved")
        arrays[name] = value
    digests = _in_threads(_digest, arrays.values())
    for (name, leaf), digest in zip(leaves.items(), digests, strict=True):
        if digest != leaf["sha256"]:
            raise _Damaged(f"{name} does not have the values that were saved")
    return arrays


def _struct(leaf: dict[str, Any]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf["shape"], leaf["dtype"])


def _spec(leaf: Any) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _refuse_mismatch(path: Path, leaves: dict[str, Any], wanted: dict) -> None:
    saved = {name: _spec(_struct(leaf)) for name, leaf in leaves.items()}
    here = {name: _spec(leaf) for name, leaf in wanted.items()}
    names = [n for n in here | saved if here.get(n) != saved.get(n)]
    if names:
        shown = "; ".join(
            f"{n} is {saved.get(n, 'absent')} there and {here.get(n, 'absent')} here"
            for n in names[:3]
        )
        more = f" (+ {len(names) - 3} more)" if len(names) > 3 else ""
        raise CheckpointError(
            f"checkpoint {path} is of another program: {shown}{more}; give the "
            "configuration it was saved with, or another --workdir."
        )


def _place(value: np.ndarray, leaf: Any) -> jax.Array:
    """Put `value` where `leaf` is pinned to."""
    pinned = getattr(leaf, "committed", True)
    sharding = getattr(leaf, "sharding", None) if pinned else None
    # On CPU the first call may hand out a view of numpy's memory, whatever `may_alias`
    # says; the second copies it. (`jnp.copy` would compile a program for every shape.)
    viewed = jax.device_put(value, sharding)
    return jax.device_put(viewed, sharding, may_alias=False)
