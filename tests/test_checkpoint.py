"""Checkpoints: bitwise, never half, never silently wrong, never fewer than promised."""

import errno
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from spaced_kd import checkpoint
from spaced_kd.checkpoint import CheckpointLine, is_better
from spaced_kd.errors import CheckpointError, NonFiniteError, StorageError
from spaced_kd.state import init_state

_observer = []


def _audit(event, args):
    # An audit hook cannot be removed: a test puts a function here and takes it away.
    if _observer:
        observe = _observer.pop()  # So that what it does itself is not observed.
        observe(event, args)
        _observer.append(observe)


sys.addaudithook(_audit)


@pytest.fixture
def observe():
    """Call a function at every audit event until the test ends."""
    yield _observer.append
    _observer.clear()


class Pair(NamedTuple):
    first: jax.Array
    second: tuple


def make_tree(seed):
    """Every kind of container and dtype that a run's state holds, with random bits."""
    rng = np.random.default_rng(seed)

    def shapes():
        net = {"Dense_0": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(())}}
        variables = {"params": net, "batch_stats": {"bn": {"mean": jnp.zeros(4)}}}
        method_params = {"adaptor": jnp.zeros((2, 2), jnp.bfloat16)}
        tx = optax.sgd(0.1, momentum=0.9)
        return {
            "teacher": init_state(variables, method_params, tx),
            "extra": Pair(jnp.zeros(5, jnp.uint8), (jnp.zeros((0, 2)), {}, None)),
            "flags": [jnp.zeros(2, bool), jnp.zeros((2, 2), jnp.int32)],
        }

    def fill(leaf):
        values = np.asarray(rng.normal(size=leaf.shape) * 50)
        whole = np.abs(values) if leaf.dtype == np.uint8 else values
        return jnp.asarray(whole.astype(leaf.dtype))

    return jax.tree.map(fill, jax.eval_shape(shapes))


def assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def filled_line(root, ticks, keep=2):
    line = CheckpointLine(root, keep)
    for tick in ticks:
        line.save(tick, make_tree(tick), {"tick": tick})
    return line


def snapshot(root):
    """Return relative path -> bytes of everything under `root`."""
    files = (p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root): p.read_bytes() for p in files}


def intact(root):
    """Return the directories of `root` that verify, replaced ones included."""
    found = []
    for path in [*root.glob("0*"), *root.glob(".old-0*")]:
        try:
            checkpoint._load(path)
        except (checkpoint._Damaged, OSError):
            continue
        found.append(path.name)
    return sorted(found)


def test_round_trip_is_bitwise_for_every_dtype_and_container(tmp_path):
    """A resumed run would not continue the one that was saved."""
    tree = make_tree(0)
    tree["odd"] = jnp.array([-0.0, 1e-40, 3.4e38], jnp.float32)  # a denormal, a -0
    info = {"best": 0.5, "names": ["a", "b"], "none": None, "nested": {"x": 1}}
    saved = CheckpointLine(tmp_path / "deep/er", 2).save(12, tree, info)
    found = CheckpointLine(tmp_path / "deep/er", 2).latest()
    assert found == saved
    assert (found.path.name, found.tick, found.info) == ("00000012", 12, info)
    line = CheckpointLine(tmp_path / "deep/er", 2)
    assert_same_bits(line.restore(found, tree), tree)
    abstract = jax.eval_shape(lambda: tree)
    assert_same_bits(line.restore(found, abstract), tree)


def test_nothing_saved_yet_is_none_and_creates_nothing(tmp_path):
    """A first start would fail, or leave a folder that looks like a run."""
    assert CheckpointLine(tmp_path / "none", 2).latest() is None
    assert not (tmp_path / "none").exists()


def test_newest_are_kept_and_older_deleted(tmp_path):
    """The disk would fill, or the wrong ones would go."""
    filled_line(tmp_path, [1, 5, 9, 20], keep=3)
    assert sorted(os.listdir(tmp_path)) == ["00000005", "00000009", "00000020"]


def test_info_that_json_would_change_is_refused(tmp_path):
    """The caller would get back something else than it gave."""
    line = CheckpointLine(tmp_path, 2)
    infinity = float("inf")
    for info in ({"a": (1, 2)}, {1: "a"}, {"a": infinity}, {"a": infinity - infinity}):
        with pytest.raises(ValueError, match="JSON"):
            line.save(1, make_tree(1), info)


