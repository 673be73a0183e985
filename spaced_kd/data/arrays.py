"""A data set from arrays that the user has in memory."""

from typing import Any

import numpy as np

from spaced_kd.data import contents
from spaced_kd.errors import DataError
from spaced_kd.types import Dataset, Split


def from_arrays(name: str, train: tuple[Any, Any], test: tuple[Any, Any]) -> Dataset:
    """Return the data set of these splits, checked; as for `register.arrays`.

    Raises:
      DataError: the arrays are of another kind; says how to get the right one.
    """
    trained, tested = _split(f"{name} train", *train), _split(f"{name} test", *test)
    classes = _num_classes(name, trained.label)
    mean, std = _statistics(trained.image)
    dataset = Dataset(name, trained, tested, classes, mean, std, fingerprint="")
    contents.check(dataset)
    return dataset


def _split(where: str, images: Any, labels: Any) -> Split:
    image, label = np.asarray(images), np.asarray(labels)
    if image.dtype.kind == "f":
        raise DataError(
            f"{where}: images are {image.dtype}; give uint8 of 0 to 255, e.g. "
            "(255 * images).round().astype('uint8') where they are 0 to 1."
        )
    if image.ndim == 3:
        image = image[..., None]
    if label.ndim == 2:
        raise DataError(
            f"{where}: labels have shape {label.shape}; give [N] integers, e.g. "
            "labels.argmax(1) of one-hot rows."
        )
    if label.dtype.kind not in "iu":
        raise DataError(f"{where}: labels are {label.dtype}; give integers 0 to C-1.")
    return Split(image, label.astype(np.int32))


def _num_classes(name: str, label: np.ndarray) -> int:
    found = np.unique(label)
    if not np.array_equal(found, np.arange(len(found))):
        raise DataError(
            f"{name} train: labels are {len(found)} classes from {found[0]} to "
            f"{found[-1]}; they must be 0 to {len(found) - 1}, every one of them, e.g. "
            "numpy.searchsorted(numpy.unique(train_labels), labels)."
        )
    return len(found)


def _statistics(image: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, scaled to [0, 1]."""
    if image.ndim != 4 or image.dtype != np.uint8 or not image.size:
        return (0.0,), (1.0,)  # the check that follows says what is wrong
    # By counts, exactly: float64 copies of all pixels may not fit into memory.
    counts = [np.bincount(c.ravel(), minlength=256) for c in np.moveaxis(image, -1, 0)]
    level = np.arange(256) / 255
    mean = [np.average(level, weights=n) for n in counts]
    moment = [
        np.average((level - m) ** 2, weights=n)
        for n, m in zip(counts, mean, strict=True)
    ]
    # Few digits, so that no platform's last bit gets into a run.
    return tuple(np.round(mean, 4).tolist()), tuple(np.sqrt(moment).round(4).tolist())
