import dataclasses
import errno
import gzip
import hashlib
import http.client
import io
import os
import pickle
import tarfile
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow_datasets as tfds
from archives import fails, member, python2_dumps, tar_bytes, tree

from spaced_kd.config import DataConfig
from spaced_kd.data import array_pickle, cifar100, cifar_archive, download
from spaced_kd.data.cifar100 import OFFICIAL
from spaced_kd.data.cifar_archive import prepare
from spaced_kd.data.cifar_release import CifarRelease
from spaced_kd.errors import DataError, StorageError

URL = "https://example.org/cifar-100-python.tar.gz"
FINE = [f"fine_{i}" for i in range(100)]
COARSE = [f"coarse_{i}" for i in range(20)]


def tables():
    """Two training images and one test image of every class, in a shuffled order."""
    rng = np.random.default_rng(0)
    result = {"meta": {"fine_label_names": FINE, "coarse_label_names": COARSE}}
    for name, each in (("train", 2), ("test", 1)):
        fine = rng.permutation(np.arange(100 * each) % 100).tolist()
        result[name] = {
            "filenames": [f"{name}_{i}.png" for i in range(len(fine))],
            "batch_label": f"{name}ing batch 1 of 1",
            "fine_labels": fine,
            "coarse_labels": [label % 20 for label in fine],
            "data": rng.integers(0, 256, (len(fine), 3072), dtype=np.uint8),
        }
    return result


TABLES = tables()
FILES = {name: python2_dumps(table) for name, table in TABLES.items()}


def official_members(files=FILES):
    folder = member("cifar-100-python", type=tarfile.DIRTYPE)
    notes = member("cifar-100-python/file.txt~", b"as in the original")
    rest = [member(f"cifar-100-python/{name}", files[name]) for name in files]
    return [folder, notes, *rest]


def archive_bytes(members) -> bytes:
    return tar_bytes(members, "w:gz")


def release_of(content: bytes, **fields) -> CifarRelease:
    values = {
        "url": URL,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "train_per_class": 2,
        "test_per_class": 1,
    }
    return dataclasses.replace(OFFICIAL, **(values | fields))


ARCHIVE = archive_bytes(official_members())
RELEASE = release_of(ARCHIVE)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def put(root, content=ARCHIVE):
    (root / "cifar-100-python.tar.gz").write_bytes(content)
    return release_of(content)


def check_prepared(folder):
    """Compare with the tables through TFDS's own reader, decoder included."""
    builder = tfds.builder_from_directory(folder)
    for name in ("train", "test"):
        table = TABLES[name]
        source = builder.as_data_source(name)
        assert len(source) == len(table["fine_labels"])
        for i in (0, 1, len(source) - 1):
            example = source[i]
            red, green, blue = table["data"][i].reshape(3, 32, 32)
            expected = np.dstack([red, green, blue])
            np.testing.assert_array_equal(example["image"], expected)
            assert example["label"] == table["fine_labels"][i]
            assert example["coarse_label"] == table["coarse_labels"][i]
    assert builder.info.features["label"].names == FINE
    assert builder.info.features["coarse_label"].names == COARSE
    assert builder.info.full_name == "cifar100/3.0.2"


def test_the_archive_becomes_a_folder_that_tfds_reads(root):
    """Exchanged channels, axes or label kinds would train on another data set."""
    release = put(root)
    check_prepared(prepare(root, release))
    assert not [name for name in tree(root) if name.startswith(".")]


def test_the_extracted_folder_is_accepted_too(root):
    """Offline users have it from torchvision."""
    (root / "cifar-100-python").mkdir()
    for name, content in FILES.items():
        (root / "cifar-100-python" / name).write_bytes(content)
    check_prepared(prepare(root, RELEASE))


def test_pickles_written_again_by_python_3_are_read(root):
    """Mirrors repack the files; strings, modules and bytes then look different."""
    files = {name: pickle.dumps(table, protocol=2) for name, table in TABLES.items()}
    check_prepared(prepare(root, put(root, archive_bytes(official_members(files)))))


