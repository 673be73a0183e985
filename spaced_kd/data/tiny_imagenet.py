"""Tiny-ImageNet (Stanford CS231N): 100,000 + 10,000 images of 64x64, 200 classes.

The labelled validation set is the test split, as in the released code (method A.8). A
label is the line of the class in `wnids.txt`, from 0; other loaders sort the classes.
"""

import contextlib
import dataclasses
import io
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from spaced_kd.config import DataConfig
from spaced_kd.data import cache, contents
from spaced_kd.data.archive import Limits
from spaced_kd.data.augment_spec import NORMALIZATIONS
from spaced_kd.data.download import download_archive, verify
from spaced_kd.data.roots import data_root
from spaced_kd.data.tiny_imagenet_files import (
    FOLDER,
    NUM_CLASSES,
    Extracted,
    Files,
    LabelledNames,
    check_counts,
    read_classes,
    read_splits,
)
from spaced_kd.data.zip_archive import ZipArchive
from spaced_kd.errors import DataError, StorageError
from spaced_kd.types import Dataset, Split

SHAPE = (64, 64, 3)
# Of ImageNet, as in the released code (method A.8) and torchvision.
MEAN, STD = NORMALIZATIONS["imagenet"]
# The official archive has 120,609 members; the largest are lists of 0.7 MB.
LIMITS = Limits(members=1 << 17, member_bytes=1 << 22, total_bytes=1 << 30)
_AT_ONCE = 256  # images that one thread decodes before it asks for more


@dataclasses.dataclass(frozen=True)
class TinyRelease:
    """The published archive. url: https; size: bytes; sha256: hex; images a class."""

    url: str
    size: int
    sha256: str
    train_per_class: int
    test_per_class: int


# The course publishes no hash. Size, MD5 (90528d7ca1a48142e341f4ef8d21d0de) and SHA-256
# are those that several independent public projects found.
OFFICIAL = TinyRelease(
    url="https://cs231n.stanford.edu/tiny-imagenet-200.zip",
    size=248_100_043,
    sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
    train_per_class=500,
    test_per_class=50,
)


def load(config: DataConfig, release: TinyRelease = OFFICIAL) -> Dataset:
    """Return the data set; download, decode and cache it where that is not done yet.

    The first of these that lies in the data folder (see `data_root`) is read, and
    nothing is unpacked to disk:

    1. `tiny-imagenet-200.zip`: must be the official archive, by size and SHA-256.
    2. The folder `tiny-imagenet-200`, extracted from it.
    3. One other archive of the same layout, `tiny-imagenet-NAME.zip`.

    A folder or another archive (2, 3) may hold fewer images, which a warning tells, but
    equally many of each of the 200 classes, so that no broken copy passes for a subset.
    If there is none of the three, the official archive is downloaded and kept.

    The order is `content_order`: the same whatever the images came from.

    Args:
      config: `dir` says where to look, `stream_threads` how many threads decode.
      release: the official archive and its images a class.

    Raises:
      DataError: not there and not to be had, damaged, refused, or incomplete: a class,
        an image or its annotation is missing, or an image is not a 64x64 JPEG.
      StorageError: the archive must be downloaded and the folder cannot be written.
    """
    root = data_root(config)
    source = _find(root, release)
    name = f"tiny-imagenet-{_key(source)}"
    threads = config.stream_threads
    arrays = cache.cached(root, name, lambda: _decode(source, release, threads))
    train = Split(arrays["train_image"], arrays["train_label"])
    test = Split(arrays["test_image"], arrays["test_label"])
    _tell_subset(source, release, train, test)
    return Dataset("tiny_imagenet", train, test, NUM_CLASSES, MEAN, STD, fingerprint="")


def class_names(config: DataConfig) -> tuple[str, ...]:
    """Return the WordNet ids of the classes; the place in it is the label.

    Args:
      config: as for `load`.

    Raises:
      DataError: as `load`.
    """
    source = _find(data_root(config), OFFICIAL)
    with _opened(source) as files:
        return tuple(read_classes(files, str(source)))


def _find(root: Path, release: TinyRelease) -> Path:
    official, folder = root / f"{FOLDER}.zip", root / FOLDER
    if official.is_file():
        return official
    if folder.is_dir():
        return folder
    others = sorted(root.glob("tiny-imagenet-*.zip"))
    if len(others) > 1:
        names = ", ".join(path.name for path in others)
        raise DataError(f"{root} has {len(others)} archives, {names}; leave one there.")
    if not others:
        _download(official, release)
    return others[0] if others else official


def _download(target: Path, release: TinyRelease) -> None:
    root = target.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".tiny-imagenet-") as staging:
            fresh = Path(staging) / target.name
            download_archive(release, fresh, root, "Tiny-ImageNet", FOLDER)
            os.replace(fresh, target)
    except OSError as error:
        raise StorageError(
            f"{error.filename or root}: {error.strerror or error}; Tiny-ImageNet is "
            "not there yet, so config.data.dir must be a folder that can be written."
        ) from error


def _key(source: Path) -> str:
    paths = Extracted(source).paths if source.is_dir() else [source]
    return cache.key(source.parent, paths)


def _decode(source: Path, release: TinyRelease, threads: int) -> cache.Arrays:
    cache.logger.info("Decoding the images in %s (once, up to a minute).", source)
    official = source.name == f"{FOLDER}.zip"
    expected = {"train": 0, "test": 0}
    if official:
        verify(source, release.size, release.sha256)
        expected = {"train": release.train_per_class, "test": release.test_per_class}
    arrays = {}
    with _opened(source) as files:
        splits = read_splits(files, str(source))
        check_counts(splits, expected, str(source))
        for which, names in splits.items():
            split = _decode_split(files, names, source, threads)
            contents.sort(split)
            arrays[f"{which}_image"], arrays[f"{which}_label"] = split
    return arrays


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[Files]:
    if source.is_dir():
        yield Extracted(source)
    else:
        with ZipArchive(source, LIMITS) as archive:
            yield archive


def _decode_split(
    files: Files, labelled: LabelledNames, source: Path, threads: int
) -> Split:
    names = labelled.names
    image = np.empty((len(names), *SHAPE), np.uint8)

    def decode(start: int) -> None:
        for row in range(start, min(start + _AT_ONCE, len(names))):
            image[row] = _pixels(files.read(names[row]), f"{source}: {names[row]}")

    with ThreadPoolExecutor(threads) as pool:
        # The first error, in the order of the names, ends it.
        for _ in pool.map(decode, range(0, len(names), _AT_ONCE)):
            pass
    return Split(image, labelled.label)


def _pixels(content: bytes, where: str) -> np.ndarray:
    """Return [64, 64, 3] uint8; a grey image has three equal channels (method A.8)."""
    try:
        # Only JPEG, so that a hostile file reaches one decoder, not all of Pillow's.
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.size != SHAPE[:2] or image.mode not in ("RGB", "L"):
                width, height = image.size
                raise ValueError(f"it is {image.mode} of {width}x{height}")
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    # Pillow raises whatever it meets in a damaged file.
    except Exception as error:
        raise DataError(
            f"{where} is not a 64x64 JPEG, RGB or grey: {error!s:.100}."
        ) from error


def _tell_subset(source: Path, release: TinyRelease, train: Split, test: Split) -> None:
    found = [len(split.label) // NUM_CLASSES for split in (train, test)]
    whole = [release.train_per_class, release.test_per_class]
    if found != whole:
        cache.logger.warning(
            "%s is a part of Tiny-ImageNet: %d training and %d test images a class "
            "instead of %d and %d.",
            source,
            *found,
            *whole,
        )
