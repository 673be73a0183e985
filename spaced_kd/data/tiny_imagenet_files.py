"""What lies where in Tiny-ImageNet's archive, and the labels that follow from it.

    tiny-imagenet-200/wnids.txt                               the classes, in order
    tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG
    tiny-imagenet-200/val/images/val_0.JPEG
    tiny-imagenet-200/val/val_annotations.txt                 file, class, box

Everything else (words, boxes, the unlabelled test images) is not looked at.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from spaced_kd.errors import DataError

FOLDER = "tiny-imagenet-200"
NUM_CLASSES = 200
_TRAIN = re.compile(rf"{FOLDER}/train/([^/]+)/images/[^/]+\.JPEG")
_VAL = re.compile(rf"{FOLDER}/val/images/([^/]+\.JPEG)")


class Files(Protocol):
    """Files by the names that they have in the archive; `ZipArchive` is one, too."""

    def __iter__(self) -> Iterator[str]:
        """Give the names of all files."""
        ...

    def read(self, name: str) -> bytes:
        """Return the content of a file; safe in threads."""
        ...


class Extracted:
    """The files of the extracted folder."""

    def __init__(self, folder: Path):
        """List the files under `<somewhere>/tiny-imagenet-200`."""
        self._root = folder.parent
        self.paths = [
            Path(parent) / name
            for parent, _, names in os.walk(folder)
            for name in names
        ]

    def __iter__(self) -> Iterator[str]:
        """Give their names relative to what holds the folder, as in the archive."""
        return (path.relative_to(self._root).as_posix() for path in self.paths)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
          DataError: it cannot be read.
        """
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            what = f"{self._root / name}: {error.strerror}"
            raise DataError(f"{what}; unpack the archive again.") from error


class LabelledNames(NamedTuple):
    """The images of a split: N names, and label, [N] int32."""

    names: list[str]
    label: np.ndarray


def read_splits(files: Files, where: str) -> dict[str, LabelledNames]:
    """Return the splits "train" and "test", which is the validation set.

    A label is the line number, from 0, of the image's class in `wnids.txt`.

    Args:
      files: the archive or the folder.
      where: its path, for messages.

    Raises:
      DataError: a file, an annotation or a class is missing, unknown or twice there.
    """
    classes = read_classes(files, where)
    annotated = _read_annotations(files, where)
    train: dict[str, str] = {}
    val: dict[str, str] = {}
    for name in files:
        if match := _TRAIN.fullmatch(name):
            train[name] = match[1]
        elif match := _VAL.fullmatch(name):
            if match[1] not in annotated:
                raise DataError(f"{where}: {name} is not in val_annotations.txt.")
            val[name] = annotated.pop(match[1])
    if annotated:
        file = f"{FOLDER}/val/images/{min(annotated)}"
        raise DataError(f"{where}: {file} is missing ({len(annotated)} are).")
    return {
        "train": _labelled(train, classes, where),
        "test": _labelled(val, classes, where),
    }


def check_counts(
    splits: dict[str, LabelledNames], expected: dict[str, int], where: str
) -> None:
    """Check that every class has as many images as it must.

    Args:
      splits: as `read_splits` returns them.
      expected: split -> images a class; 0: as many as the largest class has.
      where: their origin, for messages.

    Raises:
      DataError: names the first class that lacks images or has too many.
    """
    for which, labelled in splits.items():
        counts = np.bincount(labelled.label, minlength=NUM_CLASSES)
        most = expected[which] or max(1, int(counts.max()))
        wrong = np.flatnonzero(counts != most)
        if wrong.size:
            raise DataError(
                f"{where}: {counts[wrong[0]]} {which} images of class {wrong[0]} "
                f"instead of {most} ({wrong.size} of {NUM_CLASSES} classes have "
                "another number); the copy is incomplete."
            )


def _labelled(
    found: dict[str, str], classes: dict[str, int], where: str
) -> LabelledNames:
    for name, wnid in found.items():
        if wnid not in classes:
            raise DataError(f"{where}: {name} is of class {wnid!r}, not in wnids.txt.")
    label = np.asarray([classes[w] for w in found.values()], np.int32)
    return LabelledNames([*found], label)


def read_classes(files: Files, where: str) -> dict[str, int]:
    """Return the label of each class, in the order of the labels.

    Args:
      files: the archive or the folder.
      where: its path, for messages.

    Raises:
      DataError: `wnids.txt` does not name 200 classes.
    """
    names = _lines(files, "wnids.txt")
    if len(names) != NUM_CLASSES or len(set(names)) != NUM_CLASSES:
        raise DataError(
            f"{where}: wnids.txt has {len(names)} lines, {len(set(names))} of them "
            f"different, instead of {NUM_CLASSES} classes."
        )
    return {name: number for number, name in enumerate(names)}


def _read_annotations(files: Files, where: str) -> dict[str, str]:
    """Return file name -> class of the validation images."""
    annotated = {}
    for number, line in enumerate(_lines(files, "val/val_annotations.txt"), 1):
        file, _, rest = line.partition("\t")
        if not rest or file in annotated:
            raise DataError(
                f"{where}: val_annotations.txt, line {number}: {line!r:.60} is not a "
                "new file and its class."
            )
        annotated[file] = rest.split("\t")[0]
    return annotated


def _lines(files: Files, name: str) -> list[str]:
    text = files.read(f"{FOLDER}/{name}").decode("ascii", "replace")
    return [line for line in map(str.strip, text.splitlines()) if line]
