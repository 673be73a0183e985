import dataclasses
import hashlib
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import fails, member, python2_dumps, tar_bytes, tree
from etils import epath

from spaced_kd import data
from spaced_kd.config import DataConfig
from spaced_kd.data import augment_spec, cifar10, tfds_folder, tfrecord
from spaced_kd.data.cifar10 import OFFICIAL
from spaced_kd.data.cifar_archive import prepare

NAMES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def tables():
    """Two images of every class in each training file, one in the test file."""
    rng = np.random.default_rng(0)
    result = {"batches.meta": {"label_names": NAMES, "num_vis": 3072}}
    for name in [*TRAIN, "test_batch"]:
        count = 10 if name == "test_batch" else 20
        labels = rng.permutation(np.arange(count) % 10).tolist()
        result[name] = {
            "batch_label": name,
            "labels": labels,
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            "filenames": [f"{name}_{i}.png" for i in range(count)],
        }
    return result


TABLES = tables()


def put(root, tables=TABLES):
    """Lay the archive of these tables into `root`; return its description."""
    members = [
        member(f"cifar-10-batches-py/{name}", python2_dumps(table))
        for name, table in tables.items()
    ]
    readme = member("cifar-10-batches-py/readme.html", b"as in the original")
    # As in the original, the order of the files in the archive is another one.
    content = tar_bytes([readme, *members[::-1]], "w:gz")
    (root / "cifar-10-python.tar.gz").write_bytes(content)
    return dataclasses.replace(
        OFFICIAL,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        train_per_class=10,
        test_per_class=1,
    )


def pixels(*names):
    rows = np.concatenate([TABLES[name]["data"] for name in names])
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def labels(*names):
    return np.concatenate([TABLES[name]["labels"] for name in names])


def test_the_five_training_files_become_one_split_in_their_order(tmp_path):
    """Judged by TFDS's own reader; the layout is the one that it prepares itself."""
    builder = tfds.builder_from_directory(prepare(tmp_path, put(tmp_path)))
    for split, names in (("train", TRAIN), ("test", ["test_batch"])):
        got = [*builder.as_data_source(split)]
        image, label = pixels(*names), labels(*names)
        np.testing.assert_array_equal([e["image"] for e in got], image)
        assert [e["label"] for e in got] == label.tolist()
    assert [e["id"].decode() for e in got[:2]] == ["test_00000", "test_00001"]
    assert set(builder.info.features) == {"id", "image", "label"}
    assert builder.info.features["label"].names == NAMES
    assert builder.info.full_name == "cifar10/3.0.2"


def as_set(image, label):
    return sorted((i.tobytes(), int(y)) for i, y in zip(image, label, strict=True))


def test_the_loader_returns_all_images_in_content_order(tmp_path, monkeypatch):
    """Through the table of data sets, as in a run; then from the folder alone."""
    release = put(tmp_path)
    loader = lambda config: cifar10.load(config, release)
    monkeypatch.setitem(data.DATASETS, "cifar10", loader)
    config = DataConfig(name="cifar10", dir=str(tmp_path))
    dataset = data.load(config)
    assert as_set(*dataset.train) == as_set(pixels(*TRAIN), labels(*TRAIN))
    assert as_set(*dataset.test) == as_set(pixels("test_batch"), labels("test_batch"))
    assert (dataset.name, dataset.num_classes) == ("cifar10", 10)
    digests = [hashlib.sha256(i.tobytes()).digest() for i in dataset.train.image]
    assert digests == sorted(digests)
    (tmp_path / "cifar-10-python.tar.gz").unlink()
    assert data.load(config).fingerprint == dataset.fingerprint


