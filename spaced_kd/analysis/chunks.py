"""A split in chunks of one shape, and programs that sum over them, on all devices."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from spaced_kd.parallel import SeedGroup, data_parallel
from spaced_kd.types import Split


class Chunk(NamedTuple):
    """Examples of a split; on several devices each array has a first axis of devices.

    image: [b, H, W, C] uint8, as stored. label: [b] int32. weight: [b] float32, 1, and
    0 where the last chunk is filled up with copies of example 0.
    """

    image: Any
    label: Any
    weight: Any


def of(split: Split, size: int, group: SeedGroup) -> Iterator[Chunk]:
    """Yield the split in order, `size` examples a time, all devices together.

    Args:
      split: in memory.
      size: rounded up to a multiple of the devices; never more than the split needs.
      group: the devices.
    """
    count, devices = len(split.label), len(group.devices)
    size = min(size, count)
    size += -size % devices
    for start in range(0, count, size):
        index = np.arange(start, start + size)
        weight = (index < count).astype(np.float32)
        index = np.where(index < count, index, 0)
        arrays = split.image[index], split.label[index], weight
        yield Chunk(*(_split(array, group) for array in arrays))


def mixed(split: Split, seed: int = 0) -> Split:
    """Return a split in random order, for batches: some data sets come class by class.

    Args:
      split: in memory.
      seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(len(split.label))
    return Split(split.image[order], split.label[order])


def program(fn: Callable[[Any, Chunk], Any], group: SeedGroup) -> Callable:
    """Compile fn(args, chunk) -> a tree of sums over the chunk's examples.

    Args:
      fn: pure; sees one device's share of the chunk, and weighs examples by
        `chunk.weight`.
      group: the devices; the result is the sum over them.
    """
    summed = lambda args, chunk: group.axis.sum(fn(args, chunk))
    return data_parallel(summed, group.devices, in_axes=(None, 0))


def _split(array: np.ndarray, group: SeedGroup) -> np.ndarray:
    devices = len(group.devices)
    if devices == 1:
        return array
    return array.reshape(devices, -1, *array.shape[1:])
