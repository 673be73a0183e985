"""Sweeps: every job once, whoever dies; and in the end the numbers of single runs."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny

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
from spaced_kd.sweep import crew, engines, marks, run, tasks, work, worker
from spaced_kd.sweep.engines import local
from spaced_kd.sweep.job import Job
from spaced_kd.sweep.state import folder

# Loaded by every Python that starts with it on its path: draws no report, and sends
# SIGNAL to the worker that comes to tick PLACE with NETWORK, TIMES times in all.
SITE = """
import os, pathlib, sys

_KILL = os.environ.get("KILL", "nobody:0:0:0").split(":")

def _hook(event, arguments):
    if event != "spaced_kd.tick":
        return
    sys.modules["spaced_kd.report"].build = lambda workdir: None
    if not arguments[0].endswith(_KILL[0]) or arguments[1] < int(_KILL[1]):
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


@pytest.fixture
def killer(tmp_path, monkeypatch):
    """Return killer(network, place, times, signal), of workers started from then on."""
    site, killed = tmp_path / "site", tmp_path / "killed"
    for path in (site, killed):
        path.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    repository = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{repository}")
    monkeypatch.setenv("KILLED", str(killed))

    def arm(network, place=2, times=1, number=signal.SIGKILL):
        monkeypatch.setenv("KILL", f"{network}:{place}:{times}:{int(number)}")
        return killed

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


@pytest.mark.slow
def test_stopped_by_a_signal_the_same_call_goes_on(tmp_path, killer, alone):
    """The workers save and stop with it; nothing that they had is lost or redone."""
    jobs, root = _jobs("a", "b"), tmp_path / "root"
    stopped = []

    def changed(states):
        if "running" in _statuses(states).values() and not stopped:
            stopped.append(True)
            threading.Thread(target=_stop_when_saved, args=(root,)).start()

    with pytest.raises(Interrupted, match="by SIGTERM"):
        run.run(jobs, root, workers=2, changed=changed)
    assert not (root / worker.STOP).exists()
    assert set(_statuses(run.check(jobs, root)).values()) == {"unfinished"}
    found = run.run(jobs, root, workers=1)
    assert _statuses(found) == dict.fromkeys("ab", "finished")
    assert max(_starts(folder(root, name)) for name in "ab") == 2
    assert _ends(jobs, root) == alone(jobs)


def _stop_when_saved(root):
    while not list(root.glob("cells/*/checkpoints/0*/manifest.json")):
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGTERM)


class _Runs:
    """Stands in for training: what comes of a run, by its folder's name."""

    def __init__(self):
        self.began, self.outcomes, self.options = [], {}, []

    def train(self, config, path, *, may_exit):
        self.began.append(path.name)
        outcome = self.outcomes.get(path.name)
        if callable(outcome):
            outcome = outcome()
        if outcome is not None:
            raise outcome

    def analyze(self, path, analyses, *, networks, options, num_devices):
        of = f" of {', '.join(networks)}" if networks else ""
        self.began.append(f"{path.name}: {', '.join(analyses)}{of}")
        self.options.append(options)


@pytest.fixture
def instant(monkeypatch):
    """Runs and analyses that take no time; a run that has ended well is finished."""
    runs = _Runs()
    monkeypatch.setattr(train, "run", runs.train)
    monkeypatch.setattr(work.analyze, "analyze", runs.analyze)
    return runs


def test_a_job_that_fails_leaves_the_others_alone(instant, tmp_path):
    """It is told with its code, and tried again by the same call only."""
    jobs = _jobs("a", "b", "c")
    instant.outcomes["b"] = NonFiniteError("NaN at update 3")
    found = run.run(jobs, tmp_path)
    assert instant.began == ["a", "b", "c"]
    assert _statuses(found) == {"a": "finished", "b": "failed", "c": "finished"}
    assert (found[1].error, found[1].code) == ("NaN at update 3", 6)
    told = run.check(jobs[1:2], tmp_path)
    assert told == found[1:2]
    instant.outcomes.clear()
    found = run.run(jobs[1:2], tmp_path)
    assert instant.began[3:] == ["b"] and _statuses(found) == {"b": "finished"}


