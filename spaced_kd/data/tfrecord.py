"""Read TFRecord files without TensorFlow, every checksum verified.

Only what a prepared TFDS folder needs: uncompressed files small enough for memory.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spaced_kd.errors import DataError

# A record: length (uint64), its masked CRC32C, data, masked CRC32C of the data.
_LENGTH, _CRC = struct.Struct("<Q"), struct.Struct("<I")
_HEADER = _LENGTH.size + _CRC.size
_MASK_DELTA = 0xA282EAD8
# CRC starts from all ones. These four bytes lead there from zero, where leading zeros
# change nothing: so records of any lengths can be right-aligned and summed in step.
_FROM_ZERO_TO_ONES = np.frombuffer(b"\x54\x64\x1f\x64", np.uint8)
_AT_ONCE = 2048  # records, so that the working set stays in cache


def read_records(path: Path) -> list[bytes]:
    """Return the records of one file.

    Raises:
      DataError: a damaged or truncated file; names the first bad record.
    """
    content = path.read_bytes()
    lengths, records, sums = [], [], []
    at = 0
    while at < len(content):
        end = at + _HEADER
        size = _LENGTH.unpack_from(content, at)[0] if end <= len(content) else 0
        stop = end + size + _CRC.size
        if stop > len(content):
            raise DataError(f"{path}: record {len(records)} is truncated or damaged.")
        lengths.append(content[at : at + _LENGTH.size])
        records.append(content[end : end + size])
        sums.append(_CRC.unpack_from(content, at + _LENGTH.size))
        sums.append(_CRC.unpack_from(content, end + size))
        at = stop
    stored = np.asarray(sums, np.uint32).reshape(-1, 2)
    actual = np.stack([masked_crc32c(lengths), masked_crc32c(records)], axis=1)
    wrong = np.flatnonzero((stored != actual).any(axis=1))
    if wrong.size:
        raise DataError(
            f"{path}: record {wrong[0]} has a wrong checksum ({wrong.size} of "
            f"{len(records)} have); the file is damaged, prepare it again."
        )
    return records


def masked_crc32c(blocks: Sequence[bytes]) -> np.ndarray:
    """Return the checksum that TFRecord stores with each block, [N] uint32."""
    parts = [
        _crc32c(blocks[start : start + _AT_ONCE])
        for start in range(0, len(blocks), _AT_ONCE)
    ]
    crc = np.concatenate([np.zeros(0, np.uint32), *parts])
    return ((crc >> 15) | (crc << 17)) + np.uint32(_MASK_DELTA)


def _crc32c(blocks: Sequence[bytes]) -> np.ndarray:
    prefix = len(_FROM_ZERO_TO_ONES)
    width = prefix + max(map(len, blocks))
    grid = np.zeros((len(blocks), width), np.uint8)
    for row, block in zip(grid, blocks, strict=True):
        start = width - len(block)
        row[start - prefix : start] = _FROM_ZERO_TO_ONES
        row[start:] = np.frombuffer(block, np.uint8)
    register = np.zeros(len(blocks), np.uint32)
    for column in np.ascontiguousarray(grid.T):
        register = _TABLE[(register ^ column) & 0xFF] ^ (register >> 8)
    return ~register


def _make_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        # 0x82F63B78: the Castagnoli polynomial, bit-reversed.
        table = (table >> 1) ^ np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0))
    return table


_TABLE = _make_table()
