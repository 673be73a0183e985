"""The command line: one line and a code for every mistake, kills and stops included."""

import json
import logging
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from spaced_kd import main, verify

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "digits.py"

MISTAKES = {
    "no config": (["--workdir=w"], 2, "--config is missing"),
    "no workdir": ([f"--config={CONFIG}"], 2, "--workdir is missing"),
    "no such file": (["--config=nothing.py", "--workdir=w"], 2, "'nothing.py';"),
    "unknown flag": ([f"--config={CONFIG}", "--wrokdir=w"], 2, "wrokdir"),
    "unknown field": (
        [f"--config={CONFIG}", "--workdir=w", "--config.num_epoch=3"],
        2,
        "num_epoch",
    ),
    "wrong type": (
        [f"--config={CONFIG}", "--workdir=w", "--config.num_epochs=many"],
        2,
        "many",
    ),
    "unknown variant": ([f"--config={CONFIG}:tiny", "--workdir=w"], 2, "known: smoke"),
    "bad value": (
        [f"--config={CONFIG}", "--workdir=w", "--config.student.temperature=-1"],
        2,
        "temperature=-1",
    ),
    "bad interval": (
        [
            f"--config={CONFIG}",
            "--workdir=w",
            "--config.students.spaced_1_5.space_interval_epochs=900",
        ],
        2,
        "900",
    ),
    "stray argument": ([f"--config={CONFIG}", "--workdir=w", "train"], 2, "'train'"),
    "no data": (
        [
            f"--config={ROOT / 'configs' / 'cifar100_cpu.py'}",
            "--workdir=w",
            "--config.data.dir=nowhere",
        ],
        3,
        "nowhere",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_line_and_its_code(mistake, capsys, tmp_path, monkeypatch):
    arguments, code, words = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    assert main.main(["spaced_kd", *arguments]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert len(lines[0]) < 400
    assert not (tmp_path / "w" / "config.json").exists()


def test_help_is_quick_and_says_what_the_codes_mean(capsys):
    assert main.main(["spaced_kd", "--help"]) == 0
    assert "75 interrupted" in capsys.readouterr().out


def test_an_entry_point_leaves_the_log_as_it_was():
    """Breaks if a notebook that verified a run hears no warning afterwards."""
    log = logging.getLogger("spaced_kd")
    before = log.level
    for entry in (main, verify):
        assert entry.main(["spaced_kd"]) == 2
        assert log.level == before


# A process that does something to itself at a named place, for the tests below.
CHILD = textwrap.dedent(
    """
    import os, sys
    event, place = sys.argv.pop(), sys.argv.pop()
    number, signum = int(sys.argv.pop()), int(sys.argv.pop())
    seen = 0
    def hook(name, args):
        global seen
        if name == event and str(args[0]).startswith(place):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signum)
    if event != "never":
        sys.addaudithook(hook)
    from spaced_kd.main import cli
    cli()
    """
)


def _start(workdir, event="never", place="-", number=1, signum=signal.SIGKILL):
    config = ROOT / "tests" / "few_digits.py"
    command = [sys.executable, "-c", CHILD, f"--config={config}"]
    command += [f"--workdir={workdir}", str(int(signum)), str(number), place, event]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def _end(workdir):
    """Hashes of the final state and of everybody's best, and the log."""
    hashes = {
        str(path.relative_to(workdir)): json.loads(path.read_text())["body"]["leaves"]
        for path in (
            max((workdir / "checkpoints").glob("0*/manifest.json")),
            *(workdir / "best").rglob("manifest.json"),
        )
    }
    return hashes, (workdir / "metrics.jsonl").read_bytes()


# SIGTERM and SIGINT save and exit 75; after SIGKILL the last checkpoint counts.
STOPS = [
    (signal.SIGKILL, "spaced_kd.tick", "teacher", 2),
    (signal.SIGKILL, "spaced_kd.checkpoint", "rename", 2),
    (signal.SIGTERM, "spaced_kd.tick", "replay spaced_1_5", 1),
    (signal.SIGKILL, "spaced_kd.tick", "replay spaced_1_5", 1),
    (signal.SIGINT, "spaced_kd.tick", "evaluate online", 1),
    (signal.SIGKILL, "spaced_kd.checkpoint", "prune", 3),
]


@pytest.mark.slow
def test_stopped_again_and_again_the_end_is_bitwise_the_same(tmp_path):
    """Mid-epoch, mid-replay, in evaluation, inside a checkpoint's commit."""
    clean, stopped = tmp_path / "clean", tmp_path / "stopped"
    assert _start(clean).returncode == 0
    for signum, event, place, number in STOPS:
        outcome = _start(stopped, event, place, number, signum)
        if signum == signal.SIGKILL:
            assert outcome.returncode == -signal.SIGKILL, outcome.stderr
        else:
            assert outcome.returncode == 75, outcome.stderr
            last = outcome.stderr.strip().splitlines()[-1]
            assert last.startswith("stopped: ") and "the state is saved" in last
    outcome = _start(stopped)
    assert outcome.returncode == 0, outcome.stderr
    assert "continuing from tick" in outcome.stderr
    assert _end(stopped) == _end(clean)
    resumed, once = (
        json.loads((path / "results.json").read_text()) for path in (stopped, clean)
    )
    assert resumed | {"timing": None} == once | {"timing": None}
    again = _start(stopped)
    assert again.returncode == 0 and "complete" in again.stderr
    assert again.stdout == outcome.stdout