def test_a_disk_that_fails_ends_the_sweep(instant, tmp_path):
    """Every other job would meet the same."""
    instant.outcomes["a"] = StorageError("cannot write")
    with pytest.raises(StorageError, match="cannot write"):
        run.run(_jobs("a", "b"), tmp_path)
    assert instant.began == ["a"]
    assert marks.look(tmp_path, "a").status == "unfinished"


def _chained(name, **fields):
    config = tiny.config_dict({name: student(plan="online")}, num_epochs=2, **fields)
    config.stages = {"first": recipes.stage(config, "mlp")}
    config.teacher.stage = "first/alone"
    return Job(name, from_config_dict(config))


def test_a_stage_that_two_jobs_need_comes_first_and_once(instant, tmp_path):
    """Two workers would else train it twice, or wait for one another."""
    jobs = [_chained("a"), _chained("b", student__temperature=4.0), *_jobs("c")]
    found = run.run(jobs, tmp_path)
    assert set(_statuses(found).values()) == {"finished"}
    stage, *others = instant.began
    assert stage.startswith("first-") and others == ["a", "b", "c"]
    assert [t.config.stages_dir for t in tasks.read_all(tmp_path)[:3]] == [
        str(tmp_path / "stages")
    ] * 3


def test_a_stage_that_fails_fails_what_needs_it(instant, tmp_path):
    """Jobs would wait for it for ever."""

    def train_stage(config, path, *, may_exit):
        instant.began.append(path.name)
        if path.name.startswith("first-"):
            raise NonFiniteError("NaN")

    instant.train = train_stage
    work.train.run = train_stage  # undone by the fixture
    found = run.run([_chained("a"), *_jobs("c")], tmp_path)
    assert _statuses(found) == {"a": "failed", "c": "finished"}
    assert found[0].error.startswith("stage.first-") and found[0].code == 6
    assert len(instant.began) == 2


def test_tasks_are_read_as_they_were_written(tmp_path):
    """A worker in another process would train another config."""
    job = _chained("a", num_seeds=2, data__rotation_degrees=15.0)
    datasets = {}
    tasks.stages.load_data(job.config, datasets)
    before = tasks.of_job(job, tmp_path, datasets)
    tasks.write_all(before, tmp_path)
    assert tasks.read_all(tmp_path) == before
    assert before[1].needs == (before[0].name,)


def _die(job, root, times, saved=lambda k: None):
    """Have workers die of a job: they leave without a word."""
    (task,) = tasks.of_job(job, root, {job.config.data: None})
    taken = []
    for k in range(times):
        with contextlib.suppress(RuntimeError), marks.hold(task, root, "w") as held:
            taken.append(held)
            if held:
                raise RuntimeError
        saved(k)
    return taken


def test_a_job_that_kills_its_workers_is_given_up(tmp_path):
    """After three deaths, with a message; never an endless loop."""
    (job,) = _jobs("a")
    assert _die(job, tmp_path, 5) == [True, True, True, False, False]
    mark = marks.look(tmp_path, "a")
    assert (mark.status, mark.code) == ("failed", PeerError.code)
    assert "died 3 times" in mark.error and "\n" not in mark.error


def test_deaths_with_progress_between_them_do_not_count(tmp_path):
    """A worker that is preempted every hour would end a job of many hours."""
    (job,) = _jobs("a")

    def saved(k):
        path = folder(tmp_path, "a") / "checkpoints" / f"{k:08d}"
        path.mkdir(parents=True)

    assert _die(job, tmp_path, 6, saved) == [True] * 6
    assert _die(job, tmp_path, 4) == [True, True, False, False]


class _Hand:
    """A worker in this process, which dies as soon as a run raises no known error."""

    def __init__(self, root):
        self._root = root

    def code(self):
        try:
            with StopRequest(may_exit=False) as stop:
                found = tasks.read_all(self._root)
                work.pull(found, self._root, "w", stop, may_exit=False)
        except SpacedKDError as error:
            return error.code
        except RuntimeError:
            return -9
        return 0

    def withdraw(self):
        pass

    kill = withdraw


