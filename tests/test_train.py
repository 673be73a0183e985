"""The loop: exact resume from every tick, nothing forgotten, logs without gaps."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
import shutil
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

import spaced_kd
from spaced_kd import config as config_lib
from spaced_kd import data, experiment, ledger, main, report, results, train
from spaced_kd.checkpoint import CheckpointLine
from spaced_kd.config import student
from spaced_kd.engine import Engine
from spaced_kd.errors import CheckpointError, ConfigError, NonFiniteError
from spaced_kd.interrupt import StopRequest
from spaced_kd.methods import METHODS
from spaced_kd.models import MODELS as NETWORKS
from spaced_kd.recorder import Offsets, Recorder
from spaced_kd.schedule import Evaluate, Lockstep, Member, Replay
from spaced_kd.writers import read_rows

STUDENTS = {
    "online": student(plan="online"),
    "spaced": student(plan="spaced", space_interval_epochs=1.5, remainder="flush"),
}
SELF_TAUGHT = {
    "plain": student(plan="online", epochs_factor=1.5),
    "twice": student(plan="interleaved"),
    "spaced": student(plan="spaced", space_interval_epochs=0.5),
}
FIXED = list(config_lib.WITH_TRAINED_TEACHER)
TAUGHT = [name for name in METHODS if name not in (*config_lib.WITHOUT_TEACHER, *FIXED)]
ALONE = [
    name
    for name in config_lib.WITHOUT_TEACHER
    if name not in ("hard", *config_lib.WITH_BRANCHES)
]
NEEDS = {"dho": {"arch": {"second_head": True}}}
EVERY_METHOD = {
    f"{method}_{plan}": student(
        plan=plan, method=method, space_interval_epochs=1.0, **NEEDS.get(method, {})
    )
    for method in TAUGHT
    for plan in ("online", "spaced")
} | {
    "shuffled_online": student(plan="online", shuffle_teacher=True),
    "shuffled_spaced": student(
        plan="spaced", shuffle_teacher=True, space_interval_epochs=1.0
    ),
}
EVERY_METHOD_ALONE = {
    f"{method}_{plan}": student(plan=plan, method=method, space_interval_epochs=1.0)
    for method in ALONE
    for plan in ("online", "spaced")
}
EVERY_METHOD_FIXED = {
    f"{method}_{plan}": student(plan=plan, method=method, space_interval_epochs=1.0)
    for method in FIXED
    for plan in ("online", "spaced")
}
CONTROLS = {
    "sam": student(plan="online"),
    "lagged": student(plan="lagged", space_interval_epochs=0.45),
    "averaged": student(
        plan="spaced", space_interval_epochs=1.0, teacher_weights="ema"
    ),
}
MODELS = {"teacher__model": "tiny_cnn", "student__model": "tiny_cnn"}
# Epochs of two chunks, the last batch padded: a rest of single steps would be a second
# program of every method.
WHOLE_CHUNKS = {"data__num_train_examples": 116}


def _manifest(checkpoint: pathlib.Path) -> dict:
    return json.loads((checkpoint / "manifest.json").read_text())["body"]


def _digests(checkpoint: pathlib.Path) -> dict[str, str]:
    leaves = _manifest(checkpoint)["leaves"]
    return {name: leaf["sha256"] for name, leaf in leaves.items()}


@contextlib.contextmanager
def _whole_run(path, students, num_epochs=2, **fields):
    """An uninterrupted run that kept a checkpoint of every tick."""
    with pytest.MonkeyPatch.context() as patch:
        for name, network in tiny.NETWORKS.items():
            patch.setitem(NETWORKS, name, network)
        fields = {"num_epochs": num_epochs, "checkpoint__keep": 1000} | fields
        config = tiny.config(students, **fields)
        found = spaced_kd.run(config, path)
        parts = experiment.build(config, data.load(config.data))
        yield SimpleNamespace(
            path=path, config=config, parts=parts, engine=Engine(parts), results=found
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    with _whole_run(path, STUDENTS, num_seeds=2, **MODELS) as run:
        yield run


@pytest.fixture(scope="module")
def self_taught(tmp_path_factory):
    """Arms of self KD, without a teacher; the longest outlives the others."""
    path = tmp_path_factory.mktemp("self_taught")
    with _whole_run(path, SELF_TAUGHT, **tiny.SELF_KD) as run:
        yield run


@pytest.fixture(scope="module")
def every_method(tmp_path_factory):
    """Each method with a teacher, plain and spaced, on smoothed labels."""
    path = tmp_path_factory.mktemp("every_method")
    fields = {"student__label_smoothing": 0.1, "student__temperature": 1.0}
    fields |= WHOLE_CHUNKS
    narrow = {"teacher__model": "narrow_mlp", "student__model": "narrow_mlp"}
    with _whole_run(path, EVERY_METHOD, 1, **fields, **narrow) as run:
        yield run


@pytest.fixture(scope="module")
def every_method_alone(tmp_path_factory):
    """Each method that needs no teacher, plain and spaced."""
    path = tmp_path_factory.mktemp("every_method_alone")
    narrow = {"teacher__model": "none", "student__model": "narrow_mlp"}
    with _whole_run(path, EVERY_METHOD_ALONE, 1, **narrow | WHOLE_CHUNKS) as run:
        yield run


@pytest.fixture(scope="module")
def every_method_fixed(tmp_path_factory):
    """Each method whose teacher was trained before, plain and spaced."""
    path = tmp_path_factory.mktemp("every_method_fixed")
    narrow = {"teacher__model": "none", "student__model": "narrow_mlp"}
    stage = tiny.config_dict({"first": student(plan="none")}, num_epochs=1, **narrow)
    fields = {"teacher__stage": "before/first", "student__model": "narrow_mlp"}
    fields |= {"stages": {"before": stage}} | WHOLE_CHUNKS
    with _whole_run(path, EVERY_METHOD_FIXED, 1, **fields) as run:
        yield run


@pytest.fixture(scope="module")
def teacher_with_memory(tmp_path_factory):
    """A teacher that remembers its last batch, and a student that follows it."""
    path = tmp_path_factory.mktemp("teacher_with_memory")
    narrow = {"teacher__model": "narrow_mlp", "student__model": "narrow_mlp"}
    students = {"s": student(plan="online")}
    with _whole_run(path, students, 1, teacher__method="dlb", **narrow) as run:
        yield run


@pytest.fixture(scope="module")
def controls(tmp_path_factory):
    """States that hold more than a network and its optimiser, in two ticks a kind."""
    path = tmp_path_factory.mktemp("controls")
    fields = {"teacher__ema_decay": 0.9, "students__sam__optim__sam_rho": 0.1}
    fields["data__num_train_examples"] = 128
    narrow = {"teacher__model": "narrow_mlp", "student__model": "narrow_mlp"}
    with _whole_run(path, CONTROLS, 1, **fields, **narrow) as run:
        yield run


@pytest.fixture
def resume_from(tmp_path, monkeypatch):
    """Return a function: continue a run from the checkpoint of `tick` for one tick."""

    def resume(run, tick):
        monkeypatch.setattr(train, "Engine", lambda parts: run.engine)
        path = tmp_path / f"from_{tick}"
        (path / "checkpoints").mkdir(parents=True)
        for log in ("metrics.jsonl", "timings.jsonl"):
            shutil.copy(run.path / log, path / log)
        name = f"{tick:08d}"
        shutil.copytree(run.path / "checkpoints" / name, path / "checkpoints" / name)
        parts = dataclasses.replace(run.parts, ticks=run.parts.ticks[: tick + 1])
        train.Loop(parts, path).finish(StopRequest())
        state = _digests(path / "checkpoints" / f"{tick + 1:08d}")
        return state, (path / "metrics.jsonl").read_bytes()

    return resume


@pytest.fixture
def resume_one(whole, resume_from):
    return functools.partial(resume_from, whole)


def _expected(whole, tick):
    checkpoint = whole.path / "checkpoints" / f"{tick:08d}"
    length = _manifest(checkpoint)["info"]["offsets"]["metrics"]
    log = (whole.path / "metrics.jsonl").read_bytes()
    return _digests(checkpoint), log[:length]


def test_resuming_from_every_tick_is_bitwise_exact(whole, resume_one):
    """Equal state and log one tick later, from every tick, implies an equal end."""
    ticks = len(whole.parts.ticks)
    assert ticks > 10
    kinds = {type(tick) for tick in whole.parts.ticks}
    assert {Evaluate, Replay} < kinds
    for tick in range(1, ticks):
        assert resume_one(tick) == _expected(whole, tick + 1), f"tick {tick}"


@pytest.fixture
def run_of(request):
    """Return a function: the finished run that has students of a method."""
    of = dict.fromkeys(ALONE, "every_method_alone")
    of |= dict.fromkeys(FIXED, "every_method_fixed")
    return lambda method: request.getfixturevalue(of.get(method, "every_method"))


@pytest.mark.parametrize("method", [*TAUGHT, "shuffled", *ALONE, *FIXED])
def test_resuming_any_method_in_its_replay_is_bitwise_exact(
    run_of, resume_from, method
):
    """A method that kept something outside the state, or drew anew, would differ."""
    run = run_of(method)
    ticks = run.parts.ticks
    spaced = f"{method}_spaced"
    first, middle = (
        place
        for place, tick in enumerate(ticks)
        if isinstance(tick, Replay) and tick.student == spaced
    )
    assert ticks[first].stop == ticks[middle].start > ticks[first].start
    found = resume_from(run, middle)
    assert found == _expected(run, middle + 1)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_teachers_memory_is_resumed_bitwise(
    teacher_with_memory, resume_from, monkeypatch, forgotten
):
    """And is noticed when it is not."""
    run, real = teacher_with_memory, CheckpointLine.restore

    def forgetful(self, checkpoint, template):
        states = real(self, checkpoint, template)
        fresh = experiment.init_states(run.parts)[0]["teacher"].memory
        states[0]["teacher"] = states[0]["teacher"].replace(memory=fresh)
        return states

    if forgotten:
        monkeypatch.setattr(CheckpointLine, "restore", forgetful)
    tick = next(
        place
        for place, tick in enumerate(run.parts.ticks)
        if place and isinstance(tick, Lockstep)
    )
    assert (resume_from(run, tick) != _expected(run, tick + 1)) == forgotten


@pytest.mark.parametrize("method", [*TAUGHT, "shuffled", *ALONE, *FIXED])
def test_any_method_learns_with_spacing_and_without(run_of, method):
    """Spacing needs nothing special: as many updates, and the loss falls."""
    run = run_of(method)
    rows = read_rows(run.path / "metrics.jsonl")
    courses = []
    for plan in ("online", "spaced"):
        name = f"{method}_{plan}"
        # Who is its own teacher also learns ahead of each replay.
        twice = plan == "spaced" and method in (*ALONE, *FIXED)
        updates = 16 if twice else 8
        assert run.results.students[name].updates == updates
        course = [v for r in rows if (v := r.get(f"student/{name}/loss"))]
        assert course[-1] < course[0]
        courses.append(course)
    assert courses[0] != courses[1]


def test_resuming_self_kd_in_either_phase_is_bitwise_exact(self_taught, resume_from):
    """In the label-only phase as in a replay, and in steps that do both."""
    phases = set()
    for tick in range(1, len(self_taught.parts.ticks)):
        found = resume_from(self_taught, tick)
        assert found == _expected(self_taught, tick + 1), f"tick {tick}"
        segment = self_taught.parts.ticks[tick]
        if isinstance(segment, Replay):
            phases.add("replay")
        elif isinstance(segment, Lockstep):
            phases.update(m.updates for m in segment.members if m.student != "plain")
    assert phases == {"replay", ("hard",), ("hard", "method")}


def test_a_run_without_a_teacher_reports_every_exit(self_taught):
    """Breaks if a teacher is counted, shown or looked for that is not there."""
    found = self_taught.results
    assert found.complete and found.teacher is None
    assert list(found.networks) == ["plain", "twice", "spaced"]
    rows = read_rows(self_taught.path / "metrics.jsonl")
    assert not any("teacher" in key for row in rows for key in row)
    spaced = found.students["spaced"]
    assert list(spaced.exits) == ["exit3", "exit2", "exit1", "ensemble"]
    assert spaced.quoted == "ensemble"
    assert spaced.acc1_last == spaced.exits["ensemble"].acc1_last
    # Two epochs of seven batches; the interval of three leaves two unreplayed.
    assert [net.updates for net in found.students.values()] == [21, 28, 26]
    assert "teacher" not in found.table().split("Exits are numbered")[0]
    assert "no teacher; 2 epochs of 7 steps" in ledger.summary(self_taught.parts)[0]


STATE_ITEMS = [
    (network, item)
    for network in ("teacher", "online", "spaced")
    for item in ("step", "params", "batch_stats", "opt_state")
]


@pytest.mark.parametrize(("network", "item"), STATE_ITEMS)
def test_a_forgotten_state_item_is_noticed(
    whole, resume_one, monkeypatch, network, item
):
    """The control of the test above: each dropped item must make it fail."""
    _forget(monkeypatch, whole, network, item)
    tick = next(
        place
        for place, tick in enumerate(whole.parts.ticks)
        if place > 8 and isinstance(tick, Replay)
    )
    assert resume_one(tick) != _expected(whole, tick + 1)


def _forget(monkeypatch, run, network, item):
    """Let every restored state have this item as it was before the first update."""
    real = CheckpointLine.restore

    def forgetful(self, checkpoint, template):
        states = real(self, checkpoint, template)
        fresh = experiment.init_states(run.parts)
        for state, start in zip(states, fresh, strict=True):
            value = getattr(start[network], item)
            state[network] = state[network].replace(**{item: value})
        return states

    monkeypatch.setattr(CheckpointLine, "restore", forgetful)


@pytest.mark.parametrize("kind", [Lockstep, Replay])
def test_resuming_any_control_is_bitwise_exact(controls, resume_from, kind):
    """The teacher held back and the average of its weights are state as well."""
    tick = _in_the_middle(controls, kind)
    assert resume_from(controls, tick) == _expected(controls, tick + 1)


@pytest.mark.parametrize(
    ("network", "item"), [("lagged", "held"), ("teacher", "average")]
)
def test_what_a_control_forgets_is_noticed(
    controls, resume_from, monkeypatch, network, item
):
    """The control of the test above; interval 3 and 4 steps a tick: held is of use."""
    _forget(monkeypatch, controls, network, item)
    tick = _in_the_middle(controls, Lockstep)
    assert resume_from(controls, tick) != _expected(controls, tick + 1)


def _in_the_middle(run, kind):
    """Return the second tick of a kind."""
    _, tick = (n for n, tick in enumerate(run.parts.ticks) if isinstance(tick, kind))
    return tick


@pytest.mark.parametrize("forgotten", ["tick", "offsets"])
def test_a_forgotten_position_is_noticed(whole, resume_one, monkeypatch, forgotten):
    """The tick and the logs' lengths are state too."""
    real = CheckpointLine.latest

    def forgetful(self):
        saved = real(self)
        if saved is None or "offsets" not in saved.info:
            return saved
        if forgotten == "tick":
            return dataclasses.replace(saved, tick=saved.tick - 1)
        return dataclasses.replace(saved, info={"offsets": {}})

    monkeypatch.setattr(CheckpointLine, "latest", forgetful)
    try:
        outcome = resume_one(9)
    except CheckpointError:
        return
    assert outcome != _expected(whole, 10)


