"""Archives and pickles for tests, as others wrote them, and how a refusal looks."""

import io
import pickle
import struct
import tarfile

import pytest

from spaced_kd.errors import DataError


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and NumPy 1 wrote: byte strings, and old module names."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    dispatch[bytes] = save_bytes

    def save_global(self, value, name=None):
        name = name or value.__name__
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    dispatch[type] = save_global


def python2_dumps(value) -> bytes:
    """Return the pickle of plain values, text as byte strings."""
    file = io.BytesIO()
    Python2Pickler(file, 2, fix_imports=False).dump(as_bytes(value))
    return file.getvalue()


def as_bytes(value):
    if isinstance(value, dict):
        return {as_bytes(k): as_bytes(v) for k, v in value.items()}
    if isinstance(value, list):
        return [as_bytes(v) for v in value]
    return value.encode() if isinstance(value, str) else value


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar_bytes(members, mode="w:") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def fails(function, *words, kind=DataError):
    """Assert that a call fails for the user with one line that has the words."""
    with pytest.raises(kind) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message
