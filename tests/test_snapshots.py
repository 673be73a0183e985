"""Weights kept along training: when, what, and after an interruption."""

import json
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from spaced_kd import data, experiment, footprint, snapshots, train
from spaced_kd.checkpoint import CheckpointLine
from spaced_kd.config import student
from spaced_kd.errors import CheckpointError
from spaced_kd.schedule import Evaluate, Lockstep


def _digests(workdir):
    """Return snapshot folder -> SHA-256 of every array."""
    root = workdir / snapshots.FOLDER
    found = {}
    for path in sorted(root.rglob("manifest.json")):
        body = json.loads(path.read_text())["body"]
        leaves = {name: leaf["sha256"] for name, leaf in body["leaves"].items()}
        found[str(path.parent.relative_to(root))] = (body["info"], leaves)
    return found


def _nbytes(workdir):
    total = 0
    for path in (workdir / snapshots.FOLDER).rglob("manifest.json"):
        for leaf in json.loads(path.read_text())["body"]["leaves"].values():
            total += np.dtype(leaf["dtype"]).itemsize * int(np.prod(leaf["shape"]))
    return total


def test_every_second_evaluation_and_the_last_are_kept():
    step = Lockstep(0, 1, ())
    ticks = [Evaluate("a"), step, Evaluate("b"), Evaluate("a"), Evaluate("a")]
    ticks += [Evaluate("b"), Evaluate("a"), Evaluate("a")]
    # Evaluations of a: places 0, 3, 4, 6, 7; of b: 2, 5.
    assert snapshots.places(ticks, 2) == {3, 6, 7, 5}
    assert snapshots.places(ticks, 1) == {0, 3, 4, 6, 7, 2, 5}
    assert snapshots.places(ticks, 0) == set()


def test_a_student_that_ends_before_its_teacher_is_kept_in_any_case():
    """Else nobody knows later which teacher it learned from last."""
    taught = Lockstep(0, 1, ())
    alone = taught._replace(teacher=False)
    ticks = [taught, Evaluate("early"), taught, Evaluate("late"), alone]
    ticks += [Evaluate("later"), Evaluate("teacher")]
    assert snapshots.places(ticks, 0) == {1}


def test_a_line_that_keeps_all_prunes_nothing_but_what_it_replaces(tmp_path):
    line = CheckpointLine(tmp_path, keep=None)
    array = lambda value: {"x": jnp.full(3, float(value))}
    for tick in (4, 2, 9, 4):
        line.save(tick, array(tick), {"n": tick})
    assert list(line.stored()) == [2, 4, 9]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "00000002",
        "00000004",
        "00000009",
    ]
    kept = line.stored()[4]
    assert kept.info == {"n": 4}
    np.testing.assert_array_equal(line.read(kept)["x"], np.full(3, 4.0))


def test_the_doctor_counts_what_is_written(analysed_run):
    config = tiny.config(
        {
            "baseline": student(plan="none"),
            "online": student(plan="online"),
            "spaced": student(plan="spaced", space_interval_epochs=0.5),
        },
        seed=3,
        num_seeds=2,
        num_epochs=2,
        data__last_batch="drop",
        checkpoint__snapshot_every=1,
    )
    parts = experiment.build(config, data.load(config.data))
    needed = footprint.disk(parts, experiment.state_template(parts))
    assert needed.snapshots == _nbytes(analysed_run.workdir)


def test_a_run_that_was_killed_keeps_the_same_snapshots(tmp_path, monkeypatch):
    """Also those that it made after its last checkpoint."""
    students = {"spaced": student(plan="spaced", space_interval_epochs=0.5)}
    config = tiny.config(students, num_epochs=2, checkpoint__snapshot_every=1)
    train.run(config, tmp_path / "whole")
    places = []
    armed = [True]

    def hook(event, arguments):
        if event == "spaced_kd.tick" and armed[0]:
            places.append(arguments[1])
            if len(places) == 9:
                armed[0] = False
                raise KeyboardInterrupt

    sys.addaudithook(hook)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, tmp_path / "killed")
    assert len(_digests(tmp_path / "killed")) < len(_digests(tmp_path / "whole"))
    # An older checkpoint than the newest snapshot.
    newest = max((tmp_path / "killed" / "checkpoints").iterdir())
    shutil.rmtree(newest)
    train.run(config, tmp_path / "killed")
    assert _digests(tmp_path / "killed") == _digests(tmp_path / "whole")


def test_a_missing_teacher_is_told(analysed_run, tmp_path):
    workdir = analysed_run.copy(tmp_path / "run")
    shutil.rmtree(workdir / snapshots.FOLDER / "seed_3" / "teacher" / "00000006")
    with pytest.raises(CheckpointError, match="no snapshot"):
        snapshots.load(workdir, 3, "spaced", 6, "live")


def test_a_damaged_snapshot_is_told(analysed_run, tmp_path):
    workdir = analysed_run.copy(tmp_path / "run")
    folder = workdir / snapshots.FOLDER / "seed_3" / "spaced" / "00000006" / "arrays"
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        snapshots.load(workdir, 3, "spaced", 6, "live")


def _size(path):
    return path.stat().st_size
