"""From the official archive of CIFAR-10 or -100 to a TFDS folder, without TensorFlow.

Nothing is taken on trust: the archive must have the published hash, its members are
read by exact name and never extracted, and its pickles go through `array_pickle`.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spaced_kd.data import archive, tfds_folder
from spaced_kd.data.cifar_release import SHAPE, CifarRelease
from spaced_kd.data.cifar_tables import Table, read_names, read_table
from spaced_kd.data.download import download_archive, verify
from spaced_kd.errors import DataError, StorageError

_FILE_BYTES = 1 << 28  # the largest, CIFAR-100's `train`, has 155 MB
_VERSION = "3.0.2"  # of the TFDS layout that is written

logger = logging.getLogger("spaced_kd")


def prepare(root: Path, release: CifarRelease) -> Path:
    """Make the folder `<root>/<name>/3.0.2` and return it.

    Takes the extracted folder or its archive where one of them lies in `root`, else
    downloads. The result appears at once and whole, or not at all.

    Args:
      root: folder of prepared data sets.
      release: what to expect.

    Raises:
      DataError: out of reach, damaged, or not what was published.
      StorageError: `root` cannot be read or written.
    """
    final = root / release.name / _VERSION
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{release.name}-") as tmp:
            files = _files(root, Path(tmp), release)
            logger.info(
                "Preparing %s in %s (once, about half a minute).", release.title, final
            )
            fresh = Path(tmp) / release.name / _VERSION
            fresh.mkdir(parents=True)
            _write(fresh, files, release)
            final.parent.mkdir(exist_ok=True)
            _move(fresh, final)
    except OSError as error:
        raise StorageError(
            f"{error.filename2 or error.filename or root}: {error.strerror or error}; "
            f"{release.title} is not prepared yet, so config.data.dir must be a folder "
            "that can be written."
        ) from error
    return final


def _move(fresh: Path, final: Path) -> None:
    try:
        os.rename(fresh, final)
    except OSError:
        # If another process was faster, its result is as good.
        if not (final / "dataset_info.json").is_file():
            raise


def _files(root: Path, staging: Path, release: CifarRelease) -> dict[str, bytes]:
    tables = [name for names in release.files.values() for name in names]
    wanted = [*tables, release.names_file]
    folder, path = root / release.folder, root / release.archive
    if folder.is_dir():
        return {name: _read_file(folder / name, release) for name in wanted}
    if path.is_file():
        verify(path, release.size, release.sha256)
    else:
        path = staging / path.name
        download_archive(release, path, root, release.title, release.folder)
    members = archive.read_members(path, [f"{release.folder}/{n}" for n in wanted])
    return {name: members[f"{release.folder}/{name}"] for name in wanted}


def _read_file(path: Path, release: CifarRelease) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} is missing; unpack {release.archive} again.")
    if path.stat().st_size > _FILE_BYTES:
        raise DataError(f"{path} has more than {_FILE_BYTES} bytes.")
    return path.read_bytes()


def _write(folder: Path, files: dict[str, bytes], release: CifarRelease) -> None:
    splits = {
        which: [
            read_table(files[name], release.labels, f"{release.folder}/{name}")
            for name in names
        ]
        for which, names in release.files.items()
    }
    for which, tables in splits.items():
        label = np.concatenate([table.labels["label"] for table in tables])
        where = f"{release.folder}/{', '.join(release.files[which])}"
        release.check_counts(which, label, where)
    names_file = release.names_file
    names = read_names(
        files[names_file], release.labels, f"{release.folder}/{names_file}"
    )
    tfds_folder.write(
        folder,
        {which: _examples(which, tables) for which, tables in splits.items()},
        names,
        SHAPE,
        description=f"{release.title}, in the order of the official archive.",
        homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
        supervised_keys=("image", "label"),
    )


def _examples(which: str, tables: list[Table]) -> Iterator[tfds_folder.Example]:
    number = 0
    for table in tables:
        for i, image in enumerate(table.image):
            labels = {name: values[i] for name, values in table.labels.items()}
            coded = {"image": tfds_folder.encode(image)}
            yield {"id": f"{which}_{number:05d}"} | coded | labels
            number += 1
