"""Published corrupted test sets, in small copies of their layouts."""

import hashlib
from unittest.mock import ANY

import numpy as np
import pytest
from image_folders import CLASSES, encoded
from PIL import Image

from spaced_kd.config import DataConfig
from spaced_kd.data import corrupted_files, tiny_imagenet
from spaced_kd.data.corrupted_files import check, find, identity, read
from spaced_kd.errors import DataError

RNG = np.random.default_rng(0)
SHAPE = (32, 32, 3)
COUNT = 12
LABEL = RNG.integers(0, 10, COUNT)
IMAGE = RNG.integers(0, 256, (5 * COUNT, *SHAPE)).astype(np.uint8)


def cifar(folder):
    return DataConfig(name="cifar10", dir=str(folder))


@pytest.fixture
def arrays(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "snow.npy", IMAGE)
    np.save(folder / "labels.npy", np.tile(LABEL, 5).astype(np.uint8))
    return folder


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_arrays_hold_a_block_for_each_severity(arrays, severity):
    split = read(arrays, cifar(arrays.parent), "snow", severity, SHAPE)
    rows = slice(COUNT * (severity - 1), COUNT * severity)
    np.testing.assert_array_equal(split.image, IMAGE[rows])
    np.testing.assert_array_equal(split.label, LABEL)
    assert split.label.dtype == np.int32


def test_they_are_found_beside_the_data_or_where_told(arrays, tmp_path, monkeypatch):
    config = cifar(tmp_path)
    elsewhere = cifar(tmp_path / "elsewhere")
    assert find(config) == find(elsewhere, str(tmp_path)) == arrays
    assert find(elsewhere, str(arrays)) == arrays
    assert find(elsewhere) is None
    assert find(DataConfig(name="cifar100", dir=str(tmp_path))) is None
    assert find(DataConfig(name="digits", dir=str(tmp_path))) is None
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert find(DataConfig(name="cifar10")) == arrays


def cut(folder):
    path = folder / "snow.npy"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    np.save(folder / "snow.npy", np.array([None, {}]), allow_pickle=True)


def other_labels(folder):
    np.save(folder / "labels.npy", np.roll(np.tile(LABEL, 5), 1) + np.arange(60))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "snow.npy cannot be read: .*; get it again"),
        (pickled, "snow.npy cannot be read: .*Python objects"),
        (lambda f: (f / "snow.npy").unlink(), "snow.npy cannot be read: .*No such"),
        (lambda f: (f / "snow.npy").write_bytes(b""), "snow.npy cannot be read"),
        (lambda f: (f / "labels.npy").unlink(), "labels.npy cannot be read"),
        (lambda f: np.save(f / "snow.npy", IMAGE[:, :16]), r"must be uint8 \[N, 32"),
        (lambda f: np.save(f / "snow.npy", IMAGE / 255), r"float64 .* must be uint8"),
        (lambda f: np.save(f / "snow.npy", IMAGE[:-1]), "an integer for each"),
        (lambda f: np.save(f / "labels.npy", LABEL / 2), "an integer for each"),
        (other_labels, "5 times the same labels"),
    ],
)
def test_damaged_arrays_give_one_line(arrays, damage, message):
    damage(arrays)
    with pytest.raises(DataError, match=message) as told:
        read(arrays, cifar(arrays.parent), "snow", 1, SHAPE)
    assert "\n" not in str(told.value)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """ImageNet-C of four classes with two images each, of 34 to 48 pixels."""
    monkeypatch.setitem(corrupted_files._CLASSES, "imagenet", lambda config: CLASSES)
    for name in CLASSES:
        folder = tmp_path / "ImageNet-C" / "snow" / "3" / name
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / f"val_{number}.JPEG").write_bytes(encoded(RNG))
    return tmp_path / "ImageNet-C"


