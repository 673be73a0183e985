"""The published corrupted test sets (Hendrycks and Dietterich, 2019), read in place.

CIFAR-10-C/snow.npy, CIFAR-100-C/snow.npy    [50000, 32, 32, 3] uint8: the test images
CIFAR-10-C/labels.npy                        in their published order, five times
Tiny-ImageNet-C/snow/3/n01443537/*.JPEG      and so ImageNet-C
"""

import hashlib
import os
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spaced_kd.config import DataConfig
from spaced_kd.data import class_files, imagenet, imagenet100, tiny_imagenet
from spaced_kd.data.image_list import ListedImages
from spaced_kd.data.roots import data_root
from spaced_kd.errors import DataError, one_line
from spaced_kd.types import Split

FOLDERS = {
    "cifar10": "CIFAR-10-C",
    "cifar100": "CIFAR-100-C",
    "tiny_imagenet": "Tiny-ImageNet-C",
    "imagenet": "ImageNet-C",
    "imagenet100": "ImageNet-C",
}
"""Data set -> folder of its corrupted test images."""

SEVERITIES = 5

_MIB = 1 << 20

_CLASSES = {
    "tiny_imagenet": tiny_imagenet.class_names,
    "imagenet": lambda _: imagenet.official_classes(),
    "imagenet100": lambda _: imagenet100.classes(),
}
"""Of data sets that lie in class folders; the place of a class is its label."""


def find(config: DataConfig, folder: str = "") -> Path | None:
    """Return where a data set's corrupted test images lie; None: nowhere.

    Args:
      config: names the data set and the data folder.
      folder: the folder itself, or one that holds it; "": the data folder.
    """
    name = FOLDERS.get(config.name)
    if name is None:
        return None
    root = Path(folder).expanduser() if folder else data_root(config)
    path = root if root.name == name else root / name
    return path if path.is_dir() else None


def read(
    folder: Path,
    config: DataConfig,
    name: str,
    severity: int,
    shape: tuple[int, int, int],
) -> Split:
    """Return the corrupted test split, in the order of the files.

    Args:
      folder: from `find`.
      config: names the data set; `stream_threads` decode images.
      name: of the corruption, as in ImageNet-C.
      severity: 1 to 5.
      shape: of the run's own images; images of another size are resized (bilinear).

    Raises:
      DataError: not there, damaged, or of another shape.
    """
    if config.name in _CLASSES:
        images = folder / name / str(severity)
        return _read_images(images, config, shape)
    return _read_rows(folder, name, severity, shape)


def check(
    folder: Path,
    config: DataConfig,
    name: str,
    severity: int,
    shape: tuple[int, int, int],
) -> None:
    """Find what is missing or of another shape, without reading images; as `read`."""
    if config.name in _CLASSES:
        _open_images(folder / name / str(severity), config, shape)
    else:
        _open_rows(folder, name, shape)


def identity(
    folder: Path, config: DataConfig, names: Sequence[str], severities: Sequence[int]
) -> dict[str, Any]:
    """Return JSON that changes with the files of corruptions.

    Args:
      folder: from `find`.
      config: names the data set.
      names: of corruptions.
      severities: of images in class folders; an array holds all.

    Returns:
      Of arrays, file -> [size in bytes, SHA-256 of the first MiB]; of class folders,
      "<corruption>/<severity>" -> SHA-256 of the sorted names and sizes of all files.

    Raises:
      DataError: one of them cannot be read.
    """
    classes = _CLASSES.get(config.name)
    try:
        if classes is None:
            files = [*(f"{name}.npy" for name in names), "labels.npy"]
            return {file: _beginning(folder / file) for file in files}
        known = frozenset(classes(config))
        parts = [f"{name}/{severity}" for name in names for severity in severities]
        return {part: _names_and_sizes(folder / part, known) for part in parts}
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}."
        ) from error


def _beginning(path: Path) -> list:
    with path.open("rb") as file:
        content = file.read(_MIB)
    return [path.stat().st_size, hashlib.sha256(content).hexdigest()]


def _names_and_sizes(folder: Path, classes: Set[str]) -> str:
    sha = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        if name.removesuffix(".tar") in classes:
            sha.update(os.fsencode("".join(_listed(folder / name, name))))
    return sha.hexdigest()


def _listed(path: Path, name: str) -> list[str]:
    """Return a line for a tar file, or one for each file of a folder."""
    if path.is_file():
        return [f"{name}\t{path.stat().st_size}\n"]
    with os.scandir(path) as entries:
        return sorted(f"{name}/{e.name}\t{e.stat().st_size}\n" for e in entries)


def _read_rows(
    folder: Path, name: str, severity: int, shape: tuple[int, int, int]
) -> Split:
    image, label = _open_rows(folder, name, shape)
    rows = slice(len(label) * (severity - 1), len(label) * severity)
    return Split(np.array(image[rows]), label)


def _open_rows(
    folder: Path, name: str, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return images of all severities, on disk, and the labels of one severity."""
    image = _array(folder / f"{name}.npy")
    label = _array(folder / "labels.npy")
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise DataError(
            f"{folder / name}.npy holds {image.dtype} {image.shape}; it must be uint8 "
            f"[N, {expected}]."
        )
    if label.dtype.kind not in "iu" or label.shape != image.shape[:1]:
        raise DataError(
            f"{folder}: labels.npy holds {label.dtype} {label.shape}, {name}.npy "
            f"{len(image)} images; there must be an integer for each."
        )
    count = len(label) // SEVERITIES
    blocks = label[: count * SEVERITIES].reshape(SEVERITIES, count)
    if count * SEVERITIES != len(label) or (blocks != blocks[0]).any():
        raise DataError(
            f"{folder}: labels.npy is not {SEVERITIES} times the same labels, one "
            "block a severity."
        )
    return image, blocks[0].astype(np.int32)


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    # Pickles, other formats and cut files are ValueErrors, an empty one is an EOFError.
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read: {one_line(error)}; get it again."
        ) from error


def _open_images(
    folder: Path, config: DataConfig, shape: tuple[int, int, int]
) -> ListedImages:
    return class_files.open_split(folder, _CLASSES[config.name](config), shape)


def _read_images(
    folder: Path, config: DataConfig, shape: tuple[int, int, int]
) -> Split:
    source = _open_images(folder, config, shape)
    height, width, _ = shape
    image = np.empty((len(source.label), *shape), np.uint8)

    def decode(row: int) -> None:
        picture = source.open(row)
        # Pillow leaves a picture of that size as it is.
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        image[row] = np.asarray(picture)

    with ThreadPoolExecutor(config.stream_threads) as pool:
        # The first error, in the order of the rows, ends it.
        for _ in pool.map(decode, range(len(image))):
            pass
    return Split(image, source.label)
