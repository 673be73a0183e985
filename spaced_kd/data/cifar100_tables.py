"""What the pickled files of CIFAR-100's archive hold, checked field by field."""

from typing import Any, NamedTuple

import numpy as np

from spaced_kd.data import array_pickle
from spaced_kd.errors import DataError

SHAPE = (32, 32, 3)
NUM_CLASSES, NUM_COARSE_CLASSES = 100, 20


class Table(NamedTuple):
    """One split. image: [N, 32, 32, 3] uint8; fine, coarse: N labels of each kind."""

    image: np.ndarray
    fine: list[int]
    coarse: list[int]


class Names(NamedTuple):
    """The names of the 100 fine and the 20 coarse classes."""

    fine: list[str]
    coarse: list[str]


def read_table(content: bytes, where: str) -> Table:
    """Return the split that the file `train` or `test` holds.

    Raises:
      DataError: damaged, hostile, or not a table of CIFAR-100.
    """
    fields = _fields(content, where)
    pixels = array_pickle.byte_array(fields.get("data"), f"{where}: 'data'")
    fine = _labels(fields, "fine_labels", NUM_CLASSES, where)
    coarse = _labels(fields, "coarse_labels", NUM_COARSE_CLASSES, where)
    if pixels.shape != (len(fine), np.prod(SHAPE)) or len(fine) != len(coarse):
        raise DataError(
            f"{where}: pixels of shape {pixels.shape}, {len(fine)} fine and "
            f"{len(coarse)} coarse labels do not fit together."
        )
    height, width, channels = SHAPE
    channels_first = pixels.reshape(-1, channels, height, width)
    return Table(channels_first.transpose(0, 2, 3, 1), fine, coarse)


def read_names(content: bytes, where: str) -> Names:
    """Return the class names that the file `meta` holds.

    Raises:
      DataError: damaged, hostile, or other than 100 and 20 different names.
    """
    fields = _fields(content, where)
    return Names(
        _names(fields, "fine_label_names", NUM_CLASSES, where),
        _names(fields, "coarse_label_names", NUM_COARSE_CLASSES, where),
    )


def _fields(content: bytes, where: str) -> dict[str, Any]:
    value = array_pickle.read(content, where)
    if not isinstance(value, dict):
        raise DataError(f"{where} holds a {type(value).__name__} instead of a dict.")
    return {_text(key): field for key, field in value.items()}


def _text(value: Any) -> str:
    # Python 2 wrote the official files; its strings arrive as bytes.
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _labels(fields: dict[str, Any], key: str, classes: int, where: str) -> list[int]:
    labels = fields.get(key)
    if not isinstance(labels, list):
        raise DataError(f"{where} has no list '{key}'.")
    for i, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            raise DataError(
                f"{where}: {key}[{i}] = {label!r:.40} is outside 0..{classes - 1}."
            )
    return labels


def _names(fields: dict[str, Any], key: str, classes: int, where: str) -> list[str]:
    raw = fields.get(key)
    names = [_text(name) for name in raw] if isinstance(raw, list) else []
    if not len(names) == len(set(names)) == classes:
        raise DataError(f"{where}: '{key}' is not a list of {classes} different names.")
    return names
