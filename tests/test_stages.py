"""Chains of runs: trained once, found again, verified, and resumed without a trace."""

import dataclasses
import json
import os
import shutil
import signal
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import BASE, NET, NormMLP, chain, chained

import spaced_kd
from spaced_kd import (
    data,
    experiment,
    main,
    provenance,
    stages,
    train,
    trained,
    workdir,
)
from spaced_kd.checkpoint import CheckpointLine
from spaced_kd.config import fingerprint, from_config_dict, student
from spaced_kd.engine import Engine
from spaced_kd.errors import CheckpointError, LockedError
from spaced_kd.models import MODELS
from spaced_kd.report import page as report_page
from spaced_kd.results import load
from spaced_kd.schedule import Lockstep, Member
from spaced_kd.writers import read_json, read_rows


class World:
    """Runs with shared programs; notes which folders are trained in."""

    def __init__(self, folder, patch):
        self.folder, self.trained, self._engines = folder, [], {}
        self.stop_at = {}
        patch.setitem(MODELS, "norm_mlp", NormMLP)
        patch.setattr(train, "Engine", self._engine)
        advance = train.Loop._advance

        def noted(loop, *args):
            name = loop._path.name.split("-")[0]
            self.stop_at.pop((name, args[0]), lambda: None)()
            self.trained.append(name)
            return advance(loop, *args)

        patch.setattr(train.Loop, "_advance", noted)

    def _engine(self, parts):
        return self._engines.setdefault(fingerprint(parts.config), Engine(parts))

    def run(self, config, name):
        """Return the workdir, and where training took place, in order."""
        self.trained.clear()
        spaced_kd.run(config, self.folder / name)
        return self.folder / name, list(dict.fromkeys(self.trained))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield World(tmp_path_factory.mktemp("chain"), patch)


@pytest.fixture(scope="module")
def whole(world):
    """An uninterrupted chain; its stages are shared with the tests below."""
    config = chain(world.folder / "shared")
    path, trained_in = world.run(config, "run")
    sets = {config.data: data.load(config.data)}
    sets |= {stage.data: sets[config.data] for stage in config.stages.values()}
    folders = stages.folders(config, path, sets)
    folders |= stages.folders(config.stages["gen1"], path.parent / "shared", sets)
    return SimpleNamespace(
        path=path, config=config, trained=trained_in, data=sets, folders=folders
    )


def _last(path):
    saved = CheckpointLine(path / "checkpoints", keep=2).latest()
    assert saved is not None
    body = json.loads((saved.path / "manifest.json").read_text())["body"]
    return {name: leaf["sha256"] for name, leaf in body["leaves"].items()}


def test_a_stage_is_trained_once(world, whole):
    """Hours would be spent again, and runs that share a teacher would not."""
    assert whole.trained == ["gen0", "gen1", "run"]
    assert world.run(whole.config, "run")[1] == []
    other = chain(world.folder / "shared", progress="plain")
    path, trained_in = world.run(other, "other")
    assert trained_in == ["other"]
    assert (
        read_json(path / "stages.json")["teacher"]["weights"]
        == (read_json(whole.path / "stages.json")["teacher"]["weights"])
    )
    starts = read_json(whole.folders["gen1"] / "env.json")["starts"]
    assert len(starts) == 1, "a finished stage was written to"


def test_the_teacher_is_the_stages_network_in_every_repetition(whole):
    """Breaks if the wrong repetition, network or moment teaches, or if it moves."""
    stage = _last(whole.folders["gen1"])
    wanted = {
        name.replace("/gen1/", "/teacher/"): digest
        for name, digest in stage.items()
        if "/gen1/params/net/" in name or "/gen1/batch_stats/" in name
    }
    assert len({wanted[f"{k}/teacher/params/net/head/kernel"] for k in (0, 1)}) == 2
    assert any("batch_stats" in name for name in wanted)
    checkpoints = sorted((whole.path / "checkpoints").iterdir())
    assert len(checkpoints) > 4
    for folder in checkpoints:
        leaves = json.loads((folder / "manifest.json").read_text())["body"]["leaves"]
        found = {name: leaves[name]["sha256"] for name in wanted}
        assert found == wanted, folder.name