def test_the_log_has_every_row_once(whole):
    """One row for each network that a tick moved or measured, for each seed."""
    rows = read_rows(whole.path / "metrics.jsonl")
    keys = [(r["tick"], r["seed"], r["network"]) for r in rows]
    expected = []
    for place, tick in enumerate(whole.parts.ticks):
        moved = (
            (tick.network,)
            if isinstance(tick, Evaluate)
            else (tick.student,)
            if isinstance(tick, Replay)
            else ("teacher", *(m.student for m in tick.members))
        )
        expected += [(place, seed, name) for seed in (0, 1) for name in moved]
    assert sorted(keys) == sorted(expected)
    assert len(set(keys)) == len(keys)


def test_training_learns_something(tmp_path):
    """Networks that never learn would pass every equivalence above."""
    config = tiny.config(STUDENTS, num_epochs=8, checkpoint__every_seconds=1e9)
    found = spaced_kd.run(config, tmp_path).to_dict()
    for network in (found["teacher"], *found["students"].values()):
        assert network["acc1_last"]["mean"] > 60  # 10 % is chance


def test_the_best_parameters_are_kept_apart_and_reproduce_their_accuracy(whole):
    """'best' must be the parameters that scored best, not the last or a torn copy."""
    for seed in (0, 1):
        for network in ("teacher", "online", "spaced"):
            line = CheckpointLine(
                whole.path / "best" / f"seed_{seed}" / network, keep=1
            )
            saved = line.latest()
            assert saved is not None
            column = "teacher" if network == "teacher" else f"student/{network}"
            curve = [
                row[f"eval/{column}/acc1"]
                for row in read_rows(whole.path / "metrics.jsonl")
                if row["phase"] == "eval"
                and (row["network"], row["seed"]) == (network, seed)
            ]
            assert saved.info["acc1"] == max(curve)
            template = experiment.state_template(whole.parts)[seed][network]
            variables = line.restore(saved, template.variables)
            state = experiment.init_states(whole.parts)[seed][network]
            state = state.replace(
                params=state.params | {"net": variables["params"]},
                batch_stats=variables["batch_stats"],
            )
            logits = whole.engine.predict(seed, network, state).logits
            right = np.mean(np.argmax(logits, -1) == whole.parts.dataset.test.label)
            np.testing.assert_allclose(100 * right, max(curve), atol=1e-4)


