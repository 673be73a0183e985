import logging
import random
import resource
import signal
import struct
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from spaced_kd.data import tfds_folder, tfrecord
from spaced_kd.errors import DataError, StorageError
from spaced_kd.types import Split

SHAPE = (6, 5, 3)
rng = np.random.default_rng(0)
SPLITS = {
    name: Split(
        rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8),
        rng.integers(0, 4, count).astype(np.int32),
    )
    for name, count in (("train", 23), ("test", 7))
}
NAMES = ["ant", "bee", "cat", "dog"]


def crc32c(data: bytes) -> int:
    """Bit by bit, straight from the definition (RFC 3720, appendix B.4)."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecord_bytes(records) -> bytes:
    """An independent TFRecord writer."""
    parts = []
    for record in records:
        length = struct.pack("<Q", len(record))
        parts += [length, struct.pack("<I", masked(length))]
        parts += [record, struct.pack("<I", masked(record))]
    return b"".join(parts)


def examples(split):
    for i, (image, label) in enumerate(zip(*split, strict=True)):
        png = tfds_folder.encode(image)
        yield {"id": f"x_{i}", "image": png, "label": int(label)}


def write_array_record(root, splits=SPLITS, shape=SHAPE):
    folder = root / "some" / "1.0.0"
    folder.mkdir(parents=True)
    tfds_folder.write(
        folder,
        {name: examples(split) for name, split in splits.items()},
        {"label": NAMES},
        shape,
        description="for a test",
    )
    return folder


def write_tfrecord(root, splits=SPLITS):
    """Like TFDS with TensorFlow: two shards a split, metadata by TFDS itself."""
    folder = root / "some" / "1.0.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=SHAPE),
            "label": tfds.features.ClassLabel(names=NAMES),
        }
    )
    infos = []
    for name, split in splits.items():
        records = [features.serialize_example(e) for e in examples(split)]
        half = len(records) // 2
        for i, part in enumerate((records[:half], records[half:])):
            path = folder / f"some-{name}.tfrecord-{i:05d}-of-00002"
            path.write_bytes(tfrecord_bytes(part))
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name="some", filetype_suffix="tfrecord"
        )
        infos.append(
            tfds.core.SplitInfo(
                name=name,
                shard_lengths=[half, len(records) - half],
                num_bytes=sum(map(len, records)),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )
    return folder


@pytest.fixture(params=[write_array_record, write_tfrecord])
def folder(request, tmp_path):
    return request.param(tmp_path)


def fails(function, *words):
    with pytest.raises(DataError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def test_checksums_equal_the_published_vectors():
    """A wrong table or start value would refuse every real file."""
    # RFC 3720 B.4, and the usual check string.
    vectors = {
        b"123456789": 0xE3069283,
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        b"": 0,
    }
    blocks = [*vectors, *(random.Random(0).randbytes(n) for n in range(1, 60))]
    got = tfrecord.masked_crc32c(blocks)
    assert got.tolist() == [masked(b) for b in blocks]
    assert [crc32c(b) for b in vectors] == list(vectors.values())


def test_checksums_do_not_depend_on_the_company(monkeypatch):
    """Records are summed side by side; a neighbour's length must not matter."""
    blocks = [random.Random(n).randbytes(n % 37) for n in range(50)]
    together = tfrecord.masked_crc32c(blocks)
    monkeypatch.setattr(tfrecord, "_AT_ONCE", 7)
    np.testing.assert_array_equal(tfrecord.masked_crc32c(blocks), together)
    assert tfrecord.masked_crc32c([]).shape == (0,)


def test_records_survive_a_round_trip(tmp_path):
    """Empty and long records, and an empty file, are all allowed by the format."""
    records = [b"", b"a", bytes(100_000), random.Random(1).randbytes(2345)]
    path = tmp_path / "x"
    path.write_bytes(tfrecord_bytes(records))
    assert tfrecord.read_records(path) == records
    path.write_bytes(b"")
    assert tfrecord.read_records(path) == []