def test_the_teacher_is_evaluated_once_with_the_stages_accuracy(whole):
    """Breaks if the run's teacher scores otherwise than where it was trained."""
    rows = [
        row
        for row in read_rows(whole.path / "metrics.jsonl")
        if row["network"] == "teacher"
    ]
    assert [(r["phase"], r["seed"], r["step"]) for r in rows] == [
        ("eval", 0, 0),
        ("eval", 1, 0),
    ]
    stage = load(whole.folders["gen1"]).students["gen1"]
    assert [r["eval/teacher/acc1"] for r in rows] == list(stage.acc1_last.per_seed)
    found = load(whole.path)
    assert found.complete and found.teacher and found.teacher.updates == 0
    assert "The teacher was trained before this run" in found.table()


def test_the_origin_of_a_teacher_is_on_record(whole):
    """stages.json is what the report shows and what later starts are held to."""
    (role, origin), *more = read_json(whole.path / "stages.json").items()
    assert (role, more) == ("teacher", [])
    stage = whole.config.stages["gen1"]
    assert origin["config_fingerprint"] == fingerprint(stage)
    assert origin["data_fingerprint"] == whole.data[stage.data].fingerprint
    assert (whole.path / origin["folder"]).resolve() == whole.folders["gen1"]
    assert origin["folder"].endswith(origin["key"][:16])
    assert (origin["updates"], origin["backward_passes"]) == (8, 8)
    parent = origin["parents"]["teacher"]
    assert (parent["stage"], parent["network"]) == ("gen0", "gen0")
    assert parent["parents"] == {}


def test_spacing_from_a_finished_teacher_is_online_learning(whole):
    """The same batches, teacher and order: only the hours of the day differ.

    The eight updates of either arm are compiled into different programs.
    """
    saved = CheckpointLine(whole.path / "checkpoints", keep=2).latest()
    arrays = CheckpointLine(saved.path.parent, keep=2).read(saved)
    for seed in (0, 1):
        (online, steps), (spaced, others) = (
            trained.network(arrays, seed, name) for name in ("gen2", "spaced")
        )
        assert steps == others == 8
        chex.assert_trees_all_close(online, spaced, rtol=1e-5, atol=1e-6)


def test_the_page_names_the_chain(whole, tmp_path):
    """Breaks if the report of a run with stages cannot be built, or hides them."""
    shutil.copytree(whole.path, tmp_path / "run")
    page = report_page.build(tmp_path / "run").read_text()
    for words in (
        "Trained before this run",
        "teacher of this run: norm_mlp",
        "gen0 / gen0",
        f"../shared/{whole.folders['gen1'].name}",
        "One norm_mlp teacher that was trained before this run and 2 students on fake",
    ):
        assert words in page, words


def test_stops_and_kills_leave_no_trace(world, whole, tmp_path, capsys):
    """Ctrl-C in a stage, a crash in the run: the same command goes on, bitwise."""
    file, path = tmp_path / "config.py", world.folder / "again"
    file.write_text(
        f"import chains\n"
        f"def get_config():\n    return chains.fields_of({str(tmp_path)!r})\n"
    )
    command = ["spaced_kd", f"--config={file}", f"--workdir={path}"]
    world.stop_at["gen1", 1] = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert main.main(command) == 75
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("stopped: by SIGINT at tick 2 of 4; the state is saved: run")
    assert f"{tmp_path}/gen1-" in line
    world.stop_at["again", 3] = _crash
    with pytest.raises(ConnectionAbortedError):
        main.main(command)
    assert main.main(command) == 0
    assert world.stop_at == {}
    assert _last(path) == _last(whole.path)
    for log in ("metrics.jsonl", "plan.json"):
        assert (path / log).read_bytes() == (whole.path / log).read_bytes()
    assert load(path).students == load(whole.path).students


def _crash():
    raise ConnectionAbortedError("killed")


