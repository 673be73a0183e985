"""Two real processes on this machine: one batch, one decision, one way to end."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tiny

import spaced_kd
from spaced_kd.checkpoint import CheckpointLine
from spaced_kd.config import student
from spaced_kd.models import MODELS, small_cnn
from spaced_kd.writers import read_rows

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent
TINY_CNN = functools.partial(small_cnn.SmallCNN, channels=(4, 4))


def tiny_config(build=tiny.config):
    """3 epochs of 4 steps, the last batch padded; every program is used at once."""
    return build(
        {"spaced": student(plan="spaced", space_interval_epochs=1.0)},
        num_devices=0,
        data__crop_padding=1,
        data__num_train_examples=60,
        teacher__model="tiny_cnn",
        student__model="tiny_cnn",
    )


CONFIG_FILE = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import test_multihost, tiny
from spaced_kd.models import MODELS
MODELS["tiny_cnn"] = test_multihost.TINY_CNN
def get_config():
    return test_multihost.tiny_config(tiny.config_dict)
"""

# A process that signals itself at a chosen tick.
CHILD = textwrap.dedent(
    """
    import os, sys
    number, tick = int(sys.argv.pop()), int(sys.argv.pop())
    def hook(name, args):
        if name == "spaced_kd.tick" and args[1] == tick:
            os.kill(os.getpid(), number)
    sys.addaudithook(hook)
    from spaced_kd.main import cli
    cli()
    """
)


@dataclasses.dataclass
class Outcome:
    """How the two processes ended; seconds: from the first end to the second."""

    codes: list[int]
    errors: list[list[str]]
    seconds: float


