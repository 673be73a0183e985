"""Every config file, every variant: it loads, validates, and its steps trace."""

import importlib.util
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from spaced_kd import data, experiment, schedule, steps
from spaced_kd.config import from_config_dict
from spaced_kd.schedule import Clock, Replay
from spaced_kd.state import Frozen
from spaced_kd.types import Dataset, Split

ROOT = pathlib.Path(__file__).parents[1]
FOLLOWING = ("released", "paper", "recommended", "smoke")
OWN_VARIANTS = {"digits": ("", "smoke"), "cifar100_cpu": ("", "smoke")}
FILES = {
    str(path.relative_to(ROOT / "configs").with_suffix("")): path
    for path in (ROOT / "configs").glob("**/*.py")
}
VARIANTS = {name: OWN_VARIANTS.get(name, FOLLOWING) for name in FILES}
ALL = [(name, variant) for name, known in VARIANTS.items() for variant in known]
# Training examples, image shape, classes of the real data sets.
SHAPES = {
    "digits": (300, 8, 8, 1, 10),
    "fake": (512, 8, 8, 3, 10),
    "cifar100": (50_000, 32, 32, 3, 100),
    "tiny_imagenet": (100_000, 64, 64, 3, 200),
    "imagenet100": (126_689, 224, 224, 3, 100),
    "imagenet": (1_281_167, 224, 224, 3, 1000),
}


def _load(name: str, *variant: str) -> ml_collections.ConfigDict:
    spec = importlib.util.spec_from_file_location("config_file", FILES[name])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*variant)
    config.num_devices = 1
    return config


class Blank(NamedTuple):
    """A streamed split of which nothing is ever read."""

    label: np.ndarray
    shape: tuple[int, int, int] = (224, 224, 3)

    def open(self, row):
        raise NotImplementedError

    def identities(self):
        raise NotImplementedError

    def take(self, rows):
        raise NotImplementedError


def _blank(config) -> Dataset:
    """The data set of a config, all black: one image seen from everywhere."""
    size, *shape, classes = SHAPES[config.data.name]
    sizes = config.data.num_train_examples or size, 10
    labels = [np.zeros(n, np.int32) for n in sizes]
    ones = (1.0,) * shape[-1]
    if config.data.name.startswith("imagenet"):
        splits = [Blank(label) for label in labels]
    else:
        black = np.zeros(1, np.uint8)
        splits = [Split(np.broadcast_to(black, (len(y), *shape)), y) for y in labels]
    return Dataset(config.data.name, *splits, classes, ones, ones, "")


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_every_variant_is_valid(name, variant):
    """Fields, ranges, plans and what contradicts what; networks are not made."""
    resolved = from_config_dict(_load(name, variant))
    assert schedule.make_plan(resolved.students, Clock(10, resolved.num_epochs))


# The rows of Table 2 have the networks and image sizes of those of Table 1.
@pytest.mark.parametrize("name", [n for n in FILES if "table2" not in n])
def test_the_networks_of_a_config_fit_its_data(name):
    """A config that nobody runs rots; this makes every network, without its steps."""
    resolved = from_config_dict(_load(name))
    parts = experiment.build(resolved, _blank(resolved))
    (state, *_) = experiment.state_template(parts)
    assert set(state) == {"teacher", *resolved.students}
    assert parts.updates["teacher"] == resolved.num_epochs * parts.clock.steps_per_epoch


@pytest.mark.parametrize("name", [n for n in FILES if n != "cifar100_cpu"])
def test_every_smoke_variant_fits_the_data_it_names(name):
    """With the data that a run would load."""
    resolved = from_config_dict(_load(name, "smoke"))
    parts = experiment.build(resolved, data.load(resolved.data))
    (state, *_) = experiment.state_template(parts)
    assert set(state) == {"teacher", *resolved.students}


# One of each network and recipe traces its steps; the rest differ in sizes alone.
TRACED = [
    *[(n, v) for n, known in OWN_VARIANTS.items() for v in known],
    ("cifar100", "released"),
    ("imagenet", "smoke"),
    ("paper/table1_deit_cifar100", "smoke"),
    ("paper/table1_pit_tinyimagenet", "smoke"),
    ("paper/table2_resnet50_cifar100", "smoke"),
]


