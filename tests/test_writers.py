"""Logs that exist exactly once, whatever happens in between."""

import errno
import json
import os
import resource
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboardX.proto import event_pb2

from spaced_kd import writers
from spaced_kd.errors import CheckpointError, StorageError
from spaced_kd.writers import MetricLog, TensorBoard, read_json, read_rows, write_whole


def make_row(number: int, seed: int = 0) -> dict:
    return {
        "tick": number,
        "seed": seed,
        "network": "teacher",
        "phase": "lockstep",
        "step": 10 * number,
        "teacher/loss": 1.0 / (number + 1),
        "teacher/acc1": 50.0 + number,
    }


def test_scalars_of_every_library_are_read_back_as_plain_numbers(tmp_path):
    """Breaks if a device scalar is written as text, or loses digits."""
    log = MetricLog(tmp_path / "metrics.jsonl")
    row = {
        "b/python": 0.1,
        "a/float32": np.float32(0.1),
        "c/jax": jnp.asarray(0.25, jnp.bfloat16),
        "step": np.int64(2**40),
        "seed": jnp.asarray(3),
        "network": "teacher",
        "nothing": None,
    }
    returned = log.append(row)
    log.flush()
    (read,) = read_rows(tmp_path / "metrics.jsonl")
    assert read == returned
    assert read == {
        "b/python": 0.1,
        "a/float32": 0.10000000149011612,
        "c/jax": 0.25,
        "step": 2**40,
        "seed": 3,
        "network": "teacher",
        "nothing": None,
    }
    text = (tmp_path / "metrics.jsonl").read_text()
    assert list(json.loads(text)) == sorted(row)


@pytest.mark.parametrize("value", [np.nan, np.float32("inf"), jnp.asarray(-jnp.inf)])
def test_a_number_that_is_not_finite_is_refused(tmp_path, value):
    """Breaks if NaN, which is no JSON, reaches the log."""
    log = MetricLog(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError):
        log.append({"teacher/loss": value})
    assert log.flush() == 0


def test_an_array_is_refused(tmp_path):
    """Breaks if one entry of an unreduced metric is logged for the whole."""
    with pytest.raises(ValueError):
        MetricLog(tmp_path / "metrics.jsonl").append({"teacher/loss": np.ones(2)})


@settings(max_examples=40, deadline=None)
@given(saves=st.lists(st.integers(1, 4), min_size=1, max_size=6), data=st.data())
def test_a_resumed_log_is_byte_identical_to_an_uninterrupted_one(
    tmp_path_factory, saves, data
):
    """Breaks if rows after the last checkpoint are doubled, lost or divided."""
    folder = tmp_path_factory.mktemp("log")
    number, path = 0, folder / "killed.jsonl"
    for size in saves:
        log = MetricLog(path)
        offset = log.flush()
        for lost in range(data.draw(st.integers(0, 3))):
            log.append(make_row(number + lost))
        log.flush()
        if data.draw(st.booleans()):
            with path.open("ab") as file:
                file.write(b'{"half a ro')
        log = MetricLog(path)
        log.truncate(offset)
        for _ in range(size):
            log.append(make_row(number))
            number += 1
        log.flush()
    clean = MetricLog(folder / "clean.jsonl")
    for i in range(number):
        clean.append(make_row(i))
    assert clean.flush() == path.stat().st_size
    assert path.read_bytes() == (folder / "clean.jsonl").read_bytes()


def test_truncating_also_forgets_rows_that_were_only_buffered(tmp_path):
    """Breaks if a row of before the resume is flushed after it."""
    log = MetricLog(tmp_path / "metrics.jsonl")
    log.append(make_row(0))
    log.truncate(0)
    assert log.flush() == 0


