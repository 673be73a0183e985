"""Models, data, methods and analyses of the user's own, in this process and others."""

import functools
import importlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny

from spaced_kd import analysis, analyze, data, export, methods, models, register, train
from spaced_kd.config import DataConfig, from_config_dict
from spaced_kd.errors import ConfigError, DataError
from spaced_kd.methods.base import Method, no_params
from spaced_kd.models.base import Model
from spaced_kd.models.mlp import MLP
from spaced_kd.types import ModelOutput
from spaced_kd.workdir import write_sealed
from spaced_kd.writers import read_json

ROOT = pathlib.Path(__file__).parents[1]
TABLES = (models.MODELS, data.DATASETS, methods.METHODS, analysis.ANALYSES)
CONFIG = """
from spaced_kd.config import base_config, student

def get_config():
    config = base_config()
    config.imports = "user_things"
    config.num_seeds, config.num_epochs, config.num_devices = 1, 4, 1
    config.progress = "none"
    config.data.name, config.data.batch_size = "my_arrays", 20
    config.data.crop_padding, config.data.horizontal_flip = 0, False
    config.data.rotation_degrees = 0.0
    config.teacher.model = config.student.model = "my_linear"
    config.student.method = "my_labels"
    config.students = {"spaced": student(plan="spaced")}
    return config
"""


@pytest.fixture(autouse=True)
def tables():
    """Leave the tables as they were."""
    kept = [dict(table) for table in TABLES]
    yield
    for table, entries in zip(TABLES, kept, strict=True):
        table.clear()
        table.update(entries)


