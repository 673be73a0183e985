"""A split as one folder, or one plain tar file, for each class, read in place.

`<folder>/<class>/*.JPEG` is what most people have; `<folder>/<class>.tar` is what the
official archive of ImageNet's training images holds, and needs no million small files.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from spaced_kd.data import cache, image_list
from spaced_kd.data.archive import Limits, index_tar
from spaced_kd.data.image_list import Entry, ListedImages, Listing
from spaced_kd.errors import DataError

logger = logging.getLogger("spaced_kd")

_ENDINGS = (".jpeg", ".jpg", ".png")

_Found = list[tuple[bytes, int, int]]
"""(name, size, offset) of a class's images."""


@dataclasses.dataclass(frozen=True)
class _Folders:
    paths: tuple[Path, ...]

    def read(self, entry: Entry) -> bytes:
        return (self.paths[entry.holder] / entry.name).read_bytes()

    def where(self, entry: Entry) -> str:
        return str(self.paths[entry.holder] / entry.name)


@dataclasses.dataclass(frozen=True)
class _Tars:
    paths: tuple[Path, ...]

    def read(self, entry: Entry) -> bytes:
        # Opened anew each time: no shared file position, and no thousand open files.
        with self.paths[entry.holder].open("rb") as file:
            file.seek(entry.offset)
            return file.read(entry.size)

    def where(self, entry: Entry) -> str:
        return f"{self.paths[entry.holder]}: '{entry.name}'"


def open_split(
    folder: Path, classes: Sequence[str], shape: tuple[int, int, int]
) -> ListedImages:
    """Return the images of a split, class by class, each class sorted by file name.

    So a seed means the same run with folders and with tar files. What the folders or
    tar files hold is listed once and kept (`cache`), and listed again when a tar file
    has another size or time, or when a file came into a class's folder, left it or got
    another name. An image that was overwritten in its folder is not noticed: its new
    content is read, but its old size stays in the data set's fingerprint until the
    folder `spaced_kd_cache` is deleted. Files with other endings than .JPEG, .jpg and
    .png are passed over.

    Args:
      folder: of the split.
      classes: names of the classes, sorted; the place in it is the label.
      shape: see `types.Source`.

    Raises:
      DataError: a class that is not there or empty, or a damaged tar file.
    """
    store, list_one = _store(folder, classes)
    name = f"{folder.name}-{cache.key(folder, store.paths)}"
    make = lambda: image_list.to_arrays(_listing(store.paths, list_one))
    arrays = cache.cached(folder.parent, name, make)
    return ListedImages(image_list.from_arrays(arrays), store, shape)


def _store(
    folder: Path, classes: Sequence[str]
) -> tuple[_Folders | _Tars, Callable[[Path], _Found]]:
    """Return how the split is stored, and what lists one class of it."""
    folders = [folder / name for name in classes]
    tars = [folder / f"{name}.tar" for name in classes]
    if any(path.is_dir() for path in folders):
        _require(folder, classes, map(Path.is_dir, folders))
        return _Folders(tuple(folders)), _list_folder
    _require(folder, classes, map(Path.is_file, tars))
    return _Tars(tuple(tars)), _list_tar


def _require(folder: Path, classes: Sequence[str], found: Iterable[bool]) -> None:
    missing = [name for name, there in zip(classes, found, strict=True) if not there]
    if missing:
        raise DataError(
            f"{folder} has neither a folder '{missing[0]}' of images nor a tar file "
            f"'{missing[0]}.tar'; {len(missing)} of {len(classes)} classes are missing."
        )


def _listing(paths: Sequence[Path], list_one: Callable[[Path], _Found]) -> Listing:
    logger.info("Listing the images in %s (once).", paths[0].parent)
    names, numbers = [], []
    for label, path in enumerate(paths):
        found = sorted(list_one(path))
        if not found:
            raise DataError(f"{path} holds no image (.JPEG, .jpg or .png).")
        names += [name for name, _, _ in found]
        numbers += [(size, offset, label) for _, size, offset in found]
    size, offset, label = np.asarray(numbers, np.int64).T
    label = label.astype(np.int32)
    return Listing(np.asarray(names), size, label, label, offset)


def _is_image(name: str) -> bool:
    return name.lower().endswith(_ENDINGS)


def _list_folder(path: Path) -> _Found:
    with os.scandir(path) as entries:
        return [
            (os.fsencode(entry.name), entry.stat().st_size, 0)
            for entry in entries
            if _is_image(entry.name)
        ]


def _list_tar(path: Path) -> _Found:
    # The largest class has 1300 images of 0.1 MB in the mean, 16 MB at most.
    limits = Limits(members=1 << 17, total_bytes=1 << 36)
    return [
        (os.fsencode(name.rpartition("/")[2]), span.size, span.offset)
        for name, span in index_tar(path, limits).items()
        if _is_image(name)
    ]
