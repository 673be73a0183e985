"""The arithmetic of the benchmarks, what they build, and that they run."""

import dataclasses
import io
import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from spaced_kd.bench import __main__ as entry
from spaced_kd.bench import arrangement, cases, gpu, quiet, ratios, worker
from spaced_kd.bench.arrangement import SPACED, Arrangement, Settings, build
from spaced_kd.models import make_model
from spaced_kd.schedule import Lockstep, Replay

TINY = Settings(model="mlp", batch_size=4, steps=2, rounds=1)


def test_ratios_are_paired_by_round():
    """Medians of either side alone would give 2 / 3 here."""
    row = ratios.compare("a", "x", [2.0, 8.0, 1.0], [1.0, 4.0, 3.0], limit=1.5)
    assert (row.value, row.low, row.high) == (2.0, 1 / 3, 2.0)
    assert row.verdict == "over"


def test_a_value_at_its_limit_is_ok_and_without_one_nothing_is_said():
    assert ratios.Row("f", "bytes", 16.0, limit=16.0).verdict == "ok"
    assert ratios.Row("j", "seeds", 3.0).verdict == ""
    assert ratios.Row("k", "gpu", limit=1.0, note="no GPU").verdict == ""


@pytest.mark.parametrize(
    ("students", "expected"), [(1, 1.0), (2, 11 / 14), (3, 15 / 21), (4, 19 / 28)]
)
def test_sharing_a_teacher_saves_its_passes(students, expected):
    """K pairs are 7K passes; one teacher (3) and K replaying students (4 each)."""
    assert ratios.students_limit(students) == pytest.approx(expected)


def test_variants_take_turns_and_each_leads_once():
    """One that always followed the same other would inherit its cache and clock."""
    calls = []

    def variant(name):
        return lambda: calls.append(name) or float(len(calls))

    times = ratios.interleave({name: variant(name) for name in "abc"}, 3)
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"
    assert times == {
        "a": [4.0, 9.0, 11.0],
        "b": [5.0, 7.0, 12.0],
        "c": [6.0, 8.0, 10.0],
    }


def test_the_roofline_is_the_slower_of_arithmetic_and_memory():
    assert ratios.roofline(100.0, 10.0, 50.0, 2.0) == 5.0
    assert ratios.roofline(100.0, 10.0, 10.0, 2.0) == 10.0