class Pair:
    """Runs the command line in two processes of two CPU devices each."""

    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "tiny_config.py"
        self.config.write_text(CONFIG_FILE)

    def __call__(self, workdir, send=None, flags=((), ())):
        """send: (process, tick, signal). flags: of each process."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",
            "PYTHONPATH": str(ROOT),
        }
        children = []
        try:
            for process in (0, 1):
                tick, number = send[1:] if send and send[0] == process else (-1, 0)
                command = [sys.executable, "-c", CHILD, f"--config={self.config}"]
                command += [f"--workdir={workdir}", f"--coordinator=127.0.0.1:{port}"]
                command += ["--num_processes=2", f"--process_id={process}"]
                command += [*flags[process], str(tick), str(int(number))]
                log = (self.folder / f"stderr_{process}").open("w")
                children.append(
                    subprocess.Popen(
                        command, env=environment, stderr=log, stdout=subprocess.DEVNULL
                    )
                )
            return self._wait(children)
        finally:
            for child in children:
                child.kill()
                child.wait()

    def _wait(self, children):
        deadline, first = time.monotonic() + 400, None
        while any(child.poll() is None for child in children):
            if first is None and any(child.poll() is not None for child in children):
                first = time.monotonic()
            assert time.monotonic() < deadline, "the processes wait for one another"
            time.sleep(0.05)
        errors = []
        for process in (0, 1):
            text = (self.folder / f"stderr_{process}").read_text()
            assert "Traceback" not in text and "stack trace" not in text, text
            lines = text.splitlines()
            errors.append([x for x in lines if x.startswith(("error: ", "stopped: "))])
        seconds = 0.0 if first is None else time.monotonic() - first
        return Outcome([child.returncode for child in children], errors, seconds)


def _arrays(workdir):
    line = CheckpointLine(workdir / "checkpoints", keep=2)
    saved = line.latest()
    assert saved is not None
    leaves = json.loads((saved.path / "manifest.json").read_text())["body"]["leaves"]
    import orbax.checkpoint as ocp

    stored = ocp.PyTreeCheckpointer().restore(saved.path / "arrays")
    return saved.tick, {name: np.asarray(stored[name]) for name in leaves}


def _assert_close(workdir, other):
    """Sums over 4 devices in another order, 12 updates: measured 1.2e-7 at most."""
    (tick, got), (other_tick, expected) = _arrays(workdir), _arrays(other)
    assert tick == other_tick == 12
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    rows = read_rows(workdir / "metrics.jsonl")
    other_rows = read_rows(other / "metrics.jsonl")
    for row, other_row in zip(rows, other_rows, strict=True):
        assert row.keys() == other_row.keys()
        for name, value in other_row.items():
            if "/" in name:
                np.testing.assert_allclose(row[name], value, rtol=1e-5, err_msg=name)
            else:
                assert row[name] == value


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def whole(pair):
    """The uninterrupted run of two processes."""
    workdir = pair.folder / "whole"
    outcome = pair(workdir, flags=(("--config.report=True",),) * 2)
    assert outcome.codes == [0, 0], outcome.errors
    return workdir


@pytest.fixture(scope="module")
def killed(pair):
    """A run whose process 0 was killed, and how the other ended."""
    workdir = pair.folder / "restarted"
    return workdir, pair(workdir, (0, 5, signal.SIGKILL))


@pytest.fixture(scope="module")
def stopped(pair, killed):
    """The same run, started again and stopped by a signal to process 1 alone."""
    workdir, _ = killed
    outcome = pair(workdir, (1, 7, signal.SIGTERM))
    kept = pair.folder / "kept"
    shutil.copytree(workdir, kept)
    return workdir, kept, outcome


def _assert_survived(outcome, process):
    """One process was killed; the other ended soon, with a line and its own code."""
    survivor = 1 - process
    assert outcome.codes[process] == -signal.SIGKILL
    assert outcome.codes[survivor] == 8
    assert outcome.seconds < 60
    (line,) = outcome.errors[survivor]
    assert line.startswith(f"error: process {process} on ")
    assert "is gone" in line and "run the same command" in line


@pytest.mark.slow
def test_two_processes_train_what_one_with_all_devices_trains(whole, tmp_path):
    """A device would see other rows, augmentations or BatchNorm sums than its own."""
    assert "tiny_cnn" in MODELS
    assert spaced_kd.run(tiny_config(), tmp_path).complete
    _assert_close(whole, tmp_path)
    devices = json.loads((whole / "env.json").read_text())["devices"]
    assert (devices["processes"], devices["count"], devices["used"]) == (2, 4, 4)
    assert (whole / "report.html").is_file()


@pytest.mark.slow
def test_the_death_of_process_0_ends_the_other_with_a_line(killed):
    """JAX aborts at that moment, with a stack trace; a collective may hang."""
    workdir, outcome = killed
    _assert_survived(outcome, 0)
    # What process 0 was just saving may be missing.
    assert _arrays(workdir)[0] in (4, 5)


@pytest.mark.slow
def test_the_death_of_another_process_ends_process_0_with_a_line(pair):
    """It would wait for its heartbeats, 100 seconds, and then be aborted, too."""
    outcome = pair(pair.folder / "early", (1, 0, signal.SIGKILL))
    _assert_survived(outcome, 1)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_tick(stopped):
    """One would save, or wait for ever, while the other goes on."""
    _, kept, outcome = stopped
    assert outcome.codes == [75, 75]
    for lines in outcome.errors:
        (line,) = lines
        assert line.startswith("stopped: by SIGTERM to process 1 on ")
        assert "at tick 8 of 12; the state is saved" in line
    assert _arrays(kept)[0] == 8


@pytest.mark.slow
def test_after_a_kill_and_a_stop_the_end_is_bitwise_the_same(pair, whole, stopped):
    """Something of the state would be lost, or different in the two processes."""
    workdir, _, _ = stopped
    assert pair(workdir).codes == [0, 0]
    logs = [(path / "metrics.jsonl").read_bytes() for path in (workdir, whole)]
    assert logs[0] == logs[1]
    (tick, got), (_, expected) = _arrays(workdir), _arrays(whole)
    assert tick == 12
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.slow
def test_one_process_with_as_many_devices_continues_a_run_of_two(
    whole, stopped, caplog
):
    """A checkpoint would belong to the number of processes that wrote it."""
    _, kept, _ = stopped
    spaced_kd.run(tiny_config(), kept)
    assert "goes on with 4 devices in 1 processes, before 4 in 2" in caplog.text
    _assert_close(kept, whole)


@pytest.mark.slow
def test_processes_of_different_configurations_refuse_to_train_together(pair):
    """Averages over two different runs would look like a run."""
    workdir = pair.folder / "strangers"
    outcome = pair(workdir, flags=((), ("--config.seed=5",)))
    assert outcome.codes == [2, 2]
    for lines in outcome.errors:
        (line,) = lines
        assert line.startswith("error: process 1 on ") and "another config" in line


# Stands in for Python in the scripts below: no training, only an exit code.
STAND_IN = """#!/usr/bin/env bash
if [ "$1" = -c ]; then echo 12345; exit; fi
for id in 0 1 2; do case "$*" in *--process_id=$id*) break ;; esac; done
echo "${JAX_NUM_CPU_DEVICES:-$CUDA_VISIBLE_DEVICES} $*" > "said_$id"
if [ -n "${WAIT:-}" ]; then
  trap 'exit 75' TERM
  touch "ready_$id"
  for _ in {1..200}; do sleep 0.05; done
