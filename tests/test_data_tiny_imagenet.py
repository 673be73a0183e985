"""A small archive of all 200 classes in the official layout, and its broken copies."""

import dataclasses
import hashlib
import io
import os
import stat
import urllib.error
import urllib.request
import zipfile

import numpy as np
import pytest
from archives import fails, tree
from PIL import Image

from spaced_kd import data
from spaced_kd.config import DataConfig
from spaced_kd.data import tiny_imagenet
from spaced_kd.data.tiny_imagenet import OFFICIAL
from spaced_kd.errors import StorageError

TOP = "tiny-imagenet-200"
RNG = np.random.default_rng(0)
# As in the original, the classes are not in the order of their names.
WNIDS = [f"n{number:08d}" for number in RNG.permutation(200) * 37]


def picture(mode="RGB", size=(64, 64), kind="JPEG"):
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    # Coarse blocks, so that JPEG keeps images apart.
    shape = (size[1] // 8, size[0] // 8, *channels)
    blocks = RNG.integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    image = Image.frombytes(mode, size, blocks.repeat(8, 0).repeat(8, 1).tobytes())
    image.save(file, kind)
    return file.getvalue()


def train_name(label, image):
    return f"{TOP}/train/{WNIDS[label]}/images/{WNIDS[label]}_{image}.JPEG"


def val_name(image):
    return f"{TOP}/val/images/val_{image}.JPEG"


VAL = RNG.permutation(200).tolist()  # the class of each validation image
ANNOTATIONS = [f"val_{i}.JPEG\t{WNIDS[c]}\t0\t32\t44\t62" for i, c in enumerate(VAL)]
LABELS = {
    "train": {train_name(c, i): c for c in range(200) for i in range(2)},
    "test": {val_name(i): c for i, c in enumerate(VAL)},
}
GREY = {train_name(7, 0), val_name(9)}
CLASSES_FILE = f"{TOP}/wnids.txt"
ANNOTATIONS_FILE = f"{TOP}/val/val_annotations.txt"


def text(lines):
    return "".join(f"{line}\n" for line in lines).encode()


FILES = {
    name: picture("L" if name in GREY else "RGB")
    for names in LABELS.values()
    for name in names
} | {
    CLASSES_FILE: text(WNIDS),
    ANNOTATIONS_FILE: text(ANNOTATIONS[::-1]),
    f"{TOP}/words.txt": b"n00000000\tentity\n",
    f"{TOP}/test/images/test_0.JPEG": b"is not looked at",
    f"{TOP}/train/{WNIDS[0]}/{WNIDS[0]}_boxes.txt": b"nor this",
}


def zip_of(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{TOP}/", b"")
        for path, content in files.items():
            archive.writestr(path, content)
    return file.getvalue()


def release_of(content, train_per_class=2):
    return dataclasses.replace(
        OFFICIAL,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        train_per_class=train_per_class,
        test_per_class=1,
    )


ARCHIVE = zip_of(FILES)
RELEASE = release_of(ARCHIVE)


def put_official(root):
    (root / f"{TOP}.zip").write_bytes(ARCHIVE)


def put_other(root, files=FILES, name="some"):
    (root / f"tiny-imagenet-{name}.zip").write_bytes(zip_of(files))


def put_folder(root, files=FILES):
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def load(root, release=RELEASE, **fields):
    return tiny_imagenet.load(DataConfig(dir=str(root), **fields), release)


def decoded(content):
    """Return the pixels by Pillow alone; a grey image three times."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    return np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels


def check(dataset, labels=LABELS):
    for name, by_file in labels.items():
        image, label = getattr(dataset, name)
        assert image.shape == (len(by_file), 64, 64, 3) and image.dtype == np.uint8
        assert label.dtype == np.int32
        got = {(i.tobytes(), int(y)) for i, y in zip(image, label, strict=True)}
        assert got == {(decoded(FILES[f]).tobytes(), y) for f, y in by_file.items()}
        digests = [hashlib.sha256(i.tobytes()).digest() for i in image]
        assert digests == sorted(digests)  # content order


@pytest.mark.parametrize("put", [put_official, put_other, put_folder])
def test_images_and_labels_are_those_of_the_layout(root, put, caplog):
    """Labels are lines of wnids.txt; those of the validation set are annotations."""
    put(root)
    dataset = load(root)
    check(dataset)
    assert (dataset.name, dataset.num_classes) == ("tiny_imagenet", 200)
    assert dataset.mean == (0.485, 0.456, 0.406)
    assert dataset.std == (0.229, 0.224, 0.225)
    assert "part of" not in caplog.text


@pytest.mark.parametrize("threads", [1, 7])
def test_the_number_of_threads_changes_nothing(root, threads, monkeypatch):
    """Each image has its row, whoever decodes it."""
    monkeypatch.setattr(tiny_imagenet, "_AT_ONCE", 3)
    put_other(root)
    check(load(root, stream_threads=threads))


@pytest.mark.parametrize("put", [put_official, put_folder])
def test_the_second_start_decodes_nothing(root, put, monkeypatch):
    """Half a minute at every start would be paid at every resume."""
    put(root)
    first = data.contents.fingerprint(load(root).train, load(root).test)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        patch.setattr(tiny_imagenet, "verify", None)
        again = load(root)
    assert data.contents.fingerprint(again.train, again.test) == first
    if put is put_folder:
        changed = root / train_name(3, 1)
        changed.write_bytes(picture())
        assert data.contents.fingerprint(load(root).train, again.test) != first


def test_a_subset_is_accepted_and_told(root, caplog):
    """Half of it is another data set; a run that uses it must say so, every time."""
    few = {name: c for name, c in FILES.items() if not name.endswith("_1.JPEG")}
    few |= {name: FILES[name] for name in LABELS["test"]}
    put_other(root, few)
    for _ in range(2):
        caplog.clear()
        dataset = load(root)
        message = "part of Tiny-ImageNet: 1 training and 1 test images a class instead"
        assert message in caplog.text
    half = {name: c for name, c in LABELS["train"].items() if name in few}
    check(dataset, {"train": half, "test": LABELS["test"]})


def without(*names):
    return {name: content for name, content in FILES.items() if name not in names}


def annotations(lines):
    return FILES | {ANNOTATIONS_FILE: text(lines)}


PLACE = FILES[train_name(5, 1)]
NEW = f"{TOP}/train/n99999999/images/n99999999_0.JPEG"
OTHER_CLASS = ANNOTATIONS[0].replace(WNIDS[VAL[0]], WNIDS[VAL[1]])
BROKEN = {
    "an image too few": (
        without(train_name(5, 1)),
        ("1 train images of class 5 instead of 2", "1 of 200"),
    ),
    "a class missing": (
        without(train_name(5, 0), train_name(5, 1)),
        ("0 train images of class 5 instead of 2",),
    ),
    "no training images": (without(*LABELS["train"]), ("0 train images of class 0",)),
    "unknown class": (FILES | {NEW: PLACE}, (NEW, "n99999999", "wnids.txt")),
    "no classes": (without(CLASSES_FILE), ("wnids.txt",)),
    "199 classes": (FILES | {CLASSES_FILE: text(WNIDS[1:])}, ("wnids.txt", "199")),
    "class twice": (
        FILES | {CLASSES_FILE: text([*WNIDS[:-1], WNIDS[0]])},
        ("200 lines, 199 of them different",),
    ),
    "no annotations": (without(ANNOTATIONS_FILE), ("val_annotations.txt",)),
    "annotation missing": (
        annotations(ANNOTATIONS[1:]),
        (val_name(0), "not in val_annotations.txt"),
    ),
    "annotation twice": (
        annotations([*ANNOTATIONS, ANNOTATIONS[3]]),
        ("line 201", "val_3.JPEG"),
    ),
    "annotation without a class": (
        annotations(["val_0.JPEG", *ANNOTATIONS[1:]]),
        ("line 1", "val_0.JPEG"),
    ),
    "annotation of an unknown class": (
        annotations(["val_0.JPEG\tn99999999", *ANNOTATIONS[1:]]),
        (val_name(0), "n99999999", "wnids.txt"),
    ),
    "annotation of another class": (
        annotations([OTHER_CLASS, *ANNOTATIONS[1:]]),
        ("test images of class",),
    ),
    "validation image missing": (without(val_name(17)), (val_name(17), "missing")),
}
NOT_IMAGES = {
    "another size": (picture(size=(64, 56)), "RGB of 64x56"),
    "four channels": (picture("CMYK"), "CMYK of 64x64"),
    "PNG": (picture(kind="PNG"), ""),
    "cut short": (PLACE[:-100], ""),
    "no image": (b"<html>", ""),
    "empty": (b"", ""),
}
BROKEN |= {
    kind: (FILES | {train_name(5, 1): content}, (train_name(5, 1), "64x64 JPEG", word))
    for kind, (content, word) in NOT_IMAGES.items()
}


@pytest.mark.parametrize("put", [put_other, put_folder])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_copy_is_refused_naming_the_file_or_class(root, kind, put):
    """Each of these trained on wrong or fewer images somewhere in public code."""
    files, words = BROKEN[kind]
    put(root, files)
    before = tree(root)
    fails(lambda: load(root), root, *words)
    assert tree(root) == before  # and nothing of it was cached


def test_an_image_that_claims_to_be_huge_is_not_decoded(root):
    """Pillow has an error of its own for decompression bombs."""
    content = bytearray(PLACE)
    frame = content.index(b"\xff\xc0")  # height and width are bytes 5 to 8
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    put_other(root, FILES | {train_name(5, 1): bytes(content)})
    fails(lambda: load(root), train_name(5, 1), "64x64")


def test_a_hostile_archive_is_refused(root):
    """The rules of `archive` are asked; here with a link."""
    link = zipfile.ZipInfo(f"{TOP}/train/x.JPEG")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    put_other(root)
    with zipfile.ZipFile(root / "tiny-imagenet-some.zip", "a") as archive:
        archive.writestr(link, "/etc/passwd")
    fails(lambda: load(root), f"{TOP}/train/x.JPEG", "is a link")


def test_the_official_name_is_for_the_official_archive(root):
    """A truncated download, or a subset under this name, must not be trained on."""
    path = root / f"{TOP}.zip"
    path.write_bytes(ARCHIVE[:-1] + b"x")
    fails(lambda: load(root), path, RELEASE.sha256, "SHA-256")
    path.write_bytes(ARCHIVE[:-1])
    fails(lambda: load(root), path, len(ARCHIVE) - 1, len(ARCHIVE))
    path.write_bytes(ARCHIVE)
    more = dataclasses.replace(RELEASE, train_per_class=3)
    fails(lambda: load(root, more), "2 train images of class 0 instead of 3")


def test_what_is_read_if_there_is_a_choice(root):
    """The verified archive first, then the folder; of several others none."""
    few = without(*(train_name(c, 1) for c in range(200)))
    put_other(root, few)
    assert len(load(root).train.label) == 200
    put_other(root, few, "more")
    fails(lambda: load(root), root, "tiny-imagenet-more.zip, tiny-imagenet-some.zip")
    put_folder(root)
    assert len(load(root).train.label) == 400
    put_folder(root, {train_name(0, 1): b"broken"})
    put_official(root)
    assert len(load(root).train.label) == 400


def serve(monkeypatch, content):
    """Answer every request with `content`."""
    requests = []

    def answer(self, url, timeout):
        requests.append(url)
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", answer)
    return requests


def test_a_download_is_verified_and_kept(root, monkeypatch):
    """The cache is a copy only: without it the archive must still be there."""
    requests = serve(monkeypatch, ARCHIVE)
    check(load(root / "new"))
    check(load(root / "new"))
    assert requests == [OFFICIAL.url]
    assert sorted(os.listdir(root / "new")) == ["spaced_kd_cache", f"{TOP}.zip"]


@pytest.mark.parametrize("served", [ARCHIVE[:-1] + b"x", ARCHIVE[:-9], b"<html>"])
def test_a_download_that_differs_is_deleted(root, monkeypatch, served):
    """A partial or foreign file must not be used, now or at the next start."""
    serve(monkeypatch, served)
    fails(lambda: load(root), "cannot be downloaded", OFFICIAL.url, root)
    assert tree(root) == []


def test_without_network_one_line_says_what_to_put_where(root):
    """On a cluster node without internet this is the first thing a user meets."""
    words = (OFFICIAL.url, root, TOP, "--config.data.dir", "TFDS_DATA_DIR", "not known")
    fails(lambda: data.load(DataConfig(name="tiny_imagenet", dir=str(root))), *words)
    assert tree(root) == []


def test_an_unwritable_folder_is_one_line(root):
    """A root that is a file stands for every kind of unwritable folder."""
    (root / "file").touch()
    fails(lambda: load(root / "file" / "x"), root, "dir", kind=StorageError)


def test_the_official_release_is_the_published_one():
    """These constants decide what is accepted; https although the course links http."""
    assert OFFICIAL.url == "https://cs231n.stanford.edu/tiny-imagenet-200.zip"
    assert OFFICIAL.size == 248_100_043
    assert OFFICIAL.sha256 == (
        "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"
    )
    assert (OFFICIAL.train_per_class, OFFICIAL.test_per_class) == (500, 50)
    limits = tiny_imagenet.LIMITS
    assert limits.members > 120_609 and limits.total_bytes > 2 * OFFICIAL.size


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """Twenty training and five validation images of every class, the original files."""
    archive = shared_data / "tiny-imagenet-mini.zip"
    if not archive.is_file():
        pytest.skip(f"needs images of Tiny-ImageNet: no file {archive}")
    folder = tmp_path_factory.mktemp("data")
    (folder / archive.name).symlink_to(archive)
    return data.load(DataConfig(name="tiny_imagenet", dir=str(folder))), archive


def test_real_images_have_the_statistics_of_the_whole(real):
    """Exchanged channels or a wrong decoder would move them."""
    dataset, _ = real
    assert np.bincount(dataset.train.label).tolist() == [20] * 200
    assert np.bincount(dataset.test.label).tolist() == [5] * 200
    # Of all 100,000 training images, as public code gives them.
    pixels = dataset.train.image[::4] / 255
    known = [0.4802, 0.4481, 0.3975], [0.2770, 0.2691, 0.2821]
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), known[0], atol=0.01)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), known[1], atol=0.01)
    grey = (dataset.train.image == dataset.train.image[..., :1]).all((1, 2, 3))
    assert 0 < grey.mean() < 0.05


def test_real_labels_belong_to_the_image(real):
    """By Python's own zip reader, for one image of each class in either split."""
    dataset, path = real
    known = {
        image.tobytes(): label
        for split in (dataset.train, dataset.test)
        for image, label in zip(*split, strict=True)
    }
    with zipfile.ZipFile(path) as archive:
        classes = archive.read(CLASSES_FILE).decode().split()
        lines = archive.read(ANNOTATIONS_FILE).decode().splitlines()
        wanted = {f"{TOP}/val/images/{r[0]}": r[1] for r in map(str.split, lines)}
        names = [name for name in archive.namelist() if "/images/" in name]
        for name in names[::23]:
            image = decoded(archive.read(name))
            wnid = wanted.get(name, name.split("/")[2])
            assert classes[known[image.tobytes()]] == wnid