@pytest.fixture
def hands(monkeypatch):
    """An engine, "hands", whose workers are in this process; counts its starts."""
    started = []

    @contextlib.contextmanager
    def open_hands(root, workers, options):
        def start(name):
            started.append(name)
            return _Hand(root)

        yield start

    engine = engines.base.Engine(lambda options: None, open_hands)
    monkeypatch.setitem(engines.ENGINES, "hands", engine)
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.0)
    return started


def test_the_crew_outlives_a_job_that_kills_workers(instant, hands, tmp_path):
    """The others are done, and the sweep ends by itself."""
    instant.outcomes["a"] = RuntimeError("out of memory")
    found = run.run(_jobs("a", "b"), tmp_path, engine="hands")
    assert _statuses(found) == {"a": "failed", "b": "finished"}
    assert "died 3 times" in found[0].error
    assert instant.began == ["a", "a", "a", "b"]
    assert len(hands) == 4


def test_workers_that_do_nothing_are_not_started_for_ever(hands, tmp_path, monkeypatch):
    """A machine on which the package does not start would loop."""
    monkeypatch.setattr(_Hand, "code", lambda self: 1)
    with pytest.raises(PeerError, match="without doing anything"):
        run.run(_jobs("a"), tmp_path, engine="hands")
    assert len(hands) == crew.MAX_IDLE_STARTS


def test_a_worker_whose_disk_fails_ends_the_sweep(instant, hands, tmp_path):
    instant.outcomes["a"] = StorageError("full")
    with pytest.raises(StorageError, match="worker worker-0 cannot write"):
        run.run(_jobs("a", "b"), tmp_path, engine="hands")
    assert instant.began == ["a"]


def test_a_worker_leaves_to_others_what_they_have(instant, tmp_path):
    """Two would train in one folder, or one wait while its machine is paid for."""
    jobs = _jobs("a", "b")
    found = [tasks.of_job(job, tmp_path, {job.config.data: None})[0] for job in jobs]
    with marks.hold(found[0], tmp_path, "other") as held, StopRequest() as stop:
        assert held
        work.pull(found, tmp_path, "w", stop, may_exit=False)
    assert instant.began == ["b"]


ANALYSES = {"calibration": {"num_bins": 5}}


def test_analyses_follow_the_run_and_are_done_once(instant, tmp_path, monkeypatch):
    """Other options are other analyses: the job is not finished then."""
    monkeypatch.setattr(run.trained, "is_finished", lambda path: path.name == "a")
    (job,) = _jobs("a")
    job = Job("a", job.config, ANALYSES)
    assert _statuses(run.check([job], tmp_path)) == {"a": "unfinished"}
    run.run([job], tmp_path)
    assert instant.began == ["a", "a: calibration"]
    assert instant.options == [ANALYSES]
    run.run([job], tmp_path)
    assert _statuses(run.check([job], tmp_path)) == {"a": "finished"}
    assert len(instant.began) == 2
    other = Job("a", job.config, {"calibration": {"num_bins": 6}})
    assert _statuses(run.check([other], tmp_path)) == {"a": "unfinished"}
    fewer = Job("a", job.config, ANALYSES, ("online",))
    run.run([fewer], tmp_path)
    assert instant.began[-1] == "a: calibration of online"