def test_leaves_that_would_change_dtype_are_refused(tmp_path):
    """An int64 counter of numpy would silently come back as int32."""
    with pytest.raises(TypeError, match="counter/0 is a ndarray"):
        CheckpointLine(tmp_path, 2).save(1, {"counter": [np.zeros(2, np.int64)]}, {})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_non_finite_state_is_refused_and_earlier_bytes_stay(tmp_path, bad, dtype):
    """A diverged run would overwrite its last good state."""
    line = filled_line(tmp_path, [1])
    before = snapshot(tmp_path)
    tree = {"teacher": {"kernel": jnp.array([1.0, bad], dtype), "n": jnp.int32(1)}}
    with pytest.raises(NonFiniteError, match="teacher/kernel: 1 of 2 values") as caught:
        line.save(2, tree, {})
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_is_better_never_lets_nan_or_a_tie_win():
    """A diverged network would be kept as the best one."""
    nan, inf = float("nan"), float("inf")
    assert is_better(0.1, None) and is_better(0.2, 0.1) and is_better(-1.0, nan)
    assert not is_better(0.1, 0.1) and not is_better(0.1, 0.2)
    for best in (None, 0.1, nan):
        assert not is_better(nan, best) and not is_better(inf, best)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"w": jnp.zeros((2, 4))}, "[2,3] there and float32[2,4] here"),
        (lambda t: t | {"w": jnp.zeros((2, 3), jnp.bfloat16)}, "bfloat16[2,3] here"),
        (lambda t: t | {"n": jnp.zeros(())}, "n is int32[] there and float32[] here"),
        (lambda t: t | {"new": jnp.zeros(3)}, "new is absent there and float32[3]"),
        (lambda t: {"w": t["w"]}, "n is int32[] there and absent here"),
        (lambda t: {"w": {"w": t["w"]}, "n": t["n"]}, "w/w is absent there"),
    ],
)
def test_other_structure_shape_or_dtype_is_refused_by_path(tmp_path, change, message):
    """Orbax would cast float32 to bfloat16 without a word."""
    tree = {"w": jnp.ones((2, 3)), "n": jnp.int32(3)}
    line = CheckpointLine(tmp_path, 2)
    saved = line.save(1, tree, {})
    for template in (change(tree), jax.eval_shape(lambda: change(tree))):
        with pytest.raises(CheckpointError) as caught:
            line.restore(saved, template)
        assert message in str(caught.value)
        assert str(saved.path) in str(caught.value) and "\n" not in str(caught.value)


def test_refusal_names_three_leaves_and_counts_the_rest(tmp_path):
    """A message about another architecture would be pages long, or say nothing."""
    line = CheckpointLine(tmp_path, 2)
    saved = line.save(1, {"w": [jnp.zeros(n) for n in range(1, 8)]}, {})
    with pytest.raises(CheckpointError) as caught:
        line.restore(saved, {"w": [jnp.zeros(n + 1) for n in range(1, 8)]})
    assert "w/2 is" in str(caught.value) and "w/3" not in str(caught.value)
    assert "(+ 4 more)" in str(caught.value)


def test_200_bit_flips_and_60_truncations_are_never_restored(tmp_path):
    """Orbax alone restores about 4 of 10 flipped bits as wrong weights."""
    line = filled_line(tmp_path, [2])
    files = sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size)
    rng = random.Random(0)
    detected, harmless = 0, 0
    for trial in range(260):
        file = rng.choice(files)
        original = file.read_bytes()
        damaged = bytearray(original)
        position = rng.randrange(len(original))
        if trial < 200:
            damaged[position] ^= 1 << rng.randrange(8)
        else:
            del damaged[position:]
        file.write_bytes(damaged)
        try:
            found = CheckpointLine(tmp_path, 2).latest()
        except CheckpointError:
            detected += 1
        else:
            assert found.info == {"tick": 2}
            assert_same_bits(line.restore(found, make_tree(2)), make_tree(2))
            harmless += 1
        file.write_bytes(original)
    assert detected + harmless == 260 and detected > 250
    assert CheckpointLine(tmp_path, 2).latest().tick == 2


