"""ImageNet on disk: three layouts, one order; what is missing or damaged is named."""

import io
import os
import shutil
import struct
import zlib

import image_folders
import numpy as np
import pytest
from image_folders import CLASSES, LAYOUTS
from PIL import Image

from spaced_kd import data
from spaced_kd.config import DataConfig
from spaced_kd.data import contents, image_list, imagenet, imagenet100, record_images
from spaced_kd.errors import DataError

TRAIN, TEST = 3, 2
FILES = image_folders.make_files(TRAIN, TEST)


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Return a function: the data set as `data.load` gives it, from tmp_path."""
    loader = image_folders.loader(TRAIN, TEST)
    monkeypatch.setitem(data.DATASETS, "pictures", loader)
    settings = {"name": "pictures", "dir": str(tmp_path)}
    return lambda **fields: data.load(DataConfig(**settings | fields))


def one_line(function, *words):
    with pytest.raises(DataError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pixels_in_the_same_order(load, tmp_path, layout):
    """A seed must mean the same run, however the images are stored."""
    LAYOUTS[layout](tmp_path, FILES)
    dataset = load()
    assert dataset.image_shape == (224, 224, 3) and dataset.num_classes == 4
    for split, stored in ((dataset.train, "train"), (dataset.test, "val")):
        ordered = [
            (label, FILES[stored][name][image])
            for label, name in enumerate(CLASSES)
            for image in sorted(FILES[stored][name])
        ]
        assert split.label.tolist() == [label for label, _ in ordered]
        assert split.label.dtype == np.int32
        for row, (_, content) in enumerate(ordered):
            expected = np.asarray(Image.open(io.BytesIO(content)))
            np.testing.assert_array_equal(np.asarray(split.open(row)), expected)
    # And again, now that the listing is kept.
    assert load().fingerprint == dataset.fingerprint


def test_the_fingerprint_is_that_of_names_sizes_labels_and_order(load, tmp_path):
    """Not of the layout, but of everything that makes another run."""
    seen = {}
    for layout, write in LAYOUTS.items():
        write(tmp_path / layout, FILES)
        seen[layout] = load(dir=str(tmp_path / layout)).fingerprint
    assert len(set(seen.values())) == 1
    folder = tmp_path / "folders" / "train" / CLASSES[1]
    first = sorted(folder.iterdir())[0]
    first.rename(folder / "other.JPEG")
    renamed = load(dir=str(tmp_path / "folders")).fingerprint
    (folder / "other.JPEG").rename(first)
    assert renamed != seen["folders"]
    part = load(dir=str(tmp_path / "folders"), num_train_examples=8)
    assert part.fingerprint not in (renamed, seen["folders"])


def test_a_balanced_subset_opens_its_own_images(load, tmp_path):
    """Rows must be renumbered with the labels, or images get others' labels."""
    LAYOUTS["tars"](tmp_path, FILES)
    whole, part = load(), load(num_train_examples=8, num_test_examples=4)
    assert np.bincount(part.train.label).tolist() == [2] * 4
    names = whole.train.identities()
    for row, name in enumerate(part.train.identities()):
        there = names.index(name)
        assert part.train.label[row] == whole.train.label[there]
        assert part.train.open(row).tobytes() == whole.train.open(there).tobytes()


def test_images_that_are_in_both_splits_are_counted():
    """A test set that was trained on is worthless; names and sizes tell."""
    files = image_folders.make_files(2, 1)
    files["val"][CLASSES[0]] = dict([*files["train"][CLASSES[0]].items()][:1])
    listing = lambda split: [
        f"{n}/{len(c)}".encode() for i in files[split].values() for n, c in i.items()
    ]

    class Listed:
        def __init__(self, split):
            self.identities = lambda: listing(split)

    sets = imagenet.Dataset("x", Listed("train"), Listed("val"), 4, (), (), "")
    assert contents.overlap(sets) == 1


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P")]
)
def test_odd_images_become_rgb(load, tmp_path, kind, mode):
    """ImageNet holds grey and CMYK files and a PNG file called JPEG."""
    files = image_folders.make_files(TRAIN, TEST)
    odd = image_folders.encoded(np.random.default_rng(5), kind, mode)
    files["train"][CLASSES[0]][f"{CLASSES[0]}_train_0.JPEG"] = odd
    LAYOUTS["tars"](tmp_path, files)
    image = load().train.open(0)
    assert image.mode == "RGB"
    if mode in ("L", "RGB"):
        expected = np.asarray(Image.open(io.BytesIO(odd)))
        expected = expected if mode == "RGB" else np.stack([expected] * 3, -1)
        np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("damage", ["truncated", "noise", "empty"])
def test_a_damaged_image_is_named(load, tmp_path, layout, damage):
    """Hours into a run, 'cannot identify image file' alone is no help."""
    files = image_folders.make_files(TRAIN, TEST)
    name = f"{CLASSES[2]}_train_1.JPEG"
    sound = files["train"][CLASSES[2]][name]
    bad = {"truncated": sound[: len(sound) // 2], "noise": bytes(500), "empty": b""}
    files["train"][CLASSES[2]][name] = bad[damage]
    LAYOUTS[layout](tmp_path, files)
    dataset = load()
    one_line(lambda: dataset.train.open(7), tmp_path, name, "damaged")
    dataset.train.open(6)


def grey_png(width, height):
    """Return a PNG file that says its size and holds no pixel."""

    def chunk(kind, content=b""):
        checksum = struct.pack(">L", zlib.crc32(kind + content))
        return struct.pack(">L", len(content)) + kind + content + checksum

    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT") + chunk(b"IEND")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((8192, 8193), ("8192x8193 pixels", "67,108,864")),
        ((1 << 20, 1 << 20), ("damaged", "DecompressionBomb")),
        ((8192, 8192), ("damaged", "OSError")),  # as many as allowed: it is decoded
    ],
)
def test_a_huge_image_is_refused_before_it_is_decoded(load, tmp_path, size, words):
    """A file of 60 bytes must not take gigabytes, once for every thread."""
    assert image_list.MOST_PIXELS == 8192 * 8192
    files = image_folders.make_files(TRAIN, TEST)
    name = f"{CLASSES[2]}_train_1.JPEG"
    files["train"][CLASSES[2]][name] = grey_png(*size)
    LAYOUTS["folders"](tmp_path, files)
    dataset = load()
    one_line(lambda: dataset.train.open(7), tmp_path, name, *words)


