"""From the official archive of CIFAR-100 to a TFDS folder, without TensorFlow.

Nothing is taken on trust: the archive must have the published hash, its members are
read by exact name and never extracted, and its pickles go through `array_pickle`.
"""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spaced_kd.data import archive, tfds_folder
from spaced_kd.data.cifar100_tables import (
    NUM_CLASSES,
    SHAPE,
    Table,
    read_names,
    read_table,
)
from spaced_kd.data.download import download, verify
from spaced_kd.errors import DataError, StorageError

_FOLDER = "cifar-100-python"
_FILES = ("train", "test", "meta")
_FILE_BYTES = 1 << 28  # the largest, `train`, has 155 MB
_VERSION = "3.0.2"  # of the TFDS layout that is written

logger = logging.getLogger("spaced_kd")


@dataclasses.dataclass(frozen=True)
class Release:
    """One published archive and what it holds.

    url: of the archive, https.
    size: of the archive, bytes.
    sha256: of the archive, hex.
    train_per_class, test_per_class: examples of each class in a split.
    """

    url: str
    size: int
    sha256: str
    train_per_class: int
    test_per_class: int

    def check_counts(self, which: str, label: np.ndarray, where: str) -> None:
        """Check that a split ("train" or "test") is all there.

        Raises:
          DataError: another number of examples, in all or of a class.
        """
        each = self.train_per_class if which == "train" else self.test_per_class
        total = NUM_CLASSES * each
        if len(label) != total:
            raise DataError(
                f"{where}: {len(label)} {which} examples instead of {total}."
            )
        for fine in range(NUM_CLASSES):
            found = int((label == fine).sum())
            if found != each:
                raise DataError(
                    f"{where}: {found} {which} examples of class {fine} instead of "
                    f"{each}."
                )


# The page publishes an MD5 only. Size and SHA-256 are those that Keras and several
# public mirrors give for the same file (the one with that MD5).
OFFICIAL = Release(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    size=169_001_437,
    sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    train_per_class=500,
    test_per_class=100,
)


def prepare(root: Path, release: Release = OFFICIAL) -> Path:
    """Make `<root>/cifar100/3.0.2` and return it.

    Takes the folder `cifar-100-python` or its archive where one of them lies in `root`,
    else downloads. The result appears at once and whole, or not at all.

    Args:
      root: folder of prepared data sets.
      release: what to expect.

    Raises:
      DataError: out of reach, damaged, or not what was published.
      StorageError: `root` cannot be read or written.
    """
    final = root / "cifar100" / _VERSION
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".cifar100-") as staging:
            files = _files(root, Path(staging), release)
            logger.info("Preparing CIFAR-100 in %s (once, about half a minute).", final)
            fresh = Path(staging) / "cifar100" / _VERSION
            fresh.mkdir(parents=True)
            _write(fresh, files, release)
            final.parent.mkdir(exist_ok=True)
            _move(fresh, final)
    except OSError as error:
        raise StorageError(
            f"{error.filename2 or error.filename or root}: {error.strerror or error}; "
            "CIFAR-100 is not prepared yet, so config.data.dir must be a folder that "
            "can be written."
        ) from error
    return final


def _move(fresh: Path, final: Path) -> None:
    try:
        os.rename(fresh, final)
    except OSError:
        # If another process was faster, its result is as good.
        if not (final / "dataset_info.json").is_file():
            raise


def _files(root: Path, staging: Path, release: Release) -> dict[str, bytes]:
    folder, path = root / _FOLDER, root / f"{_FOLDER}.tar.gz"
    if folder.is_dir():
        return {name: _read_file(folder / name) for name in _FILES}
    if path.is_file():
        verify(path, release.size, release.sha256)
    else:
        path = staging / path.name
        _download(root, path, release)
    members = archive.read_members(path, [f"{_FOLDER}/{name}" for name in _FILES])
    return {name: members[f"{_FOLDER}/{name}"] for name in _FILES}


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} is missing; unpack {_FOLDER}.tar.gz again.")
    if path.stat().st_size > _FILE_BYTES:
        raise DataError(f"{path} has more than {_FILE_BYTES} bytes.")
    return path.read_bytes()


def _download(root: Path, target: Path, release: Release) -> None:
    logger.info("Downloading %s (%d bytes).", release.url, release.size)
    try:
        download(release.url, target, release.size, release.sha256)
    except DataError as error:
        raise DataError(
            f"CIFAR-100 is not in {root} and cannot be downloaded: {error} Put the "
            f"file {release.url} into that folder, or set --config.data.dir or "
            "TFDS_DATA_DIR to a folder that has cifar100 prepared."
        ) from error


def _write(folder: Path, files: dict[str, bytes], release: Release) -> None:
    tables = {}
    for which in ("train", "test"):
        where = f"{_FOLDER}/{which}"
        tables[which] = read_table(files[which], where)
        release.check_counts(which, np.asarray(tables[which].fine), where)
    names = read_names(files["meta"], f"{_FOLDER}/meta")
    tfds_folder.write(
        folder,
        {which: _examples(which, table) for which, table in tables.items()},
        {"label": names.fine, "coarse_label": names.coarse},
        SHAPE,
        description="CIFAR-100, in the order of the official archive.",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        supervised_keys=("image", "label"),
    )


def _examples(which: str, table: Table) -> Iterator[tfds_folder.Example]:
    for i, (image, fine, coarse) in enumerate(zip(*table, strict=True)):
        yield {
            "id": f"{which}_{i:05d}",
            "image": tfds_folder.encode(image),
            "label": fine,
            "coarse_label": coarse,
        }
