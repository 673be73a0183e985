"""`python -m spaced_kd.reproduce`, from flags to tables: all of the paper in small."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

from spaced_kd.reproduce import __main__ as command
from spaced_kd.reproduce.items import ITEMS
from spaced_kd.sweep import run as sweep
from spaced_kd.sweep import state as states

ROOT = pathlib.Path(__file__).parents[1]
SMOKE = ["all", "--budget=smoke", "--equal=updates,flops,seconds"]


def _main(workdir, *arguments):
    return command.main(["reproduce", f"--workdir={workdir}", *arguments])


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> pathlib.Path:
    """Every item at the smallest budget; killed in the middle, and continued."""
    folder = tmp_path_factory.mktemp("smoke")
    argv = [sys.executable, "-m", "spaced_kd.reproduce", *SMOKE]
    argv += [f"--workdir={folder / 'w'}", "--workers=2"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with (folder / "log").open("w") as log:
        start = {"cwd": ROOT, "env": environment, "stderr": log, "text": True}
        first = subprocess.Popen(argv, stdout=log, **start)
        while len(_finished(folder / "w")) < 2:
            assert first.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        first.kill()
        first.wait()
        killed = {name: _starts(folder / "w", name) for name in _finished(folder / "w")}
        (folder / "killed").write_text(json.dumps(killed))
        second = subprocess.run(argv, stdout=log, **start)
    assert second.returncode == 0, (folder / "log").read_text()[-2000:]
    return folder


def _finished(workdir):
    done = workdir.glob("jobs/*/finished.json")
    return {path.parent.name for path in done if "." not in path.parent.name}


def _starts(workdir, name):
    path = workdir / "cells" / name / "env.json"
    return len(json.loads(path.read_text())["starts"])


def _copy(smoke, to):
    """Return a copy that may be forged; checkpoints and weights are only looked at."""
    return pathlib.Path(shutil.copytree(smoke / "w", to / "w", symlinks=True))


@pytest.mark.slow
def test_every_cell_of_every_table_has_a_number(smoke):
    """From one command; what has no place is a dash, and says why."""
    said = json.loads((smoke / "w" / "reproduce.json").read_text())
    assert set(said["items"]) == set(ITEMS)
    for name, item in ITEMS.items():
        found = said["items"][name]["cells"]
        assert len(found) == sum(len(row.places) for row in item.rows)
        assert {cell["status"] for cell in found} == {"finished"}
        if item.unit != "picture":
            seeds = [set(cell["by_seed"]) for cell in found]
            assert all(own == {"0", "1"} for own in seeds), name
            values = [v for c in found for v in c["by_seed"].values()]
            assert all(isinstance(value, float) for value in values), name
        for kind in ("md", "tex", "csv"):
            text = (smoke / "w" / "tables" / f"{name}.{kind}").read_text()
            assert "UNFINISHED" not in text and "FAILED" not in text
    pictures = {path.stem for path in (smoke / "w" / "figures").glob("*.png")}
    assert {"figure2b", "figure2c", "figure3a", "figure3b", "figure4a"} < pictures
    assert {"figure5a", "figure5b", "figure6", "adaptive"} < pictures
    page = (smoke / "w" / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#|cells/)', page)


@pytest.mark.slow
def test_numbers_are_those_of_the_runs_logs(smoke):
    """Read anew from metrics.jsonl, without the code that makes tables."""
    said = json.loads((smoke / "w" / "reproduce.json").read_text())
    cells = said["items"]["table1"]["cells"]
    cell = next(c for c in cells if c["column"] == "spaced")
    (run,), network = cell["runs"], cell["network"]
    log = (smoke / "w" / "cells" / run / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in log]
    last = {
        str(row["seed"]): row[f"eval/student/{network}/acc1"]
        for row in rows
        if row["phase"] == "eval" and row["network"] == network
    }
    assert cell["by_seed"] == last
    assert len(last) == 2


@pytest.mark.slow
def test_what_was_finished_before_the_kill_was_not_done_again(smoke):
    """Resumed cell by cell."""
    killed = json.loads((smoke / "killed").read_text())
    assert len(killed) >= 2
    assert all(_starts(smoke / "w", name) == n for name, n in killed.items())
    assert len(_finished(smoke / "w")) > len(killed)


@pytest.mark.slow
def test_tables_rebuild_byte_for_byte_and_one_digit_is_found(smoke, tmp_path, capsys):
    """In a log, and in a table; the one by its seal, the other by the logs."""
    assert _main(smoke / "w", *SMOKE, "--check") == 0
    assert "all is as their logs say" in capsys.readouterr().out
    forged, few = _copy(smoke, tmp_path), ["table1", "--budget=smoke"]
    for folder in ("tables", "figures"):
        shutil.rmtree(forged / folder)
    (forged / "reproduce.json").unlink()
    assert _main(forged, *few) == 0
    table = forged / "tables" / "table1.csv"
    text = table.read_text()
    place = re.search(r"finished,2,\d+\.(\d)", text)
    assert place
    digit = str((int(place[1]) + 1) % 10)
    table.write_text(text[: place.start(1)] + digit + text[place.end(1) :])
    assert _main(forged, *few, "--check") == 4
    assert "tables/table1.csv: is not what the logs" in capsys.readouterr().out
    table.write_text(text)
    log = next(forged.glob("cells/table1_*/metrics.jsonl"))
    lines = log.read_text().splitlines(keepends=True)
    number = next(k for k, line in enumerate(lines) if "eval/student" in line)
    changed = re.sub(
        r'(acc1": \d)(\d)', lambda m: m[1] + str(9 - int(m[2])), lines[number]
    )
    assert changed != lines[number]
    log.write_text("".join([*lines[:number], changed, *lines[number + 1 :]]))
    assert _main(forged, *few, "--check") == 4
    out = capsys.readouterr().out
    assert log.parent.name in out and f"line {number + 1}" in out
    # Nor does the command itself go on to believe it.
    assert _main(forged, *few) == 4
    assert "metrics.jsonl" in capsys.readouterr().err


def test_what_a_killed_writing_left_is_no_table(tmp_path, capsys, monkeypatch):
    """Nor a problem, and the next call removes it; a stranger's file is one."""
    look = lambda jobs, root, **_: states.look(jobs, root)
    monkeypatch.setattr(sweep, "run", look)
    arguments = ["table5", "--budget=smoke"]
    assert _main(tmp_path, *arguments) == 0
    unfinished = tmp_path / "tables" / ".table5.csv.4711.tmp"
    unfinished.write_text("it")
    assert _main(tmp_path, *arguments, "--check") == 0
    assert unfinished.exists()
    assert _main(tmp_path, *arguments) == 0
    assert not unfinished.exists()
    (tmp_path / "tables" / "mine.csv").write_text("")
    capsys.readouterr()
    assert _main(tmp_path, *arguments, "--check") == 4
    assert "tables/mine.csv: is none of these" in capsys.readouterr().out