def test_what_the_file_system_refuses_is_named(load, tmp_path, monkeypatch):
    """Links that lead nowhere and folders of others: common on a cluster's disks."""
    one_line(lambda: load(dir=str(tmp_path / ("x" * 300))), "x" * 300, "too long")
    LAYOUTS["folders"](tmp_path, FILES)
    link = tmp_path / "train" / CLASSES[1] / "link.JPEG"
    link.symlink_to(tmp_path / "nowhere")
    one_line(load, link, "No such file")
    link.unlink()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    one_line(load, tmp_path / "train" / CLASSES[0], "cannot be read: Permission denied")


def test_records_without_an_image_are_refused(tmp_path):
    store = record_images._Records(tmp_path, "train", [])
    one_line(lambda: record_images._listing(store), tmp_path, "train holds no image")


def test_a_file_that_has_gone_is_named(load, tmp_path):
    LAYOUTS["folders"](tmp_path, FILES)
    dataset = load()
    shutil.rmtree(tmp_path / "train" / CLASSES[3])
    one_line(lambda: dataset.train.open(9), CLASSES[3], "cannot be read", "No such")


def test_what_is_missing_is_named(load, tmp_path):
    """A class or an image lost in copying changes every result a little."""
    one_line(load, tmp_path, "train/<class>", "imagenet2012", "config.data.dir")
    LAYOUTS["folders"](tmp_path, FILES)
    (tmp_path / "train" / CLASSES[1] / "notes.txt").write_text("passed over")
    load()
    lost = tmp_path / "train" / CLASSES[1] / f"{CLASSES[1]}_train_2.JPEG"
    lost.unlink()
    one_line(load, "train", "11 images instead of 12", "smallest of 4 classes has 2")
    lost.write_bytes(b"x")
    shutil.rmtree(tmp_path / "val" / CLASSES[2])
    one_line(load, "val", CLASSES[2], "1 of 4 classes")
    (tmp_path / "val" / CLASSES[2]).mkdir()
    one_line(load, CLASSES[2], "holds no image")


def test_a_compressed_or_cut_tar_is_refused(load, tmp_path):
    """An offset into one leads nowhere."""
    LAYOUTS["tars"](tmp_path, FILES)
    path = tmp_path / "train" / f"{CLASSES[0]}.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:1500])
    one_line(load, path, "damaged")
    import gzip

    path.write_bytes(gzip.compress(whole))
    one_line(load, path, "compressed")


def test_a_changed_tar_is_listed_again(load, tmp_path):
    """Kept offsets into another file would give garbage or the wrong image."""
    LAYOUTS["tars"](tmp_path, FILES)
    load()
    other = image_folders.make_files(TRAIN, TEST, seed=1)
    shutil.rmtree(tmp_path / "train")
    shutil.rmtree(tmp_path / "val")
    LAYOUTS["tars"](tmp_path, other)
    content = other["train"][CLASSES[0]][f"{CLASSES[0]}_train_0.JPEG"]
    expected = Image.open(io.BytesIO(content)).tobytes()
    assert load().train.open(0).tobytes() == expected


def test_tfrecord_folders_are_refused_in_one_line(load, tmp_path):
    """TFDS's default format cannot be read at random."""
    LAYOUTS["records"](tmp_path, FILES)
    folder = tmp_path / "imagenet2012" / "5.1.0"
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for path in folder.glob("*.array_record*"):
        path.rename(str(path).replace("array_record", "tfrecord"))
    one_line(load, folder, "tfrecord", "array_record", "tar files")


def test_imagenet_has_its_thousand_classes_in_the_order_of_all():
    """Label 0 is the tench and label 999 the toilet tissue, as everywhere."""
    classes = imagenet.official_classes()
    assert len(set(classes)) == 1000 and list(classes) == sorted(classes)
    assert (classes[0], classes[999]) == ("n01440764", "n15075141")


def test_imagenet100_has_a_hundred_classes_of_imagenet():
    """Of the list of CMC: its first, middle and last entries, and nothing else."""
    classes = imagenet100.classes()
    assert len(set(classes)) == 100 and list(classes) == sorted(classes)
    assert set(classes) < set(imagenet.official_classes())
    assert {"n02869837", "n02100583", "n02090622"} < set(classes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_part_of_the_classes_is_read_from_a_copy_of_all(
    monkeypatch, tmp_path, layout
):
    """ImageNet-100 needs no copy of its own; labels count within the part."""
    LAYOUTS[layout](tmp_path, FILES)
    part = image_folders.loader(TRAIN, TEST, (CLASSES[1], CLASSES[3]))
    monkeypatch.setitem(data.DATASETS, "pictures", part)
    dataset = data.load(DataConfig(name="pictures", dir=str(tmp_path)))
    assert dataset.train.label.tolist() == [0] * 3 + [1] * 3
    content = FILES["train"][CLASSES[3]][f"{CLASSES[3]}_train_0.JPEG"]
    expected = Image.open(io.BytesIO(content)).tobytes()
    assert dataset.train.open(3).tobytes() == expected