def test_loading_prepares_once_and_then_reads_the_folder(root, monkeypatch):
    """A second start must need neither the archive nor the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "unused"))
    release = put(root)
    first = cifar100.load(DataConfig(dir=str(root)), release)
    (root / "cifar-100-python.tar.gz").unlink()
    second = cifar100.load(DataConfig(dir=str(root)), release)
    expected = TABLES["train"]["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    pairs = lambda images, labels: sorted(
        (i.tobytes(), int(y)) for i, y in zip(images, labels, strict=True)
    )
    assert pairs(*first.train) == pairs(expected, TABLES["train"]["fine_labels"])
    for a, b in zip(first.train + first.test, second.train + second.test, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_process_that_was_faster_is_not_disturbed(root):
    """Two runs that start together must both end with one sound folder."""
    release = put(root)
    final = prepare(root, release)
    before = {p: p.stat().st_mtime_ns for p in final.iterdir()}
    assert prepare(root, release) == final
    assert {p: p.stat().st_mtime_ns for p in final.iterdir()} == before


def test_a_failure_half_way_leaves_nothing(root, monkeypatch):
    """A folder without all its shards would be taken for prepared."""
    release = put(root)

    def stop(which, tables):
        yield from ()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cifar_archive, "_examples", stop)
    fails(lambda: prepare(root, release), "No space", kind=StorageError)
    assert tree(root) == ["cifar-100-python.tar.gz"]


def test_an_unwritable_folder_is_one_line(root):
    """A root that is a file stands for every kind of unwritable folder."""
    (root / "file").touch()
    fails(lambda: prepare(root / "file" / "x", RELEASE), root, "dir", kind=StorageError)


HOSTILE = {
    "absolute": (member("/spaced_kd_escape", b"x"), "/spaced_kd_escape"),
    "parent": (member("cifar-100-python/../../escape", b"x"), "../../escape"),
    "backslash": (member("..\\escape", b"x"), "escape"),
    "drive": (member("C:escape", b"x"), "C:escape"),
    "newline in the name": (member("../a\nb", b"x"), "a\\nb"),
    "symlink": (member("a", type=tarfile.SYMTYPE, linkname="/etc"), "'a'"),
    "hard link": (member("b", type=tarfile.LNKTYPE, linkname="/etc/passwd"), "'b'"),
    "device": (member("c", type=tarfile.CHRTYPE), "'c'"),
    "fifo": (member("d", type=tarfile.FIFOTYPE), "'d'"),
    "sparse": (member("s", type=tarfile.GNUTYPE_SPARSE), "'s'"),
    "twice": (member("cifar-100-python/train", b"x"), "twice"),
    "twice but for case": (member("Cifar-100-Python/TRAIN", b"x"), "twice"),
}


@pytest.mark.parametrize("where", ["first", "last"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_whole(root, kind, where):
    """One bad member condemns the archive, and nothing of it reaches the disk."""
    bad, word = HOSTILE[kind]
    members = official_members()
    members.insert(0 if where == "first" else len(members), bad)
    release = put(root, archive_bytes(members))
    before = tree(root.parent)
    fails(lambda: prepare(root, release), word)
    assert tree(root.parent) == before
    assert not os.path.exists("/spaced_kd_escape")


def test_an_oversize_member_is_refused_by_its_header(root):
    """The declared size is looked at before a byte of it is read."""
    info, _ = member("cifar-100-python/big")
    info.size = 1 << 40
    release = put(root, gzip.compress(info.tobuf(tarfile.GNU_FORMAT)))
    fails(lambda: prepare(root, release), "big", 1 << 40)


def test_too_many_members_are_refused(root):
    """A million empty members would cost minutes and memory."""
    members = [member(f"x{i}") for i in range(40)]
    release = put(root, archive_bytes(official_members() + members))
    fails(lambda: prepare(root, release), "x", "after")


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_missing_member_is_named(root, name):
    """An incomplete archive or folder must not end in a KeyError."""
    files = {n: c for n, c in FILES.items() if n != name}
    release = put(root, archive_bytes(official_members(files)))
    fails(lambda: prepare(root, release), f"cifar-100-python/{name}")
    (root / "cifar-100-python").mkdir()
    for n, content in files.items():
        (root / "cifar-100-python" / n).write_bytes(content)
    fails(lambda: prepare(root, release), f"cifar-100-python/{name}", "missing")


@pytest.mark.parametrize("length", [0, 10, 1000, len(ARCHIVE) - 100])
def test_a_truncated_archive_is_refused(root, length):
    """Even where the hash is that of the truncated file."""
    release = put(root, ARCHIVE[:length])
    fails(lambda: prepare(root, release), "cifar-100-python.tar.gz")


def test_a_local_archive_with_another_hash_is_refused(root):
    """The published hash counts, wherever the file came from."""
    put(root, ARCHIVE[:-1] + b"x")
    fails(lambda: prepare(root, RELEASE), RELEASE.sha256, "SHA-256")
    put(root, ARCHIVE + b"x")
    fails(lambda: prepare(root, RELEASE), len(ARCHIVE), len(ARCHIVE) + 1)


def changed(which, **fields):
    table = {k: v for k, v in (TABLES[which] | fields).items() if v is not None}
    return FILES | {which: python2_dumps(table)}


FINE_TRAIN = TABLES["train"]["fine_labels"]
CLASS_5 = FINE_TRAIN.index(5)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            changed("train", data=TABLES["train"]["data"][:-1]),
            ("(199, 3072)", "200 labels 'fine_labels'"),
        ),
        (changed("train", data=TABLES["train"]["data"][:, :-1]), ("(200, 3071)",)),
        (
            changed("train", data=TABLES["train"]["data"].astype(np.int8)),
            ("data", "uint8"),
        ),
        (
            changed("train", data=np.asfortranarray(TABLES["train"]["data"])),
            ("C-ordered",),
        ),
        (changed("train", data=[1, 2]), ("'data'",)),
        (changed("train", data=None), ("'data'",)),
        (changed("test", fine_labels=None), ("test", "fine_labels")),
        (changed("train", coarse_labels=[0]), ("1 labels 'coarse_labels'",)),
        (
            changed("train", fine_labels=[100, *FINE_TRAIN[1:]]),
            ("fine_labels[0] = 100",),
        ),
        (
            changed("train", fine_labels=[*FINE_TRAIN[1:], -1]),
            ("fine_labels[199] = -1",),
        ),
        (changed("train", fine_labels=[True, *FINE_TRAIN[1:]]), ("True",)),
        (changed("train", fine_labels=["3", *FINE_TRAIN[1:]]), ("b'3'", "0..99")),
        (
            changed(
                "train",
                fine_labels=[
                    6 if i == CLASS_5 else y for i, y in enumerate(FINE_TRAIN)
                ],
            ),
            ("1 train examples of class 5 instead of 2",),
        ),
        (changed("meta", fine_label_names=FINE[:99]), ("meta", "100 different")),
        (changed("meta", fine_label_names=[*FINE, FINE[0]]), ("100 different",)),
        (changed("meta", coarse_label_names=COARSE[:19] * 2), ("20 different",)),
        (FILES | {"test": FILES["train"]}, ("200 test examples instead of 100",)),
        (FILES | {"train": python2_dumps([1])}, ("list", "dict")),
        (FILES | {"train": FILES["train"][:-9]}, ("train", "damaged")),
        (FILES | {"train": b""}, ("train", "damaged")),
        (FILES | {"train": b"no pickle"}, ("train",)),
    ],
)
def test_malformed_tables_are_refused(root, files, words):
    """Each of these would otherwise be a traceback, or train on wrong labels."""
    release = put(root, archive_bytes(official_members(files)))
    fails(lambda: prepare(root, release), *words)
    assert tree(root) == ["cifar-100-python.tar.gz"]


def test_bytes_in_another_encoding_are_refused(root):
    """Decoded by the wrong table they would be other pixels."""
    content = pickle.dumps(TABLES["train"], protocol=2)
    assert b"latin1" in content
    content = content.replace(b"latin1", b"cp1250")
    release = put(root, archive_bytes(official_members(FILES | {"train": content})))
    fails(lambda: prepare(root, release), "'data'", "cp1250")


class Payload:
    """Unpickles as a call of anything."""

    def __init__(self, function, *arguments):
        self._reduced = function, arguments

    def __reduce__(self):
        return self._reduced


def payloads(marker):
    """Pickles whose side effect, by several ways, is a file."""
    touch = f"open({str(marker)!r}, 'w').close()"
    shell = f"touch {marker}"
    return {
        "os.system": pickle.dumps(Payload(os.system, shell), 2),
        "eval": pickle.dumps(Payload(eval, touch), 2),
        "exec": pickle.dumps(Payload(exec, touch), 4),
        "nested": pickle.dumps({"data": [Payload(eval, touch)]}, 2),
        "key": pickle.dumps({Payload(eval, touch): 1}, 2),
        "file": pickle.dumps(Payload(open, str(marker), "w"), 2),
        "getattr": b"c__builtin__\ngetattr\n(cos\nS'system'\ntR.",
        "posix": b"cposix\nsystem\n(S'" + shell.encode() + b"'\ntR.",
        "subprocess": b"csubprocess\ngetoutput\n(S'" + shell.encode() + b"'\ntR.",
        "inst": b"(S'" + shell.encode() + b"'\nios\nsystem\n.",
        "object": b"(cos\nsystem\nS'" + shell.encode() + b"'\no.",
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x16ndarray.__subclasses__\x93)R.",
        "codec": b"c_codecs\ndecode\n(S'x'\nS'rot13'\ntR.",
        "numpy loader": b"cnumpy\nload\n(S'x'\ntR.",
        "extension": b"\x82\x01.",
        "persistent": b"Pos.system\n.",
    }


@pytest.mark.parametrize("name", payloads("x"))
def test_a_hostile_pickle_is_refused_without_its_side_effect(root, name):
    """Loading data must never run what the data say."""
    marker = root / "marker"
    content = payloads(marker)[name]
    release = put(root, archive_bytes(official_members(FILES | {"train": content})))
    reason = "damaged" if name in ("extension", "persistent") else "refused"
    fails(lambda: prepare(root, release), "cifar-100-python/train", reason)
    assert tree(root) == ["cifar-100-python.tar.gz"]
    # The payloads that can act do act where nobody refuses.
    if name in ("os.system", "eval", "exec", "file", "posix", "inst", "object"):
        pickle.loads(content)
        assert marker.exists()


def test_the_refused_name_is_told():
    """A user who made the file can then see what is wrong with it."""
    fails(lambda: array_pickle.read(b"cos\nsystem\n.", "there"), "there", "os.system")


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\ndtype\n(S'O'\ntR.",
        b"cnumpy\nndarray\n(S'x'\ntR}(S'a'\nI1\nsb.",
        b"c_codecs\nencode\n(S'x'\nS'zlib_codec'\ntR.",
        b"cnumpy\nndarray\n}(S'__class__'\nI1\nsb.",
    ],
)
def test_admitted_names_are_inert(content):
    """NumPy's own reconstruction can be abused; it must not be reached."""
    try:
        got = array_pickle.read(content, "there")
    except DataError:
        return
    assert type(got).__module__ == "spaced_kd.data.array_pickle"
    fails(lambda: array_pickle.byte_array(got, "there"), "there")


