"""Read and write folders prepared by TensorFlow Datasets, without TensorFlow.

Such a folder is `<root>/<name>/<version>/` with `dataset_info.json`, `features.json`
and shards. Its two usual formats, array_record and TFRECORD, are read; array_record is
written.
"""

import contextlib
import io
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spaced_kd.data import cache
from spaced_kd.data.tfrecord import read_records
from spaced_kd.errors import DataError, StorageError, one_line
from spaced_kd.types import Split

Example = dict[str, Any]
"""Feature -> value; an image is its PNG file, `bytes`."""

_AT_ONCE = 1000  # examples


def find(root: Path, name: str) -> Path | None:
    """Return the newest prepared version of a data set, None if there is none."""
    found = [
        (tuple(map(int, path.parent.name.split("."))), path.parent)
        for path in (root / name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]
    return max(found)[1] if found else None


def content_key(folder: Path) -> str:
    """Return a short hash of the files' names, sizes and times; reads no file."""
    return cache.key(folder, folder.iterdir())


def read(folder: Path, shape: tuple[int, int, int]) -> dict[str, Split]:
    """Return the splits "train" and "test".

    Args:
      folder: as `find` returns it.
      shape: [H, W, C] that every image must have.

    Raises:
      DataError: a missing or damaged file, or other features than `image` and `label`.
    """
    builder = open_builder(folder, ("train", "test"), ("image", "label"))
    with _quiet():
        return {
            name: _read_split(folder, builder, name, shape)
            for name in ("train", "test")
        }


def open_builder(folder: Path, splits: Sequence[str], features: Collection[str]) -> Any:
    """Return TFDS's builder of a folder that has these splits, whole, and features.

    Raises:
      DataError: not a prepared data set, a missing file or feature.
    """
    # Slow to import, and a cached data set does not need it.
    import tensorflow_datasets as tfds

    try:
        with _quiet():
            builder: Any = tfds.builder_from_directory(folder)
        found = [builder.info.splits[name] for name in splits]
        missing = sorted(set(features) - set(builder.info.features))
    # Its parsers raise whatever they meet in a damaged folder.
    except Exception as error:
        what = f"{folder} is not a prepared data set"
        raise DataError(f"{what}: {one_line(error)}") from error
    if missing:
        raise DataError(f"{folder} has no feature {missing[0]!r}.")
    for path in (path for split in found for path in split.filepaths):
        if not Path(path).is_file():
            raise DataError(f"{path} is missing; prepare the data set again.")
    return builder


def random_access(folder: Path, builder: Any, split: str) -> Any:
    """Return the examples of an array_record split as a sequence, images encoded.

    Threads may share it. An example or a list of them (`__getitems__`) that cannot be
    read raises RuntimeError or IndexError.

    Raises:
      DataError: the folder is in another format.
    """
    import tensorflow_datasets as tfds

    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{folder} is prepared as {builder.info.file_format.value}, which cannot "
            "be read at random; prepare it with file_format='array_record', or give "
            "the images as folders or tar files, one a class."
        )
    with _quiet():
        # Images stay encoded here: one decoder, whatever is installed.
        raw = {"image": tfds.decode.SkipDecoding()}
        return builder.as_data_source(split, decoders=raw)


def write(
    folder: Path,
    splits: Mapping[str, Iterable[Example]],
    labels: Mapping[str, list[str]],
    shape: tuple[int, int, int],
    **info: Any,
) -> None:
    """Write a folder that `read`, and anyone's TFDS, can read.

    Args:
      folder: `<name>/<version>`, exists and is empty.
      splits: split -> examples of `image` (PNG bytes), `id` and the labels.
      labels: label feature -> names of its classes.
      shape: of the images.
      **info: description and the like, for `tfds.core.DatasetInfo`.

    Raises:
      StorageError: the disk is full or not writable.
    """
    import tensorflow_datasets as tfds

    classes = {n: tfds.features.ClassLabel(names=names) for n, names in labels.items()}
    image = tfds.features.Image(shape=shape)
    features = tfds.features.FeaturesDict(
        {"id": tfds.features.Text(), "image": image} | classes
    )
    infos = [
        _write_split(folder, split, map(features.serialize_example, examples))
        for split, examples in splits.items()
    ]
    with _quiet():
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=infos,
            version=folder.name,
            check_data=False,
            **info,
        )


def encode(pixels: np.ndarray) -> bytes:
    """Return an image [H, W, 3] uint8 as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _write_split(folder: Path, name: str, records: Iterable[bytes]):
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from etils import epath

    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(folder),
        dataset_name=folder.parent.name,
        split=name,
        filetype_suffix="array_record",
    )
    path = template.sharded_filepath(shard_index=0, num_shards=1)
    count = size = 0
    try:
        # One record a group: random access reads no more than it needs.
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
            count, size = count + 1, size + len(record)
        writer.close()
    except RuntimeError as error:  # array_record's only kind, e.g. with a full disk
        raise StorageError(f"{path}: {one_line(error)}") from error
    return tfds.core.SplitInfo(
        name=name, shard_lengths=[count], num_bytes=size, filename_template=template
    )


def _read_split(folder: Path, builder, name: str, shape: tuple[int, int, int]) -> Split:
    count = builder.info.splits[name].num_examples
    image = np.empty((count, *shape), np.uint8)
    label = np.empty(count, np.int32)
    for row, example in enumerate(_examples(folder, builder, name)):
        try:
            image[row] = _decode(example["image"], shape)
        except (OSError, SyntaxError, ValueError) as error:
            what = f"{folder} {name}: image {row} is damaged or of another kind"
            raise DataError(f"{what}: {one_line(error)}") from error
        label[row] = example["label"]
    return Split(image, label)


def _examples(folder: Path, builder, name: str) -> Iterator[Example]:
    import tensorflow_datasets as tfds

    info, split = builder.info, builder.info.splits[name]
    if info.file_format == tfds.core.FileFormat.TFRECORD:
        raw = {"image": tfds.decode.SkipDecoding()}
        for path, count in zip(split.filepaths, split.shard_lengths, strict=True):
            records = read_records(Path(path))
            if len(records) != count:
                found = len(records)
                raise DataError(f"{path} has {found} records instead of {count}.")
            for record in records:
                yield info.features.deserialize_example_np(record, decoders=raw)
        return
    try:
        source = random_access(folder, builder, name)
        for start in range(0, len(source), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(source))
            yield from source.__getitems__(range(start, stop))
    except (RuntimeError, IndexError) as error:  # so array_record reports damage
        raise DataError(f"{folder} {name} is damaged: {one_line(error)}") from error


def _decode(png: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    # Only PNG, so that a hostile file reaches one decoder, not all of Pillow's.
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        found = (image.height, image.width, len(image.getbands()))
        if found != shape:
            raise ValueError(f"its shape is {found} and must be {shape}")
        return np.asarray(image)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS from telling about every file that it opens."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
