"""A student out of a workdir: the very weights, a card, and one line for mistakes."""

import functools
import json
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import tiny

import spaced_kd
from spaced_kd import experiment, export, ledger, model_card, train, workdir
from spaced_kd.checkpoint import CheckpointLine
from spaced_kd.config import fingerprint, from_config_dict, student
from spaced_kd.data import load
from spaced_kd.models import MODELS, deit, make_model

STUDENTS = {
    "plain": student(plan="none", model="small_cnn"),
    "spaced": student(plan="spaced", space_interval_epochs=0.5, model="mlp"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two seeds, 7 and 8."""
    config = tiny.config(STUDENTS, num_seeds=2, seed=7, num_epochs=2)
    workdir = tmp_path_factory.mktemp("run")
    return config, workdir, train.run(config, workdir)


def _restored(config, workdir):
    """All states, by the way that training resumes: the oracle of what is exported."""
    parts = experiment.build(config, load(config.data))
    line = CheckpointLine(workdir / "checkpoints", keep=1)
    return line.restore(line.latest(), experiment.state_template(parts))


def _untrained(config, path):
    """Write the workdir of a run before its first update, which needs no compiling."""
    parts = experiment.build(config, load(config.data))
    path.mkdir()
    workdir.claim(path, config, parts.dataset.fingerprint)
    workdir.write_json(path / "plan.json", ledger.describe_plan(parts))
    info = {"config": fingerprint(config)}
    line = CheckpointLine(path / "checkpoints", keep=1)
    line.save(0, experiment.init_states(parts), info)


def test_the_options_of_the_architecture_come_along(tmp_path, monkeypatch):
    """A transformer of another patch size, whose positions depend on the image."""
    network = functools.partial(deit.DeiT, dim=6, depth=1, distilled=True)
    monkeypatch.setitem(MODELS, "tiny_deit", network)
    fields = student(plan="online", model="tiny_deit")
    fields.arch.patch_size = 4
    config = tiny.config({"taught": fields}, num_epochs=1)
    _untrained(config, tmp_path / "w")
    export.export_student(tmp_path / "w", "taught", tmp_path / "o")
    model, variables = spaced_kd.load_student(tmp_path / "o")
    assert (model.patch_size, model.drop_path, model.distilled) == (4, 0.1, True)
    arch = {"patch_size": 4, "drop_path": 0.1, "depth_multiple": 1.0}
    assert _about(tmp_path / "o")["arch"] == arch
    assert variables["params"]["pos_embed"].shape == (1, 2 + 4, 6)
    state = _restored(config, tmp_path / "w")[0]["taught"]
    chex.assert_trees_all_equal(variables["params"], state.params["net"])


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("seed", [7, 8])
def test_exported_and_loaded_it_answers_bit_for_bit_the_same(name, seed, run, tmp_path):
    config, workdir, _ = run
    export.export_student(workdir, name, tmp_path / "out", seed=seed)
    model, variables = spaced_kd.load_student(tmp_path / "out")
    state = _restored(config, workdir)[seed - 7][name]
    original = make_model(config.students[name].model, model.num_classes)
    image = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
    expected = original.apply(state.variables, image, train=False)
    got = model.apply(variables, image, train=False)
    np.testing.assert_array_equal(got.logits, expected.logits)
    assert jnp.abs(got.logits).max() > 0


def test_the_best_is_the_weights_of_the_best_evaluation(run, tmp_path):
    config, workdir, _ = run
    export.export_student(workdir, "spaced", tmp_path, which="best", seed=8)
    _, variables = spaced_kd.load_student(tmp_path)
    line = CheckpointLine(workdir / "best" / "seed_8" / "spaced", keep=1)
    saved = line.latest()
    template = _restored(config, workdir)[1]["spaced"].variables
    best = line.restore(saved, template)
    np.testing.assert_array_equal(
        variables["params"]["Dense_0"]["kernel"], best["params"]["Dense_0"]["kernel"]
    )
    about = _about(tmp_path)
    assert (about["step"], about["which"], about["seed"]) == (saved.tick, "best", 8)
    assert f"These very weights: {saved.info['acc1']:.2f}" in _card(tmp_path)


def _about(folder):
    with safetensors.safe_open(folder / "student.safetensors", "np") as file:
        assert file.metadata()["format"] == "pt"
        return json.loads(file.metadata()["spaced_kd"])


def _card(folder):
    return (folder / "README.md").read_text()


def test_the_file_holds_the_student_alone(run, tmp_path):
    """No teacher, no adaptor, no momentum: as many numbers as the network has."""
    config, workdir, _ = run
    path = export.export_student(workdir, "spaced", tmp_path)
    with safetensors.safe_open(path, "np") as file:
        names = set(file.keys())
        total = sum(file.get_tensor(name).size for name in names)
    assert names == {f"Dense_{i}.{p}" for i in range(3) for p in ("weight", "bias")}
    state = _restored(config, workdir)[0]["spaced"]
    assert total == sum(x.size for x in jax.tree.leaves(state.params["net"]))
    assert "method" in state.params and jax.tree.leaves(state.params["method"])


def test_the_card_says_what_it_is_and_how_good(run, tmp_path):
    """Accuracies as in results.json, with spread; step, plan, seeds, how to load."""
    _, workdir, results = run
    export.export_student(workdir, "spaced", tmp_path, seed=8)
    card, net = _card(tmp_path), results.students["spaced"]
    assert f"| last evaluation | {net.acc1_last} |" in card
    assert "±" in str(net.acc1_last)
    for spread in (net.acc1_mean_last5, net.acc1_best):
        assert f"| {spread} |" in card
    assert f"These very weights: {net.acc1_last.per_seed[1]:.2f}" in card
    assert f"| updates behind them | {net.updates} of {net.updates} |" in card
    for words in (
        "| plan | spaced |",
        "0.5 epochs = 3 steps",
        "| compat | recommended |",
        "| seeds of the run | 2 |",
        "last of seed 8",
        "[b, 8, 8, 3]",
        "| architecture options | second_head False, second_head_share 0.5",
        "spaced_kd.load_student(",
        "## Licence",
        '"kd_weight": 0.3',
    ):
        assert words in card, words
    assert "{" not in card.split("```json")[0]
    assert str(workdir) not in card


def test_the_two_lines_of_the_card_run(run, tmp_path):
    _, workdir, _ = run
    export.export_student(workdir, "spaced", tmp_path)
    code = _card(tmp_path).split("```python\n")[1].split("```")[0]
    # An import and a blank line before them, so that it can be pasted as it is.
    assert code.startswith("import spaced_kd\n\n") and code.count("\n") == 4
    scope: dict = {"images": jnp.zeros((1, 8, 8, 3))}
    exec(code.replace("FOLDER", str(tmp_path)), scope)
    assert scope["logits"].shape == (1, scope["model"].num_classes)


def test_the_card_tells_how_pixels_become_what_the_network_saw(run, tmp_path):
    config, workdir, _ = run
    export.export_student(workdir, "spaced", tmp_path)
    dataset = load(config.data)
    about = _about(tmp_path)
    assert about["mean"] == list(dataset.mean) and about["std"] == list(dataset.std)
    assert str(list(dataset.mean)) in _card(tmp_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "taken at their own size of 8x8 pixels"),
        (
            {"data__image_size": 12, "data__interpolation": "bicubic"},
            "resized to 12x12 pixels (bicubic)",
        ),
        (
            {"data__image_size": 12, "data__eval_resize": 14},
            "resized to 14 pixels on their shorter side (bilinear), of which the "
            "centre of 12x12 was cut out",
        ),
    ],
)
def test_the_card_tells_how_test_images_were_resized(fields, words, tmp_path):
    """Judged otherwise, the same weights look worse than in the run."""
    config = tiny.config({"online": student(plan="online")}, num_epochs=1, **fields)
    _untrained(config, tmp_path / "w")
    export.export_student(tmp_path / "w", "online", tmp_path / "o")
    assert words in " ".join(_card(tmp_path / "o").split())
    about, data = _about(tmp_path / "o"), config.data
    for name in ("image_size", "eval_resize", "interpolation"):
        assert about[name] == getattr(data, name)


def _main(*arguments):
    return export.main(["export", *arguments])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--student=spaced", "--out=o"], 2, "--workdir is missing"),
        (["--workdir=RUN", "--out=o"], 2, "--student is missing"),
        (["--workdir=RUN", "--student=spaced"], 2, "--out is missing"),
        (["--workdir=RUN", "--student=spased", "--out=o"], 2, "did you mean 'spaced'"),
        (["--workdir=RUN", "--student=teacher", "--out=o"], 2, "Known: "),
        (
            ["--workdir=RUN", "--student=spaced", "--out=o", "--seed=9"],
            2,
            "--seed=9 is not one of the run's; it has 7 to 8",
        ),
        (
            ["--workdir=RUN", "--student=spaced", "--out=o", "--which=first"],
            2,
            "--which='first' is unknown",
        ),
        (["--workdir=RUN", "--student=spaced", "--out=o", "--seed=a"], 2, "seed"),
        (["--workdir=RUN", "--stduent=spaced", "--out=o"], 2, "stduent"),
        (["--workdir=RUN", "--student=spaced", "--out=o", "x"], 2, "'x'"),
        (["--workdir=nowhere", "--student=spaced", "--out=o"], 4, "holds no run"),
        (["--workdir=RUN", "--student=spaced", "--out=file/o"], 7, "file/o"),
    ],
)
def test_a_mistake_gives_one_line_and_its_code(
    arguments, code, words, run, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    arguments = [a.replace("RUN", str(run[1])) for a in arguments]
    assert _main(*arguments) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert words in lines[0]
    assert not (tmp_path / "o").exists()


def _damaged(run, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(run[1], copy)
    change(copy)
    return [f"--workdir={copy}", "--student=spaced", f"--out={tmp_path / 'o'}"]


def _old_plan(copy):
    plan = json.loads((copy / "plan.json").read_text())
    del plan["input"]["interpolation"]
    workdir.write_sealed(copy / "plan.json", plan)


def _other_config(copy):
    stored = json.loads((copy / "config.json").read_text())
    stored["fingerprint"] = "another"
    workdir.write_sealed(copy / "config.json", stored)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda copy: shutil.rmtree(copy / "checkpoints"), "nothing is saved in"),
        (_old_plan, "plan.json is of an older version"),
        (_other_config, "by a run of another config"),
    ],
)
def test_a_workdir_that_does_not_fit_is_one_line(change, words, run, tmp_path, capsys):
    assert _main(*_damaged(run, tmp_path, change)) == 4
    assert words in capsys.readouterr().err


def test_the_command_line_writes_both_files(run, tmp_path):
    """As a process of its own, with JAX started by nobody else."""
    command = [sys.executable, "-m", "spaced_kd.export", f"--workdir={run[1]}"]
    command += ["--student=plain", f"--out={tmp_path / 'a' / 'b'}", "--which=best"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "student.safetensors" in done.stdout
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == {
        "README.md",
        "student.safetensors",
    }


def test_a_run_that_was_stopped_can_be_exported(tmp_path, monkeypatch):
    """Half-way the card says so, and claims no accuracy for these weights."""
    config = from_config_dict(
        tiny.config_dict(
            {"online": student(plan="online", model="mlp")}, eval_every_epochs=1
        )
    )
    with monkeypatch.context() as patch:
        real = train.Loop._save

        def save_and_stop(self, states):
            real(self, states)
            if self._tick >= 3:
                raise KeyboardInterrupt

        patch.setattr(train.Loop, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, tmp_path / "w")
    export.export_student(tmp_path / "w", "online", tmp_path / "o")
    card = _card(tmp_path / "o")
    assert "The run was not finished" in card
    assert 0 < _about(tmp_path / "o")["step"] < 21


@pytest.fixture(scope="module")
def self_taught(tmp_path_factory):
    """A finished run, in one program, of a network that teaches itself, and another."""
    config = tiny.config(
        {"own": student(plan="online"), "labels": student(plan="none")},
        num_epochs=4,
        chunk_steps=7,
        eval_every_epochs=4,
        teacher__model="none",
        student__model="small_cnn_branches",
        student__method="self_kd",
    )
    workdir = tmp_path_factory.mktemp("self")
    train.run(config, workdir)
    return config, workdir


def test_the_card_gives_the_ensemble_whose_accuracy_it_quotes(self_taught, tmp_path):
    """Its code, run on the test images, reaches every accuracy that it lists."""
    config, workdir = self_taught
    export.export_student(workdir, "own", tmp_path)
    card, dataset = _card(tmp_path), load(config.data)
    pixels = dataset.test.image / np.float32(255)
    images = (pixels - np.float32(dataset.mean)) / np.float32(dataset.std)
    scope: dict = {"images": images}
    blocks = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        exec(block.replace("FOLDER", str(tmp_path)), scope)
    found = {f"exit{3 - k}": scope["exits"][:, k] for k in range(3)}
    np.testing.assert_array_equal(found["exit3"], scope["logits"])
    found["ensemble"] = np.mean(np.stack(list(found.values()), 1), 1)
    np.testing.assert_allclose(scope["ensemble"], found["ensemble"], rtol=1e-5)
    reached = {
        name: 100 * float(np.mean(np.argmax(logits, -1) == dataset.test.label))
        for name, logits in found.items()
    }
    assert len(set(reached.values())) > 2
    for name, value in reached.items():
        assert f"| {name} | {value:.2f} | " in card
    assert "All of these are of `ensemble`." in card
    assert f"These very weights: {reached['ensemble']:.2f}." in card
    assert _about(tmp_path)["quoted"] == "ensemble"


def test_the_card_of_a_self_taught_network_names_no_teacher(self_taught, tmp_path):
    _, workdir = self_taught
    export.export_student(workdir, "own", tmp_path)
    card = _card(tmp_path)
    assert "Its own teacher: the deepest exit taught the others (plan `online`" in card
    assert "a none" not in card and "epochs of the teacher" not in card
    assert "| epochs of the stream | 4 |" in card
    assert "the deepest of 3 exits, exit3." in card


def test_the_card_warns_of_exits_that_nothing_trained(self_taught, tmp_path):
    _, workdir = self_taught
    export.export_student(workdir, "labels", tmp_path)
    card = _card(tmp_path)
    assert "Trained on the labels alone, without a teacher." in card
    assert "All of these are of `exit3`." in card
    assert "Nothing trained the\nothers, `branch_logits`." in card
    assert "ensemble = " not in card
    assert _about(tmp_path)["exits"] == ["exit3", "exit2", "exit1"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("resnet18_branches", "those of branches are those of the Self-Distillation"),
        ("deit_tiny_branches", "those of branches are this package's"),
        ("small_cnn_branches", "named as\nin PyTorch."),
    ],
)
def test_the_card_says_whose_names_the_branches_have(model, words):
    about = {"model": model, "exits": ["exit2", "exit1"]}
    named = "named as\nin PyTorch" + model_card._names(about) + "."
    assert words in named


def test_a_network_with_one_exit_has_a_card_without_exits(run, tmp_path):
    _, workdir, _ = run
    export.export_student(workdir, "spaced", tmp_path)
    assert "exit" not in _card(tmp_path).split("## Training configuration")[0]
    assert _about(tmp_path)["exits"] == [] and _about(tmp_path)["quoted"] is None
