"""Analyses of a run: which networks they see, what is kept, and the command."""

import dataclasses
import json
import pathlib
import re
import sys
import types

import chex
import jax
import numpy as np
import pytest
import tiny

from spaced_kd import analysis, analyze, report, snapshots, train, trained
from spaced_kd.analysis import chunks
from spaced_kd.analysis.base import Analysis, taught_by
from spaced_kd.analysis.subject import open_run, outputs_of
from spaced_kd.config import student
from spaced_kd.errors import CheckpointError, ConfigError
from spaced_kd.fields import option
from spaced_kd.parallel import SeedGroup
from spaced_kd.report import analyses
from spaced_kd.tables import Table
from spaced_kd.workdir import claim, write_sealed


@dataclasses.dataclass(frozen=True)
class Options:
    """Of the analysis below."""

    scale: float = option(1.0, "factor", low=0.0)


measured: list[tuple[str, int, int]] = []
reported: list[pathlib.Path] = []


def _norm(subject, options):
    measured.append((subject.name, subject.seed, subject.step))
    if subject.name == "baseline":
        return None
    leaves = jax.tree.leaves(subject.variables["params"])
    square = sum(float((np.asarray(leaf, np.float64) ** 2).sum()) for leaf in leaves)
    return {"norm": options.scale * square, "nothing": float("nan")}


def _table(found):
    rows = [(n, str(found.spread(n, lambda v: v["norm"]))) for n in found.networks]
    return Table(("network", "squared norm"), tuple(rows), (f"{found.once['runs']}",))


NORM = Analysis(
    title="Norms",
    about="The squared norm of all weights.",
    options=Options,
    measure=_norm,
    table=_table,
    figures=lambda found, looks: [],
    once=lambda run, options: {"runs": len(run.names)},
)


@pytest.fixture(autouse=True)
def norm(monkeypatch):
    """An analysis that counts its measurements, and a report that costs no time."""
    monkeypatch.setitem(analysis.ANALYSES, "norm", NORM)
    monkeypatch.setattr(report, "build", reported.append)
    measured.clear()
    reported.clear()


@pytest.fixture
def copied(analysed_run, tmp_path):
    """A workdir of one's own, of a run that wants a report."""
    path = analysed_run.copy(tmp_path / "run")
    run = open_run(path)
    wanted = dataclasses.replace(run.config, report=True)
    claim(path, wanted, run.dataset.fingerprint)
    return path


def test_it_measures_every_student_and_the_teacher_as_saved_last(copied):
    found = analyze.analyze(copied, ["norm"])["norm"]
    names = ["teacher", "baseline", "online", "spaced"]
    assert measured == [(name, seed, 12) for name in names for seed in (3, 4)]
    run = open_run(copied)
    subject = run.subject("online", 4)
    row = next(r for r in found.rows if (r.network, r.seed) == ("online", 4))
    leaves = jax.tree.leaves(subject.variables["params"])
    expected = sum(np.square(np.asarray(leaf, np.float64)).sum() for leaf in leaves)
    np.testing.assert_allclose(row.values["norm"], expected, rtol=1e-12)
    assert row.values["nothing"] is None  # NaN is not JSON
    assert found.once == {"runs": 4}


def test_the_same_command_measures_nothing_again_and_other_options_everything(copied):
    analyze.analyze(copied, ["norm"], networks=["online"])
    first = (copied / "analysis.json").read_bytes()
    analyze.analyze(copied, ["norm"], networks=["online"])
    assert len(measured) == 2
    assert (copied / "analysis.json").read_bytes() == first
    analyze.analyze(copied, ["norm"])
    assert len(measured) == 8
    found = analyze.analyze(copied, ["norm"], options={"norm": {"scale": 2.0}})
    assert len(measured) == 16
    assert {row.network for row in found["norm"].rows} == {
        "teacher",
        "online",
        "spaced",
    }


def test_a_killed_analysis_keeps_what_it_measured(copied, monkeypatch):
    def die(subject, options):
        if subject.name == "spaced":
            raise KeyboardInterrupt
        return _norm(subject, options)

    monkeypatch.setitem(analysis.ANALYSES, "norm", NORM._replace(measure=die))
    with pytest.raises(KeyboardInterrupt):
        analyze.analyze(copied, ["norm"])
    assert len(measured) == 6
    assert reported == [copied]
    monkeypatch.setitem(analysis.ANALYSES, "norm", NORM)
    analyze.analyze(copied, ["norm"])
    assert len(measured) == 8