def test_a_finished_run_is_only_reported(whole, monkeypatch):
    """A second start must not train, nor change a byte of the results."""
    monkeypatch.setattr(train.Loop, "_advance", None)
    reported = []
    monkeypatch.setattr(report, "build", reported.append)
    before = (whole.path / "results.json").read_bytes()
    again = spaced_kd.run(dataclasses.replace(whole.config, report=True), whole.path)
    assert reported == [whole.path]
    assert again.table() == whole.results.table()
    assert (whole.path / "results.json").read_bytes() == before


def test_results_count_updates_and_passes(whole):
    """The ledger in results.json, against the arithmetic of the plan."""
    found = results.load(whole.path).to_dict()
    assert found["complete"]
    total = whole.parts.clock.total_steps
    online, spaced = found["students"]["online"], found["students"]["spaced"]
    assert (online["updates"], spaced["updates"]) == (total, total)
    assert (online["forward_passes"], online["backward_passes"]) == (total, total)
    assert (spaced["forward_passes"], spaced["backward_passes"]) == (2 * total, total)
    assert spaced["space_interval_steps"] == 10


def test_a_changed_config_is_refused_with_both_values(whole):
    """Half a run at one learning rate and half at another is nobody's result."""
    config = dataclasses.replace(whole.config, num_epochs=3)
    with pytest.raises(CheckpointError, match="num_epochs: 2 -> 3") as error:
        spaced_kd.run(config, whole.path)
    assert "\n" not in str(error.value)


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):
    """NaN must never reach a checkpoint or a table."""
    diverging = lambda *args: lambda step: jax.numpy.where(step < 9, 0.05, 1e30)
    monkeypatch.setattr(experiment, "learning_rate_schedule", diverging)
    config = tiny.config()
    with pytest.raises(NonFiniteError) as error:
        spaced_kd.run(config, tmp_path)
    assert re.search(r"teacher/\w+ became .* at update 1\d \(seed 0", str(error.value))
    assert "\n" not in str(error.value)
    line = CheckpointLine(tmp_path / "checkpoints", keep=2)
    parts = experiment.build(config, data.load(config.data))
    saved = line.latest()
    assert saved is not None and saved.tick > 3
    states = line.restore(saved, experiment.state_template(parts))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(states))
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert len(rows) > 3
    with pytest.raises(NonFiniteError):
        spaced_kd.run(config, tmp_path)
    again = line.latest()
    assert again is not None and again.tick == saved.tick