def test_busy_is_what_is_not_idle():
    assert quiet.busy_share((100, 1000), (175, 1100)) == pytest.approx(0.25)
    assert quiet.busy_share((5, 5), (5, 5)) == 0.0


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--only=a,z", "--only='z' is unknown"),
        ("--model=resnet21", "--model='resnet21' is unknown"),
        ("--rounds=0", "rounds"),
        ("--batch_size=1", "--batch_size=1 is too small"),
        ("--batch_sizes=8", "batch_sizes"),
        ("now", "unexpected argument 'now'"),
    ],
)
def test_a_mistake_gives_one_line(argument, words, capsys):
    assert entry.main(["bench", argument]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_help_names_every_case(capsys):
    assert entry.main(["bench", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"{c} {title}" in said for c, (title, _) in cases.CASES.items())


def test_a_measurement_is_one_epoch_of_teacher_and_replay():
    measure = Arrangement(build(TINY, {"spaced": SPACED}, **cases.PLAIN))
    assert measure() > 0 and measure() > 0
    _, ((student,), _, _, _, slots) = measure.call(Replay)
    assert int(student.step) == 4
    assert slots[0]["stream"].index.shape == (2, 4)
    _, ((teacher,), *_) = measure.call(Lockstep)
    assert list(teacher) == ["teacher"] and int(teacher["teacher"].step) == 4


def test_a_replay_remembers_a_few_bytes_an_example_whatever_its_size():
    """Counted by hand: an index, a share of the step's number and of 8 keys."""
    settings = Settings(model="mlp", batch_size=32, steps=4, rounds=1)
    found = [
        arrangement.replay_bytes(dataclasses.replace(settings, image_size=size))
        for size in (32, 64)
    ]
    assert found[0] == found[1] == 4 + 4 / 32 + 8 * 8 / (4 * 32)
    assert found[0] <= cases.REPLAY_BYTES_LIMIT


def test_a_run_leaves_all_figures(tmp_path, capsys):
    out = tmp_path / "bench.json"
    only = "--only=e,h,k"
    sizes = ["--model=mlp", "--batch_size=4", "--steps=2", "--rounds=2"]
    assert entry.main(["bench", only, *sizes, f"--out={out}"]) == 0
    text = capsys.readouterr().out
    assert "augmentation / a training step" in text
    assert "not measured: no GPU" in text
    found = json.loads(out.read_text())
    assert found["settings"]["model"] == "mlp"
    assert found["command"][1] == only
    times = found["seconds"]["h"]
    row = found["rows"][1]
    ratios = np.divide(times["augmentation"], times["train"])
    assert row["value"] == pytest.approx(np.median(ratios))
    assert [row["low"], row["high"]] == sorted(ratios)
    assert found["versions"]["jax"] == jax.__version__


def test_self_kd_is_timed_against_its_controls():
    """Spaced and interleaved make as many updates a batch; plain half of them."""
    rows, times = cases.Bench(TINY).run("l")
    assert set(times) == {"spaced", "interleaved", "plain"}
    assert [row.limit for row in rows] == [1.05, 2.0]
    assert all(row.value and row.value > 0 for row in rows)
    assert "small_cnn_branches" in rows[0].name


def test_a_case_whose_process_fails_leaves_the_others(monkeypatch):
    def fails(bench):
        raise worker.Unavailable("no room")

    monkeypatch.setitem(cases.CASES, "g", ("start-up", fails))
    (row,), times = cases.Bench(TINY).run("g")
    assert (row.note, row.verdict, times) == ("not available: no room", "", {})


def test_pmap_on_one_device_runs():
    parts = build(TINY, {"spaced": SPACED}, **cases.PLAIN)
    measure = arrangement.pmapped(parts)
    assert measure() > 0 and measure() > 0


def test_pmap_and_jit_are_timed_on_the_same_batches():
    """Fetching the next ones would be counted for one of the two alone."""
    parts = build(TINY, {"spaced": SPACED}, **cases.PLAIN)
    made = [arrangement.jitted(parts), arrangement.pmapped(parts)]
    for chunk in made:
        assert chunk() > 0
    jit, pmap = (jax.tree.leaves(chunk._carry) for chunk in made)
    for one, other in zip(jit, pmap, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


class _Spoken:
    """A child process that only notes with which variables it was started."""

    seen: dict[str, str] = {}

    def __init__(self, command, env, **pipes):
        _Spoken.seen = dict(env)
        self.stdin, self.stdout = io.StringIO(), io.StringIO("::ready 1.0\n")

    def send_signal(self, number):
        pass

    kill = communicate = lambda self: None


@pytest.mark.parametrize("given", [None, "true"])
def test_workers_find_room_on_a_gpu(given, monkeypatch):
    """A process that takes most of its memory at once leaves none for the next."""
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    # Set first, so that what `main` sets is taken back.
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name) if given is None else monkeypatch.setenv(name, given)
    assert entry.main(["bench", "--help"]) == 0
    monkeypatch.setattr(worker.subprocess, "Popen", _Spoken)
    worker.Worker("jax", TINY, {}).end()
    assert _Spoken.seen[name] == (given or "false")


def test_a_cold_start_finds_no_compiled_programs(monkeypatch):
    """Those of a user's own cache would make it a warm one."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/full/of/programs")
    monkeypatch.setattr(worker.subprocess, "Popen", _Spoken)
    (row,), _ = cases.Bench(TINY).run("g")
    assert row.value == 1.0
    assert "JAX_COMPILATION_CACHE_DIR" not in _Spoken.seen
    assert "XDG_CACHE_HOME" in _Spoken.seen


def test_a_worker_that_has_ended_is_unavailable(monkeypatch):
    """Its pipe breaks, which must not end the whole measurement."""
    ended = [
        sys.executable,
        "-c",
        "import sys; print('::ready 1'); sys.exit('no room')",
    ]
    real = subprocess.Popen
    started = lambda command, **more: real(ended, **more)
    monkeypatch.setattr(worker.subprocess, "Popen", started)
    made = worker.Worker("jax", TINY, {})
    with worker.ending({"jax": made}):
        made._child.send_signal(signal.SIGCONT)
        made._child.wait()
        with pytest.raises(worker.Unavailable, match="no room"):
            made()


def test_a_layout_that_fails_leaves_the_rows_of_the_others(monkeypatch):
    class Pretended:
        def __init__(self, kind, settings, env, **more):
            self._kind = kind

        def __call__(self):
            if self._kind == "eager channels_last":
                raise worker.Unavailable("no room")
            return 1.5 if self._kind == "jax" else 1.0

        def end(self):
            pass

    monkeypatch.setattr(cases, "Worker", Pretended)
    monkeypatch.setattr(cases.importlib.util, "find_spec", lambda name: True)
    first, second, third = cases.Bench(TINY).run("i")[0]
    # The release must not be slower than the same step in PyTorch as it comes.
    assert (first.value, first.limit, first.verdict) == (1.5, 1.0, "over")
    assert second.note == "not available: no room" and second.value is None
    assert (third.value, third.limit) == (1.5, None)


def test_devices_that_fail_leave_the_row_of_pmap(monkeypatch):
    def fails(*arguments, **more):
        raise worker.Unavailable("no room")

    monkeypatch.setattr(cases, "Worker", fails)
    pmap, devices = cases.Bench(TINY).run("d")[0]
    assert pmap.value is not None
    assert devices.note == "not available: no room"


def test_the_least_time_of_a_step_is_known_for_known_devices_only():
    assert gpu.least_seconds(TINY, "cpu") is None
    # Forward and backward of 4 images through 3072x128, 128x128 and 128x100 are about
    # 10 MFLOP, 0.01 us; reading and writing 0.4 M parameters is 1 us or more.
    least = gpu.least_seconds(TINY, "NVIDIA H200")
    assert least is not None
    assert 5e-7 < least < 1e-5


@pytest.mark.slow
def test_workers_rest_while_another_is_measured():
    """Their threads would take time from it."""
    if not pathlib.Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    made: dict[str, worker.Worker] = {}
    with worker.ending(made):
        made["jax"] = worker.Worker("jax", TINY, {"JAX_NUM_CPU_DEVICES": "1"})
        process = made["jax"]._child
        assert made["jax"].startup_seconds > 0
        assert made["jax"]() > 0
        assert _becomes_stopped(process.pid)
    assert process.poll() is not None


def _becomes_stopped(pid):
    for _ in range(100):
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0]
        if state == "T":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_a_worker_that_cannot_start_says_why():
    settings = Settings(model="resnet21", batch_size=4, steps=1, rounds=1)
    with pytest.raises(worker.Unavailable, match="'resnet21' is unknown"):
        worker.Worker("jax", settings, {})


def test_the_networks_in_pytorch_have_as_many_parameters():
    """Another network's time would say nothing."""
    pytest.importorskip("torch")
    from spaced_kd.bench import torch_step

    for name, shape in torch_step.NETWORKS.items():
        model = make_model(name, arrangement.NUM_CLASSES)
        image = np.zeros((1, 32, 32, 3), np.float32)
        variables = jax.eval_shape(
            lambda key, model=model, image=image: model.init(key, image, train=False),
            jax.random.key(0),
        )
        ours = sum(x.size for x in jax.tree.leaves(variables["params"]))
        theirs = sum(p.numel() for p in torch_step.network(*shape).parameters())
        assert theirs == ours, name
