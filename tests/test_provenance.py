"""One altered digit anywhere in a workdir is found; what is told of a run is true."""

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
import tiny

import spaced_kd
from spaced_kd import provenance, report, style, train, trained, verify, workdir
from spaced_kd.analysis import records
from spaced_kd.config import student
from spaced_kd.errors import CheckpointError
from spaced_kd.grid import cells, sweep
from spaced_kd.recorder import METRICS, TIMINGS

FIELDS = {
    "students": {"online": student(plan="online")},
    "num_epochs": 2,
    "seed": 3,
}


class Runs(NamedTuple):
    """Workdirs that are never written to: one config, finished and interrupted."""

    finished: Path
    interrupted: Path
    other: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    """Do a run, one of another seed, and one that stops at its last evaluations."""
    folder = tmp_path_factory.mktemp("runs")
    found = Runs(folder / "finished", folder / "interrupted", folder / "other")
    with pytest.MonkeyPatch.context() as patch:
        spaced_kd.run(tiny.config(**FIELDS), found.finished)
        spaced_kd.run(tiny.config(**FIELDS | {"num_epochs": 1, "seed": 4}), found.other)
        patch.setattr(train.Loop, "_evaluate", _stop_at_the_fourth(train.Loop))
        with contextlib.suppress(ZeroDivisionError):
            spaced_kd.run(tiny.config(**FIELDS), found.interrupted)
    config = json.loads((found.finished / "config.json").read_text())
    row = {"network": "online", "seed": 3, "step": 14, "weights": ["ab"]}
    row |= {"epoch": 2.0, "values": {"trace": 13.25}, "seconds": 1.5}
    record = records.Record({}, {"version": "0.1.0", "devices": "1 x"}, None, [row])
    records.write(found.finished, config["fingerprint"], {"hessian": record})
    return found


def _stop_at_the_fourth(loop):
    real, count = loop._evaluate, iter(range(4))

    def evaluate(self, *arguments):
        return real(self, *arguments) if next(count) < 3 else 1 / 0

    return evaluate


@pytest.fixture
def finished(runs, tmp_path) -> Path:
    """Return a copy that may be written to."""
    return Path(shutil.copytree(runs.finished, tmp_path / "finished"))


@pytest.fixture
def interrupted(runs, tmp_path) -> Path:
    """Return a copy that may be written to."""
    return Path(shutil.copytree(runs.interrupted, tmp_path / "interrupted"))


def _alter(path: Path, pattern: str, which: int = 0) -> int:
    """Change a digit of a number after `pattern`; return the line, from 1.

    One that counts: the 17th of a float may be changed without changing the number.
    """
    text = path.read_text()
    match = [*re.finditer(pattern + r'"?: *(?:\[\s*)?(?:\d+\.)?(\d)', text)][which]
    at = match.start(1)
    path.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")
    return text.count("\n", 0, at) + 1


def _unseal(folder: Path) -> None:
    """Make a workdir what a version without seals would have left."""
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        if content.pop("seal", None):
            workdir.write_json(path, content)
    for path in folder.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        del manifest["body"]["info"]["seals"]
        text = json.dumps(manifest["body"], sort_keys=True)
        manifest["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(manifest))


def test_a_finished_run_verifies(runs):
    """Breaks if a check cries wolf, e.g. at times, which differ from run to run."""
    assert provenance.verify(runs.finished) == []
    assert provenance.of(runs.finished).finished


@pytest.mark.parametrize("which", [0, 3, -1])
def test_an_altered_accuracy_in_the_log_is_named_by_line(finished, which):
    """Breaks if a nicer number can be written into the log by hand."""
    line = _alter(finished / METRICS, r"student/online/acc1", which)
    problems = provenance.verify(finished)
    assert any(p.file == METRICS and f": line {line} of" in p.what for p in problems)
    with pytest.raises(CheckpointError, match=rf"{METRICS} .*line {line} of") as caught:
        trained.is_finished(finished)
    assert "\n" not in str(caught.value)


def test_an_altered_duration_is_found(finished):
    """Breaks if a run can be made faster by hand."""
    line = _alter(finished / TIMINGS, r"seconds", 2)
    problem, *_ = provenance.verify(finished)
    assert problem.file == TIMINGS and f"line {line} of" in problem.what


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("config.json", "learning_rate"),
        ("config.json", r"every_seconds"),
        ("config.json", r"online\.optim\.learning_rate"),
        ("plan.json", "forward_passes"),
        ("plan.json", "num_classes"),
        ("env.json", "used"),
        ("analysis.json", "trace"),
    ],
)
def test_an_altered_digit_in_a_sealed_file_is_found(finished, name, pattern):
    """Breaks if one of the files may say something else than what was written."""
    _alter(finished / name, pattern)
    (problem,) = provenance.verify(finished)
    assert problem.file == name and problem.what.startswith("has been changed")
    assert "\n" not in str(problem)