def test_every_flipped_bit_of_a_tfrecord_is_refused(tmp_path):
    """A flipped pixel or label would train silently on wrong data."""
    path = tmp_path / "shard"
    sound = tfrecord_bytes([b"first", b"second record", b"third"])
    for bit in range(8 * len(sound)):
        damaged = bytearray(sound)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        fails(lambda: tfrecord.read_records(path), path)


def test_every_truncation_of_a_tfrecord_is_refused(tmp_path):
    """A half-copied file must not pass as a smaller data set."""
    path = tmp_path / "shard"
    records = [b"first", b"second record"]
    sound = tfrecord_bytes(records)
    for length in range(1, len(sound)):
        path.write_bytes(sound[:length])
        if length == len(tfrecord_bytes(records[:1])):
            # Sound by itself; `read` compares with the number in the metadata.
            assert tfrecord.read_records(path) == records[:1]
        else:
            fails(lambda: tfrecord.read_records(path), "truncated")


def test_the_bad_record_is_named(tmp_path):
    """The number tells a user with several shards what is wrong where."""
    path = tmp_path / "shard"
    content = bytearray(tfrecord_bytes([b"first", b"second", b"third"]))
    content[-6] ^= 1
    path.write_bytes(content)
    fails(lambda: tfrecord.read_records(path), "record 2", "1 of 3")


def test_both_formats_give_the_pixels_and_labels_that_were_written(folder):
    """PNG is lossless: any difference is a decoding or ordering bug."""
    got = tfds_folder.read(folder, SHAPE)
    for name, split in SPLITS.items():
        np.testing.assert_array_equal(got[name].image, split.image)
        np.testing.assert_array_equal(got[name].label, split.label)
        assert got[name].label.dtype == np.int32


def test_what_we_write_is_read_by_tfds_itself(tmp_path):
    """A folder that only we can read would not be the TFDS layout."""
    builder = tfds.builder_from_directory(write_array_record(tmp_path))
    source = builder.as_data_source("train")
    assert len(source) == 23 and builder.info.name == "some"
    np.testing.assert_array_equal(source[4]["image"], SPLITS["train"].image[4])
    assert source[4]["label"] == SPLITS["train"].label[4]
    assert source[4]["id"] == b"x_4"
    assert builder.info.features["label"].names == NAMES


def test_reading_is_silent(folder, capfd, caplog):
    """TFDS recommends OpenCV and reports every file; neither is of use to a user."""
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, "absl"):
        tfds.builder_from_directory(folder)
        assert caplog.records  # so there is something to silence
        caplog.clear()
        tfds_folder.read(folder, SHAPE)
        assert logging.getLogger("absl").level == logging.INFO
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_the_newest_version_is_found(tmp_path):
    """Version 10 is newer than 9, and an unfinished folder is none."""
    for name in ("9.0.0", "10.0.0", "11.0.0.incompleteA7", "12.0.0", "x"):
        (tmp_path / "some" / name).mkdir(parents=True)
        if name != "12.0.0":
            (tmp_path / "some" / name / "dataset_info.json").touch()
    assert tfds_folder.find(tmp_path, "some") == tmp_path / "some" / "10.0.0"
    assert tfds_folder.find(tmp_path, "other") is None


def test_the_content_key_changes_with_any_file(folder):
    """A stale key would return the cache of other data."""
    keys = [tfds_folder.content_key(folder)]
    shard = sorted(folder.glob("*record-00000*"))[0]
    content = shard.read_bytes()
    time.sleep(0.01)
    shard.write_bytes(content[:-1] + b"x")  # same size, later
    keys.append(tfds_folder.content_key(folder))
    shard.write_bytes(content + b"x")
    keys.append(tfds_folder.content_key(folder))
    shard.rename(shard.with_name("renamed"))
    keys.append(tfds_folder.content_key(folder))
    assert len(set(keys)) == 4


