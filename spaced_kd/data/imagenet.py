"""ImageNet-1K (Russakovsky et al., 2015): 1,281,167 + 50,000 images, 1000 classes."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np

from spaced_kd.config import DataConfig
from spaced_kd.data import class_files, record_images, tfds_folder
from spaced_kd.data.augment_spec import NORMALIZATIONS
from spaced_kd.data.roots import data_root
from spaced_kd.errors import DataError
from spaced_kd.types import Dataset, Source

# As in the released code (method A.8) and most others.
MEAN, STD = NORMALIZATIONS["imagenet"]
_SIDE = 224  # pixels

# Ours, in class folders, in the prepared folder of TFDS.
_SPLITS = (("train", "train", "train"), ("test", "val", "validation"))


@dataclasses.dataclass(frozen=True)
class CompleteCopy:
    """What a complete copy holds.

    classes: WordNet ids, sorted; the place is the label.
    train, test: number of images.
    """

    classes: tuple[str, ...]
    train: int
    test: int


def load(config: DataConfig, complete: CompleteCopy | None = None) -> Dataset:
    """Return the data set; its images are read on demand.

    Args:
      config: `dir` says where to look, else $TFDS_DATA_DIR, else
        ~/tensorflow_datasets; `image_size` is the side of what the networks see, 224
        where it is 0.
      complete: the size of a complete copy; None: the official one.

    Raises:
      DataError: not there, damaged, or not all of it.
    """
    complete = complete or CompleteCopy(official_classes(), 1_281_167, 50_000)
    return load_classes("imagenet", config, complete)


def load_classes(name: str, config: DataConfig, complete: CompleteCopy) -> Dataset:
    """Return ImageNet, or the part of it that consists of some classes.

    Images lie in `dir`, either as `train/<class>/*.JPEG` and `val/<class>/*.JPEG`, or
    with plain tar files `<class>.tar` in place of the class folders, or as TFDS
    prepares them: `imagenet2012/<version>/`, in array_record format. The order is by
    class, then by file name, in all three.

    Raises:
      DataError: as `load`.
    """
    root = data_root(config)
    splits = {}
    for split, folder, record_split in _SPLITS:
        images = _open_split(root, folder, record_split, config, complete)
        _check_count(f"{name} {split} in {root}", images, getattr(complete, split))
        splits[split] = images
    classes = len(complete.classes)
    return Dataset(
        name, **splits, num_classes=classes, mean=MEAN, std=STD, fingerprint=""
    )


def official_classes() -> tuple[str, ...]:
    """Return the WordNet ids of the 1000 classes, sorted, as TFDS lists them."""
    found = importlib.util.find_spec("tensorflow_datasets")
    if found is None or found.origin is None:
        raise DataError(
            "ImageNet's classes are listed by tensorflow-datasets: install it."
        )
    path = Path(found.origin).parent / "datasets" / "imagenet2012" / "labels.txt"
    return tuple(sorted(path.read_text().split()))


def _open_split(
    root: Path,
    folder: str,
    record_split: str,
    config: DataConfig,
    complete: CompleteCopy,
) -> Source:
    side = config.image_size or _SIDE
    shape = (side, side, 3)
    if (root / folder).is_dir():
        return class_files.open_split(root / folder, complete.classes, shape)
    prepared = tfds_folder.find(root, "imagenet2012")
    if prepared is None:
        raise DataError(
            f"{root} holds neither {folder}/<class>/*.JPEG or {folder}/<class>.tar nor "
            "a prepared imagenet2012/<version>; set config.data.dir. ImageNet must be "
            "downloaded by hand, from image-net.org."
        )
    return record_images.open_split(prepared, record_split, complete.classes, shape)


def _check_count(where: str, images: Source, expected: int) -> None:
    found = len(images.label)
    if found != expected:
        sizes = np.bincount(images.label)
        raise DataError(
            f"{where}: {found:,} images instead of {expected:,} (the smallest of "
            f"{len(sizes)} classes has {sizes.min()}); the copy is not whole. For a "
            "part of it, set config.data.num_train_examples or num_test_examples."
        )
