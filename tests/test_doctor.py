"""The doctor: its verdicts and exit codes, and the arithmetic of its estimates."""

import collections
import pathlib
import re
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest
import tiny

from spaced_kd import data, doctor, experiment, footprint, ledger, probe, workdir
from spaced_kd.config import student
from spaced_kd.models import MODELS
from spaced_kd.models.base import Model, join_exits
from spaced_kd.schedule import Evaluate, Lockstep, Member, Replay

CONFIG = """
from spaced_kd.config import base_config, student

def get_config():
    config = base_config()
    config.num_epochs, config.num_seeds, config.num_devices = 2, 1, 1
    config.chunk_steps, config.data.batch_size = 4, 64
    config.data.name = "fake"
    config.data.crop_padding, config.data.rotation_degrees = 0, 0.0
    config.data.horizontal_flip = False
    config.teacher.model = config.student.model = "mlp"
    config.students = {"spaced": student(plan="spaced", space_interval_epochs=0.75)}
    return config
"""


@pytest.fixture
def run(capsys, tmp_path):
    """Return run(*arguments) -> (exit code, standard output, standard error)."""
    path = tmp_path / "config.py"
    path.write_text(CONFIG)

    def run(*extra, probe_steps=0):
        arguments = [f"--config={path}", f"--probe_steps={probe_steps}", *extra]
        code = doctor.main(["doctor", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


SELF_KD = """
from spaced_kd.config import base_config, student

def get_config():
    config = base_config()
    config.num_epochs, config.num_seeds, config.num_devices = 2, 1, 1
    config.chunk_steps, config.data.batch_size = 8, 64
    config.data.name = "fake"
    config.data.crop_padding, config.data.rotation_degrees = 0, 0.0
    config.data.horizontal_flip = False
    config.teacher.model = "none"
    config.student.model, config.student.method = "two_exits", "self_kd"
    config.students.spaced = student(plan="spaced", space_interval_epochs=1.0)
    return config
"""


class TwoExits(Model):
    """A hidden layer with two linear heads, which compiles fast."""

    @nn.compact
    def __call__(self, image, *, train, mask=None):
        hidden = nn.relu(nn.Dense(8, name="hidden")(image.reshape(len(image), -1)))
        heads = (nn.Dense(self.num_classes, name=n) for n in ("head", "branch1_head"))
        return join_exits([(head(hidden), hidden) for head in heads])


def test_a_run_without_a_teacher_is_told_as_it_is(run, tmp_path, monkeypatch):
    """Breaks if the doctor needs a teacher, names one, or miscounts own updates."""
    monkeypatch.setitem(MODELS, "two_exits", TwoExits)
    (tmp_path / "config.py").write_text(SELF_KD)
    code, out, _ = run(probe_steps=1)
    assert code == 0, out
    text = " ".join(out.split())
    assert "no teacher; 2 epochs of 8 steps, 1 seed" in text
    assert "teacher none" not in text and "+ teacher" not in text
    assert "spaced (self_kd, spaced): 32 updates, interval 1 epochs = 8 steps" in text
    # 32 updates on 64 images; each is a pass forward and one backward, and each of four
    # evaluations takes the 256 images in four batches.
    assert f"{32 * 3 + 4 * 4} forward passes over a batch" in text
    assert f"{32 * 64:,} images learned" in text
    assert "speed lockstep spaced (hard): " in text
    assert "speed replay spaced: " in text


STAGES = (
    CONFIG
    + """
    config.data.num_train_examples = 256
    config.students = {"s": student(plan="online")}
    parent = config.copy_and_resolve_references()
    parent.teacher.model, parent.students = "none", {"gen0": student(plan="none")}
    config.teacher.stage, config.stages = "gen0/gen0", {"gen0": parent}
    return config
"""
)


def test_stages_that_are_missing_are_estimated_too(run, tmp_path, monkeypatch):
    """Their hours come before the run's, and their memory may be what is lacking."""
    text = STAGES.replace("    return config\n", "", 1)
    (tmp_path / "config.py").write_text(text)
    folder = tmp_path / "work"
    code, out, _ = run(f"--workdir={folder}", probe_steps=1)
    assert code == 0, out
    words = " ".join(out.split())
    own, stage = words.split("stage gen0: to be trained before, in ", 1)
    assert f"{folder}/stages/gen0-" in "".join(stage.split())
    assert "speed lockstep s: " in own and "speed evaluation teacher: " in own
    assert "speed lockstep gen0: " in stage and stage.count(" time about ") == 1
    assert not folder.exists()
    monkeypatch.setattr(doctor.trained, "is_finished", lambda path: "gen0" in str(path))
    words = " ".join(run(f"--workdir={folder}")[1].split())
    assert "stage gen0: trained already, in " in words


def test_a_kind_of_tick_names_the_updates_that_are_not_the_methods_alone():
    """Breaks if the time of two updates a batch passes for that of one."""
    members = (Member("a"), Member("b", updates=("hard", "method")))
    tick = Lockstep(0, 4, members, teacher=False)
    assert probe.kind_of(tick).who == "a + b (hard, method)"
    assert probe.kind_of(tick._replace(teacher=True)).who.startswith("teacher + a + ")


def _parts(students=None, **fields):
    config = tiny.config(students, **fields)
    return experiment.build(config, data.load(config.data))


def test_a_good_config_can_start_and_nothing_is_written(run, tmp_path):
    code, out, _ = run(f"--workdir={tmp_path / 'not' / 'there'}", probe_steps=7)
    assert code == 0, out
    lines = out.splitlines()
    assert len(lines) <= 40
    assert lines[-1] == "verdict    the run can start"
    assert not (tmp_path / "not").exists()
    assert "512 training and 256 test images of 8x8x3, 10 classes" in out
    # Usual chunks are 4 of an interval's 6 steps, so 7 steps take two.
    assert re.search(r"speed      replay spaced: [\d.]+ m?s a step \(8 timed\)", out)
    assert any(line.startswith("time       about ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--config.num_epoch=3"], 2, "num_epoch"),
        (["--config.student.temperature=-1"], 2, "temperature=-1"),
        (["--probe_steps=-1"], 2, "probe_steps"),
        (["--config.data.name=cifar100", "--config.data.dir=no/where"], 3, "no/where"),
    ],
)
def test_a_mistake_gives_its_code_and_says_which(
    arguments, code, words, run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    got, out, err = run(*arguments)
    assert got == code
    assert words in _unwrapped(out) + err


def test_a_full_disk_is_a_storage_problem(run, tmp_path, monkeypatch):
    """The run would otherwise learn of it at its first checkpoint."""
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1000))
    code, out, _ = run(f"--workdir={tmp_path}")
    assert code == 7
    assert "but 1 kB are free" in _unwrapped(out)
    assert out.splitlines()[-1].endswith("cannot start (exit code 7)")