@pytest.mark.parametrize("pattern", ["mean", "per_seed", "updates", "seconds"])
def test_an_altered_digit_in_the_results_is_named(finished, pattern):
    """Breaks if results.json may say something else than the logs give."""
    _alter(finished / "results.json", pattern)
    (problem,) = provenance.verify(finished)
    assert problem.file == "results.json"
    assert re.search(rf"give: \S*{pattern}\S* is [\d.]+, not [\d.]+$", problem.what)


@pytest.mark.parametrize(
    ("name", "pattern", "which", "told"),
    [
        # The first is of config.student, which every student has taken over.
        ("config.json", '"learning_rate', 1, "in 'science'"),
        ("config.json", r"online\.optim\.learning_rate", 0, "fingerprint is not"),
        ("plan.json", "forward_passes", 0, "results.json: is not what"),
        (METRICS, "eval/student/online/acc1", 0, "results.json: is not what"),
    ],
)
def test_without_seals_what_contradicts_itself_is_found(
    finished, name, pattern, which, told
):
    """Breaks if runs of older versions are believed where they cannot be right."""
    _unseal(finished)
    assert provenance.verify(finished) == []
    _alter(finished / name, pattern, which)
    (problem,) = provenance.verify(finished)
    assert told in str(problem)


def test_files_of_an_older_version_are_read_and_told_to_be_unsealed(finished):
    """Breaks if an upgrade costs finished runs, or vouches for them."""
    assert provenance.of(finished).sealed and not provenance.of(finished).unsealed
    _unseal(finished)
    found = provenance.of(finished)
    assert not found.sealed
    names = {METRICS, "config.json", "plan.json", "env.json", "analysis.json"}
    assert set(found.unsealed) == names
    assert trained.is_finished(finished)


def test_the_log_of_another_run_is_found(finished, runs):
    """Breaks if logs can be exchanged, whichever is the longer one."""
    shutil.copy(runs.other / METRICS, finished / METRICS)
    assert any("bytes, " in p.what for p in provenance.verify(finished))
    swapped = runs.finished / METRICS
    rows = swapped.read_bytes().replace(b'"seed": 3', b'"seed": 4')
    (finished / METRICS).write_bytes(rows)
    (problem, *_) = provenance.verify(finished)
    assert problem.file == METRICS and "has been changed" in problem.what


@pytest.mark.parametrize("lost", [1, 200, "everything"])
def test_a_truncated_log_is_found(finished, lost):
    """Breaks if the last rows, or the whole log, may be missing."""
    path = finished / METRICS
    if lost == "everything":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-lost])
    problems = [p for p in provenance.verify(finished) if p.file == METRICS]
    assert problems
    assert not trained.is_finished(finished)


@pytest.mark.parametrize("name", [METRICS, TIMINGS])
def test_a_missing_log_is_named(finished, name):
    """Breaks if a log that was sealed may be deleted."""
    (finished / name).unlink()
    told = [p.what for p in provenance.verify(finished) if p.file == name]
    assert told == ["is missing"]


