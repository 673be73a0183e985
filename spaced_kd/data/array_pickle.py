"""Read foreign pickles of plain values and byte arrays, and nothing else.

A pickle is a program. This reader lets it build Python's own containers, numbers and
strings; whatever else it names becomes an inert record of the request, or an error.
Nothing of NumPy is reachable from the file: `byte_array` looks at the record and builds
the array itself.
"""

import io
import pickle
from typing import Any

import numpy as np

from spaced_kd.errors import DataError


class _Inert:
    """What a pickle asked to build: the arguments and the state it passed."""

    args: tuple = ()
    state: Any = None

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state):
        self.state = state


# What pickled NumPy arrays name, in Python 2 and 3, NumPy 1 and 2.
_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> type:
        if (module_name, global_name) not in _ADMITTED:
            name = f"{module_name}.{global_name}"
            raise DataError(f"it asks for {name!r}, which is refused")
        return _Inert


def read(content: bytes, where: str) -> Any:
    """Return what the pickle holds; arrays as records for `byte_array`.

    Args:
      content: the pickle. Strings of Python 2 become `bytes`.
      where: the file, for messages.

    Raises:
      DataError: damaged, or it names something else than arrays.
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{where} is not a plain data file: {error}.") from error
    # The documentation of pickle: damaged input may raise any exception.
    except Exception as error:
        kind = type(error).__name__
        raise DataError(f"{where} is damaged: {kind} while reading it.") from error


def byte_array(record: Any, where: str) -> np.ndarray:
    """Return the uint8 array that a pickle described.

    Raises:
      DataError: the record does not describe a C-ordered uint8 array.
    """
    try:
        _, shape, dtype, fortran_order, content = record.state
        if isinstance(content, _Inert):  # Python 3 writes bytes as text to encode
            text, encoding = content.args
            if encoding not in ("latin1", b"latin1"):
                raise ValueError(f"encoding {encoding!r}")
            content = text.encode("latin1")
        if dtype.args[0] not in ("u1", b"u1") or fortran_order:
            raise ValueError("not a C-ordered uint8 array")
        return np.frombuffer(content, np.uint8).reshape(shape)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{where} does not hold an array of bytes: {error}.") from error
