"""Read files from a tar archive by exact name; nothing is ever extracted.

An archive with a single member that no honest one has is refused as a whole.
"""

import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

from spaced_kd.errors import DataError

# Far above any honest archive of ours; more is an attack or a mistake.
_MEMBER_BYTES = 1 << 28
_MEMBERS = 32


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the content of each named member of a .tar.gz file.

    Args:
      path: the archive.
      names: exact names of regular files in it.

    Raises:
      DataError: damaged, incomplete or refused; names the member.
    """
    files, seen = {}, set()
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                _check_member(member, seen, path)
                file = archive.extractfile(member)
                if member.name in names and file is not None:
                    files[member.name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}.") from error
    for name in names:
        if name not in files:
            raise DataError(f"{path} has no member '{name}'.")
    return files


def _check_member(member: tarfile.TarInfo, seen: set[str], path: Path) -> None:
    name, problem = member.name, ""
    if name.startswith("/") or ".." in name.split("/") or set(name) & set("\\:\0"):
        problem = "would leave the folder"
    # Not member.isfile(): that also admits sparse files.
    elif member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        problem = "is a link or a special file"
    elif name.casefold() in seen:
        problem = "occurs twice"
    elif member.size > _MEMBER_BYTES:
        problem = f"has {member.size} bytes, more than {_MEMBER_BYTES}"
    elif len(seen) >= _MEMBERS:
        problem = f"comes after {_MEMBERS} others"
    if problem:
        raise DataError(f"{path} is refused: member {name!r} {problem}.")
    seen.add(name.casefold())
