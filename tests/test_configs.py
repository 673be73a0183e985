"""Every config file, every variant: it loads, validates, and its steps trace."""

import dataclasses
import importlib.util
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import pytest

from spaced_kd import config as config_lib
from spaced_kd import data, experiment, schedule, steps
from spaced_kd.config import NO_TEACHER, Config, from_config_dict
from spaced_kd.grid import cells
from spaced_kd.schedule import HARD, Clock, Lockstep, Replay
from spaced_kd.state import Frozen
from spaced_kd.types import Dataset, Split

ROOT = pathlib.Path(__file__).parents[1]
FOLLOWING = ("released", "paper", "recommended", "smoke")
OWN_VARIANTS = dict.fromkeys(
    ("digits", "digits_adaptive", "digits_self", "cifar100_cpu"), ("", "smoke")
)
OWN_VARIANTS["digits_methods"] = (
    *("taught", "alone", "mutual", "shake", "ban", "takd"),
    *("dlb_teaches", "ps_kd_teaches", "smoke"),
)
FILES = {
    str(path.relative_to(ROOT / "configs").with_suffix("")): path
    for path in (ROOT / "configs").glob("**/*.py")
}
GRIDS = ("digits_grid", "paper/figure5")
OWN_VARIANTS |= dict.fromkeys(GRIDS, ("learning_rate", "batch_size", "smoke"))
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
    run = config.base if name in GRIDS else config
    run.num_devices = 1
    return config


def _runs(name: str, *variant: str) -> list[Config]:
    """The run of a config file, or those of a grid, by their resolved configs."""
    config = _load(name, *variant)
    if name in GRIDS:
        return [cell.config for cell in cells.read(config)]
    return [from_config_dict(config)]


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
    for resolved in _runs(name, variant):
        clock = Clock(10, resolved.num_epochs)
        trains = resolved.teacher.model != NO_TEACHER and not resolved.teacher.stage
        assert schedule.make_plan(resolved.students, clock, teacher=trains)


def _networks(resolved) -> set[str]:
    teacher = {"teacher"} if resolved.teacher.model != NO_TEACHER else set()
    tutor = {"tutor"} if resolved.tutor.stage else set()
    return teacher | tutor | set(resolved.students)


# Rows of other tables have the networks of those of Table 1; two of Table 2 show the
# branches, Table 7 those at 224 pixels, and of the pairs of Tables 9 and 10 each kind
# of teacher and of student is made once.
BRANCHED = {"paper/table2_resnet50_cifar100", "paper/table2_deit_cifar100"}
PAIRS = {
    "paper/table9_10_resnet18_x8",
    "paper/table9_resnet50",
    "paper/table9_10_deit_teaches_resnet18",
    "paper/table9_10_resnet56_teaches_pit",
    "paper/table4_takd",
    "paper/table4_shake",
}
REPEATED = (
    "table2",
    "table3",
    "table4",
    "table6",
    "table8",
    "table9",
    "table11",
    "figure3",
    "figure5",
)
MADE = [n for n in FILES if n in BRANCHED | PAIRS or not any(t in n for t in REPEATED)]


@pytest.mark.parametrize("name", MADE)
def test_the_networks_of_a_config_fit_its_data(name):
    """A config that nobody runs rots; this makes every network, without its steps."""
    resolved = _runs(name)[0]
    parts = experiment.build(resolved, _blank(resolved))
    (state, *_) = experiment.state_template(parts)
    assert set(state) == _networks(resolved)
    trains = "teacher" in state and not resolved.teacher.stage
    leader = "teacher" if trains else "baseline"
    assert parts.updates[leader] == resolved.num_epochs * parts.clock.steps_per_epoch


SHRUNK = [n for n in FILES if n != "cifar100_cpu" and "table6" not in n]


@pytest.mark.parametrize("name", SHRUNK)
def test_every_smoke_variant_fits_the_data_it_names(name):
    """With the data that a run would load."""
    for resolved in _runs(name, "smoke"):
        parts = experiment.build(resolved, data.load(resolved.data))
        (state, *_) = experiment.state_template(parts)
        assert set(state) == _networks(resolved)