def test_each_file_deleted_emptied_or_swapped_falls_back(tmp_path):
    """A lost or exchanged file would be taken for the real one."""
    line = filled_line(tmp_path, [1, 2])
    files = sorted(p for p in (tmp_path / "00000002").rglob("*") if p.is_file())
    for file, other in zip(files, files[1:] + files[:1], strict=True):
        original = file.read_bytes()
        assert original != other.read_bytes()
        for content in (None, b"", other.read_bytes()):
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            found = CheckpointLine(tmp_path, 2).latest()
            assert found.tick == 1, file
            file.write_bytes(original)
    assert_same_bits(line.restore(found, make_tree(1)), make_tree(1))
    assert CheckpointLine(tmp_path, 2).latest().tick == 2


def test_damage_is_one_warning_that_names_folder_and_file(tmp_path, caplog):
    """Nobody would learn that the run went back, or why."""
    filled_line(tmp_path, [1, 2])
    metadata = tmp_path / "00000002/arrays/_METADATA"
    metadata.write_bytes(metadata.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert CheckpointLine(tmp_path, 2).latest().tick == 1
    ((logger, _, message),) = caplog.record_tuples
    assert logger == "spaced_kd" and "\n" not in message
    assert str(tmp_path / "00000002") in message and "arrays/_METADATA" in message


def test_only_damaged_ones_is_an_error_and_deletes_nothing(tmp_path):
    """The run would silently start from scratch over what could be rescued."""
    filled_line(tmp_path, [1, 2])
    (tmp_path / "00000001/manifest.json").unlink()
    (tmp_path / "00000002/manifest.json").write_text("{}")
    before = snapshot(tmp_path)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints") as caught:
        CheckpointLine(tmp_path, 2).latest()
    assert str(tmp_path) in str(caught.value)
    assert snapshot(tmp_path) == before


def test_damage_after_latest_is_an_error_of_restore(tmp_path):
    """Between finding and reading, a checkpoint could go bad unnoticed."""
    line = filled_line(tmp_path, [1])
    found = line.latest()
    for file in found.path.rglob("_METADATA"):
        file.write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="is damaged: arrays/_METADATA"):
        line.restore(found, make_tree(1))


def test_decoys_are_never_chosen_and_each_is_warned_of_once(tmp_path, caplog):
    """Orbax takes an empty folder with a number as the newest checkpoint."""
    filled_line(tmp_path, [1, 2])
    (tmp_path / "00000099").mkdir()
    (tmp_path / "00000098").write_text("a file")
    shutil.copytree(tmp_path / "00000002", tmp_path / "00000097")
    (tmp_path / "00000097/manifest.json").unlink()
    shutil.copytree(tmp_path / "00000002", tmp_path / "00000096")  # another tick inside
    shutil.copytree(tmp_path / "00000002", tmp_path / f".tmp-95-{'a' * 32}")
    (tmp_path / "00000094").symlink_to("00000094")
    (tmp_path / "00000093").symlink_to("00000002")
    (tmp_path / "00000092").symlink_to("nowhere")
    shutil.copytree(tmp_path / "00000002", tmp_path / "00000002.bak")
    (tmp_path / "2").mkdir()
    (tmp_path / ".DS_Store").write_text("not ours, and of no interest")
    tick_95 = f".tmp-95-{'a' * 32}"
    ticks = [f"000000{n}" for n in (92, 93, 94, 96, 97, 98, 99)]
    with caplog.at_level(logging.WARNING):
        assert CheckpointLine(tmp_path, 2).latest().tick == 2
    messages = [record.getMessage() for record in caplog.records]
    warned = sorted(
        Path(message.split(" is skipped: ")[0]).name for message in messages
    )
    assert warned == sorted([tick_95, "00000002.bak", "2", *ticks])


def test_decoys_alone_are_no_checkpoint(tmp_path):
    """A first start would refuse a folder that holds nothing of ours."""
    (tmp_path / "00000099").mkdir()
    (tmp_path / "00000098").symlink_to("00000098")
    assert CheckpointLine(tmp_path, 2).latest() is None


