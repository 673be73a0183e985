"""Keep decoded arrays on disk, because decoding takes many times longer than reading.

A cache is only ever a copy: one that is damaged is made again, one that cannot be
written is done without.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

logger = logging.getLogger("spaced_kd")

Arrays = dict[str, np.ndarray]

_FOLDER = "spaced_kd_cache"
_DIGEST = "sha256"


def cached(root: Path, name: str, make: Callable[[], Arrays]) -> Arrays:
    """Return what `make` returns, from disk where a sound copy lies there.

    Copies live beside the data, or where that cannot be written in the user's cache
    folder ($XDG_CACHE_HOME/spaced_kd, else ~/.cache/spaced_kd).

    Args:
      root: folder of the data.
      name: of the copy, without ending; must change whenever the content does.
      make: the slow way; its errors are passed on.
    """
    paths = [folder / f"{name}.npz" for folder in _folders(root)]
    for path in paths:
        arrays = _read(path)
        if arrays is not None:
            return arrays
    arrays = make()
    if not any(_write(path, arrays) for path in paths):
        tried = ", ".join(map(str, paths))
        logger.warning("Decoded data cannot be kept in any of: %s.", tried)
    return arrays


def key(root: Path, paths: Iterable[Path]) -> str:
    """Return a short hash of files' names below `root`, sizes and times; reads none."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        stat, name = path.stat(), path.relative_to(root).as_posix()
        digest.update(f"{name}/{stat.st_size}/{stat.st_mtime_ns}/".encode())
    return digest.hexdigest()[:16]


def _folders(root: Path) -> Iterator[Path]:
    yield root / _FOLDER
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    default = Path(os.path.expanduser("~/.cache"))
    # The XDG rules say to ignore a relative path; the default is one without a home.
    home = configured if configured.is_absolute() else default
    if home.is_absolute():
        yield home / "spaced_kd"


def _read(path: Path) -> Arrays | None:
    try:
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if arrays.pop(_DIGEST).tobytes() == _digest(arrays):
            return arrays
        problem = "its checksum is wrong"
    # A damaged zip file or npy header may fail in any way, and then the data are
    # decoded again.
    except Exception as error:  # noqa: BLE001
        problem = repr(error)
    logger.warning(
        "%s is damaged or unreadable (%s); decoding the data again.", path, problem
    )
    return None


def _write(path: Path, arrays: Arrays) -> bool:
    digest = np.frombuffer(_digest(arrays), np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
            fresh = Path(folder) / path.name
            # No array is called allow_pickle, which is what worries the type checker.
            np.savez(fresh, **arrays, **{_DIGEST: digest})  # pyright: ignore
            os.replace(fresh, path)
    except OSError:
        return False
    return True


def _digest(arrays: Arrays) -> bytes:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()