class FakeResponse(io.BytesIO):
    """What an opener returns."""


def serve(monkeypatch, content, fail_after=None):
    """Answer every request with `content`, or break off after some bytes."""
    requests = []

    def answer(self, url, timeout):
        requests.append((url, timeout))
        response = FakeResponse(content)
        if fail_after is not None:
            plain = response.read

            def read(size):
                if response.tell() >= fail_after:
                    raise http.client.IncompleteRead(b"")
                return plain(min(size, fail_after))

            response.read = read
        return response

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", answer)
    return requests


def test_a_download_is_prepared_and_not_kept(root, monkeypatch):
    """The archive is of no use once its folder is there."""
    requests = serve(monkeypatch, ARCHIVE)
    check_prepared(prepare(root, RELEASE))
    assert requests == [(URL, 10)]
    assert os.listdir(root) == ["cifar100"]


@pytest.mark.parametrize(
    ("served", "fail_after", "words"),
    [
        (ARCHIVE[:-1] + b"x", None, (RELEASE.sha256, "SHA-256")),
        (ARCHIVE[:-1], None, (len(ARCHIVE) - 1, len(ARCHIVE))),
        (ARCHIVE + b"x", None, ("more than", len(ARCHIVE))),
        (ARCHIVE, 1000, ("broke off", "IncompleteRead")),
        (b"<html>moved</html>", None, (18, len(ARCHIVE))),
    ],
)
def test_a_download_that_differs_is_deleted(
    root, monkeypatch, served, fail_after, words
):
    """A partial or foreign file must not be used, now or at the next start."""
    serve(monkeypatch, served, fail_after)
    fails(lambda: prepare(root, RELEASE), *words, URL, root)
    assert tree(root) == []


