"""The images of every step of a plan, as a sequence in the order of use.

Which images, and how they are cropped, is a pure function of the plan: what a replay
reads again are the same pixels, and a resumed run reads what an uninterrupted one does.
"""

import bisect
import functools
import itertools
import threading
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from spaced_kd.data import host_crop
from spaced_kd.data.host_crop import Draws
from spaced_kd.experiment import Experiment
from spaced_kd.parallel import SeedGroup
from spaced_kd.schedule import Segment
from spaced_kd.types import Split, shape_of
from spaced_kd.views import View, views_of


class StepImages(NamedTuple):
    """What one step reads: R batches, shared by the D devices of this process or one.

    image: [D, R, b, H, W, C] or [R, b, H, W, C] uint8; zeros where index is -1.
    index: [D, R, b] or [R, b] int32, rows of the split; -1 is padding.
    """

    image: np.ndarray
    index: np.ndarray


class PlanReads:
    """A sequence: element k holds the images of the k-th step that the plan runs.

    Groups of repetitions take turns, a tick each. Elements may be read in any order and
    by several threads.
    """

    def __init__(self, experiment: Experiment):
        """Count the steps; nothing is read."""
        self._experiment = experiment
        self._train = experiment.dataset.train
        self._config = experiment.config.data
        self._batch = np.arange(self._config.batch_size)[None]
        self._words = [
            tuple(
                np.asarray(jax.random.key_data(key))
                for key in (streams.keys.augment, streams.keys.replay_augment)
            )
            for streams in experiment.streams
        ]
        self._runs = [
            (group, tick)
            for tick in experiment.ticks
            if isinstance(tick, Segment)
            for group in experiment.groups
        ]
        lengths = (tick.stop - tick.start for _, tick in self._runs)
        self._first = list(itertools.accumulate(lengths, initial=0))
        self._starts = {
            _start_of(group, tick): first
            for (group, tick), first in zip(self._runs, self._first, strict=False)
        }
        # Streams keep a few epochs' orders, which threads would all make at once.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of steps in the whole run."""
        return self._first[-1]

    def __getitem__(self, index: int) -> StepImages:
        """Read one step.

        Raises:
          DataError: an image that cannot be read; names the file.
        """
        group, tick, step = self._at(index)
        batches = [
            self._rows(group, seed, view, step - view.lag)
            for seed in group.seeds
            for view in views_of(self._experiment.config, tick)
        ]
        rows = np.stack([rows for rows, _ in batches], axis=-2)
        places = group.split_batch(self._batch)[0]
        image = np.zeros((*rows.shape, *shape_of(self._train)), np.uint8)
        for *device, r, i in zip(*np.nonzero(rows >= 0), strict=True):
            at, place = (*device, r, i), int(places[(*device, i)])
            image[at] = self._pixels(int(rows[at]), batches[r][1](place))
        return StepImages(image, rows)

    def find(self, group: SeedGroup, segment: Segment, expected: int) -> int:
        """Return the element of a segment's first step.

        Args:
          group: whose turn it is.
          segment: a tick, or the rest of one where `expected` is.
          expected: the element to look at first.
        """
        wanted = _start_of(group, segment)
        if expected < len(self):
            turn, tick, step = self._at(expected)
            if wanted == _start_of(turn, tick._replace(start=step)):
                return expected
        return self._starts[wanted]

    def _at(self, element: int) -> tuple[SeedGroup, Segment, int]:
        run = bisect.bisect_right(self._first, element) - 1
        group, tick = self._runs[run]
        return group, tick, tick.start + element - self._first[run]

    def _rows(
        self, group: SeedGroup, seed: int, view: View, step: int
    ) -> tuple[np.ndarray, Callable[[int], Draws]]:
        """Return a batch's rows of the split, [D, b] or [b], and place -> its draws."""
        streams = self._experiment.streams[seed]
        with self._lock:
            rows = view.stream(streams).indices(step, step + 1)
        words = self._words[seed][view.reaugmented]
        draws = functools.partial(host_crop.crop_draws, words, step)
        return group.split_batch(rows)[0], draws

    def _pixels(self, row: int, draw: Draws) -> np.ndarray:
        # A split in memory is given as it is: its crop is the device's work.
        if isinstance(self._train, Split):
            return self._train.image[row]
        crop = host_crop.host_crop_of(self._config, self._train.shape[0])
        return host_crop.train_pixels(self._train.open(row), crop, draw)


def _start_of(group: SeedGroup, segment: Segment) -> tuple:
    return group.seeds, segment._replace(stop=segment.start)