def test_images_come_class_by_class_and_resized(folders):
    config = DataConfig(name="imagenet", dir=str(folders.parent), stream_threads=2)
    split = read(folders, config, "snow", 3, (16, 20, 3))
    assert split.label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for row, c in ((0, 0), (5, 2)):
        path = folders / "snow" / "3" / CLASSES[c] / f"val_{row % 2}.JPEG"
        expected = Image.open(path).resize((20, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(split.image[row], np.asarray(expected))


def test_an_image_of_the_right_size_is_left_alone(folders):
    file = folders / "snow" / "3" / CLASSES[0] / "val_0.JPEG"
    picture = Image.open(file)
    config = DataConfig(name="imagenet", dir=str(folders.parent))
    split = read(folders, config, "snow", 3, (picture.height, picture.width, 3))
    np.testing.assert_array_equal(split.image[0], np.asarray(picture))


def test_damaged_folders_give_one_line(folders):
    config = DataConfig(name="imagenet", dir=str(folders.parent))
    with pytest.raises(DataError, match="4 of 4 classes are missing"):
        read(folders, config, "snow", 4, SHAPE)
    (folders / "snow" / "3" / CLASSES[1] / "val_1.JPEG").write_bytes(b"\xff\xd8cut")
    with pytest.raises(DataError, match=r"val_1.JPEG is damaged or not an image"):
        read(folders, config, "snow", 3, SHAPE)


def told(folder, name, severities=(3,)):
    config = DataConfig(name=name, dir=str(folder.parent))
    return identity(folder, config, ["snow"], severities)


def test_arrays_are_told_by_size_and_first_mebibyte(arrays):
    path = arrays / "snow.npy"
    content = path.read_bytes()
    first = told(arrays, "cifar10")
    digest = hashlib.sha256(content[: 1 << 20]).hexdigest()
    assert first["snow.npy"] == [len(content), digest]
    path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    assert told(arrays, "cifar10")["snow.npy"] != first["snow.npy"]
    path.write_bytes(content + b"0")
    assert told(arrays, "cifar10")["snow.npy"] == [len(content) + 1, ANY]
    np.save(arrays / "labels.npy", np.tile(LABEL, 5)[::-1].astype(np.uint8))
    assert told(arrays, "cifar10")["labels.npy"] != first["labels.npy"]


def larger(folder):
    path = folder / CLASSES[1] / "val_0.JPEG"
    path.write_bytes(path.read_bytes() + b"0")


def renamed(folder):
    path = folder / CLASSES[1] / "val_0.JPEG"
    path.rename(path.with_name("val_2.JPEG"))


@pytest.mark.parametrize("change", [larger, renamed])
def test_class_folders_are_told_by_names_and_sizes(folders, change):
    first = told(folders, "imagenet")
    assert list(first) == ["snow/3"]
    # What no class is made of is not read.
    (folders / "snow" / "3" / "notes").mkdir()
    (folders / "snow" / "3" / "notes" / "a.JPEG").write_bytes(b"a")
    assert told(folders, "imagenet") == first
    change(folders / "snow" / "3")
    assert told(folders, "imagenet") != first


def test_an_image_in_another_class_is_another_identity(folders):
    """Though the names and sizes, one after another, are the same."""
    one, other = (folders / "snow" / "3" / name for name in CLASSES[1:3])
    for number in range(2):
        (other / f"val_{number}.JPEG").unlink()
    first = told(folders, "imagenet")
    (one / "val_1.JPEG").rename(other / "val_1.JPEG")
    assert told(folders, "imagenet") != first


def test_tar_files_are_told_by_names_and_sizes(folders):
    folder = folders / "snow" / "4"
    folder.mkdir()
    for name in CLASSES:
        (folder / f"{name}.tar").write_bytes(b"12")
    first = told(folders, "imagenet", [4])
    (folder / f"{CLASSES[2]}.tar").write_bytes(b"123")
    assert told(folders, "imagenet", [4]) != first


@pytest.mark.parametrize(("name", "missing"), [("cifar10", "fog.npy"), ("imagenet", 3)])
def test_what_is_missing_has_no_identity(arrays, folders, name, missing):
    folder = arrays if name == "cifar10" else folders
    config = DataConfig(name=name, dir=str(folder.parent))
    with pytest.raises(DataError, match=f"{missing} cannot be read: No such file"):
        identity(folder, config, ["fog"], [3])


def test_a_check_finds_missing_classes_and_arrays(arrays, folders):
    config = DataConfig(name="imagenet", dir=str(folders.parent))
    check(folders, config, "snow", 3, SHAPE)
    with pytest.raises(DataError, match="4 of 4 classes are missing"):
        check(folders, config, "snow", 4, SHAPE)
    check(arrays, cifar(arrays.parent), "snow", 4, SHAPE)
    with pytest.raises(DataError, match="must be uint8"):
        check(arrays, cifar(arrays.parent), "snow", 4, (16, 16, 3))


def test_tiny_imagenets_labels_are_lines_of_its_list(shared_data):
    """The places in `class_names` are the labels that the loader gives."""
    archive = shared_data / "tiny-imagenet-mini.zip"
    if not archive.is_file():
        pytest.skip(f"needs images of Tiny-ImageNet: no file {archive}")
    names = tiny_imagenet.class_names(DataConfig(dir=str(shared_data)))
    assert len(names) == 200
    # From the published list, whose order is not that of the names.
    assert names[:3] == ("n02124075", "n04067472", "n04540053")
    assert corrupted_files._CLASSES["tiny_imagenet"] is tiny_imagenet.class_names
