"""Every config file, every variant: it loads, validates, and its steps trace."""

import dataclasses
import importlib.util
import pathlib
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import pytest

from spaced_kd import data, experiment, schedule, steps
from spaced_kd.config import NO_TEACHER, from_config_dict
from spaced_kd.schedule import HARD, Clock, Lockstep, Replay
from spaced_kd.state import Frozen
from spaced_kd.types import Dataset, Split

ROOT = pathlib.Path(__file__).parents[1]
FOLLOWING = ("released", "paper", "recommended", "smoke")
OWN_VARIANTS = dict.fromkeys(("digits", "digits_self", "cifar100_cpu"), ("", "smoke"))
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


def _networks(resolved) -> set[str]:
    teacher = {"teacher"} if resolved.teacher.model != NO_TEACHER else set()
    return teacher | set(resolved.students)


# Rows of Table 2 have the sizes of those of Table 1; two show the branches, and Table 7
# those at 224 pixels.
BRANCHED = {"paper/table2_resnet50_cifar100", "paper/table2_deit_cifar100"}
MADE = [n for n in FILES if n in BRANCHED or not ("table2" in n or "table8" in n)]


@pytest.mark.parametrize("name", MADE)
def test_the_networks_of_a_config_fit_its_data(name):
    """A config that nobody runs rots; this makes every network, without its steps."""
    resolved = from_config_dict(_load(name))
    parts = experiment.build(resolved, _blank(resolved))
    (state, *_) = experiment.state_template(parts)
    assert set(state) == _networks(resolved)
    leader = "teacher" if "teacher" in state else "baseline"
    assert parts.updates[leader] == resolved.num_epochs * parts.clock.steps_per_epoch


@pytest.mark.parametrize("name", [n for n in FILES if n != "cifar100_cpu"])
def test_every_smoke_variant_fits_the_data_it_names(name):
    """With the data that a run would load."""
    resolved = from_config_dict(_load(name, "smoke"))
    parts = experiment.build(resolved, data.load(resolved.data))
    (state, *_) = experiment.state_template(parts)
    assert set(state) == _networks(resolved)


# One of each network and recipe traces its steps; the rest differ in sizes alone.
TRACED = [
    *[(n, v) for n, known in OWN_VARIANTS.items() for v in known],
    ("cifar100", "released"),
    ("imagenet", "smoke"),
    ("paper/table1_deit_cifar100", "smoke"),
    ("paper/table1_pit_tinyimagenet", "smoke"),
    ("paper/table2_resnet50_cifar100", "smoke"),
    ("paper/table2_deit_cifar100", "smoke"),
]


@pytest.mark.parametrize(("name", "variant"), TRACED)
def test_the_steps_of_a_config_have_the_right_shapes(name, variant):
    """One step of each kind in the plan, traced."""
    _trace(_load(name, variant))


@pytest.mark.slow
def test_the_steps_of_a_transformer_that_teaches_itself():
    """The labels alone on 12 exits, then a replay; the other arms repeat these."""
    config = _load("paper/table2_deit_cifar100")
    config.students = {"spaced": config.students.spaced}
    config.reference = "spaced"
    _trace(config)


def _trace(config: ml_collections.ConfigDict) -> None:
    resolved = from_config_dict(config)
    parts = experiment.build(resolved, _blank(resolved))
    (state, *_) = experiment.state_template(parts)
    train = parts.dataset.train
    assert isinstance(train, Split)
    held = steps.DeviceData(
        *(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in train)
    )
    number = jax.ShapeDtypeStruct((), np.int32)
    index = jax.ShapeDtypeStruct((resolved.data.batch_size,), np.int32)
    slots = {"stream": steps.Slots(number, index, index)}
    taught = state["teacher"].variables if "teacher" in state else {}
    done = set()
    for segment in parts.plan:
        replayed = isinstance(segment, Replay)
        kinds = {segment.student} if replayed else {*segment.members, segment.teacher}
        if kinds <= done:
            continue
        done |= kinds
        before = {name: state[name] for name in schedule.rates_of(segment)}
        keys = parts.streams[0].keys
        after, measured = jax.eval_shape(
            _step(parts, segment), before, Frozen(taught, number), held, keys, slots
        )
        shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        assert shapes(after) == shapes(before)
        assert all(m["loss"].shape == () for m in measured.values())


def _step(parts: experiment.Experiment, segment: schedule.Segment):
    axis = parts.groups[0].axis
    networks = parts.networks(axis)
    teacher, students = networks.teacher, networks.students
    if isinstance(segment, Replay):
        return steps.replay(teacher, students, segment.student, axis, parts.spec)
    return steps.lockstep(teacher, students, segment, axis, parts.spec)


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


def test_every_row_of_a_table_has_its_file():
    """14 rows of Table 1, 10 of Table 2, and self KD of Tables 7 and 8."""
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
    rows |= {(7, "self_resnet18", "imagenet"), (8, "self_deit", "imagenet")}
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


SELF_TAUGHT = [n for n in FILES if "table2" in n or "_self" in n]


def test_the_self_kd_protocol():
    """Method B.1, B.2 and B.4: data, Kaiming weights, the weights of the loss."""
    config = from_config_dict(_load("paper/table2_resnet18_cifar100"))
    data = config.data
    assert (data.policy, data.cutout_pixels, data.fill) == ("autoaugment", 16, 128)
    assert (data.normalization, data.crop_padding, data.rotation_degrees) == (
        "cifar10",
        4,
        0.0,
    )
    assert config.teacher.model == NO_TEACHER
    student = config.students["spaced"]
    assert student.arch.weight_init == "kaiming"
    assert (student.kd_weight, student.feature_weight, student.temperature) == (
        0.3,
        0.03,
        3.0,
    )
    assert (student.soft_loss, student.temperature_squared) == (
        "soft_cross_entropy",
        "no",
    )
    assert (student.trigger, student.feature_branches) == ("released", "not_deepest")
    tiny = from_config_dict(_load("paper/table2_resnet18_tinyimagenet")).data
    assert (tiny.policy, tiny.normalization) == ("none", "dataset")


