"""Every config file, every variant: it loads, validates, and its steps trace."""

import importlib.util
import pathlib

import jax
import ml_collections
import numpy as np
import pytest

from spaced_kd import experiment, steps
from spaced_kd.config import from_config_dict
from spaced_kd.schedule import Replay
from spaced_kd.types import Dataset, Split

ROOT = pathlib.Path(__file__).parents[1]
VARIANTS = {
    "digits": ("", "smoke"),
    "cifar100": ("released", "paper", "recommended", "smoke"),
    "cifar100_cpu": ("", "smoke"),
}
SHAPES = {"digits": (300, 8, 8, 1, 10), "cifar100": (50000, 32, 32, 3, 100)}


def _load(name: str, *variant: str) -> ml_collections.ConfigDict:
    path = ROOT / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"configs_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*variant)


def test_every_config_file_is_tested():
    files = {path.stem for path in (ROOT / "configs").glob("**/*.py")}
    assert files == set(VARIANTS)


def _blank(config) -> Dataset:
    size, *shape, classes = SHAPES[config.data.name]
    train, test = config.data.num_train_examples or size, 10
    splits = [
        Split(np.zeros((n, *shape), np.uint8), np.zeros(n, np.int32))
        for n in (train, test)
    ]
    ones = (1.0,) * shape[-1]
    return Dataset(config.data.name, *splits, classes, ones, ones, "")


@pytest.mark.parametrize(
    ("name", "variant"), [(n, v) for n, variants in VARIANTS.items() for v in variants]
)
def test_every_variant_builds_and_its_steps_have_the_right_shapes(name, variant):
    """A config that nobody runs rots; this traces one step of each kind."""
    config = _load(name, variant)
    config.num_devices = 1
    resolved = from_config_dict(config)
    parts = experiment.build(resolved, _blank(resolved))
    group = parts.groups[0]
    networks = parts.networks(group.axis)
    state = experiment.state_template(parts)[0]
    train = parts.dataset.train
    data = jax.eval_shape(lambda: steps.DeviceData(*map(jax.numpy.asarray, train)))
    batch = resolved.data.batch_size
    slot = steps.Slots(
        jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((batch,), np.int32)
    )
    keys = parts.streams[0].keys
    done = set()
    for segment in parts.plan:
        replayed = isinstance(segment, Replay)
        what = segment.student if replayed else segment.members
        if what in done:
            continue
        done.add(what)
        make = steps.replay if replayed else steps.lockstep
        step = make(networks.teacher, networks.students, what, group.axis, parts.spec)
        moving = [what] if replayed else ["teacher", *(m.student for m in what)]
        before = {n: state[n] for n in moving}
        frozen = state["teacher"].frozen if replayed else None
        after, measured = jax.eval_shape(
            step, before, frozen, data, keys, {"teacher": slot}
        )
        shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        assert shapes(after) == shapes(before)
        assert all(m["loss"].shape == () for m in measured.values())


@pytest.mark.parametrize("name", VARIANTS)
def test_an_unknown_variant_names_the_known_ones(name):
    with pytest.raises(ValueError, match="known: .*smoke"):
        _load(name, "nonsense")


def test_the_headline_config_is_the_papers_protocol():
    """Method A.11, field by field."""
    config = from_config_dict(_load("cifar100"))
    student = config.students["spaced_1_5"]
    assert (config.num_epochs, config.data.batch_size) == (80, 128)
    assert (config.data.last_batch, config.data.rotation_degrees) == ("keep", 15.0)
    for network in (config.teacher, student):
        assert network.model == "resnet18"
        optim = network.optim
        assert (optim.name, optim.schedule) == ("sgd", "constant")
        assert (optim.learning_rate, optim.momentum, optim.weight_decay) == (
            0.01,
            0.9,
            5e-4,
        )
    assert (student.kd_weight, student.feature_weight, student.temperature) == (
        0.3,
        0.03,
        3.0,
    )
    assert (student.soft_loss, student.feature_loss) == ("probspace", "dist")
    assert (student.teacher_bn, student.init, student.replay) == (
        "batch",
        "different",
        "exact",
    )
    offline = config.students["offline"]
    assert (offline.teacher_bn, offline.replay) == ("running", "reshuffle")