def _start(module, folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"spaced_kd.{module}", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        timeout=300,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a user's module, config and run, which another process trained."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(ROOT / "tests" / "my_things.py", folder / "user_things.py")
    (folder / "mine.py").write_text(CONFIG)
    done = _start("main", folder, "--config=mine.py", "--workdir=run")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_run_is_made_of_the_users_own_things(finished):
    """The network trained would be another, or the loss, or the images."""
    text = (finished / "run" / "metrics.jsonl").read_text()
    logged = re.findall(r'"student/spaced/three": ([\d.]+)', text)
    assert logged and set(map(float, logged)) == {3.0}
    stored = json.loads((finished / "run" / "config.json").read_text())
    assert stored["config"]["imports"] == "user_things"
    assert "imports" not in stored["science"]


@pytest.mark.slow
def test_another_process_analyses_the_run_with_the_users_module(finished):
    """3 classes of 4 x 5 pixels: 60 weights and 3 biases; no import by hand."""
    done = _start("analyze", finished, "--workdir=run", "--analyses=my_count")
    assert done.returncode == 0, done.stderr
    sizes = json.loads((finished / "run" / "analysis.json").read_text())
    assert json.dumps(sizes).count('"weights": 63') == 2  # the teacher and the student


@pytest.mark.slow
def test_where_the_module_is_not_found_one_line_says_so(finished, monkeypatch, capsys):
    """A traceback of the import machinery would not say what to do."""
    monkeypatch.delitem(sys.modules, "user_things", raising=False)
    arguments = ["analyze", f"--workdir={finished / 'run'}", "--analyses=noise"]
    assert analyze.main(arguments) == ConfigError.code
    assert capsys.readouterr().err == (
        "error: config.imports='user_things' cannot be imported (No module named "
        "'user_things'); start in the folder where it lies, or add that to "
        "PYTHONPATH.\n"
    )


@pytest.mark.slow
def test_a_flag_names_the_module_where_the_config_does_not(
    finished, tmp_path, monkeypatch
):
    """A run whose config file imported it by hand could never be analysed."""
    workdir = pathlib.Path(shutil.copytree(finished / "run", tmp_path / "run"))
    stored = read_json(workdir / "config.json")
    stored["config"]["imports"] = ""
    write_sealed(workdir / "config.json", stored)
    monkeypatch.delitem(sys.modules, "user_things", raising=False)
    arguments = ["export", f"--workdir={workdir}", "--student=spaced", "--out=out"]
    monkeypatch.chdir(tmp_path)
    assert export.main(arguments) == ConfigError.code
    monkeypatch.syspath_prepend(finished)
    assert export.main([*arguments, "--imports=user_things"]) == 0


@pytest.mark.slow
def test_an_exported_network_of_ones_own_is_the_one_that_was_evaluated(
    finished, tmp_path, monkeypatch
):
    """In float64: normalised as the docstring of `arrays` says, times the weights."""
    monkeypatch.syspath_prepend(finished)
    monkeypatch.delitem(sys.modules, "user_things", raising=False)
    path = export.export_student(finished / "run", "spaced", tmp_path)
    weights = safetensors.numpy.load_file(path)
    mine = importlib.import_module("user_things")
    trained, (image, label) = mine.images(0, 60)[0] / 255, mine.images(1, 30)
    pixels = (image / 255 - trained.mean()) / trained.std()
    logits = pixels.reshape(30, -1) @ weights["head.weight"].T + weights["head.bias"]
    right = (logits.argmax(1) == label).mean()
    found = json.loads((finished / "run" / "results.json").read_text())
    last = found["students"]["spaced"]["acc1_last"]["mean"]
    assert 100 * right == pytest.approx(last, abs=1e-4)
    assert right > 0.5  # one answer for all would be right in a third


def test_a_name_that_nobody_registered_says_how_to(tmp_path):
    """A user who forgot the import would look for a mistake in the name."""
    for field, value in {
        "student__model": "mine",
        "student__method": "mine",
        "data__name": "mine",
    }.items():
        with pytest.raises(ConfigError, match=r"config\.imports='MODULE'.*--imports="):
            train.run(tiny.config(**{field: value}), tmp_path)


def test_config_imports_are_imported_before_anything_is_looked_up(
    tmp_path, monkeypatch
):
    """Also those of a stage's run, which later processes open as a run of its own."""
    (tmp_path / "counts_imports.py").write_text("from spaced_kd import register\n")
    monkeypatch.syspath_prepend(tmp_path)
    raw = tiny.config_dict(imports=" counts_imports, json ,")
    assert from_config_dict(raw).imports == " counts_imports, json ,"
    assert "counts_imports" in sys.modules
    del sys.modules["counts_imports"]
    with pytest.raises(ConfigError, match="config.imports='no_such' cannot be import"):
        from_config_dict(tiny.config_dict(imports="json,no_such"))


def test_registering_starts_no_device():
    """A config file's import would take effect from XLA's flags and --coordinator."""
    program = (
        "import sys; sys.path.insert(0, 'tests'); import my_things\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _network(call):
    return type("Mine", (MLP,), {"__call__": call, "__module__": "somewhere"})


def test_a_cell_may_run_twice_but_no_name_changes_hands():
    """A notebook's cell is run again; two modules of one name would go unnoticed."""
    make = lambda: _network(MLP.__call__)
    register.model("mine", make())
    again = make()
    register.model("mine", functools.partial(again, widths=(3,)))
    assert models.MODELS["mine"].func is again
    for name, family in (("mine", MLP), ("resnet18", make()), ("none", make())):
        with pytest.raises(ConfigError, match=f"model '{name}' is there already"):
            register.model(name, family)
    with pytest.raises(ConfigError, match="'my-net': a name is made of letters"):
        register.model("my-net", make())


def _plain(self, image, *, train, mask=None):
    return image.reshape(len(image), -1)[:, :7]


def _no_train(self, image):
    return ModelOutput(image, image)


def _half(self, image, *, train, mask=None):
    x = image.reshape(len(image), -1)
    return ModelOutput(x[:, :7].astype(jnp.bfloat16), x)


def _maps(self, image, *, train, mask=None):
    return ModelOutput(image.reshape(len(image), -1)[:, :7], image)


def _wide(self, image, *, train, mask=None):
    x = image.reshape(len(image), -1)
    return ModelOutput(x[:, :8], x)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (dict, "is no subclass of spaced_kd.models.base.Model"),
        (_network(_plain), "must return a spaced_kd.types.ModelOutput"),
        (_network(_no_train), r"fails on images of \(32, 32, 3\).*TypeError.*'train'"),
        (_network(_half), r"bfloat16 of shape \(2, 7\); they must be float32"),
        (_network(_wide), r"shape \(2, 8\); they must be float32 \[b, self.num_c"),
        (_network(_maps), r"features of 2 images are float32 of shape \(2, 32, 32, 3"),
    ],
)
def test_a_network_that_no_run_could_train_is_refused_at_once(family, message):
    """It would fail hours later, inside compiled code."""
    with pytest.raises(ConfigError, match=message):
        register.model("mine", family)
    assert "mine" not in models.MODELS


def test_a_network_for_one_size_of_image_is_tried_on_that():
    """A fixed input size would make a good network impossible to register."""

    def fixed(self, image, *, train, mask=None):
        x = image.reshape(len(image), 7 * 7)
        return ModelOutput(x[:, :7], x)

    with pytest.raises(ConfigError, match="unless image_shape="):
        register.model("mine", _network(fixed))
    register.model("mine", _network(fixed), image_shape=(7, 7, 1))
    assert issubclass(models.MODELS["mine"], Model)