def test_a_device_that_is_too_small_is_not_touched(run, monkeypatch):
    """Bringing the data there would end in the device's own error."""

    def refuse(parts):
        raise AssertionError("data were brought to the device")

    monkeypatch.setattr(footprint, "memory_limit", lambda device: 5000)
    monkeypatch.setattr(doctor, "Probe", refuse)
    code, out, _ = run(probe_steps=4)
    assert code == 9
    assert "at least" in _unwrapped(out) and "which has 5 kB" in _unwrapped(out)


def test_programs_that_need_too_much_are_not_run(run, monkeypatch):
    """Data and state of this run fit into 10 MB, activations would not."""
    monkeypatch.setattr(footprint, "memory_limit", lambda device: 10**7)
    monkeypatch.setattr(probe.Probe, "work_bytes", 10**8)
    code, out, _ = run(probe_steps=4)
    assert code == 9
    assert "which has 10 MB" in _unwrapped(out) and "speed" not in out


@pytest.mark.parametrize("place", ["_compile", "measure"])
def test_a_device_whose_memory_runs_out_is_one_line(place, run, monkeypatch):
    """What the compiler counts is less than what a device must hold."""

    def fail(self, *args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nby 3 GiB")

    monkeypatch.setattr(probe.Probe, place, fail)
    code, out, err = run(probe_steps=4)
    assert code == 9 and err == ""
    assert "(RESOURCE_EXHAUSTED: Out of memory by 3 GiB)" in _unwrapped(out)


def test_other_errors_of_jax_are_not_taken_for_a_full_device(run, monkeypatch):
    def fail(self, *args):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(probe.Probe, "measure", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        run(probe_steps=4)


def test_a_folder_in_use_is_refused_and_left_alone(run, tmp_path):
    """A check that took the lock would end the run that starts meanwhile."""
    folder = tmp_path / "run"
    with workdir.lock(folder):
        before = (folder / ".lock").read_bytes()
        code, out, _ = run(f"--workdir={folder}")
        assert code == 5
        assert "is in use by process" in _unwrapped(out)
        assert [p.name for p in folder.iterdir()] == [".lock"]
        assert (folder / ".lock").read_bytes() == before
    assert run(f"--workdir={folder}")[0] == 0


def test_what_a_workdir_holds_need_not_be_free_again(tmp_path):
    """A run that fills a disk could never be continued."""
    whole = footprint.Disk(checkpoints=4 * 1200, best=500, snapshots=0)
    assert footprint.disk_growth(whole, 3, tmp_path / "new") == whole
    for name, size in (("checkpoints/1/a", 2000), ("checkpoints/2/b", 1000)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert footprint.disk_growth(whole, 3, tmp_path) == (1800, 500, 0)
    (tmp_path / "checkpoints/3").write_bytes(bytes(1500))
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "c").write_bytes(bytes(900))
    # One checkpoint is always written before another is deleted.
    assert footprint.disk_growth(whole, 3, tmp_path) == (1200, 0, 0)


def test_the_folder_of_another_run_is_refused(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    workdir.claim(folder, tiny.config(), "other data")
    before = (folder / "config.json").read_bytes()
    assert run(f"--workdir={folder}")[0] == 4
    assert [p.name for p in folder.iterdir()] == ["config.json"]
    assert (folder / "config.json").read_bytes() == before


def test_the_estimate_weighs_every_tick_by_its_ledger_cost():
    """By hand: online 6 F a step, replay 4 F, evaluation its share of a batch."""
    parts = _parts(
        {
            "online": student(plan="online"),
            "spaced": student(plan="spaced", space_interval_epochs=1.0),
        }
    )
    # 100 examples in batches of 16: 7 steps an epoch; 40 test examples: 2.5 F.
    rates = {
        probe.Kind("lockstep", "teacher + online"): 0.5,
        probe.Kind("replay", "spaced"): 2.0,
        probe.Kind("evaluation", "teacher"): 1.0,
        probe.Kind("evaluation", "online"): 2.0,
        probe.Kind("evaluation", "spaced"): 4.0,
    }
    seconds = probe.estimate(parts.ticks, ledger.tick_costs(parts), rates)
    assert seconds == {
        "lockstep": 21 * 6 * 0.5,
        "replay": 21 * 4 * 2.0,
        "evaluation": 3 * 2.5 * (1.0 + 2.0 + 4.0),
    }


def test_kinds_are_what_compiles_to_one_program():
    members = (Member("online"), Member("ahead", lag=3))
    assert probe.kind_of(Lockstep(2, 5, members)) == (
        "lockstep",
        "teacher + online + ahead 3 behind",
    )
    assert probe.kind_of(Replay("a", 0, 2, 9)) == probe.kind_of(Replay("a", 4, 5, 12))
    assert probe.kind_of(Evaluate("a")) != probe.kind_of(Evaluate("b"))


@pytest.mark.parametrize(
    ("step_seconds", "expected"),
    [
        (0.01, (8, 3)),  # 20 steps are 3 calls of 8; 4 calls take 0.32 s
        (0.5, (8, 1)),  # one call to warm up and one more take 8 s of 10
        (1.0, (1, 9)),  # two calls of 8 do not fit, ten single steps do
        (6.0, (1, 0)),  # not even two steps
    ],
)
def test_measuring_stays_within_its_share_of_time(step_seconds, expected):
    assert probe.calls_within(step_seconds, 8, 20, 10.0) == expected


def test_speeds_follow_from_the_clock():
    """Every look at the clock is a second later: a measurement takes one second."""
    parts = _parts()
    ticking = iter(range(10**6))
    speeds = probe.Probe(parts, clock=lambda: float(next(ticking))).measure(6, 1e5)
    online = speeds[probe.Kind("lockstep", "teacher + online")]
    # Usual chunks are 3 steps long, as long as an interval; 6 F a step.
    assert online.steps == 6
    assert online.seconds == pytest.approx(1 / 6)
    assert online.rate == pytest.approx(1 / 36)
    replay = speeds[probe.Kind("replay", "spaced")]
    assert replay.rate == pytest.approx(1 / 6 / 4)
    assert speeds[probe.Kind("evaluation", "online")].rate == pytest.approx(1 / 2.5)


def test_without_time_the_first_kind_stands_for_all_others():
    parts = _parts()
    ticking = iter(range(10**6))
    clock = lambda: float(next(ticking))
    first, *others = probe.Probe(parts, clock).measure(20, 0.0).values()
    assert (first.seconds, first.steps) == (1.0, 1)
    assert {speed.steps for speed in others} == {0}
    assert {speed.rate for speed in others} == {first.rate}


def test_repetitions_one_after_another_take_their_sum():
    ticking = iter(range(10**6))
    clock = lambda: float(next(ticking))
    speeds = probe.Probe(_parts(num_seeds=3), clock).measure(3, 1e5)
    online = speeds[probe.Kind("lockstep", "teacher + online")]
    # One second for one repetition's 3 steps; the ledger counts all three: 18 F a step.
    assert online.seconds == pytest.approx(1.0)
    assert online.rate == pytest.approx(1 / 18)


def test_disk_and_memory_are_the_real_bytes_of_the_state():
    parts = _parts(num_seeds=2, checkpoint__keep=3)
    template = experiment.state_template(parts)
    states = [jax.tree.map(np.asarray, s) for s in experiment.init_states(parts)]
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(states))
    best = sum(
        leaf.nbytes
        for state in states
        for net in state.values()
        for leaf in jax.tree.leaves((net.params["net"], net.batch_stats))
    )
    disk = footprint.disk(parts, template)
    assert disk.checkpoints == pytest.approx(4 * 1.2 * whole, abs=1)
    assert disk.best == best
    memory = footprint.memory(parts, template, work_bytes=20)
    assert memory == (140 * 8 * 8 * 3 + 100 * 4, whole, best, 20)


def test_seeds_on_devices_of_their_own_share_no_memory():
    layout = {"num_seeds": 3, "num_devices": 2, "seed_layout": "devices"}
    parts = _parts(**layout)
    template = experiment.state_template(parts)
    one = footprint.num_bytes(template[:1])
    # Two of the three seeds lie on the first device.
    assert footprint.memory(parts, template, 0).state == 2 * one


class _PretendedProbe:
    """Knows everything at once."""

    compile_seconds, work_bytes = 1.0, 20

    def __init__(self, parts):
        self._kinds = sorted({probe.kind_of(tick) for tick in parts.ticks})

    def close(self):
        pass

    def measure(self, steps):
        return {kind: probe.Speed(0.5, steps, 0.125) for kind in self._kinds}


def test_many_students_still_fit_a_screen(capsys, monkeypatch):
    students = {f"s{k}": student(plan="spaced") for k in range(12)}
    monkeypatch.setattr(doctor, "Probe", _PretendedProbe)
    checkup = doctor.Checkup()
    checkup.run(tiny.config_dict(students), pathlib.Path(), 20)
    assert checkup.verdict() == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 40
    assert "and 4 more students" in text
    assert "replay, 12 kinds: 500 ms to 500 ms a step (12 kinds timed)" in text


def _unwrapped(text):
    return text.replace("\n          ", "")