def test_an_endless_download_stops_at_the_expected_size(root, monkeypatch):
    """A server could fill the disk."""
    sent = []

    class Endless(io.RawIOBase):
        def read(self, size=-1):
            sent.append(size)
            return bytes(size)

    monkeypatch.setattr(
        urllib.request.OpenerDirector, "open", lambda *a, **k: Endless()
    )
    fails(lambda: prepare(root, RELEASE), "more than")
    assert len(sent) <= 2 + len(ARCHIVE) // (1 << 20)


def test_without_network_one_line_says_what_to_put_where(root):
    """On a cluster node without internet this is the first thing a user meets."""
    config = DataConfig(dir=str(root))
    words = (OFFICIAL.url, root, "--config.data.dir", "TFDS_DATA_DIR", "not known")
    fails(lambda: cifar100.load(config), *words)
    assert tree(root) == []


def test_only_https_is_spoken(tmp_path):
    """Without it anybody on the way decides what is downloaded."""
    target = tmp_path / "x"
    for url in ("http://example.org/x", "file:///etc/passwd", "ftp://example.org/x"):
        fails(lambda url=url: download.download(url, target, 1, "0"), url, "https")
        assert not target.exists()


def test_a_redirect_to_http_is_refused():
    """Some servers downgrade; urllib follows without a word."""
    handler = download._HttpsRedirects()
    request = urllib.request.Request(URL)
    arguments = (request, None, 302, "Found", {})
    secure = handler.redirect_request(*arguments, "https://example.com/y")
    assert secure.full_url == "https://example.com/y"
    fails(
        lambda: handler.redirect_request(*arguments, "http://example.com/y"),
        "http://example.com/y",
    )


def test_the_official_release_is_the_published_one():
    """These constants decide what is accepted as CIFAR-100."""
    assert OFFICIAL.url == "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    assert OFFICIAL.size == 169_001_437 and OFFICIAL.sha256.startswith(
        "85cd44d02ba6437"
    )
    assert (OFFICIAL.train_per_class, OFFICIAL.test_per_class) == (500, 100)


def test_a_release_of_another_size_is_refused():
    """Another data set under this name, or half of it, must not be trained on."""
    label = np.repeat(np.arange(100), 500)
    OFFICIAL.check_counts("train", label, "here")
    with pytest.raises(DataError, match="49999 train examples instead of 50000"):
        OFFICIAL.check_counts("train", label[1:], "here")
    label[0] = 1
    with pytest.raises(DataError, match="499 train examples of class 0 instead of 500"):
        OFFICIAL.check_counts("train", label, "here")