fi
IFS=, read -ra codes <<< "$CODES"
exit "${codes[$id]}"
"""


@pytest.fixture
def script(tmp_path):
    """Return local_processes.sh in a folder where nothing needs installing."""
    (tmp_path / "launch").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script = tmp_path / "launch" / "local_processes.sh"
    shutil.copy(ROOT / "launch" / "local_processes.sh", script)
    (tmp_path / "launch" / "_environment.sh").write_text("ensure_environment() { :; }")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("codes", "worst"),
    [("0,0,0", 0), ("8,3,8", 3), ("75,75,75", 75), ("75,8,75", 8), ("8,8,137", 137)],
)
def test_the_script_ends_with_the_code_that_says_most(script, codes, worst):
    """A run that failed would look stopped, or its cause would be hidden by an 8."""
    done = subprocess.run(
        [script, "3", "cpu:2", "--workdir=w"], env=os.environ | {"CODES": codes}
    )
    assert done.returncode == worst
    for process in range(3):
        assert (script.parents[1] / f"said_{process}").read_text() == (
            "2 -m spaced_kd.main --coordinator=127.0.0.1:12345 --num_processes=3 "
            f"--process_id={process} --workdir=w\n"
        )


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, "012"), ("5,2,7,6", "527"), ("5,2", None)]
)
def test_each_process_gets_one_of_the_gpus_that_are_visible(visible, expected, script):
    """The batch system's choice would be undone, and another user's GPU taken."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA", "JAX"))}
    env |= {"CODES": "0,0,0"} | ({"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    done = subprocess.run([script, "3", "gpu"], env=env, capture_output=True, text=True)
    if expected is None:
        assert done.returncode == 2
        assert "CUDA_VISIBLE_DEVICES='5,2' has fewer than N=3" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    said = [(script.parents[1] / f"said_{k}").read_text()[0] for k in range(3)]
    assert said == list(expected)


def test_the_script_passes_a_signal_on(script):
    """A batch system's SIGTERM would end the script and leave the training behind."""
    child = subprocess.Popen(
        [script, "3", "cpu:2"], env=os.environ | {"CODES": "0,0,0", "WAIT": "1"}
    )
    try:
        deadline = time.monotonic() + 20
        while len(list(script.parents[1].glob("ready_*"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.terminate()
        assert child.wait(timeout=20) == 75
    finally:
        child.kill()


@pytest.mark.parametrize("arguments", [[], ["0", "cpu:2"], ["2", "tpu"], ["2", "cpu:"]])
def test_the_script_says_how_it_is_used(script, arguments):
    done = subprocess.run([script, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
