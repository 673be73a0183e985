"""Load CIFAR-10 or -100: prepare, decode and cache what is not there yet."""

from pathlib import Path

from spaced_kd.config import DataConfig
from spaced_kd.data import cache, cifar_archive, contents, tfds_folder
from spaced_kd.data.cifar_release import SHAPE, CifarRelease
from spaced_kd.data.roots import data_root
from spaced_kd.types import Dataset, Split


def load_release(config: DataConfig, release: CifarRelease) -> Dataset:
    """Return the data set; prepare, decode and cache it where that is not done yet.

    A folder prepared by TFDS (array_record or TFRECORD) is taken as it is, else one is
    made from the official archive. The order of the examples is `content_order`, so
    that a seed means the same run whoever prepared the folder: TFDS shuffles, the
    archive has an order of its own.

    Args:
      config: `dir` says where to look, see `data_root`.
      release: the archive to prepare from, and the size of the data set.

    Raises:
      DataError: not there and not to be had, damaged, or not all of it.
      StorageError: nothing is prepared and the folder cannot be written.
    """
    root = data_root(config)
    folder = tfds_folder.find(root, release.name)
    if folder is None:
        folder = cifar_archive.prepare(root, release)
    name = f"{release.name}-{tfds_folder.content_key(folder)}"
    arrays = cache.cached(root, name, lambda: _decode(folder, release))
    return Dataset(
        release.name,
        Split(arrays["train_image"], arrays["train_label"]),
        Split(arrays["test_image"], arrays["test_label"]),
        release.num_classes,
        release.mean,
        release.std,
        fingerprint="",
    )


def _decode(folder: Path, release: CifarRelease) -> cache.Arrays:
    cache.logger.info("Decoding the images in %s (once, about 10 s).", folder)
    arrays = {}
    for which, split in tfds_folder.read(folder, SHAPE).items():
        release.check_counts(which, split.label, str(folder))
        contents.sort(split)
        arrays[f"{which}_image"], arrays[f"{which}_label"] = split
    return arrays