def test_what_takes_long_at_first_is_announced(tmp_path, capsys):
    """Large networks compile for minutes, in which nothing else is to be seen."""
    config = tiny.config(SELF_TAUGHT, num_epochs=1, **tiny.SELF_KD, progress="plain")
    spaced_kd.run(config, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if line.startswith("compiling: ")]
    parts = ["train plain", "train twice", "train spaced", "replay spaced"]
    assert said == [f"compiling: {part}" for part in parts]


def test_a_step_of_two_updates_counts_twice(tmp_path):
    """In the images that speed is computed from, and where a loss became NaN."""
    segment = Lockstep(0, 4, (Member("twice", updates=("hard", "method")),), False)
    parts = experiment.build(tiny.config(), data.load(tiny.config().data))
    assert ledger.tick_images(parts, segment) == 4 * 2 * 16
    (tmp_path / "metrics.jsonl").touch()
    log = Recorder(tmp_path, Offsets(), [0], steps_per_epoch=7)
    bad = [{"twice": {"loss": np.array([1.0, np.nan, 1.0, 1.0])}}]
    log.train(0, segment, {"twice": 18}, bad, 0)
    with pytest.raises(NonFiniteError, match="became NaN at update 14 "):
        log.write_pending()


@pytest.mark.parametrize("lost", ["config.json", "a foreign checkpoint"])
def test_a_checkpoint_of_another_config_is_refused(tmp_path, lost):
    """Equal shapes are not enough: half a run each of two configs is nobody's."""
    spaced_kd.run(tiny.config(num_epochs=1), tmp_path / "a")
    other = tiny.config(num_epochs=1, student__kd_weight=0.9)
    if lost == "config.json":
        (tmp_path / "a" / "config.json").unlink()
        workdir = tmp_path / "a"
    else:
        workdir = tmp_path / "b"
        shutil.copytree(tmp_path / "a" / "checkpoints", workdir / "checkpoints")
    with pytest.raises(CheckpointError, match="of another config") as error:
        spaced_kd.run(other, workdir)
    assert "\n" not in str(error.value)


