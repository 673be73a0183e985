import logging
import time

import numpy as np
import pytest

from spaced_kd.data import cache

ARRAYS = {
    "image": np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3),
    "label": np.arange(5, dtype=np.int32),
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Maker:
    """Counts how often the slow way is taken."""

    def __init__(self, arrays=ARRAYS):
        self.calls, self.arrays = 0, arrays

    def __call__(self):
        self.calls += 1
        return {name: array.copy() for name, array in self.arrays.items()}


def same(got, expected=ARRAYS):
    assert set(got) == set(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def test_the_second_call_reads_what_the_first_made(tmp_path):
    """A cache that is never hit, or changes a type, is worse than none."""
    maker = Maker()
    for _ in range(3):
        same(cache.cached(tmp_path, "x-1", maker))
    assert maker.calls == 1
    folder = tmp_path / "spaced_kd_cache"
    assert [p.name for p in folder.iterdir()] == ["x-1.npz"]


def test_another_name_is_another_copy(tmp_path):
    """The name carries the content's key: changed data must be made again."""
    cache.cached(tmp_path, "x-1", Maker())
    other = Maker({"image": ARRAYS["image"] + 1})
    same(cache.cached(tmp_path, "x-2", other), other.arrays)
    assert other.calls == 1


def test_every_damaged_byte_is_noticed_and_repaired(tmp_path, caplog):
    """A flipped pixel in the cache must not become the data set."""
    cache.cached(tmp_path, "x-1", Maker())
    path = tmp_path / "spaced_kd_cache" / "x-1.npz"
    sound = path.read_bytes()
    remade = 0
    for at in range(0, len(sound), 7):
        damaged = bytearray(sound)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        maker = Maker()
        caplog.clear()
        same(cache.cached(tmp_path, "x-1", maker))
        assert len(caplog.records) == maker.calls  # made again only with a warning
        remade += maker.calls
    print(
        f"{remade} of {len(range(0, len(sound), 7))} flips were noticed, none returned"
    )
    assert remade > 0


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_a_truncated_or_foreign_file_is_made_again(tmp_path, content, caplog):
    """A killed copy or a stray file must not stop the run."""
    cache.cached(tmp_path, "x-1", Maker())
    path = tmp_path / "spaced_kd_cache" / "x-1.npz"
    path.write_bytes(path.read_bytes()[:-50] if content is None else content)
    maker = Maker()
    same(cache.cached(tmp_path, "x-1", maker))
    assert maker.calls == 1 and "damaged" in caplog.text
    assert maker.calls == 1
    same(cache.cached(tmp_path, "x-1", maker))
    assert maker.calls == 1


def test_a_sound_file_with_other_content_is_made_again(tmp_path):
    """The zip format's own checksums do not say whose arrays these are."""
    cache.cached(tmp_path, "x-1", Maker())
    path = tmp_path / "spaced_kd_cache" / "x-1.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **(arrays | {"label": ARRAYS["label"][::-1]}))
    same(cache.cached(tmp_path, "x-1", Maker()))


def test_objects_are_not_unpickled(tmp_path):
    """An .npz may hold pickles; a planted one must not run."""
    folder = tmp_path / "spaced_kd_cache"
    folder.mkdir()
    marker = tmp_path / "marker"

    class Evil:
        def __reduce__(self):
            return open, (str(marker), "w")

    np.savez(folder / "x-1.npz", image=np.array([Evil()], object), sha256=np.zeros(32))
    same(cache.cached(tmp_path, "x-1", Maker()))
    assert not marker.exists()


def test_the_key_changes_with_any_file(tmp_path):
    """A stale key would return the cache of other data."""
    root = tmp_path / "data"
    shard, other = root / "a" / "shard", root / "b"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"12")
    other.write_bytes(b"3")
    keys = [cache.key(root, [shard, other])]
    assert cache.key(root, [other, shard]) == keys[0]  # the order does not matter
    moved = root.rename(tmp_path / "moved")
    assert cache.key(moved, [moved / "b", moved / "a" / "shard"]) == keys[0]
    moved.rename(root)
    time.sleep(0.01)
    shard.write_bytes(b"21")  # same size, later
    keys.append(cache.key(root, [shard, other]))
    shard.write_bytes(b"123")
    keys.append(cache.key(root, [shard, other]))
    keys.append(cache.key(root, [shard]))
    keys.append(cache.key(root, [shard.rename(root / "shard"), other]))
    assert len(set(keys)) == 5


def unwritable(tmp_path):
    """Return a root under which no folder can be made (also not by root)."""
    (tmp_path / "file").touch()
    return tmp_path / "file"


def test_a_read_only_data_folder_is_cached_in_the_home(tmp_path, home, caplog):
    """Shared data are often read-only; each user then keeps a copy."""
    maker = Maker()
    for _ in range(2):
        same(cache.cached(unwritable(tmp_path), "x-1", maker))
    assert maker.calls == 1 and (home / "spaced_kd" / "x-1.npz").is_file()
    assert not caplog.records


def test_a_copy_that_may_not_be_read_is_done_without(tmp_path, monkeypatch, caplog):
    """The data can be read, after all; a copy beside them is only faster."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(cache.Path, "is_file", refuse)
        same(cache.cached(tmp_path, "x-1", Maker()))
    assert "unreadable" in caplog.text and "Permission denied" in caplog.text


def test_the_default_home_is_dot_cache(tmp_path, monkeypatch):
    """Unset and relative settings both mean ~/.cache (XDG base directory rules)."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    for i, value in enumerate([None, "", "relative/path"]):
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        cache.cached(unwritable(tmp_path), f"x-{i}", Maker())
        assert (tmp_path / "me" / ".cache" / "spaced_kd" / f"x-{i}.npz").is_file()
    assert not (tmp_path / "relative").exists()


def test_without_any_place_the_data_are_still_returned(tmp_path, monkeypatch, caplog):
    """A cache is a convenience: no disk, no quota and no home are no errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(unwritable(tmp_path)))
    maker = Maker()
    with caplog.at_level(logging.WARNING, "spaced_kd"):
        for _ in range(2):
            same(cache.cached(unwritable(tmp_path), "x-1", maker))
    assert maker.calls == 2
    assert len(caplog.records) == 2 and "cannot be kept" in caplog.text


def test_a_disk_that_fills_up_leaves_no_part_behind(tmp_path, monkeypatch):
    """A half-written file must never carry the final name."""

    def full(path, **arrays):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    same(cache.cached(tmp_path, "x-1", Maker()))
    assert not list((tmp_path / "spaced_kd_cache").iterdir())