def test_rows_behind_the_end_are_found(finished):
    """Breaks if another evaluation can be added to a finished run."""
    path = finished / METRICS
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(True)[-1])
    assert any("from the end of the run" in p.what for p in provenance.verify(finished))
    assert not provenance.of(finished).finished


@pytest.mark.parametrize("kind", ["checkpoints", "best"])
def test_a_damaged_state_is_named(finished, kind):
    """Breaks if weights are not looked at."""
    largest = max((finished / kind).rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    (problem,) = provenance.verify(finished)
    assert problem.file.startswith(kind) and "is damaged" in problem.what


def test_another_runs_checkpoints_are_found(finished, runs):
    """Breaks if weights of one run may lie beside the numbers of another."""
    shutil.rmtree(finished / "checkpoints")
    shutil.copytree(runs.other / "checkpoints", finished / "checkpoints")
    problems = provenance.verify(finished)
    told = [p.what for p in problems if p.file == "config.json"]
    assert told == ["its fingerprint is not that of the checkpoint"]


def test_an_interrupted_run_verifies_as_unfinished(runs):
    """Breaks if a run is called damaged because it has not come to its end."""
    assert provenance.verify(runs.interrupted) == []
    found = provenance.of(runs.interrupted)
    assert (found.finished, found.sealed) == (False, True)


def test_an_interrupted_run_goes_on_only_behind_its_own_log(interrupted, runs):
    """Breaks if resuming cuts a log that is altered, or refuses one that is not."""
    config = tiny.config(**FIELDS)
    good = (interrupted / METRICS).read_bytes()
    line = _alter(interrupted / METRICS, "teacher/loss", 1)
    altered = (interrupted / METRICS).read_bytes()
    with pytest.raises(CheckpointError, match=f"line {line} of") as caught:
        spaced_kd.run(config, interrupted)
    assert "\n" not in str(caught.value)
    assert (interrupted / METRICS).read_bytes() == altered
    (interrupted / METRICS).write_bytes(good)
    spaced_kd.run(config, interrupted)
    assert provenance.verify(interrupted) == []
    found, whole = provenance.of(interrupted), provenance.of(runs.finished)
    assert found.log_sha256 == whole.log_sha256
    assert (whole.restarts, found.restarts) == (0, 2)


def test_an_interrupted_run_of_an_older_version_goes_on_and_is_told(
    interrupted, caplog
):
    """Breaks if an upgrade costs runs, or makes them look as if always sealed."""
    _unseal(interrupted)
    spaced_kd.run(tiny.config(**FIELDS), interrupted)
    assert caplog.text.count("are not sealed") == 1
    assert provenance.of(interrupted).sealed
    assert provenance.verify(interrupted) == []


def test_a_grid_believes_no_altered_cell(finished, tmp_path):
    """Breaks if a table is made of a finished run without looking at its log."""
    cell = tmp_path / "grid" / "cells" / "only"
    shutil.copytree(finished, cell)
    grid = cells.make(tiny.config_dict(**FIELDS), {"only": {}}, axis="nothing")
    line = _alter(cell / METRICS, "eval/student/online/acc1")
    with pytest.raises(CheckpointError, match=f"cell only: .*line {line} of"):
        sweep.run(grid, tmp_path / "grid")


def test_what_is_told_of_a_run_is_what_its_files_say(finished):
    """Breaks if a table names another config, code or machine than the run's."""
    found = provenance.of(finished)
    config = json.loads((finished / "config.json").read_text())
    env = json.loads((finished / "env.json").read_text())
    assert (found.config, found.data) == (
        config["fingerprint"],
        config["data_fingerprint"],
    )
    data = (finished / METRICS).read_bytes()
    assert found.log_sha256 == hashlib.sha256(data).hexdigest()
    (code,), (device,), (package,) = found.code, found.devices, found.packages
    assert code["version"] == spaced_kd.__version__
    assert (code["commit"], code["dirty"]) == tuple((env["git"] or {}).values())[:2]
    assert (device["backend"], device["used"]) == ("cpu", 1)
    assert package["jax"] == jax.__version__
    assert found.analyses == {"hessian": {"version": "0.1.0", "devices": "1 x"}}
    assert json.loads(json.dumps(found.to_dict())).keys() == found.to_dict().keys()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.config = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_the_report_tells_seals_and_restarts(finished, monkeypatch):
    """Breaks if a reader of the page cannot see that the run changed machines."""
    monkeypatch.setattr(style, "save", lambda figure, stem: b"")
    page = report.build(finished).read_text()
    version = spaced_kd.__version__
    assert f"start 1 of 1: spaced_kd {version}" in page and "start 2" not in page
    assert "All files of the run are sealed." in page
    _unseal(finished)
    env = json.loads((finished / "env.json").read_text())
    before = {"devices": env["devices"] | {"used": 8}}
    env["starts"] = [{}, {}, {"before": before}]
    workdir.write_json(finished / "env.json", env)
    page = report.build(finished).read_text()
    assert "Not sealed: metrics.jsonl, config.json, plan.json" in page
    places = [page.index(f"start {n} of 3: ") for n in (1, 3)]
    assert ", on 8 x " in page[places[0] : places[1]] and "start 2 of 3" not in page
    assert ", on 1 x " in page[places[1] :]
    (finished / "analysis.json").write_text("{")  # training must not fail for it
    assert "Not sealed" in report.build(finished).read_text()


def test_every_environment_that_a_run_was_started_in_is_told(tmp_path, monkeypatch):
    """Breaks if a restart on other devices, or with other code, is forgotten."""
    said = []
    for used, commit in ((4, "a"), (4, "a"), (2, "a"), (2, "b"), (4, "b")):
        git = {"commit": commit, "dirty": commit == "b"}
        monkeypatch.setattr(workdir, "_git", lambda _, git=git: git)
        workdir.write_env(tmp_path, used)
        said.append((used, git))
    env = json.loads((tmp_path / "env.json").read_text())
    every = provenance.environments(env)
    assert [(one["devices"]["used"], one["git"]) for one in every] == said
    workdir.write_json(
        tmp_path / "config.json", {"fingerprint": "f", "data_fingerprint": "d"}
    )
    found = provenance.of(tmp_path)
    assert [device["used"] for device in found.devices] == [4, 2, 4]
    assert [code["commit"] for code in found.code] == ["a", "b"]
    assert (found.starts, found.restarts, found.finished) == (5, 4, False)


def test_the_command_says_ok_or_names_every_problem(runs, finished, capsys):
    """Breaks if a script cannot tell a sound run from an altered one."""
    assert verify.main(["verify", str(runs.finished), str(runs.interrupted)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{runs.finished}: OK, finished, sealed, 1 start"
    assert second == f"{runs.interrupted}: OK, unfinished, sealed, 1 start"
    _alter(finished / "analysis.json", "trace")
    _alter(finished / "results.json", "mean")
    assert verify.main(["verify", str(finished), str(runs.finished)]) == 4
    analysis, results, ok = capsys.readouterr().out.splitlines()
    assert analysis.startswith(f"{finished}: analysis.json: has been changed")
    assert results.startswith(f"{finished}: results.json: is not what")
    assert ok == first


def test_wrong_arguments_are_one_line(tmp_path, finished, capsys):
    """Breaks if a user's mistake ends with a traceback, or a live run is read."""
    assert verify.main(["verify", str(tmp_path)]) == 4
    assert verify.main(["verify"]) == 2
    assert verify.main(["verify", "--all"]) == 2
    with workdir.lock(finished):
        assert verify.main(["verify", str(finished)]) == 5
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in errors] == ["error"] * 4