def test_paper_mode_trains(tmp_path):
    """Updated teacher, running statistics, shared first weights, a flushed rest."""
    students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced": student(plan="spaced", space_interval_epochs=1.5),
    }
    found = spaced_kd.run(
        tiny.config(students, compat="paper", num_epochs=2), tmp_path
    ).to_dict()["students"]
    assert {name: s["updates"] for name, s in found.items()} == dict.fromkeys(found, 14)
    assert found["online"]["forward_passes"] == 28
    assert found["baseline"]["loss_last"] != found["online"]["loss_last"]


@pytest.mark.slow
def test_a_run_with_resized_images_and_every_augmentation_trains(tmp_path):
    """Training, evaluation and initial weights must agree on the size of images."""
    config = tiny.config(
        num_epochs=1,
        data__image_size=12,
        data__resized_crop_scale=0.3,
        data__eval_resize=14,
        data__normalization="imagenet",
        data__policy="randaugment",
        data__cutout_pixels=4,
        data__random_erasing=0.5,
    )
    spaced_kd.run(config, tmp_path)
    parts = experiment.build(config, data.load(config.data))
    params = experiment.state_template(parts)[0]["teacher"].params
    assert 12 * 12 * 3 in {leaf.shape[0] for leaf in jax.tree.leaves(params)}