def test_a_table_is_written_when_a_number_of_it_has_changed(tmp_path, monkeypatch):
    """While runs go on, and then only."""
    table = tmp_path / "tables" / "table5.md"

    def look_thrice(jobs, root, changed, **_):
        now = states.look(jobs, root)
        changed(now)
        assert "UNFINISHED" in table.read_text()
        table.unlink()
        changed(now)
        assert not table.exists()
        failed = [dataclasses.replace(s, status="failed", error="no") for s in now]
        changed(failed)
        assert "FAILED: no" in table.read_text()
        return now

    monkeypatch.setattr(sweep, "run", look_thrice)
    assert _main(tmp_path, "table5", "--budget=smoke") == 0
    assert "UNFINISHED" in table.read_text()


@pytest.mark.slow
def test_a_later_call_keeps_what_was_asked_before(smoke, tmp_path, capsys):
    """One page for a workdir, whatever is added to it."""
    workdir = _copy(smoke, tmp_path)
    assert _main(workdir, "table1", "--budget=smoke", "--metric=best") == 0
    said = json.loads((workdir / "reproduce.json").read_text())
    assert set(said["items"]) == set(ITEMS)
    assert said["settings"]["metric"] == "best"
    assert "29 runs" in capsys.readouterr().out


@pytest.mark.slow
def test_runs_of_other_settings_are_not_mixed(smoke, capsys):
    """A table of two budgets would be none."""
    for flags, told in (
        (["--budget=small"], "budget='smoke', not 'small'"),
        (["--budget=smoke", "--seeds=3"], "num_seeds=2, not 3"),
        (["--budget=smoke", "--variant=paper"], "variant='', not 'paper'"),
        (["--budget=smoke", "--override=seed=1"], "overrides"),
    ):
        assert _main(smoke / "w", "table1", *flags) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "error: name an item: table1, "),
        (["tabel1"], "item='tabel1' is unknown; did you mean 'table1'?"),
        (["table1", "--budget=huge"], "--budget='huge' is unknown"),
        (["table1", "--metric=top5"], "--metric='top5' is unknown"),
        (["table1", "--equal=flop"], "did you mean 'flops'?"),
        (["table1", "--variant=papr"], "did you mean 'paper'?"),
        (["table1", "--seeds=-1"], "--seeds=-1 is too small"),
        (["table1", "--override=seed"], "--override=seed is not FIELD=VALUE"),
        (["table1", "--workres=2"], "workres"),
        (["table1", "--budget=smoke", "--engine=slrum"], "did you mean 'slurm'?"),
        (["table1", "--budget=smoke", "--workers=0"], "--workers=0 is too small"),
        (["table1", "--budget=smoke", "--configs=/nowhere"], "no config files"),
    ],
)
def test_mistakes_are_one_line(arguments, told, tmp_path, capsys):
    """What, the value, what is allowed; nothing is written."""
    assert _main(tmp_path / "w", *arguments) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_workdir_is_asked_for(capsys):
    assert command.main(["reproduce", "table1"]) == 2
    assert "--workdir is missing" in capsys.readouterr().err


def test_the_plan_is_told_and_nothing_is_done(tmp_path, capsys):
    """Before hours of a cluster."""
    assert _main(tmp_path, "table1", "--budget=paper", "--plan") == 0
    out = capsys.readouterr().out
    assert out.count("80 epochs of") + out.count("300 epochs of") == 14
    assert out.endswith("14 runs\n")
    assert not list(tmp_path.iterdir())


def test_help_names_every_item(capsys):
    assert command.main(["reproduce", "--help"]) == 0
    usage = capsys.readouterr().out
    assert "table1 to table13, figure2 to figure6, adaptive, or all" in usage
    tables = [name for name in ITEMS if name.startswith("table")]
    assert tables == [f"table{number}" for number in range(1, 14)]


def test_a_failed_run_is_told_and_is_no_number(tmp_path, capsys):
    """A learning rate that diverges: its error stands in the table, nothing else."""
    wild = "--override=teacher.optim.learning_rate=1e30"
    assert _main(tmp_path, "table1", "--budget=smoke", "--seeds=1", wild) == 6
    text = (tmp_path / "tables" / "table1.md").read_text()
    assert "| FAILED paper 72.43 |" in text
    assert re.search("FAILED: .*became (NaN|infinite)", text)
    assert not re.search(r"n=\d", text)
    assert "2 runs" in capsys.readouterr().out