def _copy(whole, tmp_path):
    """Return a copy of the run's folder beside one of its stages."""
    for name in ("run", "shared"):
        shutil.copytree(whole.path.parent / name, tmp_path / name)
    config = dataclasses.replace(whole.config, stages_dir=str(tmp_path / "shared"))
    stage = tmp_path / "shared" / whole.folders["gen1"].name
    return config, tmp_path / "run", stage


def test_another_teacher_than_the_run_began_with_is_refused(whole, tmp_path):
    """A stage that was trained anew with other numbers would pass for the same."""
    config, path, stage = _copy(whole, tmp_path)
    stages.take(config, path, whole.data)
    assert provenance.verify(path) == []
    line = CheckpointLine(stage / "checkpoints", keep=2)
    saved = line.latest()
    assert saved is not None
    arrays = {name: jnp.asarray(value) for name, value in line.read(saved).items()}
    arrays["1/gen1/params/net/head/bias"] += 1e-6
    line.save(saved.tick, arrays, saved.info)
    with pytest.raises(CheckpointError, match="its weights have changed") as caught:
        stages.take(config, path, whole.data)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    (problem,) = provenance.verify(path)
    assert problem.file == "stages.json" and "has other weights now" in problem.what
    digests = provenance.of(path).stages["teacher"]["weights"]
    assert digests == provenance.of(whole.path).stages["teacher"]["weights"]


def test_a_stage_whose_log_was_altered_teaches_nobody(whole, tmp_path):
    """What a stage says of itself would go on into every run that it teaches."""
    config, path, stage = _copy(whole, tmp_path)
    log = stage / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"seed": 0', '"seed": 1')
    assert "".join(lines) != log.read_text()
    log.write_text("".join(lines))
    with pytest.raises(CheckpointError, match=rf"{stage.name}.* line 3 of") as caught:
        stages.take(config, path, whole.data)
    assert "\n" not in str(caught.value)