@pytest.mark.parametrize("offset", [5, 10_000])
def test_a_log_that_the_checkpoint_does_not_know_is_refused(tmp_path, offset):
    """Breaks if a shorter or other log is silently continued."""
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    log.append(make_row(0))
    log.flush()
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"ends at byte {offset}") as caught:
        log.truncate(offset)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_an_incomplete_last_line_is_left_out_only_where_told(tmp_path):
    """Breaks if a report cannot be made of a running run, or damage is overlooked."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"tick": 1}\n{"tick": 2')
    assert read_rows(path, partial_tail=True) == [{"tick": 1}]
    with pytest.raises(CheckpointError, match="line 2"):
        read_rows(path)


@pytest.mark.parametrize("line", [b"{", b'{"a/b": NaN}', b"[1]", b"\xff"])
def test_a_damaged_line_is_named_even_before_an_incomplete_one(tmp_path, line):
    """Breaks if tolerance for the tail spreads to the middle of a log."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"tick": 1}\n' + line + b'\n{"tick"')
    with pytest.raises(CheckpointError, match="line 2") as caught:
        read_rows(path, partial_tail=True)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_no_half_row_and_the_flush_can_be_repeated(tmp_path):
    """Breaks if the part of a row that still fitted stays in the log."""
    path = tmp_path / "metrics.jsonl"
    log = MetricLog(path)
    log.append(make_row(0))
    offset = log.flush()
    log.append(make_row(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (offset + 7, hard))
    try:
        with pytest.raises(StorageError) as caught:
            log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert path.stat().st_size == offset
    log.flush()
    assert read_rows(path) == [make_row(0), make_row(1)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_no_space_left_is_a_storage_error_of_one_line():
    """Breaks if ENOSPC ends a run with a traceback."""
    log = MetricLog(Path("/dev/full"))
    log.append(make_row(0))
    with pytest.raises(StorageError, match=os.strerror(errno.ENOSPC)) as caught:
        log.flush()
    assert "\n" not in str(caught.value)


def test_a_missing_log_is_a_storage_error(tmp_path):
    """Breaks if a vanished workdir ends with a traceback."""
    with pytest.raises(StorageError, match="cannot read"):
        read_rows(tmp_path / "metrics.jsonl")


def test_a_file_is_replaced_in_one_piece_or_not_at_all(tmp_path, monkeypatch):
    """Breaks if a failed write leaves half a file under the final name."""
    path = tmp_path / "results.json"
    write_whole(path, '{"a": 1}')

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match="No space left"):
            write_whole(path, '{"a": 2}')
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("content", [b'{"a": ', b"[]", b"\xff"])
def test_damaged_json_is_a_checkpoint_error(tmp_path, content):
    """Breaks if a damaged config.json ends with a traceback."""
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        read_json(tmp_path / "config.json")
    assert "\n" not in str(caught.value)


def read_events(folder: Path) -> list[tuple[str, int, float]]:
    """Walk TFRecord files: length, its checksum, data, its checksum."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            at += 16 + length
        assert at == len(data), "a record is cut off"
    return found


def expected_events(rows: list[dict], seed: int) -> list[tuple[str, int, float]]:
    return [
        (name, row["step"], float(np.float32(value)))
        for row in rows
        if row["seed"] == seed
        for name, value in row.items()
        if "/" in name
    ]


def test_events_equal_the_rows_exactly_once_after_a_resume(tmp_path):
    """Breaks if a resumed run shows points twice, or points that were undone."""
    rows = [make_row(number, seed) for seed in (0, 7) for number in range(4)]
    first = TensorBoard(tmp_path)
    for row in rows:
        first.write(row)
    first.write(make_row(99))  # after the last checkpoint: undone by the resume
    first.flush()

    resumed = TensorBoard(tmp_path, rows)
    rows.append(make_row(5, seed=7))
    resumed.write(rows[-1])
    resumed.close()
    for seed in (0, 7):
        found = read_events(tmp_path / f"seed_{seed}")
        assert sorted(found) == sorted(expected_events(rows, seed))
    assert {path.name for path in tmp_path.iterdir()} == {"seed_0", "seed_7"}


def test_only_event_files_of_seeds_are_removed_at_a_start(tmp_path):
    """Breaks if a start deletes what somebody else put there."""
    others = [
        tmp_path / "seed_0" / "notes.txt",
        tmp_path / "mine" / "events.out.tfevents.1",
    ]
    for path in others:
        path.parent.mkdir()
        path.write_text("keep")
    stale = tmp_path / "seed_0" / "events.out.tfevents.1.host"
    stale.write_text("old")
    TensorBoard(tmp_path, [make_row(1)]).close()
    assert not stale.exists()
    assert all(path.read_text() == "keep" for path in others)


def test_events_that_cannot_be_written_are_a_storage_error(tmp_path):
    """Breaks if a full disk stops TensorBoard silently, or with a traceback."""
    (tmp_path / "seed_0").write_text("a file where a folder must be")
    with pytest.raises(StorageError) as caught:
        TensorBoard(tmp_path).write(make_row(0))
    assert "\n" not in str(caught.value)


def test_a_full_disk_surfaces_in_the_call_that_meets_it(tmp_path, monkeypatch):
    """Breaks if events are written in a thread whose errors nobody sees."""
    board = TensorBoard(tmp_path, [make_row(0)])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writers.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        board.flush()
