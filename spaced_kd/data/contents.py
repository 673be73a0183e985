"""What a data set holds: order, subset, checks and identity of its examples.

Everything is a pure function of what lies in memory: the arrays of a `Split`, labels
and identities of a `Source`. Reading files is the loaders' work.
"""

import hashlib

import numpy as np

from spaced_kd.errors import ConfigError, DataError
from spaced_kd.types import Dataset, Source, Split, shape_of


def content_order(split: Split) -> np.ndarray:
    """Return a permutation that depends on the set of examples, not on their order.

    Sorted by a hash of the pixels, hence as good as random; equal images by label. Two
    files with the same examples in different order so become the same split, and a
    seed means the same run.

    Returns:
      [N] int64 indices.
    """
    digests = _digests(split.image)
    labels = split.label.tolist()
    order = sorted(range(len(labels)), key=lambda i: (digests[i], labels[i]))
    return np.asarray(order, np.int64)


def sort(split: Split) -> None:
    """Put a split into `content_order` in place, with memory for one more image."""
    order = content_order(split)
    for array in split:
        _permute(array, order)


def class_balanced(
    split: Split | Source,
    num_classes: int,
    count: int,
    generator: np.random.Generator,
    field: str,
) -> Split | Source:
    """Return `count` examples whose numbers per class differ by at most one.

    With the same generator a larger subset contains every smaller one.

    Args:
      split: to choose from; its order is kept.
      num_classes: labels are 0..num_classes-1.
      count: of the subset.
      generator: decides which.
      field: the config field that `count` comes from, for messages.

    Raises:
      ConfigError: too few or too many, with the numbers.
    """
    sizes = np.bincount(split.label, minlength=num_classes)
    # The class with fewest examples caps every other class at one more.
    most = int(num_classes * sizes.min() + (sizes > sizes.min()).sum())
    if not num_classes <= count <= most:
        raise ConfigError(
            f"{field}={count} cannot be a class-balanced part of {len(split.label)} "
            f"examples in {num_classes} classes of {sizes.min()} to {sizes.max()}; "
            f"give {num_classes} to {most}, or 0 for all."
        )
    base, extra = divmod(count, num_classes)
    # Which classes get one more; those that can come first.
    turn = sorted(generator.permutation(num_classes), key=lambda c: sizes[c] <= base)
    wanted = np.full(num_classes, base)
    wanted[turn[:extra]] += 1
    chosen = [
        generator.permutation(np.flatnonzero(split.label == c))[: wanted[c]]
        for c in range(num_classes)
    ]
    kept = np.sort(np.concatenate(chosen))
    if not isinstance(split, Split):
        return split.take(kept)
    return Split(split.image[kept], split.label[kept])


def check(dataset: Dataset) -> None:
    """Check types, shapes, labels and that every class can be trained.

    Raises:
      DataError: what is wrong, and where first.
    """
    for where, split in (("train", dataset.train), ("test", dataset.test)):
        _check_split(f"{dataset.name} {where}", split, dataset.num_classes)
    shapes = shape_of(dataset.train), shape_of(dataset.test)
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{dataset.name}: training images are {shapes[0]}, test images {shapes[1]}."
        )
    missing = np.setdiff1d(np.arange(dataset.num_classes), dataset.train.label)
    if missing.size:
        raise DataError(
            f"{dataset.name} train: no example of class {missing[0]} "
            f"({missing.size} of {dataset.num_classes} classes are missing)."
        )
    channels = shapes[0][-1]
    if not len(dataset.mean) == len(dataset.std) == channels or min(dataset.std) <= 0:
        raise DataError(
            f"{dataset.name}: mean {dataset.mean} and std {dataset.std} must have "
            f"{channels} entries, std above 0."
        )


def overlap(dataset: Dataset) -> int:
    """Return how many test images also occur in the training split.

    Pixel by pixel, or by their identities where a split is a `Source`: to compare
    pixels would be to read every file.
    """
    seen = set(_identities(dataset.train))
    return sum(identity in seen for identity in _identities(dataset.test))


def fingerprint(train: Split | Source, test: Split | Source) -> str:
    """Return the SHA-256 of both splits: shapes, pixels, labels, order.

    Of a `Source` the identities stand for the pixels, which would take hours to read:
    two copies whose files have the same names, sizes and order count as the same.
    """
    digest = hashlib.sha256()
    for split in (train, test):
        label = split.label.astype("<i4")
        if isinstance(split, Split):
            _digest_array(digest, split.image)
        else:
            names = split.identities()
            digest.update(b"".join(b"%d:%b" % (len(name), name) for name in names))
        _digest_array(digest, label)
    return digest.hexdigest()


def _permute(array: np.ndarray, order: np.ndarray) -> None:
    """Do array[:] = array[order] along the cycles of the permutation."""
    done = np.zeros(len(order), bool)
    for first in range(len(order)):
        kept, at = array[first].copy(), first
        while not done[at]:
            done[at] = True
            source = int(order[at])
            array[at] = kept if source == first else array[source]
            at = source


def _digest_array(digest, array: np.ndarray) -> None:
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


def _check_split(where: str, split: Split | Source, num_classes: int) -> None:
    label = split.label
    if isinstance(split, Split):
        _check_image(where, split)
    if label.ndim != 1 or label.dtype != np.int32:
        raise DataError(
            f"{where}: labels are {label.dtype} of shape {label.shape}; they must be "
            "int32 [N]."
        )
    if not len(label):
        raise DataError(f"{where}: there is not a single image.")
    wrong = np.flatnonzero((label < 0) | (label >= num_classes))
    if wrong.size:
        raise DataError(
            f"{where}: label[{wrong[0]}] = {label[wrong[0]]} is outside "
            f"0..{num_classes - 1} ({wrong.size} of {len(label)} labels are)."
        )


def _check_image(where: str, split: Split) -> None:
    image, label = split
    if image.ndim != 4 or image.dtype != np.uint8:
        raise DataError(
            f"{where}: images are {image.dtype} of shape {image.shape}; they must be "
            "uint8 [N, H, W, C]."
        )
    if len(image) != len(label) or not image.size:
        raise DataError(
            f"{where}: images of shape {image.shape} and {len(label)} labels; there "
            "must be as many, and at least one."
        )


def _identities(split: Split | Source) -> list[bytes]:
    return _digests(split.image) if isinstance(split, Split) else split.identities()


def _digests(image: np.ndarray) -> list[bytes]:
    rows = np.ascontiguousarray(image).reshape(len(image), -1)
    return [hashlib.sha256(row.data).digest() for row in rows]