# One of each network and recipe traces its steps; the rest differ in sizes alone, and
# the steps of each method are run in test_train.py.
TRACED = [
    *[(n, v) for n in ("digits", "digits_self", "cifar100_cpu") for v in ("", "smoke")],
    ("cifar100", "released"),
    ("imagenet", "smoke"),
    ("paper/table1_deit_cifar100", "smoke"),
    ("paper/table1_pit_tinyimagenet", "smoke"),
    ("paper/table2_resnet50_cifar100", "smoke"),
    ("paper/table2_deit_cifar100", "smoke"),
    ("paper/figure3_critical_period", "smoke"),
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
    slots = {"stream": steps.Slots(number, index)}
    taught = state["teacher"].variables if "teacher" in state else {}
    done = set()
    for segment in parts.plan:
        replayed = isinstance(segment, Replay)
        kinds = {segment.student} if replayed else {*segment.members, segment.teacher}
        if kinds <= done:
            continue
        done |= kinds
        before: Any = {name: state[name] for name in schedule.rates_of(segment)}
        if replayed:
            (before,) = before.values()
        keys = parts.streams[0].keys
        after, measured = jax.eval_shape(
            _step(parts, segment), before, Frozen(taught, number), held, keys, slots
        )
        shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        assert shapes(after) == shapes(before)
        rows = [measured] if replayed else measured.values()
        assert all(row["loss"].shape == () for row in rows)


def _step(parts: experiment.Experiment, segment: schedule.Segment):
    axis = parts.groups[0].axis
    networks = parts.networks(axis)
    teacher, students = networks.teacher, networks.students
    if isinstance(segment, Replay):
        return steps.replay(teacher, students[segment.student], axis, parts.spec)
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
    """Tables 1, 2, 3, 6, 9, 10, 11, Figures 3 and 5, and self KD of Tables 7 and 8.

    ResNet-18's rows of Table 6 are configs/cifar100.py and configs/tinyimagenet.py.
    """
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
    rows |= {(8, "deit", "imagenet")}
    rows |= {
        (6, net, data)
        for net in nets - {"resnet18"}
        for data in ("cifar100", "tinyimagenet")
    }
    pairs = {"9_resnet50", "9_resnet101", "4_ban", "4_ban_generations", "4_takd"}
    pairs |= {"4_dml", "4_shake", "4_dlb", "4_ps_kd"}
    pairs |= {f"9_10_resnet18_x{factor}" for factor in (2, 4, 8)}
    for net in ("deit", "pit"):
        pairs |= {f"9_10_{net}_teaches_resnet18", f"9_10_resnet56_teaches_{net}"}
    assert {n for n in FILES if n.startswith("paper/")} == {
        *(f"paper/table{table}_{net}_{data}" for table, net, data in rows),
        *(f"paper/table{pair}" for pair in pairs),
        "paper/table3_feature_losses",
        "paper/table3_logit_losses",
        "paper/table11_constant_ahead",
        "paper/figure3_critical_period",
        "paper/figure5",
    }


@pytest.mark.parametrize("variant", ["recommended", "small"])
def test_chains_of_table_4_hold_together(variant):
    """Who teaches whom, each network trained by the recipe of the run."""
    takd = from_config_dict(_load("paper/table4_takd", variant))
    nets = takd.tutor.model, takd.teacher.model, takd.student.model
    assert (
        nets
        == {
            "recommended": ("resnet50", "resnet34", "resnet18"),
            "small": ("resnet110", "resnet20", "resnet8"),
        }[variant]
    )
    assert takd.teacher.method == takd.students["takd"].method == "kd"
    stage = takd.stages["tutor"]
    assert stage.data == takd.data and stage.num_epochs == takd.num_epochs
    assert stage.students["alone"].optim == takd.teacher.optim
    shake = from_config_dict(_load("paper/table4_shake", variant))
    assert shake.teacher.model == shake.stages["teacher"].students["alone"].model
    assert {s.teacher_bn for s in shake.students.values()} == {"running"}


def test_every_generation_learns_from_the_one_before():
    config = from_config_dict(_load("paper/table4_ban_generations"))
    for number in (2, 1, 0):
        assert config.teacher.stage == f"gen{number}/alone"
        config = config.stages[f"gen{number}"]
        plans = {"alone": "online" if number else "none"}
        assert {n: s.plan for n, s in config.students.items()} == plans
    assert config.teacher.model == NO_TEACHER and not config.stages


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


def _plan(name: str, *variant: str, steps_per_epoch: int):
    """The students of a config, and who trains when."""
    config = from_config_dict(_load(name, *variant))
    clock = Clock(steps_per_epoch, config.num_epochs)
    return config.students, schedule.make_plan(config.students, clock)


def _rounds(plan, student: str) -> list[tuple[int, int]]:
    """Start and stop of each replay."""
    return [
        (segment.start, segment.stop)
        for segment in plan
        if isinstance(segment, Replay) and segment.student == student
    ]


SWEEPS = ["cifar100", "tinyimagenet", *(n for n in FILES if "table6" in n)]


@pytest.mark.parametrize("name", SWEEPS)
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


def test_updates_of_the_interval_sweep_on_tiny_imagenet():
    """Method A.2, rows T200: 782 steps an epoch, 391 never replayed at s = 1.5."""
    _, plan = _plan("paper/table6_resnet50_tinyimagenet", steps_per_epoch=782)
    assert schedule.updates(plan) == dict.fromkeys(
        ("teacher", "baseline", "online", "offline"), 62_560
    ) | {
        "spaced_0_5": 62_560,
        "spaced_1_0": 62_560,
        "spaced_1_5": 62_169,
        "spaced_2_0": 62_560,
    }
    lengths = [stop - start for start, stop in _rounds(plan, "spaced_1_5")]
    assert lengths == 53 * [1173]


@pytest.mark.parametrize(
    ("name", "field", "losses"),
    [
        ("feature", "feature_loss", "l1 smooth_l1 mse dist ce"),
        ("logit", "soft_loss", "l1 smooth_l1 mse mse_sum soft_cross_entropy"),
    ],
)
def test_the_losses_of_table_3_differ_in_one_field(name, field, losses):
    """Method D.3: the coefficient stays 0.03; read as logits, no feature term."""
    students = from_config_dict(_load(f"paper/table3_{name}_losses")).students
    pairs = {(s.plan, getattr(s, field)) for n, s in students.items() if "_" in n}
    assert pairs == {(p, loss) for p in ("online", "spaced") for loss in losses.split()}
    assert len(students) == 1 + len(pairs)
    weights = {(s.kd_weight, s.feature_weight) for s in students.values()}
    assert weights == {(0.3, 0.03 if field == "feature_loss" else 0.0)}
    alike = {
        dataclasses.replace(s, **{field: ""})
        for s in students.values()
        if s.plan == "spaced"
    }
    assert [s.space_interval_epochs for s in alike] == [1.5]


def test_the_gap_of_table_11_is_constant_in_both_readings():
    """Method D.10: delayed students are I batches behind, late ones begin after I."""
    students, plan = _plan("paper/table11_constant_ahead", steps_per_epoch=391)
    intervals = {"0_5": 195, "1_0": 391, "1_5": 586, "2_0": 782, "2_5": 977}
    counts = schedule.updates(plan)
    assert counts.pop("teacher") == counts.pop("online") == 31_280
    assert counts == {
        f"{reading}_{epochs}": 31_280 - interval
        for reading in ("delayed", "late")
        for epochs, interval in intervals.items()
    }
    lags = {
        member.student: member.lag
        for segment in plan
        if isinstance(segment, Lockstep)
        for member in segment.members
    }
    delayed = {f"delayed_{epochs}": lag for epochs, lag in intervals.items()}
    assert lags == dict.fromkeys(students, 0) | delayed


def test_the_windows_of_figure_3_take_every_batch_once():
    """Method D.5: 10 epochs are 3,910 steps, 6 rounds of 586 and one of 394."""
    students, plan = _plan("paper/figure3_critical_period", steps_per_epoch=391)
    counts = schedule.updates(plan)
    assert counts == dict.fromkeys(("teacher", *students), 31_280)
    lengths = 6 * [586] + [394]
    starts = set(range(0, 80, 10))
    for start in starts:
        rounds = _rounds(plan, f"window_{start}_{start + 10}")
        assert [b - a for a, b in rounds] == lengths
        assert (rounds[0][0], rounds[-1][1]) == (391 * start, 391 * (start + 10))
    for start in starts - {0, 70}:
        rounds = _rounds(plan, f"from_{start}")
        assert (rounds[0][0], rounds[-1][1]) == (391 * start, 31_280)
        assert {b - a for a, b in rounds[:-1]} == {586}
    assert len(students) == len(starts) + len(starts - {0, 70}) + 2


def test_the_limits_of_figure_3_stand_for_windows_to_the_end():
    """from_0 would be spaced_1_5 and from_70 is window_70_80: same replays, same KD."""
    raw = _load("paper/figure3_critical_period")
    for name, start in (("from_0", 0.0), ("from_70", 70.0)):
        raw.students[name] = raw.students.from_10.copy_and_resolve_references()
        raw.students[name].window_start_epochs = start
    students = from_config_dict(raw).students
    plan = schedule.make_plan(students, Clock(391, 80))

    def of(name):
        place = {"plan": "", "window_start_epochs": 0.0, "window_stop_epochs": 0.0}
        return dataclasses.replace(students[name], **place), _rounds(plan, name)

    assert of("from_0") == of("spaced_1_5")
    assert of("from_70") == of("window_70_80")


def test_the_outside_of_a_window_is_one_override():
    raw = _load("paper/figure3_critical_period")
    raw.student.outside = "hard_only"
    plan = schedule.make_plan(from_config_dict(raw).students, Clock(391, 80))
    outside = {
        member.updates
        for segment in plan
        if isinstance(segment, Lockstep)
        for member in segment.members
        if member.student != "online"
    }
    assert outside == {(HARD,)}


def test_a_smoke_run_leaves_out_who_would_begin_after_its_end():
    figure = from_config_dict(_load("paper/figure3_critical_period", "smoke"))
    windows = {"window_0_10", "window_10_20", "from_10"}
    assert set(figure.students) == {"online", "spaced_1_5"} | windows
    table = from_config_dict(_load("paper/table11_constant_ahead", "smoke"))
    assert {n[-3:] for n in table.students} == {"ine", "0_5", "1_0", "1_5"}


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_wide_teachers_of_table_9_multiply_the_parameters(factor):
    """Method D.9; the student is ResNet-18 as it is, from weights of its own."""
    for variant in ("released", "paper"):
        config = from_config_dict(_load(f"paper/table9_10_resnet18_x{factor}", variant))
        assert config.teacher.arch.param_factor == factor
        assert {s.arch.param_factor for s in config.students.values()} == {1.0}
        assert {s.init for s in config.students.values()} == {"different"}


@pytest.mark.parametrize("net", ["deit", "pit"])
@pytest.mark.parametrize("variant", ["released", "recommended"])
def test_a_transformer_and_a_cnn_have_one_recipe_but_for_the_optimiser(net, variant):
    """Tables 9 and 10, readings A and B: data of method C.2, released CNN optimiser."""
    a = from_config_dict(_load(f"paper/table9_10_{net}_teaches_resnet18", variant))
    b = from_config_dict(_load(f"paper/table9_10_resnet56_teaches_{net}", variant))
    table1 = from_config_dict(_load(f"paper/table1_{net}_cifar100", variant))
    assert a.data == b.data == table1.data
    assert a.num_epochs == b.num_epochs == 300
    assert (a.teacher, b.students["online"].model) == (
        table1.teacher,
        table1.students["online"].model,
    )
    assert b.students["baseline"].model == table1.students["baseline"].model
    cnn = a.students["online"]
    assert (cnn.model, cnn.arch.stem, b.teacher.model) == (
        "resnet18",
        "imagenet",
        "resnet56",
    )
    for network in (cnn, b.teacher):
        optim = network.optim
        assert (optim.name, optim.learning_rate, optim.nesterov) == ("sgd", 0.1, True)
        assert (optim.weight_decay, optim.decay_on) == (5e-4, "matrices")
        assert (optim.schedule, optim.schedule_unit) == ("cosine", "epoch")
        assert (optim.warmup_epochs, optim.final_learning_rate) == (0.0, 0.0)
        assert network.arch.weight_init == "kaiming"
    losses = {
        (s.soft_loss, s.kd_weight, s.temperature, s.feature_weight)
        for config in (a, b, table1)
        for s in config.students.values()
    }
    assert len(losses) == 1


def test_the_released_offline_transformer_keeps_its_teacher_in_train_mode():
    """Method A.3: DropPath stays active there; the released ResNets switch to eval."""
    found = {
        net: from_config_dict(_load(f"paper/table6_{net}_cifar100")).students["offline"]
        for net in ("resnet50", "deit", "pit")
    }
    assert {net: s.teacher_bn for net, s in found.items()} == {
        "resnet50": "running",
        "deit": "batch",
        "pit": "batch",
    }
    assert {s.optim.schedule_clock for s in found.values()} == {"own"}


def test_figure_5_is_the_headline_run_at_other_rates_and_sizes():
    """Method D.7: five of each, 1.5 epochs of space, the learning rate not rescaled."""
    headline = from_config_dict(_load("paper/table1_resnet18_cifar100"))
    rates = _runs("paper/figure5", "learning_rate")
    sizes = _runs("paper/figure5", "batch_size")
    assert rates[2] == sizes[2] == headline
    for run, rate in zip(rates, (0.001, 0.005, 0.01, 0.05, 0.1), strict=True):
        networks = run.teacher, *run.students.values()
        assert {net.optim.learning_rate for net in networks} == {rate}
        assert run.data == headline.data
    for run, size in zip(sizes, (32, 64, 128, 256, 512), strict=True):
        assert run.data == dataclasses.replace(headline.data, batch_size=size)
        assert (run.teacher, run.students) == (headline.teacher, headline.students)
    steps = [
        config_lib.space_interval_steps(run.students["spaced_1_5"], -(-50_000 // size))
        for run, size in zip(sizes, (32, 64, 128, 256, 512), strict=True)
    ]
    assert steps == [2344, 1173, 586, 294, 147]
