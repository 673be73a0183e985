"""How many images may wait in memory, where a split is read while the run goes on."""

import math
from collections.abc import Sequence

import numpy as np

from spaced_kd.config import Config, DataConfig
from spaced_kd.data.read_ahead import affordable
from spaced_kd.parallel import SeedGroup
from spaced_kd.schedule import Segment, Tick
from spaced_kd.types import Dataset, Source, Split
from spaced_kd.views import views_of

_EVAL_SHARE = 0.25  # of the memory, for test images, where those are streamed
# Whoever takes a batch still has it while the next one is filled.
_EVAL_BATCHES = 2


def train_memory_mib(config: DataConfig, dataset: Dataset) -> float:
    """Return how much of the memory training images may take, MiB."""
    return config.stream_memory_mib * _train_share(dataset)


def step_bytes(
    config: Config,
    dataset: Dataset,
    groups: Sequence[SeedGroup],
    ticks: Sequence[Tick],
) -> int:
    """Return the most bytes that the images of one step take in this process."""
    batch = np.empty((1, config.data.batch_size), bool)
    most = max(
        len(group.seeds) * len(views_of(config, tick)) * group.split_batch(batch).size
        for tick in _training(ticks)
        for group in groups
    )
    return most * math.prod(dataset.image_shape)


def steps_ahead(
    config: Config,
    dataset: Dataset,
    groups: Sequence[SeedGroup],
    ticks: Sequence[Tick],
) -> int:
    """Return how many steps' training images may wait for their use.

    Raises:
      ConfigError: not even one; gives the numbers.
    """
    longest = max(tick.stop - tick.start for tick in _training(ticks))
    return affordable(
        config.data.stream_memory_mib,
        _train_share(dataset),
        step_bytes(config, dataset, groups, ticks),
        held=longest if config.compose == "scan" else 1,
        what="the training images of a step",
    )


def tests_ahead(config: DataConfig, test: Source) -> int:
    """Return how many test images may wait for their use.

    Raises:
      ConfigError: not even one; gives the numbers.
    """
    return affordable(
        config.stream_memory_mib,
        _EVAL_SHARE,
        math.prod(test.shape),
        held=_EVAL_BATCHES * config.eval_batch_size,
        what="a test image",
    )


def _train_share(dataset: Dataset) -> float:
    return 1.0 if isinstance(dataset.test, Split) else 1.0 - _EVAL_SHARE


def _training(ticks: Sequence[Tick]) -> list[Segment]:
    return [tick for tick in ticks if isinstance(tick, Segment)]
