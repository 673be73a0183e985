"""Data sets: one a file, one line here; as uint8 in memory, or read on demand."""

import logging

import numpy as np

from spaced_kd import registry
from spaced_kd.config import DataConfig
from spaced_kd.data import (
    cifar10,
    cifar100,
    contents,
    digits,
    fake,
    imagenet,
    imagenet100,
    roots,
    tiny_imagenet,
)
from spaced_kd.errors import DataError, one_line
from spaced_kd.types import Dataset, Source, Split

DATASETS = registry.Open(
    {
        "digits": digits.load,
        "cifar10": cifar10.load,
        "cifar100": cifar100.load,
        "tiny_imagenet": tiny_imagenet.load,
        "imagenet": imagenet.load,
        "imagenet100": imagenet100.load,
        "fake": fake.load,
    }
)

logger = logging.getLogger("spaced_kd")


def load(config: DataConfig) -> Dataset:
    """Return the data set that the config names, checked, as the run will use it.

    Args:
      config: name, folder, and the size and seed of class-balanced subsets. The subset
        depends on `subset_seed` only, not on the seed of the run.

    Returns:
      The data set, with its fingerprint.

    Raises:
      ConfigError: unknown name, or a subset that cannot be drawn.
      DataError: missing, incomplete, unreadable or malformed data.
    """
    dataset = _loaded(config)
    contents.check(dataset)
    train, test = _subset(config, dataset, "train"), _subset(config, dataset, "test")
    fingerprint = contents.fingerprint(train, test)
    dataset = dataset._replace(train=train, test=test, fingerprint=fingerprint)
    shared = contents.overlap(dataset)
    if shared:
        logger.warning(
            "%s: %d of %d test images also occur in the training split.",
            dataset.name,
            shared,
            len(test.label),
        )
    return dataset


def _loaded(config: DataConfig) -> Dataset:
    loader = registry.lookup(DATASETS, config.name, "config.data.name")
    try:
        dataset = loader(config)
    # A link that leads nowhere, a folder without permission, a disk that fails: any of
    # a loader's many looks at the file system may meet it.
    except OSError as error:
        raise DataError(
            f"{error.filename or roots.data_root(config)} cannot be read: "
            f"{error.strerror or one_line(error)}; mend or remove it."
        ) from error
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"the loader of config.data.name='{config.name}' returns a "
            f"{type(dataset).__name__}; it must return a spaced_kd.types.Dataset."
        )
    return dataset


def _subset(config: DataConfig, dataset: Dataset, which: str) -> Split | Source:
    split: Split | Source = getattr(dataset, which)
    field = f"num_{which}_examples"
    count = getattr(config, field)
    if count == 0:
        return split
    generator = np.random.default_rng((config.subset_seed, int(which == "test")))
    return contents.class_balanced(
        split, dataset.num_classes, count, generator, f"config.data.{field}"
    )