def test_save_where_something_foreign_stands_moves_it_aside(tmp_path):
    """The run could not pass that tick, or would delete somebody's files."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "manifest.json").write_text("{}")
    root = tmp_path / "root"
    (root / "00000002/arrays").mkdir(parents=True)
    (root / "00000003").write_text("precious")
    (root / "00000004").symlink_to(home)
    filled_line(root, [2, 3, 4, 5])
    assert CheckpointLine(root, 2).latest().tick == 5
    assert intact(root) == ["00000004", "00000005"]
    assert next(root.glob("00000003.aside-*")).read_text() == "precious"
    assert next(root.glob("00000002.aside-*/arrays")).is_dir()
    assert (home / "manifest.json").read_text() == "{}"


def test_pruning_never_follows_or_removes_what_is_not_ours(tmp_path):
    """A link in the folder would cost the user another folder."""
    home = tmp_path / "home"
    home.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (home / "manifest.json").write_text("{}")
    (root / "00000001").symlink_to(home)
    (root / f".tmp-7-{'0' * 32}").symlink_to(home)
    (root / "00000002").mkdir()
    (root / "notes.txt").write_text("mine")
    filled_line(root, range(3, 7))
    assert intact(root) == ["00000005", "00000006"]
    assert (home / "manifest.json").read_text() == "{}"
    kept = ["00000001", "00000002", f".tmp-7-{'0' * 32}", "notes.txt"]
    assert all(os.path.lexists(root / name) for name in kept)


def test_never_fewer_than_two_verified_at_any_instant(tmp_path, observe):
    """A kill during deletion would leave one checkpoint, or none."""
    fewest = []

    def count(event, args):
        if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            fewest.append(len(intact(tmp_path)))

    filled_line(tmp_path, [1, 2])
    observe(count)
    line = filled_line(tmp_path, [3])
    line.save(3, make_tree(33), {})
    assert len(fewest) > 20 and min(fewest) == 2


def test_damaged_ones_do_not_count_as_kept(tmp_path):
    """With the last but one damaged, pruning would leave a single good one."""
    filled_line(tmp_path, [1, 2])
    (tmp_path / "00000002/arrays/_METADATA").unlink()
    CheckpointLine(tmp_path, 2).save(3, make_tree(3), {})
    assert intact(tmp_path) == ["00000001", "00000003"]


def test_damaged_newer_one_does_not_push_out_what_was_just_saved(tmp_path):
    """After going back, the new checkpoint would be deleted as the oldest."""
    filled_line(tmp_path, [1, 8, 9], keep=3)
    for name in ("00000008", "00000009"):
        (tmp_path / name / "arrays/_METADATA").unlink()
    line = CheckpointLine(tmp_path, 2)
    assert line.latest().tick == 1
    line.save(2, make_tree(2), {})
    assert intact(tmp_path) == ["00000001", "00000002"]
    assert line.latest().tick == 2
    assert (tmp_path / "00000009").is_dir()


def test_newer_ones_are_not_deleted_by_an_older_save(tmp_path):
    """Continuing from an older checkpoint would destroy the newer ones."""
    line = filled_line(tmp_path, [8, 9])
    line.save(2, make_tree(2), {})
    assert intact(tmp_path) == ["00000002", "00000008", "00000009"]


def test_second_save_at_a_tick_replaces_the_first(tmp_path):
    """The older values would come back, or a folder would be left over."""
    line = filled_line(tmp_path, [1, 2])
    line.save(2, make_tree(22), {"again": True})
    found = CheckpointLine(tmp_path, 2).latest()
    assert (found.tick, found.info) == (2, {"again": True})
    assert_same_bits(line.restore(found, make_tree(0)), make_tree(22))
    assert sorted(os.listdir(tmp_path)) == ["00000001", "00000002"]


def test_save_over_a_damaged_one_at_the_same_tick(tmp_path):
    """A run that went back could not pass the damaged tick again."""
    filled_line(tmp_path, [1, 2])
    (tmp_path / "00000002/arrays/_METADATA").unlink()
    CheckpointLine(tmp_path, 2).save(2, make_tree(22), {})
    assert sorted(os.listdir(tmp_path)) == ["00000001", "00000002"]
    assert intact(tmp_path) == ["00000001", "00000002"]


def test_replaced_one_survives_until_a_good_one_stands(tmp_path, observe):
    """Killed twice while it replaces its only checkpoint, a run would have none."""
    filled_line(tmp_path, [2])
    shutil.copytree(tmp_path / "00000002", tmp_path / ".old-00000002")
    (tmp_path / "00000002/arrays/_METADATA").unlink()
    fewest = []

    def count(event, args):
        if event in ("os.rename", "os.remove"):
            fewest.append(len(intact(tmp_path)))

    observe(count)
    CheckpointLine(tmp_path, 2).save(2, make_tree(22), {})
    assert len(fewest) > 10 and min(fewest) == 1
    assert os.listdir(tmp_path) == ["00000002"]


def test_everything_is_flushed_before_the_rename(tmp_path, monkeypatch, observe):
    """After a power cut the folder would be there, and its files empty."""
    flushed, missing = set(), []
    fsync = os.fsync

    def record(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check(event, args):
        if event == "spaced_kd.checkpoint" and args[0] == "rename":
            (temp,) = tmp_path.glob(".tmp-*")
            missing.extend(
                path
                for path in [temp, *temp.rglob("*")]
                if path.stat().st_ino not in flushed
            )

    monkeypatch.setattr(os, "fsync", record)
    observe(check)
    CheckpointLine(tmp_path, 2).save(1, make_tree(1), {})
    assert missing == [] and tmp_path.stat().st_ino in flushed


def test_temp_folders_of_dead_runs_are_removed_by_the_next_save(tmp_path):
    """Every kill would cost disk space for ever."""
    leftover = tmp_path / f".tmp-3-{'b' * 32}"
    (leftover / "arrays").mkdir(parents=True)
    (tmp_path / ".tmp-of-somebody-else").mkdir()
    filled_line(tmp_path, [4])
    assert sorted(os.listdir(tmp_path)) == [".tmp-of-somebody-else", "00000004"]


def test_too_little_space_is_refused_before_writing(tmp_path, monkeypatch):
    """The disk would fill up half-way through."""
    line = filled_line(tmp_path, [1])
    before = snapshot(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=4_700_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    big = {"w": jnp.zeros(1_000_000)}
    with pytest.raises(StorageError) as caught:
        line.save(2, big, {})
    assert f"needs 4.8 MB in {tmp_path}, but 4.7 MB are free" in str(caught.value)
    assert snapshot(tmp_path) == before
    usage = usage._replace(free=4_800_000)
    assert line.save(2, big, {}).tick == 2


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ("open", errno.ENOSPC),
        ("open", errno.EIO),
        ("os.mkdir", errno.EROFS),
        ("os.mkdir", errno.EACCES),
        ("os.rename", errno.EDQUOT),
    ],
)
def test_disk_errors_are_one_line_and_cost_nothing(tmp_path, observe, event, code):
    """A full or failing disk would end in a traceback and a half checkpoint."""
    line = filled_line(tmp_path, [1, 2])
    before = snapshot(tmp_path)

    def fail(name, args):
        if name == event and ".tmp-" in str(args[0]):
            raise OSError(code, os.strerror(code))

    observe(fail)
    with pytest.raises(StorageError) as caught:
        line.save(3, make_tree(3), {})
    _observer.clear()
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert snapshot(tmp_path) == before and not list(tmp_path.glob(".tmp-*"))
    assert line.save(3, make_tree(3), {}).tick == 3


def test_disk_that_damages_what_it_wrote_is_noticed_at_once(tmp_path, observe):
    """The older checkpoint would be deleted in favour of a bad one."""

    def damage(event, args):
        if event == "spaced_kd.checkpoint" and args[0] == "verify":
            file = next((tmp_path / "00000002").rglob("_METADATA"))
            file.write_bytes(file.read_bytes()[::-1])

    line = filled_line(tmp_path, [1, 2])
    observe(damage)
    with pytest.raises(StorageError, match="arrays/_METADATA"):
        line.save(2, make_tree(22), {})
    _observer.clear()
    found = CheckpointLine(tmp_path, 2).latest()
    assert found.tick == 2
    assert_same_bits(line.restore(found, make_tree(2)), make_tree(2))


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.astype(np.float16).astype(np.float32),
        lambda w: w.reshape(3, 1),
        lambda w: w.view(np.int32),
    ],
    ids=["values", "shape", "dtype"],
)
def test_arrays_that_orbax_writes_wrong_are_noticed(tmp_path, monkeypatch, change):
    """Without a digest of each array, only the files would be known to be whole."""
    save = checkpoint.ocp.Checkpointer.save

    def save_changed(self, path, args):
        args.item["w"] = change(args.item["w"])
        save(self, path, args=args)

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "save", save_changed)
    with pytest.raises(StorageError, match="w does not have the values"):
        CheckpointLine(tmp_path, 2).save(1, {"w": jnp.array([[1 / 3, 1, 2]])}, {})
    assert CheckpointLine(tmp_path, 2).latest() is None


def test_other_formats_are_refused_by_name(tmp_path, caplog):
    """A checkpoint of a later version would be misread, or called damaged."""
    saved = filled_line(tmp_path, [1]).latest()
    manifest = saved.path / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"format": 2}))
    with pytest.raises(CheckpointError), caplog.at_level(logging.WARNING):
        CheckpointLine(tmp_path, 2).latest()
    assert "its format is 2, this version reads 1" in caplog.text


def aligned(values):
    """Return a copy in memory that jax can use without copying it."""
    memory = np.zeros(values.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + values.nbytes].view(values.dtype)
    copy[:] = values
    return copy


def test_saved_state_may_be_donated(tmp_path):
    """The checkpoint would hold what a later step wrote into the same buffer."""
    step = jax.jit(lambda t: jax.tree.map(lambda x: x * 2, t), donate_argnums=0)
    values = np.arange(4096, dtype=np.float32)
    line = CheckpointLine(tmp_path, 2)
    tree = step({"w": jnp.asarray(aligned(values))})
    saved = line.save(1, tree, {})
    np.testing.assert_array_equal(step(tree)["w"], values * 4)
    restored = line.restore(saved, jax.eval_shape(lambda: {"w": values}))
    np.testing.assert_array_equal(restored["w"], values * 2)


@pytest.mark.parametrize("place", ["restore", "aligned"])
def test_restored_state_may_be_donated(tmp_path, place):
    """A buffer that numpy still owns would be overwritten, or copied at every step."""
    step = jax.jit(lambda x: x * 2, donate_argnums=0)
    values = np.arange(4096, dtype=np.float32)
    if place == "restore":
        line = CheckpointLine(tmp_path, 2)
        saved = line.save(1, {"w": jnp.asarray(values)}, {})
        restored = line.restore(saved, {"w": jnp.asarray(values)})["w"]
    else:
        restored = checkpoint._place(aligned(values), jax.eval_shape(lambda: values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        address = restored.unsafe_buffer_pointer()
        doubled = step(restored)
    assert restored.is_deleted() and doubled.unsafe_buffer_pointer() == address
    np.testing.assert_array_equal(doubled, values * 2)


CHILD = """
import json, os, resource, signal, sys
import jax
sys.path[:0] = sys.argv[1:3]
from test_checkpoint import CheckpointLine, StorageError, make_tree, jnp

