"""CIFAR-100 (A. Krizhevsky, 2009): 50,000 + 10,000 images of 32x32, 100 classes."""

import os
from pathlib import Path

from spaced_kd.config import DataConfig
from spaced_kd.data import cache, cifar100_archive, tfds_folder
from spaced_kd.data.cifar100_archive import OFFICIAL, Release
from spaced_kd.data.cifar100_tables import NUM_CLASSES, SHAPE
from spaced_kd.data.contents import content_order
from spaced_kd.types import Dataset, Split

# As in the released code (online_KD/utils.py; method A.8): the training split's
# statistics, cut to three digits.
MEAN = (0.507, 0.487, 0.441)
STD = (0.267, 0.256, 0.276)


def load(config: DataConfig, release: Release = OFFICIAL) -> Dataset:
    """Return the data set; prepare, decode and cache it where that is not done yet.

    The order of the examples is `content_order`, so that a seed means the same run
    whoever prepared the folder: TFDS shuffles, the archive has an order of its own.

    Args:
      config: `dir` says where to look, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      release: the archive to prepare from, and the size of the data set.

    Raises:
      DataError: not there and not to be had, damaged, or not all of it.
      StorageError: nothing is prepared and the folder cannot be written.
    """
    root = data_root(config)
    folder = tfds_folder.find(root, "cifar100")
    if folder is None:
        folder = cifar100_archive.prepare(root, release)
    name = f"cifar100-{tfds_folder.content_key(folder)}"
    arrays = cache.cached(root, name, lambda: _decode(folder, release))
    train = Split(arrays["train_image"], arrays["train_label"])
    test = Split(arrays["test_image"], arrays["test_label"])
    return Dataset("cifar100", train, test, NUM_CLASSES, MEAN, STD, fingerprint="")


def data_root(config: DataConfig) -> Path:
    """Return the folder that holds prepared data sets."""
    default = "~/tensorflow_datasets"
    chosen = config.dir or os.environ.get("TFDS_DATA_DIR") or default
    return Path(os.path.expanduser(chosen))


def _decode(folder: Path, release: Release) -> cache.Arrays:
    cache.logger.info("Decoding the images in %s (once, about 10 s).", folder)
    arrays = {}
    for which, split in tfds_folder.read(folder, SHAPE).items():
        release.check_counts(which, split.label, str(folder))
        order = content_order(split)
        arrays[f"{which}_image"] = split.image[order]
        arrays[f"{which}_label"] = split.label[order]
    return arrays