@pytest.mark.parametrize(("name", "variant"), TRACED)
def test_the_steps_of_a_config_have_the_right_shapes(name, variant):
    """One step of each kind in the plan, traced."""
    resolved = from_config_dict(_load(name, variant))
    parts = experiment.build(resolved, _blank(resolved))
    group = parts.groups[0]
    networks = parts.networks(group.axis)
    state = experiment.state_template(parts)[0]
    train = parts.dataset.train
    assert isinstance(train, Split)
    held = steps.DeviceData(
        *(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in train)
    )
    batch = resolved.data.batch_size
    slot = steps.Slots(
        jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((batch,), np.int32)
    )
    keys = parts.streams[0].keys
    done = set()
    for segment in parts.plan:
        replayed = isinstance(segment, Replay)
        what = segment.student if replayed else segment._replace(start=0, stop=0)
        if what in done:
            continue
        done.add(what)
        make = steps.replay if replayed else steps.lockstep
        step = make(networks.teacher, networks.students, what, group.axis, parts.spec)
        before = {n: state[n] for n in schedule.rates_of(segment)}
        taught = state["teacher"].variables if "teacher" in state else {}
        frozen = Frozen(taught, jnp.int32(0)) if replayed else None
        after, measured = jax.eval_shape(
            step, before, frozen, held, keys, {"stream": slot}
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


def test_every_row_of_tables_1_and_2_has_its_file():
    """14 rows of Table 1 and 10 of Table 2, each with the paper's numbers."""
    nets = {"resnet18", "resnet50", "resnet101", "deit", "pit"}
    rows = {
        (table, net, data)
        for table in (1, 2)
        for net in nets
        for data in ("cifar100", "tinyimagenet", "imagenet100")
        if not (net == "resnet101" and data == "imagenet100")
    }
    rows -= {(2, "pit", data) for data in ("cifar100", "tinyimagenet", "imagenet100")}
    rows -= {(2, "resnet50", "imagenet100")}
    assert {n for n in FILES if n.startswith("paper/")} == {
        f"paper/table{table}_{net}_{data}" for table, net, data in rows
    }


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("paper/")])
def test_a_row_says_how_to_run_it_and_what_to_expect(name):
    text = " ".join(FILES[name].read_text().split())
    assert f"--config=configs/{name}.py" in text
    for words in ("Hardware:", "hours for 3 seeds", "Expected accuracy (paper, Table"):
        assert words in text


def test_the_transformers_protocol():
    """Method C.2 field by field, released variant."""
    config = from_config_dict(_load("paper/table1_deit_cifar100", "released"))
    data = config.data
    assert (config.num_epochs, data.batch_size, data.last_batch) == (300, 128, "drop")
    assert (data.image_size, data.interpolation, data.resized_crop_scale) == (
        224,
        "bicubic",
        0.08,
    )
    assert (data.policy, data.randaugment_magnitude, data.randaugment_std) == (
        "randaugment",
        9.0,
        0.5,
    )
    assert (data.random_erasing, data.normalization) == (0.25, "imagenet")
    assert (data.crop_padding, data.rotation_degrees) == (0, 0.0)
    student = config.students["spaced_1_5"]
    assert (config.teacher.model, student.model) == ("deit_tiny", "deit_tiny_distilled")
    for optim in (config.teacher.optim, student.optim):
        assert (optim.name, optim.learning_rate, optim.weight_decay) == (
            "adamw",
            5e-4,
            0.05,
        )
        assert (optim.warmup_epochs, optim.final_learning_rate) == (20.0, 5e-6)
    assert (student.kd_weight, student.temperature, student.feature_weight) == (
        0.5,
        1.0,
        0.0,
    )
    clean = from_config_dict(_load("paper/table1_deit_cifar100", "recommended"))
    student = clean.students["spaced_1_5"]
    assert (student.kd_weight, student.temperature, student.feature_weight) == (
        0.3,
        3.0,
        0.03,
    )


def test_the_self_kd_protocol():
    """Method B.1 and B.4: AutoAugment, cutout, CIFAR-10 statistics, Kaiming weights."""
    config = from_config_dict(_load("paper/table2_resnet18_cifar100"))
    data = config.data
    assert (data.policy, data.cutout_pixels, data.fill) == ("autoaugment", 16, 128)
    assert (data.normalization, data.crop_padding, data.rotation_degrees) == (
        "cifar10",
        4,
        0.0,
    )
    assert config.teacher.arch.weight_init == "kaiming"
    tiny = from_config_dict(_load("paper/table2_resnet18_tinyimagenet")).data
    assert (tiny.policy, tiny.normalization) == ("none", "dataset")
