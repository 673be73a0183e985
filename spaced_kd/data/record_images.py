"""A split of an array_record folder of TensorFlow Datasets, read in place."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spaced_kd.data import cache, image_list, tfds_folder
from spaced_kd.data.image_list import Entry, ListedImages, Listing
from spaced_kd.errors import DataError, one_line

logger = logging.getLogger("spaced_kd")

_AT_ONCE = 200  # examples; a hundred times 0.1 MB each


@dataclasses.dataclass(frozen=True)
class _Records:
    path: Path
    split: str
    examples: Any

    def read(self, entry: Entry) -> bytes:
        try:
            return self.examples[entry.offset]["image"]
        except (RuntimeError, IndexError) as error:  # so array_record reports damage
            raise DataError(
                f"{self.where(entry)} is damaged: {one_line(error)}"
            ) from error

    def where(self, entry: Entry) -> str:
        return f"{self.path} {self.split}: record {entry.offset} ('{entry.name}')"


def open_split(
    folder: Path,
    split: str,
    classes: Sequence[str],
    shape: tuple[int, int, int],
) -> ListedImages:
    """Return the images of the classes, class by class, each sorted by file name.

    That is the order of `class_files`, so that a seed means the same run however the
    data set is stored. Names and labels lie inside the records: all are read once, and
    what they hold is kept (`cache`).

    Args:
      folder: as `tfds_folder.find` returns it.
      split: its name there.
      classes: names of the classes wanted; the place in it is the label.
      shape: see `types.Source`.

    Raises:
      DataError: not array_record, damaged, or a class that is missing.
    """
    builder = tfds_folder.open_builder(
        folder, (split,), ("image", "label", "file_name")
    )
    names = builder.info.features["label"].names
    missing = [name for name in classes if name not in names]
    if missing:
        raise DataError(f"{folder} has no class '{missing[0]}'.")
    store = _Records(folder, split, tfds_folder.random_access(folder, builder, split))
    name = f"{folder.parent.name}-{split}-{tfds_folder.content_key(folder)}"
    arrays = cache.cached(
        folder.parent.parent, name, lambda: image_list.to_arrays(_listing(store))
    )
    stored = image_list.from_arrays(arrays)
    label_of = np.full(len(names), -1, np.int32)
    label_of[[names.index(name) for name in classes]] = np.arange(len(classes))
    listing = stored._replace(label=label_of[stored.label])
    order = np.lexsort((listing.name, listing.label))
    kept = order[listing.label[order] >= 0]
    return ListedImages(listing.take(kept), store, shape)


def _listing(store: _Records) -> Listing:
    count = len(store.examples)
    where = f"{store.path} {store.split}"
    if not count:
        raise DataError(f"{where} holds no image; prepare the data set again.")
    logger.info("Listing the %d images in %s (once; reads all of it).", count, where)
    names, numbers = [], []
    for start in range(0, count, _AT_ONCE):
        places = range(start, min(start + _AT_ONCE, count))
        try:
            examples = store.examples.__getitems__(places)
        except (RuntimeError, IndexError) as error:
            raise DataError(f"{where} is damaged: {one_line(error)}") from error
        names += [example["file_name"] for example in examples]
        numbers += [(len(e["image"]), int(e["label"])) for e in examples]
    size, label = np.asarray(numbers, np.int64).T
    return Listing(
        name=np.asarray(names),
        size=size,
        label=label.astype(np.int32),
        holder=np.zeros(count, np.int32),
        offset=np.arange(count),
    )
