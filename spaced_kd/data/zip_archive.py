"""Read members of zip archives in memory, by the rules of `archive`.

The list of members is Python's to parse; their content is unpacked here, because only
so it is certain that a member holds exactly the bytes it declares, and because threads
can share one file by reading at offsets.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from spaced_kd.data.archive import Gate, Limits
from spaced_kd.errors import DataError

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x2041  # flag bits 0, 6 and 13: encrypted, strongly, list included
_PATCH = 0x20
_UTF8 = 0x800
_SIGNATURE = b"PK\x03\x04"
# Signature, 22 bytes that the list has too, the lengths of name and extra field.
_LOCAL = struct.Struct("<4s22xHH")


class ZipArchive:
    """The files of one zip archive; a context manager. `read` is safe in threads."""

    def __init__(self, path: Path, limits: Limits):
        """Check every member's entry; read no content.

        Args:
          path: the archive.
          limits: what an honest one holds.

        Raises:
          DataError: damaged or refused; names the member.
        """
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        # Its parser raises whatever it meets in a damaged file, e.g. struct.error.
        except Exception as error:
            kind = type(error).__name__
            raise DataError(f"{path} is damaged: {kind}.") from error
        gate = Gate(path, limits)
        for info in infos:
            gate.admit(info.orig_filename, info.file_size, _problem(info))
        _check_places(path, infos)
        self._infos = {info.orig_filename: info for info in infos if not info.is_dir()}
        self._file = path.open("rb")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exception) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        """Give the names of the files, in the order of the archive's list."""
        return iter(self._infos)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
          DataError: not there, damaged, or other than declared in size or checksum.
        """
        if name not in self._infos:
            raise DataError(f"{self._path} has no member '{name}'.")
        info = self._infos[name]
        content = _unpack(self._packed(info), info)
        if content is None:
            what = "does not hold what its header declares"
            raise DataError(f"{self._path} is refused: member {name!r} {what}.")
        return content

    def _packed(self, info: zipfile.ZipInfo) -> bytes:
        descriptor, at = self._file.fileno(), info.header_offset
        header = os.pread(descriptor, _LOCAL.size, at)
        if len(header) == _LOCAL.size:
            signature, name_size, extra_size = _LOCAL.unpack(header)
            at += _LOCAL.size
            encoding = "utf-8" if info.flag_bits & _UTF8 else "cp437"
            name = os.pread(descriptor, name_size, at).decode(encoding, "replace")
            if signature == _SIGNATURE and name == info.orig_filename:
                at += name_size + extra_size
                return os.pread(descriptor, info.compress_size, at)
        where = f"{self._path} is damaged: member {info.orig_filename!r}"
        raise DataError(f"{where} is not where the list of members says.")


def _problem(info: zipfile.ZipInfo) -> str:
    # Python cuts names at a zero, and from 3.12 on takes one from an extra field.
    if info.filename != info.orig_filename:
        return f"is also called {info.filename!r}"
    # Archives made on other systems leave the Unix mode at 0.
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is special"
    if info.filename.endswith("/") and info.file_size:
        return "is a folder with content"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in _METHODS or info.flag_bits & _PATCH:
        return f"is packed by method {info.compress_type}; 0 and 8 are allowed"
    return ""


def _check_places(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse members that lie beyond the archive's end, or share bytes.

    The first would have memory taken for bytes that are not there; the second is the
    trick of bombs whose entries look small.
    """
    end, length = 0, path.stat().st_size
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.orig_filename
        if info.header_offset < end:
            raise DataError(f"{path} is refused: member {name!r} overlaps another.")
        # At least; the extra field's length is known only where the member is read.
        end = info.header_offset + _LOCAL.size + len(name) + info.compress_size
        if end > length:
            what = f"ends at byte {end} of {length}"
            raise DataError(f"{path} is refused: member {name!r} {what}.")


def _unpack(packed: bytes, info: zipfile.ZipInfo) -> bytes | None:
    """Return the content, None where size or checksum are not the declared ones."""
    content = packed
    if info.compress_type == zipfile.ZIP_DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # One byte more than declared is enough to see a lie.
            content = inflater.decompress(packed, info.file_size + 1)
        except zlib.error:
            return None
        if not inflater.eof or inflater.unused_data:
            return None
    if len(packed) != info.compress_size or len(content) != info.file_size:
        return None
    return content if zlib.crc32(content) == info.CRC else None
