"""What a piece of the plan needs on the devices: images, and rows of them a step.

Two ways: `Resident` keeps the whole training split there; `streamed.Streamed` brings
the images of the piece alone. The compiled steps see the same types either way.
"""

from typing import Protocol

import numpy as np

from spaced_kd.experiment import Experiment
from spaced_kd.parallel import SeedGroup
from spaced_kd.schedule import Segment
from spaced_kd.steps import DeviceData, Slots
from spaced_kd.types import Device, Split
from spaced_kd.views import views_of

SeedSlots = tuple[dict[str, Slots], ...]
"""By repetition of a group: whose batch -> which examples."""


class Feed(Protocol):
    """Gives a group's programs their data, piece by piece."""

    @property
    def batch_axis(self) -> int | None:
        """Which axis of the data the group's devices share; None: each has all."""
        ...

    def piece(self, group: SeedGroup, segment: Segment) -> tuple[DeviceData, SeedSlots]:
        """Return data and slots of a tick of the plan, or of the next part of one."""
        ...

    def started(self, group: SeedGroup, outputs: object) -> None:
        """Learn what the group's program will return for the last piece."""
        ...

    def follow(self, experiment: Experiment) -> None:
        """Go on with another plan of the same run."""
        ...

    def close(self) -> None:
        """Let go of threads and memory; a later `piece` takes them again."""
        ...


class Resident:
    """The whole training split on the devices, brought there once."""

    batch_axis = None

    def __init__(self, experiment: Experiment, train: Split):
        """Prepare; the data move when first asked for."""
        self._experiment, self._train = experiment, train
        self._data: dict[tuple[Device, ...], DeviceData] = {}

    def piece(self, group: SeedGroup, segment: Segment) -> tuple[DeviceData, SeedSlots]:
        """Return the split, and rows of it."""
        if group.devices not in self._data:
            self._data[group.devices] = DeviceData(*group.put(tuple(self._train)))
        slots = tuple(self._slots(group, seed, segment) for seed in group.seeds)
        return self._data[group.devices], slots

    def started(self, group: SeedGroup, outputs: object) -> None:
        """Nothing waits: no data are brought."""

    def follow(self, experiment: Experiment) -> None:
        """Keep the data: they are those of every plan."""
        self._experiment = experiment

    def close(self) -> None:
        """Keep the data, which cost nothing while nothing runs."""

    def _slots(self, group: SeedGroup, seed: int, segment: Segment) -> dict[str, Slots]:
        slots, streams = {}, self._experiment.streams[seed]
        for view in views_of(self._experiment.config, segment):
            start, stop = segment.start - view.lag, segment.stop - view.lag
            index = view.stream(streams).indices(start, stop)
            places = np.arange(start, stop, dtype=np.int32)
            slots[view.slot] = Slots(places, group.split_batch(index))
        return slots
