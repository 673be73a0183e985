"""Read members of tar archives, and the rules for archives of every kind.

Nothing is ever extracted to a path: members are read in memory. An archive with a
single member that no honest one has is refused as a whole. `zip_archive` reads zip
files by the same rules.
"""

import contextlib
import dataclasses
import gzip
import io
import posixpath
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from spaced_kd.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
# A tar header has 512 bytes; a long name or extended attributes take a few more blocks.
_HEADER_BYTES_EACH, _HEADER_BYTES = 4096, 1 << 20
_RATIO_FROM = 1 << 20  # bytes; below, no ratio can harm and small texts pack well


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much an honest archive holds; more is an attack or a mistake.

    The defaults are far above the CIFAR archives: 9 members, 186 MB, ratio 1.1.

    members: files and folders together.
    member_bytes: of one member, unpacked.
    total_bytes: of all members, unpacked.
    ratio: unpacked bytes per byte of the archive, from 1 MiB unpacked on. Deflate
      reaches 1032; images and pickled pixels stay below 2.
    """

    members: int = 32
    member_bytes: int = 1 << 28
    total_bytes: int = 1 << 30
    ratio: float = 100.0


class Span(NamedTuple):
    """Where a member's content lies in a plain tar: first byte, and how many."""

    offset: int
    size: int


class Gate:
    """Sees the headers of one archive in turn and refuses it at the first bad one."""

    def __init__(self, path: Path, limits: Limits):
        """Begin with an archive of which no member was seen yet."""
        self._path, self._limits = path, limits
        self._packed = path.stat().st_size
        self._seen: set[str] = set()
        self._total = 0
        self.last = ""  # member that was admitted

    def admit(self, name: str, size: int, problem: str = "") -> None:
        """Look at the next member.

        Args:
          name: as the archive has it.
          size: declared, unpacked, bytes.
          problem: what the reader of this format found already.

        Raises:
          DataError: names archive, member and reason.
        """
        # As file systems that ignore case would see it: `A//b` and `a/B` are one file.
        key = posixpath.normpath(name).casefold()
        self._total += size
        problem = problem or self._name_problem(name, key) or self._size_problem(size)
        if problem:
            raise DataError(f"{self._path} is refused: member {name!r} {problem}.")
        self._seen.add(key)
        self.last = name

    def _name_problem(self, name: str, key: str) -> str:
        if not name:
            return "has no name"
        # A colon stands for drives (C:x) and for streams of a file.
        if name.startswith("/") or ".." in name.split("/") or set(name) & set("\\:\0"):
            return "would leave the folder"
        if key in self._seen:
            return "occurs twice"
        if len(self._seen) >= self._limits.members:
            return f"comes after {self._limits.members} others"
        return ""

    def _size_problem(self, size: int) -> str:
        limits, total = self._limits, self._total
        if not 0 <= size <= limits.member_bytes:
            return f"has {size} bytes; 0 to {limits.member_bytes} are allowed"
        if total > limits.total_bytes:
            return f"brings the whole to {total} bytes, more than {limits.total_bytes}"
        if total > max(_RATIO_FROM, limits.ratio * self._packed):
            return (
                f"brings the whole to {total} bytes, more than {limits.ratio:g} times "
                f"the {self._packed} of the archive"
            )
        return ""


def read_members(
    path: Path, names: Collection[str], limits: Limits | None = None
) -> dict[str, bytes]:
    """Return the content of each named member of a .tar or .tar.gz file.

    Args:
      path: the archive.
      names: exact names of regular files in it.
      limits: the defaults of `Limits` where None.

    Raises:
      DataError: damaged, incomplete or refused; names the member.
    """
    files = {}
    with _opened(path) as source:
        for member in _members(path, source, limits or Limits()):
            if member.name in names and member.isreg():
                source.seek(member.offset_data)
                files[member.name] = source.read(member.size)
                if len(files[member.name]) != member.size:
                    raise EOFError
    for name in names:
        if name not in files:
            raise DataError(f"{path} has no member '{name}'.")
    return files


def index_tar(path: Path, limits: Limits) -> dict[str, Span]:
    """Return where each file of a plain tar lies, for random access.

    Reads the headers only, and all of them before it returns.

    Args:
      path: a .tar without compression.
      limits: thousands of members need others than the default.

    Raises:
      DataError: damaged, compressed or refused; names the member.
    """
    with _damage(path), path.open("rb") as file:
        if file.read(2) == _GZIP_MAGIC:
            raise DataError(f"{path} is compressed; only a plain tar can be indexed.")
        file.seek(0)
        spans = {}
        for member in _members(path, file, limits):
            if member.isreg():
                spans[member.name] = Span(member.offset_data, member.size)
    return spans


def _members(
    path: Path, source: io.BufferedIOBase, limits: Limits
) -> Iterator[tarfile.TarInfo]:
    gate = Gate(path, limits)
    headers = _Headers(path, source, limits.members, gate)
    # "r:" reads plain tar only; what decompresses is the caller's choice.
    with tarfile.open(fileobj=headers, mode="r:") as archive:
        for member in archive:
            gate.admit(member.name, member.size, _kind_problem(member))
            yield member


def _kind_problem(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "is a link"
    # Not isfile(), which sparse files are, too; some of those have a regular type.
    plain = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
    return "is special" if member.type not in plain or member.issparse() else ""


class _Headers(io.RawIOBase):
    """What `tarfile` reads: headers. It would read one of gigabytes in one piece."""

    def __init__(self, path: Path, source: io.BufferedIOBase, members: int, gate: Gate):
        self._path, self._source, self._gate = path, source, gate
        self._left = _HEADER_BYTES + _HEADER_BYTES_EACH * members

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            last = self._gate.last
            where = f"behind member {last!r}" if last else "of the first member"
            raise DataError(f"{self._path} is refused: headers {where} are too large.")
        self._left -= size
        return self._source.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    with _damage(path), path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if packed:
            with gzip.open(file) as unpacked:
                yield unpacked
        else:
            yield file


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    errors = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError)
    try:
        yield
    # Headers of headers recurse.
    except (*errors, RecursionError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}.") from error