@pytest.mark.parametrize("variant", ["released", "paper", "recommended"])
def test_self_kd_of_a_transformer_has_the_loss_of_the_paper(variant):
    """Not that of released transformers with a teacher: KL by class, no features."""
    config = from_config_dict(_load("paper/table2_deit_imagenet100", variant))
    assert (config.num_epochs, config.data.random_erasing) == (300, 0.25)
    student = config.students["spaced"]
    assert student.soft_loss in ("soft_cross_entropy", "kl")
    assert (student.kd_weight, student.feature_weight, student.temperature) == (
        0.3,
        0.03,
        3.0,
    )
    assert (student.feature_branches, student.branch_adaptor) == ("all", "none")
    assert (student.optim.name, student.optim.schedule_clock) == ("adamw", "own")


def test_arms_stay_matched_when_fields_are_overridden():
    """As --config.num_epochs, or .student.arch.branch and .quote: after the file."""
    raw = _load("paper/table2_resnet18_cifar100", "recommended")
    raw.num_epochs = 8
    raw.student.arch.branch = "bottleneck"
    raw.student.quote = "ensemble"
    config = from_config_dict(raw)
    plan = schedule.make_plan(config.students, Clock(10, 8), teacher=False)
    assert schedule.updates(plan) == {
        "baseline": 80, "self_kd": 80, "self_kd_double": 160,
        "interleaved": 160, "spaced": 160, "spaced_half": 80,
    }  # fmt: skip
    assert config.students["baseline"].quote == "deepest"
    experiment.build(config, _blank(config))


@pytest.mark.parametrize("name", SELF_TAUGHT)
def test_self_kd_has_its_baseline_and_its_controls(name):
    """The baseline is the trunk alone; the rest have branches and one interval."""
    config = from_config_dict(_load(name))
    students = config.students
    assert set(config.reference.split(",")) < set(students)
    plain = students["baseline"]
    assert (plain.plan, plain.quote) == ("none", "deepest")
    branched = {n: s for n, s in students.items() if n != "baseline"}
    assert {s.model for s in branched.values()} == {f"{plain.model}_branches"}
    assert {n: (s.plan, s.epochs_factor) for n, s in branched.items()} == {
        "self_kd": ("online", 1),
        "self_kd_double": ("online", 2),
        "interleaved": ("interleaved", 1),
        "spaced": ("spaced", 1),
        "spaced_half": ("spaced", 0.5),
    }
    alike = {
        dataclasses.replace(s, plan="", epochs_factor=1.0) for s in branched.values()
    }
    assert len(alike) == 1
    interval = 1.5 if config.data.name == "imagenet" else 4.0
    assert students["spaced"].space_interval_epochs == interval


def _updates(name: str, variant: str, steps_per_epoch: int) -> dict[str, int]:
    config = from_config_dict(_load(name, variant))
    clock = Clock(steps_per_epoch, config.num_epochs)
    plan = schedule.make_plan(config.students, clock, teacher=False)
    counts = dict(schedule.updates(plan))
    counts["spaced, labels alone"] = sum(
        segment.stop - segment.start
        for segment in plan
        if isinstance(segment, Lockstep)
        for member in segment.members
        if member.student == "spaced" and member.updates == (HARD,)
    )
    return counts


def test_updates_of_self_kd_on_cifar100_as_released():
    """Method B.3: 391 steps an epoch, I = 1564, 20 replays, the first after an epoch.

    Half the epochs, 40, have 10 replays, of 391 + 9 * 1564 = 14,467 batches.
    """
    assert _updates("paper/table2_resnet18_cifar100", "released", 391) == {
        "baseline": 31_280,
        "self_kd": 31_280,
        "self_kd_double": 62_560,
        "interleaved": 62_560,
        "spaced": 31_260 + 30_107,
        "spaced, labels alone": 31_260,
        "spaced_half": (15_640 - 10) + 14_467,
    }


@pytest.mark.parametrize("variant", ["paper", "recommended"])
def test_the_controls_of_self_kd_match_its_updates(variant):
    """Where every interval is replayed, the arms have n or 2 n updates and no others.

    n = 391 * 80; 4 epochs of space divide 80 and 40.
    """
    assert _updates("paper/table2_resnet18_cifar100", variant, 391) == {
        "baseline": 31_280,
        "self_kd": 31_280,
        "self_kd_double": 62_560,
        "interleaved": 62_560,
        "spaced": 62_560,
        "spaced, labels alone": 31_280,
        "spaced_half": 31_280,
    }


@pytest.mark.parametrize("name", ["cifar100", "tinyimagenet"])
def test_the_interval_sweep_is_that_of_table_6(name):
    students = from_config_dict(_load(name)).students
    assert {n: (s.plan, s.space_interval_epochs) for n, s in students.items()} == {
        "baseline": ("none", 1.5),
        "online": ("online", 1.5),
        "spaced_0_5": ("spaced", 0.5),
        "spaced_1_0": ("spaced", 1.0),
        "spaced_1_5": ("spaced", 1.5),
        "spaced_2_0": ("spaced", 2.0),
        "offline": ("offline", 1.5),
    }
