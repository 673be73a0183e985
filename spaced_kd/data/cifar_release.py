"""What is known beforehand of the CIFAR data sets: archives, files, labels, counts."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from spaced_kd.errors import DataError

SHAPE = (32, 32, 3)


@dataclasses.dataclass(frozen=True)
class Labels:
    """One kind of label.

    field: of a table, with a label for each image.
    names_field: of the file of names.
    num_classes: labels are 0..num_classes-1.
    """

    field: str
    names_field: str
    num_classes: int


@dataclasses.dataclass(frozen=True)
class CifarRelease:
    """One published archive and what it holds.

    name: of the data set, as in TFDS and in `DATASETS`.
    title: for people.
    url: of the archive, https.
    size: of the archive, bytes.
    sha256: of the archive, hex.
    folder: the one in the archive.
    files: split ("train" or "test") -> its tables, files in that folder, in order.
    names_file: file in that folder that names the classes.
    labels: TFDS feature -> kind; "label" is the one that is trained.
    train_per_class, test_per_class: examples of each class in a split.
    mean, std: per channel, of pixels scaled to [0, 1], with which to normalise.
    """

    name: str
    title: str
    url: str
    size: int
    sha256: str
    folder: str
    files: Mapping[str, tuple[str, ...]]
    names_file: str
    labels: Mapping[str, Labels]
    train_per_class: int
    test_per_class: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def num_classes(self) -> int:
        """Of the label that is trained."""
        return self.labels["label"].num_classes

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]

    def check_counts(self, which: str, label: np.ndarray, where: str) -> None:
        """Check that a split ("train" or "test") is all there.

        Raises:
          DataError: another number of examples, in all or of a class.
        """
        each = self.train_per_class if which == "train" else self.test_per_class
        total = self.num_classes * each
        if len(label) != total:
            raise DataError(
                f"{where}: {len(label)} {which} examples instead of {total}."
            )
        for index in range(self.num_classes):
            found = int((label == index).sum())
            if found != each:
                raise DataError(
                    f"{where}: {found} {which} examples of class {index} instead of "
                    f"{each}."
                )