def _method(loss, **fields):
    return lambda config, axis, sizes: Method(no_params, loss, **fields)


def _scalar(params, student, teacher, batch, now):
    return student.logits.mean(), {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda config: None, r"must be a function of \(config, axis, sizes\)"),
        (lambda config, axis, sizes: _scalar, "must return a spaced_kd.methods.base"),
        (_method(lambda *a: a[1].logits.mean(1)), r"return \(scalar, dict"),
        (_method(lambda *a: (a[1].logits.mean(1), {})), r"return \(scalar, dict"),
        (_method(lambda *a: a[1].nothing), "fails on a batch.*AttributeError"),
        (_method(_scalar, needs_teacher=False), "plan must know such a method by name"),
    ],
)
def test_a_method_that_no_run_could_train_is_refused_at_once(make, message):
    with pytest.raises(ConfigError, match=message):
        register.method("mine", make)
    assert "mine" not in methods.METHODS


def test_a_method_that_extends_its_batch_is_not_tried_on_another():
    """Its loss reads rows that only a run appends."""
    register.method("mine", _method(lambda *a: a[1].nothing, batches=2))
    assert "mine" in methods.METHODS


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_every_method_of_the_package_that_a_user_could_write_passes(name):
    """The trial would refuse what runs can train."""
    config = tiny.config(student__method=name, student__soft_loss="kl")
    made = methods.METHODS[name](config.student, methods.BatchAxis(), tiny.SIZES)
    if not made.needs_teacher or made.lead:
        pytest.skip("the plan knows it by name")
    register.method(name, methods.METHODS[name])


def _arrays(image, label):
    register.arrays("mine", train=(image, label), test=(image, label))
    return data.load(DataConfig(name="mine"))


def test_arrays_are_the_data_set():
    """Pixels, labels and normalisation, judged by NumPy in float64."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (40, 6, 5, 2)).astype(np.uint8)
    label = np.arange(40, dtype=np.int64) % 4
    found = _arrays(image, label)
    np.testing.assert_array_equal(found.train.image, image)
    np.testing.assert_array_equal(found.test.label, label)
    assert (found.num_classes, found.image_shape) == (4, (6, 5, 2))
    np.testing.assert_allclose(found.mean, (image / 255).mean((0, 1, 2)), atol=6e-5)
    np.testing.assert_allclose(found.std, (image / 255).std((0, 1, 2)), atol=6e-5)
    grey = _arrays(image[..., 0], label.tolist())
    np.testing.assert_array_equal(grey.train.image, image[..., :1])
    assert len({found.fingerprint, grey.fingerprint}) == 2
    image[7, 2, 2, 1] ^= 1
    assert _arrays(image, label).fingerprint != found.fingerprint


GOOD = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)
LABEL = np.arange(12) % 3


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (GOOD / 255, LABEL, r"float64; give uint8.*\(255 \* images\).round"),
        (GOOD.astype(int), LABEL, "images are int64.*must be uint8"),
        (GOOD.reshape(12, 16), LABEL, r"must be uint8 \[N, H, W, C\]"),
        (GOOD, LABEL + 1, "3 classes from 1 to 3; they must be 0 to 2"),
        (GOOD, LABEL * 2, "3 classes from 0 to 4; they must be 0 to 2"),
        (GOOD, np.eye(3, dtype=int)[LABEL], r"labels.argmax\(1\) of one-hot"),
        (GOOD, LABEL / 1, "labels are float64; give integers"),
        (GOOD, LABEL[:9], r"shape \(12, 4, 4, 1\) and 9 labels"),
        (GOOD[:0], LABEL[:0], "at least one"),
    ],
)
def test_arrays_of_another_kind_are_refused_with_the_remedy(image, label, message):
    with pytest.raises(DataError, match=message):
        register.arrays("mine", train=(image, label), test=(GOOD, LABEL))
    assert "mine" not in data.DATASETS


def test_a_loader_that_returns_something_else_is_told_of():
    """An AttributeError in the middle of the package would name neither."""
    register.dataset("mine", lambda config: (GOOD, LABEL))
    with pytest.raises(DataError, match="config.data.name='mine' returns a tuple"):
        data.load(DataConfig(name="mine"))
    with pytest.raises(ConfigError, match=r"must be a function of \(config\)"):
        register.dataset("other", lambda: None)