@pytest.mark.parametrize("which", [0, 1])
def test_weights_that_changed_are_measured_again(copied, monkeypatch, which):
    """Those of the network, and those beside it."""
    monkeypatch.setitem(analysis.ANALYSES, "norm", NORM._replace(beside=taught_by))
    analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    _change(copied, lambda record: record["rows"][0]["weights"].insert(which, "other"))
    analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    assert len(measured) == 2
    assert len(_stored(copied)["found"]["norm"]["rows"]) == 1


def test_another_teacher_matters_only_to_what_looks_at_it(copied):
    analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    [row] = _stored(copied)["found"]["norm"]["rows"]
    assert len(row["weights"]) == 1


def test_other_files_are_measured_anew(copied, monkeypatch):
    for inputs in ("these", "others", "others"):
        patched = NORM._replace(inputs=lambda run, options, i=inputs: [i])
        monkeypatch.setitem(analysis.ANALYSES, "norm", patched)
        analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    assert len(measured) == 2


def test_what_is_there_stays_until_something_replaces_it(copied, monkeypatch):
    """A wrong option of another analysis must not cost what was measured."""
    analyze.analyze(copied, ["norm"])
    before = (copied / "analysis.json").read_bytes()

    def refuse(*arguments):
        raise ConfigError("--options.picky.x=1 is wrong.")

    for late in ("check", "measure"):
        picky = NORM._replace(**{late: refuse}, once=None)
        monkeypatch.setitem(analysis.ANALYSES, "picky", picky)
        with pytest.raises(ConfigError, match="picky"):
            analyze.analyze(copied, ["picky", "norm"], options={"norm": {"scale": 3.0}})
        kept = _stored(copied)["found"]["norm"]["rows"]
        assert len(kept) == len(json.loads(before)["found"]["norm"]["rows"])


def test_rows_of_a_run_that_began_anew_are_dropped(copied):
    analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    _change(copied, lambda record: record["rows"][0].update(step=99))
    found = analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    assert [row.step for row in found["norm"].rows] == [12]


def test_what_was_measured_in_the_middle_of_training_is_told(copied):
    analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    _change(copied, lambda record: record["rows"][0].update(step=5))
    described = json.loads((copied / "config.json").read_text())
    plan = json.loads((copied / "plan.json").read_text())
    found = analyses.read(copied, described, plan)["norm"]
    note = "Measured in the middle of training: online of seed 3 (5 of 12 updates)."
    table = analyses.table("norm", found)
    assert table is not None and table.notes[0] == note


@pytest.mark.parametrize("damage", ["version", "options", "text"])
def test_training_does_not_fail_for_what_another_version_found(
    copied, monkeypatch, caplog, damage
):
    analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    if damage == "text":
        (copied / "analysis.json").write_text("{")
    elif damage == "version":
        _change(copied, lambda record: record["about"].update(version="0.0.1"))
    else:
        _change(copied, lambda record: record["options"].update(old=1))
    monkeypatch.undo()
    monkeypatch.setitem(analysis.ANALYSES, "norm", NORM)
    page = report.build(copied).read_text()
    assert "<h2>Norms</h2>" not in page
    assert "leaves" in caplog.text


def _stored(workdir):
    return json.loads((workdir / "analysis.json").read_text())


def _change(workdir, change):
    """Change what the file says of the analysis."""
    content = _stored(workdir)
    change(content["found"]["norm"])
    write_sealed(workdir / "analysis.json", content)


def test_snapshots_lie_where_the_networks_were_evaluated(copied):
    found = analyze.analyze(copied, ["norm"], at="snapshots", seeds=[3])["norm"]
    steps = {n: [r.step for r in found.rows if r.network == n] for n in found.networks}
    # 6 steps an epoch, 2 epochs; the interval is 3 steps. The teacher also where
    # students were looked at.
    assert steps == {"teacher": [6, 12], "online": [6, 12], "spaced": [6, 12]}
    run = open_run(copied)
    first, last = run.subjects(["spaced"], [3], "snapshots")
    assert first.teacher is not None and first.teacher.step == 6
    assert last.teacher is not None and last.teacher.step == 12
    assert [row.epoch for row in found.rows][:2] == [1.0, 2.0]


