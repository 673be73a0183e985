"""Grids: cells are ordinary runs; what failed or is missing is never a number."""

import dataclasses
import json
import math
import os
import shutil
import signal
import sys

import numpy as np
import pytest
import tiny

import spaced_kd
from spaced_kd import recipes, style, train
from spaced_kd.config import from_config_dict, student
from spaced_kd.errors import ConfigError, LockedError, NonFiniteError, StorageError
from spaced_kd.grid import __main__ as command
from spaced_kd.grid import cells, figure, outcome, sweep
from spaced_kd.spread import Difference, Spread

RATE = cells.LEARNING_RATE
WILD = {"a_wild": {RATE[0]: 1e30, RATE[1]: 0.1}}
TWO = {"a": {RATE[0]: 0.05, RATE[1]: 0.1}, "b": {RATE[0]: 0.1, RATE[1]: 0.05}}
FILE = """
import tiny
from spaced_kd.grid import cells

def get_config(rates):
    base = tiny.config_dict(num_epochs=2)
    return cells.learning_rates(base, [float(r) for r in rates.split(",")], "A note.")
"""


def _grid(overrides, **fields):
    base = tiny.config_dict(num_epochs=2, **fields)
    return cells.make(base, overrides, axis="learning rate")


def _main(folder, *arguments, rates="0.1,0.05"):
    file = folder / "grid_file.py"
    file.write_text(FILE)
    workdir = f"--workdir={folder / 'w'}"
    return command.main(["grid", f"--config={file}:{rates}", workdir, *arguments])


def _cell(folder, name):
    return folder / "w" / "cells" / name


def _end(workdir):
    """Hashes of the last state, and the log."""
    manifest = max((workdir / "checkpoints").glob("0*/manifest.json"))
    leaves = json.loads(manifest.read_text())["body"]["leaves"]
    return leaves, (workdir / "metrics.jsonl").read_bytes()


def _starts(workdir):
    return len(json.loads((workdir / "env.json").read_text())["starts"])