def test_damaged_checkpoints_are_refused_and_left_alone(tmp_path):
    """A silent start from scratch would overwrite what could still be saved."""
    config = tiny.config(num_epochs=1)
    spaced_kd.run(config, tmp_path)
    for file in (tmp_path / "checkpoints").rglob("*"):
        if file.is_file() and file.name != "manifest.json":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError):
        spaced_kd.run(config, tmp_path)
    assert (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_devices": 9}, "config.num_devices=9"),
        ({"num_devices": 3}, "config.data.batch_size=16 is not divisible by 3"),
        ({"teacher__model": "resnet19"}, "did you mean 'resnet18'"),
        (
            {"data__batch_size": 200, "data__last_batch": "drop"},
            "100 training examples",
        ),
        ({"student__soft_loss": "kll"}, "did you mean 'kl'"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path, fields, words):
    """One line, and no workdir that a corrected command would then be refused for."""
    with pytest.raises(ConfigError) as error:
        spaced_kd.run(tiny.config(**fields), tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "config.json").exists()


def test_the_log_says_before_the_start_what_will_be_trained(whole):
    """An interval that leaves batches unlearned must not come as a surprise."""
    students = STUDENTS | {"loose": student(plan="spaced", space_interval_epochs=1.6)}
    parts = experiment.build(
        tiny.config(students, num_epochs=2), data.load(whole.config.data)
    )
    lines = ledger.summary(parts)
    assert lines[0].startswith("teacher mlp: 14 updates in 2 epochs of 7 steps")
    assert "online (kd, online): 14 updates" in lines
    assert (
        "spaced (kd, spaced): 14 updates, interval 1.5 epochs = 10 steps, 2 replays"
    ) in lines
    assert (
        "loose (kd, spaced): 11 updates, interval 1.6 epochs = 11 steps, 1 replay; "
        "3 batches of the stream are never learned"
    ) in lines


def test_real_cifar100_through_the_command_line(shared_data, tmp_path, capsys):
    """The whole path on real images: read, train, replay, evaluate, report."""
    root = pathlib.Path(__file__).parents[1]
    folder = shared_data / "tensorflow_datasets"
    arguments = [
        "spaced_kd",
        f"--config={root / 'configs' / 'cifar100_cpu.py'}:smoke",
        f"--workdir={tmp_path}",
        f"--config.data.dir={folder}",
        "--config.num_devices=1",
        "--config.progress=none",
    ]
    assert main.main(arguments) == 0
    table = capsys.readouterr().out
    assert "spaced_1_5" in table and "offline" in table
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["complete"]
    # 250 images in batches of 60: 5 steps an epoch, 7 of 10 steps replayed.
    assert found["students"]["spaced_1_5"]["space_interval_steps"] == 7
    assert found["students"]["spaced_1_5"]["updates"] == 7
    first, *_, last = [
        row["teacher/loss"]
        for row in read_rows(tmp_path / "metrics.jsonl")
        if "teacher/loss" in row
    ]
    assert last < first
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_saving_stays_a_small_part_of_a_run_with_large_networks():
    """With saves of a minute, one every two minutes would cost half the time."""
    loop = object.__new__(train.Loop)
    loop._parts = SimpleNamespace(config=tiny.config(checkpoint__every_seconds=50.0))
    loop._saved_at = time.monotonic() - 100
    loop._save_seconds = 10.0
    assert not loop._is_due()
    loop._save_seconds = 1.0
    assert loop._is_due()