def test_a_damaged_shard_is_refused(folder):
    """Both formats have checksums; both must be looked at."""
    shard = sorted(folder.glob("some-train*record-00000*"))[0]
    content = bytearray(shard.read_bytes())
    content[content.index(b"IDAT") + 10] ^= 4
    shard.write_bytes(content)
    fails(lambda: tfds_folder.read(folder, SHAPE), folder, "damaged")


def test_a_truncated_shard_is_refused(folder):
    """A copy that was interrupted must not become a smaller data set."""
    shard = sorted(folder.glob("some-train*record-00000*"))[0]
    shard.write_bytes(shard.read_bytes()[:1000])
    fails(lambda: tfds_folder.read(folder, SHAPE), folder)


def test_a_shard_with_too_few_records_is_refused(tmp_path):
    """Cut at a record's border, only the metadata tells that some are missing."""
    folder = write_tfrecord(tmp_path)
    shard = folder / "some-test.tfrecord-00000-of-00002"
    size = struct.unpack("<Q", shard.read_bytes()[:8])[0]
    shard.write_bytes(shard.read_bytes()[: size + 16])
    fails(lambda: tfds_folder.read(folder, SHAPE), shard, "1 records instead of 3")


def test_a_missing_shard_is_named(folder):
    """The user needs the file's name to fetch it again."""
    shard = sorted(folder.glob("some-test*record-00000*"))[0]
    shard.unlink()
    fails(lambda: tfds_folder.read(folder, SHAPE), shard, "missing")


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_broken_metadata_are_refused(folder, file):
    """TFDS raises a traceback of its own kind for each of these."""
    for content in ("", "{", "[]", '{"name": 3}'):
        (folder / file).write_text(content)
        fails(lambda: tfds_folder.read(folder, SHAPE), folder)


def test_a_missing_split_or_feature_is_refused(tmp_path):
    """Another data set under the same name must be recognised."""
    folder = write_array_record(tmp_path / "a", {"train": SPLITS["train"]})
    fails(lambda: tfds_folder.read(folder, SHAPE), folder, "test")
    folder = write_array_record(tmp_path / "b")
    text = (folder / "features.json").read_text()
    (folder / "features.json").write_text(text.replace('"label"', '"klass"'))
    fails(lambda: tfds_folder.read(folder, SHAPE), "label")


def test_images_of_another_shape_or_kind_are_refused_by_index(tmp_path):
    """A grey or larger image would be broadcast or cropped into the wrong pixels."""
    folder = write_array_record(tmp_path)
    fails(lambda: tfds_folder.read(folder, (6, 6, 3)), "image 0", "(6, 5, 3)")
    bad = list(examples(SPLITS["train"]))
    for kind in ("L", "RGBA", "P"):
        root = tmp_path / kind
        root.mkdir()
        Image.fromarray(SPLITS["train"].image[0]).convert(kind).save(root / "x.png")
        bad[3]["image"] = (root / "x.png").read_bytes()
        fails(lambda root=root: _read_examples(root, bad), "train", "image 3")


def test_images_that_are_no_png_are_refused(tmp_path):
    """JPEG would be other pixels; a damaged PNG could be any."""
    bad = list(examples(SPLITS["train"]))
    path = tmp_path / "image.jpg"
    Image.fromarray(SPLITS["train"].image[0]).save(path)
    bad[2]["image"] = path.read_bytes()
    fails(lambda: _read_examples(tmp_path / "a", bad), "image 2")
    bad[2]["image"] = bad[1]["image"][:-30]
    fails(lambda: _read_examples(tmp_path / "b", bad), "image 2")


def _read_examples(root, train):
    folder = root / "some" / "1.0.0"
    folder.mkdir(parents=True)
    splits = {"train": train, "test": examples(SPLITS["test"])}
    tfds_folder.write(folder, splits, {"label": NAMES}, SHAPE)
    return tfds_folder.read(folder, SHAPE)


def test_a_disk_that_is_full_is_reported_in_one_line(tmp_path):
    """array_record raises a bare RuntimeError, which would be a traceback."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(StorageError, match="some-train.*File too large") as caught:
            write_array_record(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