def _json(folder):
    return json.loads((folder / "w" / "grid.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished grid of two cells."""
    folder = tmp_path_factory.mktemp("grid")
    assert _main(folder) == 0
    return folder


@pytest.mark.slow
def test_a_cell_is_bitwise_the_ordinary_run(done, tmp_path):
    """Nothing of the cell before it, or of the grid, may reach a run."""
    config = tiny.config(
        num_epochs=2,
        teacher__optim__learning_rate=0.1,
        student__optim__learning_rate=0.1,
    )
    spaced_kd.run(config, tmp_path)
    assert _end(_cell(done, "lr_0_1")) == _end(tmp_path)
    assert _end(_cell(done, "lr_0_05")) != _end(tmp_path)


def test_the_numbers_are_those_of_the_cells_logs(done):
    """Last evaluations and their difference, read from the logs by hand."""
    found = _json(done)
    assert found["complete"] and found["axis"] == "learning rate"
    assert list(found["cells"]) == ["lr_0_05", "lr_0_1"]
    for name, cell in found["cells"].items():
        text = (_cell(done, name) / "metrics.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        last = {
            net: [r[f"eval/student/{net}/acc1"] for r in rows if _judges(r, net)][-1]
            for net in ("online", "spaced")
        }
        assert {n: cell["networks"][n]["acc1_last"]["per_seed"] for n in last} == {
            n: [value] for n, value in last.items()
        }
        minus = cell["networks"]["spaced"]["acc1_last_minus"]["online"]
        assert minus["per_seed"] == [last["spaced"] - last["online"]]
        assert cell["networks"]["spaced"]["updates"] == 12
    assert [c["value"] for c in found["cells"].values()] == [0.05, 0.1]


def _judges(row, network):
    return row["phase"] == "eval" and row["network"] == network


def test_the_table_has_a_row_a_cell_and_the_note(done):
    lines = (done / "w" / "grid.md").read_text().splitlines()
    assert lines[0].startswith("| learning rate | updates | interval steps | acc1 last")
    assert "spaced minus online, points" in lines[0]
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| 0.05", "| 0.1"]
    spaced = _json(done)["cells"]["lr_0_1"]["networks"]["spaced"]["acc1_last"]["mean"]
    assert f" | {spaced:.2f} | " in lines[3]
    assert "- A note." in lines
    assert lines[-1] == "![Accuracy](figures/grid.png)"
    for ending in ("png", "svg"):
        assert (done / "w" / "figures" / f"grid.{ending}").stat().st_size > 1000


def test_a_finished_grid_trains_nothing(done, monkeypatch, capsys):
    """Its cells are read, and the table is printed again."""

    def refuse(*args, **kwargs):
        raise AssertionError("a run was started")

    monkeypatch.setattr(train, "run", refuse)
    before = {name: _end(_cell(done, name)) for name in ("lr_0_05", "lr_0_1")}
    assert _main(done) == 0
    assert {name: _end(_cell(done, name)) for name in before} == before
    assert "spaced minus" in capsys.readouterr().out


_STOPS: list[str] = []


def _hook(event, arguments):
    if _STOPS and event == "spaced_kd.tick" and _STOPS[0] == arguments[0]:
        _STOPS.pop()
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_interrupted_in_a_cell_it_goes_on_there(done, tmp_path, capsys):
    """The end is that of a grid that was never stopped; a finished cell stays."""
    shutil.copytree(_cell(done, "lr_0_05"), _cell(tmp_path, "lr_0_05"))
    sys.addaudithook(_hook)
    _STOPS.append("replay spaced")
    assert _main(tmp_path) == 75
    assert "the state is saved" in capsys.readouterr().err
    stopped = _json(tmp_path)
    assert not stopped["complete"] and not _STOPS
    states = {name: cell["status"] for name, cell in stopped["cells"].items()}
    assert states == {"lr_0_05": "finished", "lr_0_1": "unfinished"}
    assert "networks" not in stopped["cells"]["lr_0_1"]
    assert _main(tmp_path) == 0
    assert [_starts(_cell(tmp_path, n)) for n in ("lr_0_05", "lr_0_1")] == [1, 2]
    assert _end(_cell(tmp_path, "lr_0_1")) == _end(_cell(done, "lr_0_1"))
    assert _json(tmp_path) == _json(done)


@pytest.mark.slow
def test_a_cell_that_fails_is_no_number_and_the_others_run(done, tmp_path, monkeypatch):
    """With a real divergence: a teacher at a learning rate of 1e30."""
    real = train.run

    def run(config, path, **kwargs):
        if path.name != "b":
            return real(config, path, **kwargs)
        return shutil.copytree(_cell(done, "lr_0_1"), path)

    monkeypatch.setattr(train, "run", run)
    found = sweep.run(_grid(WILD | {"b": TWO["b"]}), tmp_path)
    assert found.code == NonFiniteError.code
    content = json.loads((tmp_path / "grid.json").read_text())
    wild, other = content["cells"]["a_wild"], content["cells"]["b"]
    assert (wild["status"], wild["code"]) == ("failed", 6)
    assert "update" in wild["error"] and "networks" not in wild
    assert other["status"] == "finished"
    assert not content["complete"]
    first, second = found.table().rows
    assert first[:2] == ("a_wild", "failed") and set(first[2:]) == {"-"}
    assert "-" not in second[3:]
    assert f"FAILED: cell a_wild: {wild['error']}" in found.table().notes


@pytest.fixture
def instant(monkeypatch):
    """Runs that take no time: what `train.run` raises or returns, by cell."""
    outcomes, began = {}, []

    def run(config, path, *, may_exit):
        del may_exit
        began.append(path.name)
        result = outcomes[path.name]
        if callable(result):
            result = result(config)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(train, "run", run)
    return outcomes, began


def test_the_code_is_that_of_the_first_failure(instant, tmp_path, capsys):
    outcomes, began = instant
    outcomes |= {"lr_0_05": LockedError("in use"), "lr_0_1": NonFiniteError("NaN")}
    assert _main(tmp_path) == LockedError.code
    assert began == ["lr_0_05", "lr_0_1"]
    assert "FAILED: cell lr_0_1: NaN" in capsys.readouterr().out


def test_a_disk_that_fails_ends_the_grid(instant, tmp_path, capsys):
    """Every other cell would meet the same."""
    outcomes, began = instant
    outcomes["lr_0_05"] = StorageError("cannot write")
    assert _main(tmp_path) == 7
    assert began == ["lr_0_05"]
    assert "error: cannot write" in capsys.readouterr().err


def test_a_signal_at_the_end_of_a_run_stops_before_the_next(
    done, instant, tmp_path, capsys
):
    """The run itself ends well and forgets that it was asked to stop."""
    outcomes, began = instant

    def finish(config):
        del config
        shutil.copytree(_cell(done, "lr_0_05"), _cell(tmp_path, "lr_0_05"))
        os.kill(os.getpid(), signal.SIGTERM)

    outcomes["lr_0_05"] = finish
    assert _main(tmp_path) == 75
    assert began == ["lr_0_05"]
    assert "by SIGTERM before cell lr_0_1" in capsys.readouterr().err
    assert _json(tmp_path)["cells"]["lr_0_05"]["status"] == "finished"


RUN = "configs/digits.py"
MISTAKES = {
    "no config": (["--workdir=w"], 2, "--config is missing"),
    "no workdir": (["--config=GRID:0.1"], 2, "--workdir is missing"),
    "config of a run": ([f"--config={RUN}", "--workdir=w"], 2, "spaced_kd.main"),
    "no cells": (["--config=GRID:", "--workdir=w"], 2, "float"),
    "unknown field": (
        ["--config=GRID:0.1", "--workdir=w", "--config.base.num_epoch=3"],
        2,
        "num_epoch",
    ),
    "bad cell": (
        ["--config=GRID:0.1,-1", "--workdir=w"],
        2,
        "cell lr__1_0: config.teacher.optim.learning_rate=-1.0 is too small",
    ),
    "bad with its data": (
        [
            "--config=GRID:0.1",
            "--workdir=w",
            "--config.base.students.spaced.space_interval_epochs=900",
        ],
        2,
        "cell lr_0_1: config.students.spaced",
    ),
    "no data": (
        [
            "--config=GRID:0.1",
            "--workdir=w",
            "--config.base.data.name=cifar100",
            "--config.base.data.dir=nowhere",
        ],
        3,
        "cell lr_0_1: ",
    ),
    "no workers": (
        ["--config=GRID:0.1", "--workdir=w", "--workers=0"],
        2,
        "--workers=0 is too small",
    ),
    "engine": (
        ["--config=GRID:0.1", "--workdir=w", "--engine=slrum"],
        2,
        "did you mean 'slurm'?",
    ),
    "engine's option": (
        ["--config=GRID:0.1", "--workdir=w", "--engine_options=gpu"],
        2,
        "'gpu' is not NAME=VALUE",
    ),
    "stray argument": (["--config=GRID:0.1", "--workdir=w", "x"], 2, "'x'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_its_code(
    mistake, capsys, tmp_path, monkeypatch, request
):
    arguments, code, words = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(request.config.rootpath / "configs")
    (tmp_path / "grid_file.py").write_text(FILE)
    given = [a.replace("GRID", "grid_file.py") for a in arguments]
    assert command.main(["grid", *given]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert words in lines[0]
    assert not (tmp_path / "w").exists()


def test_engine_and_workers_reach_the_sweep(tmp_path, monkeypatch):
    """A cluster would stand idle while one process does all."""
    given = {}

    def run(jobs, root, **arguments):
        given.update(arguments)
        raise ConfigError("seen")

    monkeypatch.setattr(sweep.sweep, "run", run)
    flags = "--workers=3", "--engine=slurm", "--engine_options=partition=gpu,nodes=1"
    assert _main(tmp_path, *flags) == 2
    assert (given["workers"], given["engine"]) == (3, "slurm")
    assert given["options"] == {"partition": "gpu", "nodes": 1} and given["may_exit"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({}, "config.cells is empty"),
        ({"a-b": {RATE[0]: 0.1}}, "config.cells.a-b: a cell's name must be"),
        (
            {"a": {"teacher.optm.learning_rate": 0.1}},
            "cell a: 'teacher.optm.learning_rate': field='optm' is unknown; did you",
        ),
        ({"a": {"num_epochs.x": 1}}, "cell a: 'num_epochs.x': field='x' is unknown"),
        ({"a": {"num_epochs": 1.5}}, "cell a: Could not override field 'num_epochs'"),
    ],
)
def test_a_cell_that_cannot_be_is_named(overrides, words):
    with pytest.raises(ConfigError) as error:
        cells.read(_grid(overrides))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_every_cell_is_checked_before_the_first_trains(instant, tmp_path):
    """The last of them could not train: its batch is larger than the data."""
    grid = cells.batch_sizes(tiny.config_dict(data__last_batch="drop"), (16, 512))
    with pytest.raises(ConfigError, match="cell batch_512: .*batch_size=512"):
        sweep.run(grid, tmp_path)
    assert instant[1] == []


def test_a_folder_of_another_grid_is_refused_at_once(done, instant, capsys):
    """Exit code 4, as for a run; not the last cell's hours later."""
    assert _main(done, "--config.base.num_epochs=5") == 4
    assert "cell lr_0_05: " in capsys.readouterr().err
    assert instant[1] == []


def test_a_learning_rate_is_the_teachers_and_every_students():
    """Overrides of all runs reach every cell, and nothing else differs."""
    base = tiny.config_dict()
    grid = cells.learning_rates(base, (0.3, 0.02))
    grid.base.num_epochs = 7
    found = cells.read(grid)
    assert [(c.name, c.label) for c in found] == [
        ("lr_0_02", "0.02"),
        ("lr_0_3", "0.3"),
    ]
    for cell, rate in zip(found, (0.02, 0.3), strict=True):
        expected = tiny.config_dict(num_epochs=7)
        networks = expected.teacher, expected.student
        for network in networks:
            network.optim.learning_rate = rate
        assert cell.config == from_config_dict(expected)
        optims = [s.optim for s in cell.config.students.values()]
        assert {o.learning_rate for o in optims} == {rate}


def test_the_interval_stays_in_epochs_whatever_the_batch():
    grid = cells.batch_sizes(tiny.config_dict(), (32, 8))
    found = cells.read(grid)
    assert [c.config.data.batch_size for c in found] == [8, 32]
    for cell in found:
        assert cell.config.students["spaced"].space_interval_epochs == 0.5
        assert cell.config.student.optim.learning_rate == 0.05


def test_cells_share_the_stages_that_they_need(instant, tmp_path, monkeypatch):
    """The same teacher would else be trained once a cell."""
    base = tiny.config_dict({"taught": student(plan="online")})
    base.stages = {"first": recipes.stage(base, "mlp")}
    base.teacher.stage = "first/alone"
    seen = []
    outcomes, began = instant

    def fail(config):
        seen.append(config.stages_dir)
        raise NonFiniteError("NaN")

    outcomes |= {"batch_16": fail, "batch_32": fail}
    monkeypatch.setattr(train, "run", _stage_first(train.run, outcomes))
    found = sweep.run(cells.batch_sizes(base, (16, 32)), tmp_path)
    assert [name.partition("-")[0] for name in began] == [
        "first",
        "batch_16",
        "batch_32",
    ]
    assert seen == [str(tmp_path / "stages")] * 2
    assert found.code == NonFiniteError.code


def _stage_first(run, outcomes):
    """Let stages, whose names have a hash, end well."""

    def run_stage(config, path, *, may_exit):
        outcomes.setdefault(path.name, None)
        return run(config, path, may_exit=may_exit)

    return run_stage


def _made_up(done):
    """Three cells of invented numbers, of which the middle one failed."""
    real = sweep.results.load(_cell(done, "lr_0_1"))
    grid = cells.learning_rates(tiny.config_dict(), (0.01, 0.1, 1.0))

    def results(online, spaced):
        values = {"online": online, "spaced": spaced}
        minus = Difference.of([s - o for s, o in zip(spaced, online, strict=True)])
        students = {
            name: dataclasses.replace(
                net,
                acc1_last=Spread.of(values[name]),
                acc1_last_minus={"online": minus} if name == "spaced" else {},
            )
            for name, net in real.students.items()
        }
        return dataclasses.replace(real, students=students)

    found = [
        results((50.0, 51.0, 54.0), (53.0, 52.0, 54.0)),
        None,
        results((40.0, 41.0, 42.0), (39.0, 41.0, 41.5)),
    ]
    errors = ["", "NaN", ""]
    entries = map(outcome.Entry, cells.read(grid), found, errors)
    return outcome.Outcome("learning rate", "", tuple(entries))


def test_the_figure_shows_means_bands_and_paired_differences(done):
    """Against NumPy and Student's t at 2 degrees of freedom (4.3027)."""
    with style.drawing():
        drawn = figure.draw(_made_up(done))
        assert drawn is not None
        upper, lower = drawn.axes
    online, spaced = map(_heights, upper.lines)
    np.testing.assert_allclose(online, [155 / 3, math.nan, 41])
    np.testing.assert_allclose(spaced, [53, math.nan, 121.5 / 3])
    band = upper.collections[1].get_paths()[0].vertices[:, 1]
    assert np.isclose(band.min(), 52) and np.isclose(band.max(), 54)
    np.testing.assert_allclose(_heights(lower.lines[1]), [4 / 3, math.nan, -0.5])
    segments = lower.collections[0].get_segments()
    half = 4.30265273 * np.std([3.0, 1.0, 0.0], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(segments[0][:, 1], [4 / 3 - half, 4 / 3 + half])
    assert lower.get_xscale() == "log"
    labels = [label.get_text() for label in lower.get_xticklabels()]
    assert labels == ["0.01", "0.1\nfailed", "1"]


def _heights(line):
    return np.asarray(line.get_ydata(), float)


def test_cells_without_a_number_stand_side_by_side(done):
    """Names below the axis, which is not logarithmic then."""
    real = sweep.results.load(_cell(done, "lr_0_1"))
    entries = tuple(outcome.Entry(c, real) for c in cells.read(_grid(TWO)))
    with style.drawing():
        drawn = figure.draw(outcome.Outcome("which", "", entries))
        assert drawn is not None
        lower = drawn.axes[-1]
    assert lower.get_xscale() == "linear"
    assert [label.get_text() for label in lower.get_xticklabels()] == ["a", "b"]
    assert list(lower.get_xticks()) == [0, 1]


def test_the_example_of_the_document_is_a_grid(request):
    text = (request.config.rootpath / "docs" / "grids.md").read_text()
    scope = {}
    exec(text.split("```python\n")[1].split("```")[0], scope)
    found = cells.read(scope["get_config"]())
    assert [(c.name, c.value) for c in found] == [
        ("alpha_1", 0.1),
        ("alpha_3", 0.3),
        ("alpha_5", 0.5),
    ]
    assert [c.config.students["spaced"].kd_weight for c in found] == [0.1, 0.3, 0.5]


def test_help_is_quick_and_says_what_the_codes_mean(capsys):
    assert command.main(["grid", "--help"]) == 0
    assert "75 interrupted" in capsys.readouterr().out