def test_the_last_snapshot_is_the_last_checkpoint(analysed_run):
    run = open_run(analysed_run.workdir)
    kept = snapshots.load(analysed_run.workdir, 3, "spaced", 12, "live")
    subject = run.subject("spaced", 3)
    assert kept.step == subject.step
    chex.assert_trees_all_equal(kept.variables, subject.variables)
    chex.assert_trees_all_equal(kept.method, subject.method_params)
    assert kept.teacher is not None and subject.teacher is not None
    chex.assert_trees_all_equal(kept.teacher[1], subject.teacher.variables)


@pytest.fixture(scope="module")
def remainder(tmp_path_factory):
    """A run whose spaced student ends at step 10 of 12, beside a teacher's average."""
    students = {
        "averaged": student(plan="online", teacher_weights="ema"),
        "spaced": student(plan="spaced", space_interval_epochs=5 / 6),
    }
    config = tiny.config(
        students,
        num_epochs=2,
        data__last_batch="drop",
        teacher__ema_decay=0.9,
    )
    workdir = tmp_path_factory.mktemp("remainder")
    train.run(config, workdir)
    return workdir


def test_the_teacher_is_the_one_that_the_student_learned_from_last(remainder):
    run = open_run(remainder)
    subject = run.subject("spaced", 0)
    assert (subject.step, run.last_step("teacher", 0)) == (10, 12)
    assert subject.teacher is not None and subject.teacher.step == 10
    assert subject.teacher.digest != run.subject("teacher", 0).digest


def test_the_teacher_has_its_averaged_weights_where_the_student_sees_those(remainder):
    run = open_run(remainder)
    arrays = trained.read(remainder, run.stored["fingerprint"])
    average = trained.below(arrays, "0/teacher/average/")
    teacher = run.subject("averaged", 0).teacher
    assert teacher is not None
    chex.assert_trees_all_equal(teacher.variables["params"], average)
    assert teacher.digest != run.subject("teacher", 0).digest


def test_predictions_are_those_that_training_evaluated(analysed_run):
    run = open_run(analysed_run.workdir)
    subject = run.subject("spaced", 4)
    test = run.split("test", 0, "count")
    logits = subject.predict(subject.variables, test).logits
    accuracy = 100.0 * np.mean(np.argmax(logits, -1) == test.label)
    told = analysed_run.results.networks["spaced"].acc1_last.per_seed[1]
    np.testing.assert_allclose(accuracy, told, rtol=1e-6)
    # And in eval mode, image by image.
    outputs = outputs_of(subject.model, subject.variables, run.prepare(test.image[:5]))
    np.testing.assert_allclose(outputs.logits, logits[:5], rtol=1e-4, atol=1e-5)


def test_a_split_is_cut_down_to_balanced_classes(analysed_run):
    run = open_run(analysed_run.workdir)
    part = run.split("train", 20, "count")
    assert np.bincount(part.label, minlength=10).tolist() == [2] * 10
    assert len(run.split("train", 0, "count").label) == 100
    assert len(run.split("train", 10_000, "count").label) == 100


@pytest.mark.parametrize("devices", [1, 4])
def test_chunks_hold_every_example_once(analysed_run, devices):
    run = open_run(analysed_run.workdir)
    group = SeedGroup((0,), tuple(jax.devices()[:devices]))
    split = run.split("train", 50, "count")

    def fn(scale, chunk):
        pixels = chunk.image.astype(np.float32).sum((1, 2, 3)) * chunk.weight
        return {"sum": scale * pixels.sum(), "count": chunk.weight.sum()}

    program = chunks.program(fn, group)
    parts = [program(2.0, chunk) for chunk in chunks.of(split, 18, group)]
    assert len(parts) == 3
    assert sum(float(part["count"]) for part in parts) == 50
    total = sum(float(part["sum"]) for part in parts)
    np.testing.assert_allclose(total, 2.0 * split.image.sum(dtype=np.int64), rtol=1e-6)


