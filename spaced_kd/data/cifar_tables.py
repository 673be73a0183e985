"""What the pickled files of the CIFAR archives hold, checked field by field."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from spaced_kd.data import array_pickle
from spaced_kd.data.cifar_release import SHAPE, Labels
from spaced_kd.errors import DataError


class Table(NamedTuple):
    """Some images: [N, 32, 32, 3] uint8, and for each kind of label a list of N."""

    image: np.ndarray
    labels: dict[str, list[int]]


def read_table(content: bytes, kinds: Mapping[str, Labels], where: str) -> Table:
    """Return what one file of images holds.

    Args:
      content: of the file.
      kinds: the labels that each image has.
      where: the file, for messages.

    Raises:
      DataError: damaged, hostile, or not a table of this data set.
    """
    fields = _fields(content, where)
    pixels = array_pickle.byte_array(fields.get("data"), f"{where}: 'data'")
    labels = {name: _labels(fields, kind, where) for name, kind in kinds.items()}
    for name, values in labels.items():
        if pixels.shape != (len(values), np.prod(SHAPE)):
            raise DataError(
                f"{where}: pixels of shape {pixels.shape} and {len(values)} labels "
                f"'{kinds[name].field}' do not fit together."
            )
    height, width, channels = SHAPE
    channels_first = pixels.reshape(-1, channels, height, width)
    return Table(channels_first.transpose(0, 2, 3, 1), labels)


def read_names(
    content: bytes, kinds: Mapping[str, Labels], where: str
) -> dict[str, list[str]]:
    """Return the names of the classes, for each kind of label.

    Args:
      content: of the file of names.
      kinds: the labels that have names.
      where: the file, for messages.

    Raises:
      DataError: damaged, hostile, or not as many different names as classes.
    """
    fields = _fields(content, where)
    return {name: _names(fields, kind, where) for name, kind in kinds.items()}


def _fields(content: bytes, where: str) -> dict[str, Any]:
    value = array_pickle.read(content, where)
    if not isinstance(value, dict):
        raise DataError(f"{where} holds a {type(value).__name__} instead of a dict.")
    return {_text(key): field for key, field in value.items()}


def _text(value: Any) -> str:
    # Python 2 wrote the official files; its strings arrive as bytes.
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _labels(fields: dict[str, Any], kind: Labels, where: str) -> list[int]:
    labels = fields.get(kind.field)
    if not isinstance(labels, list):
        raise DataError(f"{where} has no list '{kind.field}'.")
    for i, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < kind.num_classes:
            raise DataError(
                f"{where}: {kind.field}[{i}] = {label!r:.40} is outside "
                f"0..{kind.num_classes - 1}."
            )
    return labels


def _names(fields: dict[str, Any], kind: Labels, where: str) -> list[str]:
    raw, count = fields.get(kind.names_field), kind.num_classes
    names = [_text(name) for name in raw] if isinstance(raw, list) else []
    if not len(names) == len(set(names)) == count:
        raise DataError(
            f"{where}: '{kind.names_field}' is not a list of {count} different names."
        )
    return names
