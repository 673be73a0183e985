"""The published corrupted test sets (Hendrycks and Dietterich, 2019), read in place.

CIFAR-10-C/snow.npy, CIFAR-100-C/snow.npy    [50000, 32, 32, 3] uint8: the test images
CIFAR-10-C/labels.npy                        in their published order, five times
Tiny-ImageNet-C/snow/3/n01443537/*.JPEG      and so ImageNet-C
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from spaced_kd.config import DataConfig
from spaced_kd.data import class_files, imagenet, imagenet100, tiny_imagenet
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


def _read_rows(
    folder: Path, name: str, severity: int, shape: tuple[int, int, int]
) -> Split:
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
    rows = slice(count * (severity - 1), count * severity)
    return Split(np.array(image[rows]), blocks[0].astype(np.int32))


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    # Pickles, other formats and cut files are ValueErrors, an empty one is an EOFError.
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read: {one_line(error)}; get it again."
        ) from error


def _read_images(
    folder: Path, config: DataConfig, shape: tuple[int, int, int]
) -> Split:
    source = class_files.open_split(folder, _CLASSES[config.name](config), shape)
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