def test_the_report_shows_what_was_found(copied, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(analysis.ANALYSES, "norm", NORM)
    analyze.analyze(copied, ["norm"])
    before = (copied / "report.html").read_bytes()
    page = before.decode()
    assert "<h2>Norms</h2>" in page
    assert "The squared norm of all weights." in page
    assert "scale=1.0" in page
    assert report.build(copied).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--analyses=norms"], "--analyses='norms'"),
        (["--analyses=norm", "--networks=onlin"], "--networks='onlin'"),
        (["--analyses=norm", "--seeds=9"], "9 is not one of the run's; it has 3 to 4"),
        (["--analyses=norm", "--seeds=x"], "--seeds=x is not a list of integers"),
        (["--analyses=norm", "--at=best"], "--at='best'"),
        (["--analyses=norm", "--options.norm.scale=-1.0"], "give at least 0.0"),
        (
            ["--analyses=norm", "--options.norm.scal=1.0"],
            "--options.norm: option='scal' is unknown; did you mean 'scale'?",
        ),
        (["--analyses=norm", "--options.nrm.scale=1.0"], "did you mean 'norm'?"),
        ([], "--analyses is missing"),
        (["--analyses=norm", "--num_devices=64"], "--num_devices=64, but this"),
        (["--analyses=norm", "--num_devices=-1"], "num_devices"),
        (["--analyses=,"], "--analyses is empty"),
    ],
)
def test_a_wrong_flag_gives_one_line(copied, capsys, arguments, message):
    code = analyze.main(["analyze", f"--workdir={copied}", *arguments])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert message in error
    assert not measured


def test_the_command_prints_the_table(copied, capsys):
    code = analyze.main(
        [
            "analyze",
            f"--workdir={copied}",
            "--analyses=norm",
            "--networks=online,spaced",
        ]
    )
    out = capsys.readouterr().out
    assert code == 0
    assert "squared norm" in out and "spaced" in out
    assert "report:" not in out  # none was written, see `norm`
    (copied / "report.html").touch()
    analyze.main(["analyze", f"--workdir={copied}", "--analyses=norm"])
    assert capsys.readouterr().out.endswith(f"report: {copied}/report.html\n")


def test_help_lists_every_analysis_and_option(capsys):
    assert analyze.main(["analyze", "--help"]) == 0
    text = capsys.readouterr().out
    for name, one in analysis.ANALYSES.items():
        assert f"\n{name}: " in text
        for field in dataclasses.fields(one.options):
            assert f"  {field.name}=" in text


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        analyze.analyze(tmp_path, ["norm"])


def test_a_run_of_another_version_is_told(copied):
    path = copied / "config.json"
    stored = json.loads(path.read_text())
    del stored["config"]["remat"]
    write_sealed(path, stored)
    with pytest.raises(CheckpointError, match="another version"):
        analyze.analyze(copied, ["norm"])


def test_other_data_is_refused(copied):
    path = copied / "config.json"
    stored = json.loads(path.read_text())
    stored["data_fingerprint"] = "0" * 64
    write_sealed(path, stored)
    with pytest.raises(CheckpointError, match="is not what the run"):
        analyze.analyze(copied, ["norm"])


def test_damaged_findings_are_told(copied):
    analyze.analyze(copied, ["norm"], networks=["online"], seeds=[3])
    (copied / "analysis.json").write_text('{"format": 1')
    with pytest.raises(CheckpointError, match="damaged"):
        analyze.analyze(copied, ["norm"])


def test_unknown_options_are_told():
    with pytest.raises(ConfigError, match="--options='nrom'"):
        analyze.analyze("nowhere", ["norm"], options={"nrom": {}})


DOCS = pathlib.Path(__file__).parents[1] / "docs"


def test_the_documents_name_every_analysis():
    text = (DOCS / "analyses.md").read_text()
    named = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert set(named) == set(analysis.ANALYSES) - {"norm"}


def test_the_example_of_the_documents_runs(copied, monkeypatch):
    text = (DOCS / "add_an_analysis.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.S)
    module: dict = {"__name__": "margin"}
    monkeypatch.setitem(sys.modules, "margin", types.ModuleType("margin"))
    exec(code, module)
    monkeypatch.setitem(analysis.ANALYSES, "margin", module["ANALYSIS"])
    found = analyze.analyze(copied, ["margin"], networks=["online"], seeds=[3])
    [row] = found["margin"].rows
    assert -1.0 < row.values["margin"] < 1.0
    assert "online" in module["ANALYSIS"].table(found["margin"]).text()