def _damage(checkpoint):
    body = json.loads((checkpoint / "manifest.json").read_text())["body"]
    largest = max(
        (checkpoint / name for name in body["files"]), key=lambda p: p.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def test_a_stage_that_is_not_whole_teaches_nobody(whole, tmp_path):
    """Earlier weights of the network, or broken ones, would teach."""
    config, path, stage = _copy(whole, tmp_path)
    assert trained.is_finished(stage)
    zero, first, middle, last = sorted((stage / "checkpoints").iterdir())
    _damage(last)
    assert not trained.is_finished(stage)
    shutil.rmtree(middle)
    shutil.rmtree(zero)
    with pytest.raises(CheckpointError, match="gen1 has 4 of 8 updates; run the same"):
        stages.take(config, path, whole.data)
    _damage(first)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        stages.take(config, path, whole.data)


def test_a_stage_in_use_says_by_whom_and_which_flag_helps(whole, tmp_path):
    """Another --workdir would not help a run that shares its stages."""
    config = dataclasses.replace(whole.config, stages_dir=str(tmp_path))
    folder = tmp_path / whole.folders["gen0"].name
    with (
        workdir.lock(folder),
        pytest.raises(
            LockedError,
            match=r"gen0-\w+ is in use by process .* another "
            r"--config.stages_dir",
        ),
    ):
        spaced_kd.run(config, tmp_path / "run")


def test_a_finished_run_does_not_need_its_stages(world, whole, tmp_path):
    """To report a run again would train its teacher again."""
    config, path, _ = _copy(whole, tmp_path)
    shutil.rmtree(tmp_path / "shared")
    world.trained.clear()
    assert spaced_kd.run(config, path).complete
    assert world.trained == []
    assert (path / "stages.json").exists()


def test_every_generation_begins_with_other_weights(whole):
    """Born-again networks are initialised anew, not with their teacher's start."""
    starts = []
    third = whole.config
    second = third.stages["gen1"]
    for config, name in (
        (third, "gen2"),
        (second, "gen1"),
        (second.stages["gen0"], "gen0"),
    ):
        parts = experiment.build(config, whole.data[config.data])
        states = experiment.init_states(parts)
        starts += [np.array(s[name].params["net"]["head"]["kernel"]) for s in states]
    assert len({start.tobytes() for start in starts}) == 6


def _logits(variables, image, train):
    """The network of these tests, written out."""
    params, stats = variables["params"], variables["batch_stats"]["BatchNorm_0"]
    dense = lambda name, x: x @ params[name]["kernel"] + params[name]["bias"]
    x = dense("Dense_0", image.reshape(len(image), -1))
    mean, var = (x.mean(0), x.var(0)) if train else (stats["mean"], stats["var"])
    norm = params["BatchNorm_0"]
    x = (x - mean) / jnp.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
    return dense("head", jnp.maximum(x, 0))


@jax.jit
def _gradient_by_hand(params, stats, taught_by, image, label):
    """Of 0.7 CE + 0.3 * 9 KL(teacher || student; T = 3), means over the batch."""
    target = jax.nn.softmax(_logits(taught_by, image, False) / 3)

    def loss(params):
        logits = _logits({"params": params, "batch_stats": stats}, image, True)
        hard = -jax.nn.log_softmax(logits)[jnp.arange(len(image)), label]
        soft = target * (jnp.log(target) - jax.nn.log_softmax(logits / 3))
        return (0.7 * hard + 0.3 * 9 * soft.sum(1)).mean()

    return jax.grad(loss)(params)


def _step_by_hand(parts, seed, learner, taught_by):
    """Return the parameters after one step of SGD on the first batch."""
    train_set, dataset = parts.dataset.train, parts.dataset
    rows = parts.streams[seed].teacher.indices(0, 1)[0]
    image = (train_set.image[rows] / 255 - np.array(dataset.mean)) / dataset.std
    label = np.asarray(train_set.label)[rows]
    params, stats = learner["params"], learner["batch_stats"]
    grads = _gradient_by_hand(params, stats, taught_by, image, label)
    step = lambda p, g: p - 0.05 * (np.asarray(g) + 5e-4 * p)
    return jax.tree.map(step, params, grads)


def _states(parts, *names):
    """Return states of drawn numbers; running statistics are not those of a batch."""
    states = []
    for seed, template in enumerate(experiment.state_template(parts)):
        rng = np.random.default_rng(seed)
        draw = lambda leaf, rng=rng: jnp.asarray(
            rng.uniform(0.1, 0.5, leaf.shape), leaf.dtype
        )
        zero = lambda leaf: jnp.asarray(np.zeros(leaf.shape, leaf.dtype))
        state = jax.tree.map(zero, template)
        for name in names:
            drawn = jax.tree.map(draw, template[name].variables)
            params = {"net": drawn["params"], "method": {}}
            stats = drawn["batch_stats"]
            state[name] = state[name].replace(params=params, batch_stats=stats)
        states.append(state)
    return states


TAUGHT = {
    "the teacher by its tutor": ("teacher", "tutor"),
    "a student by its trained teacher": ("s", "teacher"),
}


@pytest.mark.parametrize("who", TAUGHT)
def test_a_trained_network_teaches_in_eval_mode(who, whole):
    """A step of TAKD, and of a student in lockstep, against one written by hand.

    Breaks if a trained network shows its outputs in training mode, moves, or teaches
    another repetition than its own.
    """
    learner, role = TAUGHT[who]
    fields = NET | {"num_seeds": 2, "chunk_steps": 1}
    own = {"teacher__stage": "", f"{role}__stage": "gen0/gen0"}
    if role == "tutor":
        own |= {"teacher__method": "kd"}
    arm = student(plan="offline" if role == "tutor" else "online")
    base = {"gen0": fields | BASE["gen0"]}
    config = from_config_dict(chained(fields | own, students={"s": arm}, base=base))
    parts = experiment.build(config, data.load(config.data))
    states = _states(parts, learner, role)
    before = jax.tree.map(np.array, states)
    members = () if role == "tutor" else (Member("s"),)
    tick = Lockstep(0, 1, members, teacher=role == "tutor")
    states, _ = Engine(parts).advance(states, tick)
    for k, state in enumerate(states):
        taught_by = before[k][role].variables
        expected = _step_by_hand(parts, k, before[k][learner].variables, taught_by)
        found = state[learner].variables["params"]
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)
        chex.assert_trees_all_equal(state[role].variables, taught_by)