def write_tfrecord(folder):
    """Write what TFDS prepares with TensorFlow; its metadata are by TFDS itself."""
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3)),
            "label": tfds.features.ClassLabel(names=NAMES),
        }
    )
    infos = []
    for split, names in (("train", TRAIN), ("test", ["test_batch"])):
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(folder),
            dataset_name="cifar10",
            split=split,
            filetype_suffix="tfrecord",
        )
        records = [
            features.serialize_example(
                {"id": "x", "image": tfds_folder.encode(image), "label": label}
            )
            for image, label in zip(pixels(*names), labels(*names), strict=True)
        ]
        lengths = [struct.pack("<Q", len(record)) for record in records]
        sums = [
            [struct.pack("<I", crc) for crc in tfrecord.masked_crc32c(blocks)]
            for blocks in (lengths, records)
        ]
        rows = zip(lengths, sums[0], records, sums[1], strict=True)
        shard = template.sharded_filepath(shard_index=0, num_shards=1)
        shard.write_bytes(b"".join(map(b"".join, rows)))
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(records)],
                num_bytes=sum(map(len, records)),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, check_data=False
    )


def test_a_folder_prepared_as_tfrecord_gives_the_same_data_set(tmp_path):
    """The order of the files, and hence the run, does not depend on who prepared it."""
    release = put(tmp_path)
    ours = cifar10.load(DataConfig(dir=str(tmp_path)), release)
    write_tfrecord(tmp_path / "theirs" / "cifar10" / "3.0.2")
    theirs = cifar10.load(DataConfig(dir=str(tmp_path / "theirs")), release)
    for a, b in zip(ours.train + ours.test, theirs.train + theirs.test, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_extracted_folder_is_accepted_too(tmp_path):
    """Offline users have it from torchvision."""
    release = put(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").unlink()
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, table in TABLES.items():
        (folder / name).write_bytes(python2_dumps(table))
    splits = tfds_folder.read(prepare(tmp_path, release), (32, 32, 3))
    np.testing.assert_array_equal(splits["train"].image, pixels(*TRAIN))


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (
            {n: t for n, t in TABLES.items() if n != "data_batch_3"},
            ("no member 'cifar-10-batches-py/data_batch_3'",),
        ),
        (
            TABLES | {"data_batch_2": TABLES["data_batch_2"] | {"labels": [10] * 20}},
            ("data_batch_2", "labels[0] = 10", "0..9"),
        ),
        (
            TABLES | {"data_batch_5": TABLES["test_batch"]},
            ("data_batch_5", "90 train examples instead of 100"),
        ),
        (
            TABLES | {"data_batch_4": TABLES["data_batch_4"] | {"labels": [1] * 20}},
            ("train examples of class 0 instead of 10",),
        ),
        (TABLES | {"batches.meta": {"label_names": NAMES[:9]}}, ("10 different",)),
    ],
)
def test_an_incomplete_archive_is_refused(tmp_path, tables, words):
    """A file too few, or twice the same, would train on another data set."""
    release = put(tmp_path, tables)
    fails(lambda: prepare(tmp_path, release), *words)
    assert tree(tmp_path) == ["cifar-10-python.tar.gz"]


def test_without_network_one_line_says_what_to_put_where(tmp_path):
    """The message must name this data set's file, not CIFAR-100's."""
    load = lambda: cifar10.load(DataConfig(dir=str(tmp_path)))
    fails(load, "CIFAR-10 is not in", OFFICIAL.url, tmp_path, "cifar-10-batches-py")


def test_the_official_release_is_the_published_one():
    """Size and hashes as torchvision and others give them; released statistics."""
    assert OFFICIAL.url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert OFFICIAL.size == 170_498_071
    assert OFFICIAL.sha256 == (
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
    )
    assert (OFFICIAL.train_per_class, OFFICIAL.test_per_class) == (5000, 1000)
    assert OFFICIAL.mean == (0.4914, 0.4822, 0.4465)
    assert OFFICIAL.std == (0.2023, 0.1994, 0.2010)


def test_a_normalization_that_has_a_data_sets_name_is_the_data_sets_own():
    """`config.data.normalization` writes the same constants a second time."""
    named = augment_spec.NORMALIZATIONS
    assert named["cifar10"] == (OFFICIAL.mean, OFFICIAL.std)
