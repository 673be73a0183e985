"""Seals: what a file held when it was written, so that a later change shows.

A seal detects damage, and alteration by anyone who does not compute the seals anew. It
is no signature: it says nothing about who wrote the file.
"""

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "seal"
"""In a sealed JSON object: the SHA-256 of everything else in it."""

_PRIME = 2**61 - 1


@dataclasses.dataclass(frozen=True)
class Seal:
    """What tells the first `length` bytes of a log, `lines` lines, from others.

    plain, numbered: sums modulo a prime of the lines' CRC-32, each as it is and times
    its line's number. They say which line has changed if only one has: two syndromes
    of a Reed-Solomon code.
    """

    length: int
    lines: int
    sha256: str
    plain: int
    numbered: int


class RunningSeal:
    """The seal of a log that grows by whole lines; nothing is read again."""

    def __init__(self, lines: bytes = b""):
        """Begin with what the log holds already."""
        self.length = self._lines = self._plain = self._numbered = 0
        self._sha = hashlib.sha256()
        self.add(lines)

    def add(self, lines: bytes) -> None:
        """Go on with whole lines, each with its newline."""
        self._sha.update(lines)
        self.length += len(lines)
        for line in lines.split(b"\n")[:-1]:
            self._lines += 1
            code = zlib.crc32(line)
            self._plain += code
            self._numbered += self._lines * code

    def seal(self) -> Seal:
        """Return the seal of all lines so far."""
        plain, numbered = self._plain % _PRIME, self._numbered % _PRIME
        sha256 = self._sha.hexdigest()
        return Seal(self.length, self._lines, sha256, plain, numbered)


def changed_line(found: Seal, wanted: Seal) -> int | None:
    """Return the number, from 1, of the only line that differs; None if unknown."""
    error = (found.plain - wanted.plain) % _PRIME
    if not error or found.lines != wanted.lines:
        return None
    times_number = (found.numbered - wanted.numbered) % _PRIME
    number = times_number * pow(error, -1, _PRIME) % _PRIME
    return number if 1 <= number <= found.lines else None


def mismatch(found: Seal, wanted: Seal) -> str:
    """Return what is wrong with bytes that have another seal; "" if nothing is."""
    if found == wanted:
        return ""
    if found.length < wanted.length:
        return f"has {found.length:,} bytes, {wanted.length:,} were sealed"
    number = changed_line(found, wanted)
    where = f"line {number} of " if number else ""
    return f"has been changed: {where}its first {wanted.length:,} bytes are not those"


def altered(path: Path, seal: Seal) -> str:
    """Return how the beginning of a file differs from what was sealed; "" if not.

    Raises:
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(seal.length)
    # In most cases it does not, and this takes a fraction of the time.
    if hashlib.sha256(data).hexdigest() == seal.sha256:
        return ""
    return mismatch(RunningSeal(data).seal(), seal)


def of_logs(info: Mapping[str, Any]) -> dict[str, Seal]:
    """Return the seals in a checkpoint's `info` by log; {} of an older version."""
    return {name: Seal(**fields) for name, fields in info.get("seals", {}).items()}


def of_content(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON object, without its seal, hex.

    It does not depend on the layout of the file or the order of its keys.
    """
    rest = {name: value for name, value in content.items() if name != KEY}
    # As it will be read back: keys that are numbers become text, and sort otherwise.
    plain = json.loads(json.dumps(rest, allow_nan=False))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its seal."""
    return {**content, KEY: of_content(content)}