def run(case):
    events = []
    def hook(event, args):
        if event in case["events"] and (not case["phase"] or args[0] == case["phase"]):
            events.append(event)
            if len(events) == case["nth"]:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    tree = make_tree(case["seed"])
    if case["limit"]:
        tree["big"] = jnp.arange(100_000.0)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (case["limit"], case["limit"]))
    try:
        CheckpointLine(case["root"], 2).save(case["tick"], tree, {})
    except StorageError as error:
        print(json.dumps(str(error)), flush=True)

children = []
for case in json.loads(sys.argv[3]):
    children.append(os.fork())  # No backend runs yet: forking is safe, and saves 2 s.
    if not children[-1]:
        run(case)
        os._exit(0)
print(json.dumps([os.waitpid(pid, 0)[1] for pid in children]))
"""


@pytest.fixture(scope="module")
def victims(tmp_path_factory):
    """Kill saves at many places, and fill the disk of one; return what came of each.

    Each starts from checkpoints at ticks 1 and 2 and saves at tick 3, or again at 2.
    """
    phases = ["write", "manifest", "rename", "verify", "prune"]
    cases = {phase: {"phase": phase} for phase in phases}
    moves = ["os.rename", "os.mkdir", "os.rmdir", "os.remove"]
    cases |= {f"move {n}": {"events": moves, "nth": n} for n in (4, 12)}
    again = {"events": ["os.rename"], "tick": 2}
    cases |= {f"again {n}": again | {"nth": n} for n in (2, 3, 4)}
    cases["full"] = {"events": [], "limit": 50_000}
    defaults = {"events": ["spaced_kd.checkpoint"], "phase": "", "nth": 1, "limit": 0}
    base = tmp_path_factory.mktemp("base")
    filled_line(base, [1, 2])
    for name, case in cases.items():
        root = tmp_path_factory.mktemp("victim") / name
        cases[name] = defaults | {"tick": 3, "seed": 33, "root": str(root)} | case
        shutil.copytree(base, root)
    here = Path(__file__).parent
    todo = json.dumps(list(cases.values()))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(here), str(here.parent), todo],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    *messages, statuses = [json.loads(line) for line in done.stdout.splitlines()]
    for case, status in zip(cases.values(), statuses, strict=True):
        case |= {"status": status, "before": base}
    cases["full"] |= {"messages": messages, "stderr": done.stderr}
    return cases


def test_kill_in_every_phase_leaves_two_verified_checkpoints(victims):
    """A preempted machine would lose the run."""
    killed = {name: case for name, case in victims.items() if name != "full"}
    assert {case["status"] for case in killed.values()} == {9}
    for name, case in killed.items():
        root = Path(case["root"])
        assert len(intact(root)) >= 2, name
        line = CheckpointLine(root, 2)
        found = line.latest()
        written = found.info == {}
        assert found.tick == (case["tick"] if written else 2), name
        expected = make_tree(33 if written else 2)
        assert_same_bits(line.restore(found, expected), expected)
        line.save(4, make_tree(4), {})
        assert len(intact(root)) == 2 and not list(root.glob(".tmp-*")), name


def test_full_disk_inside_tensorstore_is_one_line_and_costs_nothing(victims):
    """TensorStore reports a full disk as a ValueError, in a page of tracebacks."""
    case = victims["full"]
    assert case["status"] == 0
    (message,) = case["messages"]
    assert "File too large" in message and case["root"] in message
    assert "\n" not in message and len(message) < 400
    assert "absl" not in case["stderr"]
    root = Path(case["root"])
    assert snapshot(root) == snapshot(case["before"])
    assert not list(root.glob(".tmp-*"))


def test_restored_arrays_lie_where_the_template_says(tmp_path):
    """A run could not continue on another number of devices."""
    devices = jax.devices()[:4]
    if len(devices) < 4:
        pytest.skip("needs 4 devices, see tests/conftest.py")
    mesh = Mesh(np.array(devices), "d")
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["d"], []))
    third = SingleDeviceSharding(devices[3])
    values = {"a": jnp.arange(8.0), "b": jnp.arange(3), "c": jnp.ones(4)}
    before = {"a": split, "b": whole, "c": third}
    after = {"a": whole, "b": third, "c": split}
    tree = {name: jax.device_put(values[name], before[name]) for name in values}
    line = CheckpointLine(tmp_path, 2)
    saved = line.save(1, tree, {})
    abstract = {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=after[name])
        for name, value in values.items()
    }
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    for template, wanted in ((tree, before), (abstract, after)):
        restored = line.restore(saved, template)
        assert_same_bits(restored, values)
        for name, leaf in restored.items():
            assert leaf.sharding == wanted[name] and leaf.committed
            np.testing.assert_array_equal(double(leaf), np.asarray(values[name]) * 2)
            assert leaf.is_deleted()


def test_unpinned_arrays_stay_unpinned(tmp_path):
    """A resumed program would be compiled anew, or refuse to mix its inputs."""
    tree = {"w": jnp.ones(3)}
    assert not tree["w"].committed
    line = CheckpointLine(tmp_path, 2)
    restored = line.restore(line.save(1, tree, {}), tree)
    assert not restored["w"].committed
    assert restored["w"].sharding == tree["w"].sharding
