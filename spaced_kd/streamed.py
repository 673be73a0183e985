"""Data that do not fit: images are read when they are needed, ahead of the devices."""

import collections
import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from spaced_kd import stream_memory
from spaced_kd.config import DataConfig
from spaced_kd.data import host_crop
from spaced_kd.data.host_crop import HostCrop
from spaced_kd.data.read_ahead import MIB, read_ahead
from spaced_kd.experiment import Experiment
from spaced_kd.feeds import SeedSlots
from spaced_kd.parallel import SeedGroup
from spaced_kd.plan_reads import PlanReads, StepImages
from spaced_kd.schedule import Segment
from spaced_kd.steps import DeviceData, Slots
from spaced_kd.types import Source, Split
from spaced_kd.views import views_of

_log = logging.getLogger("spaced_kd")

RUNNING = 2
"""Pieces of a group's devices, or test batches, there: one in use, one waiting."""
_ORIGINALS = "; originals being decoded, one a thread, come on top"


class Streamed:
    """Brings the images of one piece at a time, read ahead across ticks (`Feed`).

    The plan says what comes next; whoever asks for something else (a resumed run) makes
    it start reading there.
    """

    batch_axis = 0

    def __init__(self, experiment: Experiment):
        """Prepare; reading starts with the first piece."""
        config, dataset = experiment.config, experiment.dataset
        groups, ticks = experiment.groups, experiment.ticks
        self._experiment = experiment
        self._reads = PlanReads(experiment)
        self._ahead = stream_memory.steps_ahead(config, dataset, groups, ticks)
        _log.info(
            "each process reads ahead %d steps of %.3g MiB, at most %g MiB with those "
            "in use%s",
            self._ahead,
            stream_memory.step_bytes(config, dataset, groups, ticks) / MIB,
            stream_memory.train_memory_mib(config.data, dataset),
            "" if isinstance(dataset.train, Split) else _ORIGINALS,
        )
        self._iterator: Any = None
        self._next = 0
        self._running = collections.defaultdict(collections.deque)

    def piece(self, group: SeedGroup, segment: Segment) -> tuple[DeviceData, SeedSlots]:
        """Return the images of a piece, and which of them each step shows."""
        self._seek(self._reads.find(group, segment, self._next))
        image, index = self._take(segment.stop - segment.start)
        label = self._experiment.dataset.train.label[np.maximum(index, 0)]
        devices = index.shape[:-3]
        data: Any = (
            image.reshape(*devices, -1, *image.shape[-3:]),
            label.reshape(*devices, -1),
        )
        self._wait(group)
        if not devices:
            data = group.put(data)
        return DeviceData(*data), self._slots(group, segment, index)

    def started(self, group: SeedGroup, outputs: object) -> None:
        """Remember what to wait for before more images are brought."""
        self._running[group.devices].append(jax.tree.leaves(outputs)[0])

    def follow(self, experiment: Experiment) -> None:
        """Go on with another plan; what was read ahead of the old one is dropped."""
        self.close()
        self._experiment, self._reads, self._next = experiment, PlanReads(experiment), 0

    def close(self) -> None:
        """End the threads; those amid a step finish it."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None
        self._running.clear()

    def _seek(self, element: int) -> None:
        if self._iterator is None or element != self._next:
            self.close()
            threads = self._experiment.config.data.stream_threads
            self._iterator = read_ahead(self._reads, element, threads, self._ahead)
            self._next = element

    def _take(self, length: int) -> StepImages:
        """Return the next steps as one, with an axis for them before R."""
        whole: list[np.ndarray] = []
        for t in range(length):
            step = next(self._iterator)
            axis = step.index.ndim - 2
            whole = whole or [
                np.empty((*part.shape[:axis], length, *part.shape[axis:]), part.dtype)
                for part in step
            ]
            for target, part in zip(whole, step, strict=True):
                np.moveaxis(target, axis, 0)[t] = part
            # Or this step would stay in memory until the next one is there.
            del step, part
        self._next += length
        return StepImages(*whole)

    def _wait(self, group: SeedGroup) -> None:
        # Without it a host that reads faster than the device fills the device's memory.
        running = self._running[group.devices]
        while len(running) >= RUNNING:
            jax.block_until_ready(running.popleft())

    def _slots(
        self, group: SeedGroup, segment: Segment, index: np.ndarray
    ) -> SeedSlots:
        *_, steps, reads, per_device = index.shape
        number = np.arange(steps * reads * per_device, dtype=np.int32)
        number = number.reshape(steps, reads, per_device)
        number = np.where(index < 0, np.int32(-1), number)
        views = views_of(self._experiment.config, segment)
        steps_first = lambda rows: rows if rows.ndim == 2 else rows.swapaxes(0, 1)
        slots: list[dict[str, Slots]] = []
        for s in range(len(group.seeds)):
            slots.append({})
            for v, view in enumerate(views):
                own = (..., s * len(views) + v, slice(None))
                place = np.arange(segment.start, segment.stop, dtype=np.int32)
                slots[-1][view.slot] = Slots(
                    place - np.int32(view.lag),
                    steps_first(number[own]),
                    steps_first(index[own]),
                )
        return tuple(slots)


class _EvalReads:
    """A sequence: element k is test image k, [H, W, C] uint8."""

    def __init__(self, test: Source, crop: HostCrop):
        self._test, self._crop = test, crop

    def __len__(self) -> int:
        return len(self._test.label)

    def __getitem__(self, index: int) -> np.ndarray:
        return host_crop.eval_pixels(self._test.open(index), self._crop)


def eval_batches(test: Source, config: DataConfig) -> Iterator[np.ndarray]:
    """Yield the test images in order, [eval_batch_size, H, W, C] uint8, read ahead.

    The last batch is filled up with zeros.

    Raises:
      DataError: an image that cannot be read; names the file.
    """
    size, count = config.eval_batch_size, len(test.label)
    ahead = stream_memory.tests_ahead(config, test)
    reads = _EvalReads(test, host_crop.host_crop_of(config, test.shape[0]))
    images = read_ahead(reads, 0, config.stream_threads, ahead)
    try:
        for start in range(0, count, size):
            batch = np.zeros((size, *test.shape), np.uint8)
            for row in range(min(size, count - start)):
                batch[row] = next(images)
            yield batch
    finally:
        images.close()
