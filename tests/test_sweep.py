"""Sweeps: every job once, whoever dies; and in the end the numbers of single runs."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import tiny

import spaced_kd
from spaced_kd import config as config_lib
from spaced_kd import recipes, train
from spaced_kd.config import from_config_dict, student
from spaced_kd.errors import (
    ConfigError,
    Interrupted,
    NonFiniteError,
    PeerError,
    SpacedKDError,
    StorageError,
)
from spaced_kd.interrupt import StopRequest
from spaced_kd.sweep import crew, engines, marks, run, tasks, worker
from spaced_kd.sweep.engines import local
from spaced_kd.sweep.job import Job
from spaced_kd.sweep.state import folder

# Loaded by every Python that starts with it on its path: kills with signal SIGNAL the
# worker that comes to tick PLACE of the network NETWORK, TIMES times in all.
SITE = """
import os, pathlib, sys

_KILL = os.environ["KILL"].split(":")

def _hook(event, arguments):
    if event != "spaced_kd.tick" or not arguments[0].endswith(_KILL[0]):
        return
    if arguments[1] < int(_KILL[1]):
        return
    for k in range(int(_KILL[2])):
        try:
            pathlib.Path(os.environ["KILLED"], str(k)).touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), int(_KILL[3]))
        return

sys.addaudithook(_hook)
"""


def _config(network="online", epochs=2, **fields):
    """A teacher and one student, whose network is named for the killer."""
    arms = {network: student(plan="online")}
    return tiny.config(arms, num_epochs=epochs, **fields)


def _jobs(*names, **fields):
    return [Job(name, _config(name, seed=k, **fields)) for k, name in enumerate(names)]


def _end(workdir):
    """Hashes of the last state, and the log."""
    manifest = max((workdir / "checkpoints").glob("0*/manifest.json"))
    leaves = json.loads(manifest.read_text())["body"]["leaves"]
    return leaves, (workdir / "metrics.jsonl").read_bytes()


def _starts(workdir):
    return len(json.loads((workdir / "env.json").read_text())["starts"])


def _statuses(states):
    return {state.job.name: state.status for state in states}


@pytest.fixture(autouse=True)
def no_reports():
    with tiny.without_reports():
        yield


@pytest.fixture
def killer(tmp_path, monkeypatch):
    """Return killer(network, place, times, signal), of workers started from then on."""
    site = tmp_path / "site"
    killed = tmp_path / "killed"

    def arm(network, place=2, times=1, number=signal.SIGKILL):
        for path in (site, killed):
            path.mkdir()
        (site / "sitecustomize.py").write_text(SITE)
        monkeypatch.setenv("KILL", f"{network}:{place}:{times}:{int(number)}")
        monkeypatch.setenv("KILLED", str(killed))
        before = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{before}")
        return killed

    repository = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", repository)
    return arm


@functools.cache
def _alone(root, name, seed):
    """The end of a job's run, had it run alone and in this process."""
    path = Path(root) / name
    train.run(_config(name, seed=seed), path)
    return _end(path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    root = tmp_path_factory.mktemp("alone")
    return lambda jobs: {j.name: _alone(root, j.name, j.config.seed) for j in jobs}


def _ends(jobs, root):
    return {job.name: _end(folder(root, job.name)) for job in jobs}


@pytest.mark.slow
def test_two_workers_one_of_them_killed(tmp_path, killer, alone):
    """Every job is trained once, the killed one twice, and all numbers stay."""
    jobs, root = _jobs("a", "b", "c"), tmp_path / "root"
    killed = killer("b")
    seen = []
    found = run.run(
        jobs, root, workers=2, changed=lambda states: seen.append(_statuses(states))
    )
    assert _statuses(found) == dict.fromkeys("abc", "finished")
    assert len(list(killed.iterdir())) == 1
    assert [_starts(folder(root, name)) for name in "abc"] == [1, 2, 1]
    assert _ends(jobs, root) == alone(jobs)
    assert seen[0] == dict.fromkeys("abc", "unfinished")
    assert seen[-1] == dict.fromkeys("abc", "finished")
    assert any(list(s.values()).count("running") == 2 for s in seen)
    logs = sorted(path.name for path in (root / "jobs" / "logs").iterdir())
    assert logs == ["worker-0.log", "worker-1.log"]
    assert _statuses(run.check(jobs, root)) == dict.fromkeys("abc", "finished")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("slurm", {"cluster": "local", "timeout_min": 10}),
        ("ray", {"num_cpus": 1, "object_store_memory": 80 * 2**20}),
    ],
)
def test_a_cluster_loses_a_worker(engine, options, tmp_path, killer, alone):
    """Really started, on this machine: the sweep finishes with the same numbers."""
    jobs, root = _jobs("a", "b"), tmp_path / "root"
    killer("b")
    found = run.run(jobs, root, engine=engine, workers=2, options=options)
    assert _statuses(found) == dict.fromkeys("ab", "finished")
    assert [_starts(folder(root, name)) for name in "ab"] == [1, 2]
    assert _ends(jobs, root) == alone(jobs)