def test_a_signal_in_the_analyses_stops_there(instant, tmp_path, monkeypatch):
    """They may take hours, and would not look at a flag."""

    def interrupted(path, analyses, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(work.analyze, "analyze", interrupted)
    (job,) = _jobs("a")
    with pytest.raises(Interrupted, match="by SIGTERM in the analyses of cell a"):
        run.run([Job("a", job.config, ANALYSES)], tmp_path)
    assert marks.look(tmp_path, "a").status == "unfinished"


def test_a_check_writes_nothing(tmp_path):
    """It is asked before anybody has decided to train."""
    root = tmp_path / "root"
    assert _statuses(run.check(_jobs("a"), root)) == {"a": "unfinished"}
    assert not root.exists()


MISTAKES = {
    "name": ([Job("a b", _config())], {}, "cell 'a b': the name"),
    "twice": (_jobs("a") * 2, {}, "cell a: 2 cells have this name"),
    "data": (
        [Job("a", _config(data__name="cifar100", data__dir="nowhere"))],
        {},
        "cell a: ",
    ),
    "analysis": (
        [Job("a", _config(), {"calibratoin": {}})],
        {},
        "cell a: --analyses='calibratoin' is unknown",
    ),
    "option": (
        [Job("a", _config(), {"calibration": {"num_bins": -1}})],
        {},
        "cell a: --options.calibration.num_bins=-1 is too small",
    ),
    "engine": (_jobs("a"), {"engine": "slrum"}, "did you mean 'slurm'?"),
    "workers": (_jobs("a"), {"workers": 0}, "--workers=0 is too small"),
    "local": (_jobs("a"), {"options": {"x": 1}}, "'local' has no option 'x'"),
    "ray": (
        _jobs("a"),
        {"engine": "ray", "options": {"num_gpu": 1}},
        "did you mean 'num_gpus'?",
    ),
    "ray's value": (
        _jobs("a"),
        {"engine": "ray", "options": {"num_gpus": "two"}},
        "num_gpus='two'; give a number",
    ),
    "cluster": (
        _jobs("a"),
        {"engine": "slurm", "options": {"cluster": "moon"}},
        "cluster='moon' is unknown",
    ),
    "submitit's": (
        _jobs("a"),
        {"engine": "slurm", "options": {"cluster": "local", "gpu_per_node": 1}},
        "gpu_per_node",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_written(mistake, instant, tmp_path):
    jobs, options, words = MISTAKES[mistake]
    with pytest.raises(SpacedKDError) as error:
        run.run(jobs, tmp_path / "root", **options)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "root").exists() and not instant.began


@pytest.mark.parametrize(("engine", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_extra_is_named(engine, module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"pip install 'spaced_kd\[{engine}\]'"):
        run.run(_jobs("a"), tmp_path, engine=engine)


def test_no_slurm_here_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="engine 'slurm': .*srun"):
        run.run(_jobs("a"), tmp_path, engine="slurm")


def test_options_on_the_command_line():
    """Numbers as numbers; everything else as text."""
    text = "partition=gpu, timeout_min=240,num_gpus=0.5"
    expected = {"partition": "gpu", "timeout_min": 240, "num_gpus": 0.5}
    assert engines.parse_options(text) == expected
    assert engines.parse_options("") == {}
    with pytest.raises(ConfigError, match="'gpu' is not NAME=VALUE"):
        engines.parse_options("gpu")


def test_every_worker_gets_its_share_of_the_machine():
    """By hand: no GPU, 5 GPUs for 2 workers, 2 GPUs for 3 workers."""
    assert local.shares(2, []) == [{}, {}]
    dealt = local.shares(2, list("01234"))
    assert dealt == [
        {"CUDA_VISIBLE_DEVICES": "0,2,4"},
        {"CUDA_VISIBLE_DEVICES": "1,3"},
    ]
    shared = local.shares(3, ["5", "GPU-x"])
    assert [s["CUDA_VISIBLE_DEVICES"] for s in shared] == ["5", "GPU-x", "5"]
    fractions = [s["XLA_PYTHON_CLIENT_MEM_FRACTION"] for s in shared]
    assert fractions == ["0.450", "0.900", "0.450"]


def test_a_worker_notices_that_it_is_alone(monkeypatch):
    """Whoever started it is gone: nobody would ever stop it."""
    read, write = os.pipe()
    assert not worker.is_alone(read)
    os.close(write)
    assert worker.is_alone(read)
    os.close(read)


def test_a_slurm_job_whose_time_is_up_saves_and_is_queued_again(monkeypatch, tmp_path):
    """The worker is asked by the end of its input, and waited for."""
    ended = tmp_path / "ended"
    child = f"import sys; sys.stdin.read(); open({str(ended)!r}, 'w')"

    def launch(root, name):
        return subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)

    monkeypatch.setattr(engines.slurm, "launch", launch)
    attend = engines.slurm.Attend(tmp_path, "worker-0")
    again = []

    def time_is_up(*_):
        again.append((attend.checkpoint().function, ended.exists()))

    old = signal.signal(signal.SIGUSR2, time_is_up)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR2)).start()
        assert attend() == 0
    finally:
        signal.signal(signal.SIGUSR2, old)
    ((function, had_ended),) = again
    assert isinstance(function, engines.slurm.Attend) and had_ended
