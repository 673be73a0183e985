"""Every number of the paper has a place of ours: what its row and column say."""

import functools
import importlib.util
import math
import pathlib
import re

import pytest

from spaced_kd.analysis import ANALYSES
from spaced_kd.analyze import analyze
from spaced_kd.config import NO_TEACHER, Config, from_config_dict
from spaced_kd.errors import ConfigError
from spaced_kd.grid import cells
from spaced_kd.reproduce import items, paper, readings
from spaced_kd.reproduce.items import ITEMS, TEACHER, Measure, Place, Row

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
PAPER = paper.load()
OF_PAPER = {name: item for name, item in ITEMS.items() if item.kind != "study"}
PRINTED = [name for name, item in OF_PAPER.items() if PAPER.table(item.paper_name)]
EVERY = [(item, row) for item in OF_PAPER.values() for row in item.rows]
PLACES = list(dict.fromkeys(p for item in ITEMS.values() for p in item.places))
DATA = {
    "CIFAR-100": "cifar100",
    "Tiny-ImageNet": "tiny_imagenet",
    "ImageNet-100": "imagenet100",
    "ImageNet-1K": "imagenet",
}


@functools.cache
def _runs(config: str, variant: str) -> dict[str, Config]:
    """The cells of a grid's config, or the one run, named ""."""
    spec = importlib.util.spec_from_file_location("config", CONFIGS / f"{config}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    raw = module.get_config(*([variant] if variant else []))
    if "cells" in raw:
        return {cell.name: cell.config for cell in cells.read(raw)}
    return {"": from_config_dict(raw)}


def _run(place: Place) -> Config:
    return _runs(place.config, place.variant)[place.cell]


def _plan(place: Place) -> tuple:
    """How a place's student learns: plan, interval where it has one, epochs."""
    if place.network == TEACHER:
        return ("teacher",)
    student = _run(place).students[place.network]
    spaced = student.plan in ("spaced", "constant_ahead")
    interval = student.space_interval_epochs if spaced else 0.0
    return student.plan, interval, student.epochs_factor


def test_every_place_is_a_network_of_its_config():
    """Else a night on a cluster would begin with a name that nobody has."""
    for place in PLACES:
        config = _run(place)
        assert 0 < place.share <= 1
        if place.network == TEACHER:
            assert config.teacher.model != NO_TEACHER
        else:
            assert place.network in config.students, place


def test_no_config_of_the_paper_is_left_out():
    files = {f"paper/{path.stem}" for path in (CONFIGS / "paper").glob("*.py")}
    assert files - {place.config for place in PLACES} == set()


@pytest.mark.parametrize("name", PRINTED)
def test_every_printed_number_has_a_place(name):
    """Differences have the pair of columns that is compared instead."""
    item, table = ITEMS[name], PAPER.table(ITEMS[name].paper_name)
    assert table
    known = {(row.paper_label, column) for row in item.rows for column in row.places}
    for column in table.columns.values():
        if column.minus:
            assert column.minus in item.comparisons
            continue
        assert not item.columns[column.name].control
        for label in table.rows:
            assert (label, column.name) in known
    assert {row.paper_label for row in item.rows} == set(table.rows)
    ours = {c for c, column in item.columns.items() if not column.control}
    assert ours == {c.name for c in table.columns.values() if not c.minus}


def test_what_the_paper_does_not_print_is_only_figures():
    assert set(OF_PAPER) - set(PRINTED) == {"figure3", "figure4", "figure5", "figure6"}
    assert set(PAPER.tables) | set(PAPER.figures) == set(OF_PAPER)
    assert all(ITEMS[name].name == name for name in ITEMS)


def test_names_within_an_item_hold_together():
    for item in ITEMS.values():
        labels = [row.label for row in item.rows]
        assert len(set(labels)) == len(labels)
        assert all(set(row.places) <= set(item.columns) for row in item.rows)
        for pair in item.comparisons:
            best = (item.best[name].among for name in pair if name in item.best)
            used = {name for name in pair if name not in item.best}.union(*best)
            assert used <= set(item.columns)
            assert any(used <= set(row.places) for row in item.rows)
        used = {column for row in item.rows for column in row.places}
        assert used == set(item.columns)


def test_a_row_is_on_the_data_that_it_names():
    for item, row in EVERY:
        named = row.data.split(",")[0]
        if item.name in ("table5", "table12"):
            named = "CIFAR-100"
        for place in row.places.values():
            assert _run(place).data.name == DATA[named], (item.name, row.label)


def test_a_row_has_the_network_that_it_names():
    """Tables 9 and 10 name the teacher, Table 4 its student, all others both."""
    for item, row in EVERY:
        if item.name == "figure6":
            continue
        wanted, _, factor = row.model.lower().replace("tiny", "").partition(" x")
        wanted = wanted.replace("resnet-", "resnet").rstrip("-")
        for place in row.places.values():
            config = _run(place)
            if item.name in ("table9", "table10"):
                assert config.teacher.model.startswith(wanted)
                assert config.teacher.arch.param_factor == float(factor or 1)
            elif place.network != TEACHER:
                model = config.students[place.network].model
                assert re.fullmatch(rf"{wanted}(_tiny)?(_distilled|_branches)?", model)


ONLINE, NONE, OFFLINE = ("online", 0.0, 1.0), ("none", 0.0, 1.0), ("offline", 0.0, 1.0)
SPACED, TURNS = ("spaced", 1.5, 1.0), ("interleaved", 0.0, 1.0)
SELF = {
    "self_kd": ONLINE,
    "self_kd_double": ("online", 0.0, 2.0),
    "interleaved": TURNS,
}
PLANS = {
    "table1": {"baseline": NONE, "online": ONLINE, "spaced": SPACED},
    "table2": SELF
    | {
        "baseline": NONE,
        "spaced": ("spaced", 4.0, 1.0),
        "spaced_half": ("spaced", 4.0, 0.5),
    },
    "table3": {"baseline": NONE, "online": ONLINE, "spaced": SPACED},
    "table6": {"baseline": NONE, "online": ONLINE, "offline": OFFLINE}
    | {
        f"spaced_{s:.1f}".replace(".", "_"): ("spaced", s, 1.0)
        for s in (0.5, 1.0, 1.5, 2.0)
    },
    "table7": SELF
    | {
        "online": ONLINE,
        "spaced": SPACED,
        "self_spaced": SPACED,
        "spaced_half": ("spaced", 1.5, 0.5),
    },
    "table10": {"offline": OFFLINE, "spaced": SPACED, "online": ONLINE, "labels": NONE},
    "table11": {"ahead_0_0": ONLINE}
    | {
        f"ahead_{s:.1f}".replace(".", "_"): ("constant_ahead", s, 1.0)
        for s in (0.5, 1.0, 1.5, 2.0, 2.5)
    },
    "table13": {"online": ONLINE, "spaced": SPACED},
    "figure5": {"baseline": NONE, "online": ONLINE, "spaced": SPACED},
}
PLANS |= {"figure2": PLANS["table6"], "table8": PLANS["table7"]}
PLANS |= {"figure4": PLANS["table13"]}
for _name in ("table5", "table12"):
    PLANS[_name] = PLANS["table13"] | {
        f"{column}_relative": plan for column, plan in PLANS["table13"].items()
    }


@pytest.mark.parametrize("name", PLANS)
def test_a_column_learns_as_it_says(name):
    """A spaced number under 'online' would be believed for long."""
    for row in ITEMS[name].rows:
        found = {column: _plan(place) for column, place in row.places.items()}
        assert found == {column: PLANS[name][column] for column in row.places}


def test_table_3_swaps_the_loss_that_its_row_names():
    """The names of the fields' values, by the paper's rows: method D.3."""
    of = {"features": "feature_loss", "logits": "soft_loss"}
    found = {}
    for row in ITEMS["table3"].rows:
        field = of[row.label.partition(", of ")[2]]
        values = {
            getattr(_run(place).students[place.network], field)
            for column, place in row.places.items()
            if column != "baseline"
        }
        found.setdefault(row.paper, []).extend(values)
    assert found == {
        "L1": ["l1", "l1"],
        "Smooth L1": ["smooth_l1", "smooth_l1"],
        "MSE (Mean)": ["mse", "mse"],
        "MSE (Sum)": ["dist", "mse_sum"],
        "Cross-Entropy": ["ce", "soft_cross_entropy"],
    }


def test_table_4_has_each_method_where_the_paper_has_it():
    """A.3: DLB and PS-KD train the teacher, which is their column w/o KD."""
    rows = {row.label: row for row in ITEMS["table4"].rows}
    for label, row in rows.items():
        method = {"PSKD": "ps_kd"}.get(row.paper_label, row.paper_label.lower())
        config = _run(row.places["method"])
        taught = config.students[row.places["method"].network]
        if method in ("dlb", "ps_kd"):
            assert config.teacher.method == method
            assert _plan(row.places["without"]) == ("teacher",)
            assert _plan(row.places["method"]) == ONLINE
            assert _plan(row.places["labels"]) == NONE
        elif method in ("dml", "shake"):
            assert taught.method == method and taught.plan == "online"
            assert _plan(row.places["interleaved"]) == TURNS
        else:
            stage = label == "BAN, third generation"
            assert taught.plan == ("online" if stage else "offline")
            assert bool(config.tutor.stage) == (method == "takd")
        if "spaced" in row.places:
            assert _plan(row.places["spaced"]) == SPACED
        else:
            assert "none is spaced" in row.notes[0]


def test_the_baseline_of_table_9_is_the_teacher_unless_the_roles_are_turned():
    found = {
        row.label: (row.paper_label, _plan(row.places["baseline"]))
        for row in ITEMS["table9"].rows
    }
    turned = {label for label, (_, plan) in found.items() if plan == NONE}
    assert turned == {"ResNet-56 teaches DeiT-Tiny", "ResNet-56 teaches PiT-Tiny"}
    assert {plan for _, plan in found.values()} == {("teacher",), NONE}
    for row in ITEMS["table9"].rows:
        others = {c: _plan(p) for c, p in row.places.items() if c != "baseline"}
        assert others == {column: PLANS["table10"][column] for column in others}
        student = _run(row.places["online"]).students["online"].model
        taught = row.paper_label if row.label in turned else "ResNet-18"
        assert student.startswith(taught.lower().replace("-", "")[:3])


def test_the_epochs_of_tables_7_and_8_are_shares_of_their_runs():
    """20 of 80 epochs is a quarter, whatever a shorter run has."""
    for name in ("table7", "table8"):
        for row in ITEMS[name].rows:
            epoch = int(row.label.removeprefix("epoch "))
            for place in row.places.values():
                assert place.share * _run(place).num_epochs == pytest.approx(epoch)
    elsewhere = [i for n, i in ITEMS.items() if n not in ("table7", "table8")]
    assert {place.share for item in elsewhere for place in item.places} == {1.0}


def test_the_readings_of_table_11_are_two_ways_of_being_behind():
    found = {
        row.label: {
            _run(place).students[place.network].ahead
            for column, place in row.places.items()
            if column != "ahead_0_0"
        }
        for row in ITEMS["table11"].rows
    }
    assert found == {
        "CIFAR-100, delayed": {"delayed"},
        "CIFAR-100, late start": {"late_start"},
    }


def test_figure_3_is_spaced_from_the_epoch_on_its_axis():
    for row in ITEMS["figure3"].rows:
        assert _plan(row.places["online"]) == ONLINE
        assert _plan(row.places["spaced"]) == SPACED
        place = row.places["spaced_here"]
        student = _run(place).students[place.network]
        if student.plan == "spaced":
            assert (row.x, row.panel) == (0.0, "to the end")
            continue
        assert student.window_start_epochs == row.x
        window = student.window_stop_epochs
        # The last window of ten epochs is the one to the end.
        stop = window if row.x == 70 else (row.x + 10) * (row.panel != "to the end")
        assert window == stop
    panels = [row.panel for row in ITEMS["figure3"].rows]
    assert (panels.count("for 10 epochs"), panels.count("to the end")) == (8, 8)


def test_figure_5_has_the_cell_of_the_value_on_its_axis():
    for row in ITEMS["figure5"].rows:
        config = _run(row.places["spaced"])
        value = {
            "learning rate": config.students["spaced_1_5"].optim.learning_rate,
            "batch size": config.data.batch_size,
        }[row.panel]
        assert value == row.x
    cells_used = {place.cell for place in ITEMS["figure5"].places}
    known = set(_runs("paper/figure5", "learning_rate"))
    assert cells_used == known | set(_runs("paper/figure5", "batch_size"))


def test_a_figure_has_a_place_on_its_axis_for_every_curve():
    for name in ("figure3", "figure4", "figure5"):
        item = ITEMS[name]
        assert item.kind == "figure" and item.axis
        assert all(row.panel and math.isfinite(row.x) for row in item.rows)
        for panel in {row.panel for row in item.rows}:
            curve = [row.x for row in item.rows if row.panel == panel]
            assert curve == sorted(set(curve))  # a line would go back and forth
    axis = {c: column.x for c, column in ITEMS["figure2"].columns.items()}
    assert {c: x for c, x in axis.items() if math.isfinite(x)} == {
        "online": 0.0,
        "spaced_0_5": 0.5,
        "spaced_1_0": 1.0,
        "spaced_1_5": 1.5,
        "spaced_2_0": 2.0,
    }


def test_an_analysis_is_one_that_there_is_with_options_that_it_has():
    """And one set of options an analysis: it need not measure a network twice."""
    options = {}
    for place in PLACES:
        assert bool(place.analysis) == (place.measure is not None)
        if place.analysis:
            ANALYSES[place.analysis].options(**dict(place.options))
            options.setdefault(place.analysis, set()).add(place.options)
    assert set(options) == {"corruptions", "noise", "attacks"}
    assert {len(found) for found in options.values()} == {1}


def test_every_level_and_corruption_is_one_that_is_measured():
    """By the options of the place: else its cell would stay empty for ever."""
    for place in PLACES:
        if not place.measure:
            continue
        options = ANALYSES[place.analysis].options(**dict(place.options))
        path, at = place.measure.path, place.measure.at
        if place.analysis == "attacks":
            assert path[1] in options.names and at in options.radii
        elif place.analysis == "noise":
            assert str(at).removesuffix(".0") in getattr(options, path[0]).split(",")
        elif path != ("pictures", "clean"):
            name, level = path[1:] if path[0] != "pictures" else path[1].split("/")
            assert name in options.corruptions and int(level) in options.levels


def _measures(name: str) -> list[tuple[Row, str, Measure]]:
    """Rows and columns of an item, and what is read there."""
    return [
        (row, column, place.measure)
        for row in ITEMS[name].rows
        for column, place in row.places.items()
        if place.measure
    ]


def test_a_row_reads_what_it_names():
    """Corruption, severity, level, metric and kind of noise: all from its label."""
    for name in ("table5", "table12"):
        for row, column, (path, *_) in _measures(name):
            assert (" ".join(path[1:]), path[0] == "relative") == (
                row.data,
                column.endswith("_relative"),
            )
    for row, column, (path, *_) in _measures("figure6"):
        level = column.removeprefix("severity_")
        wanted = "clean" if level == "clean" else f"{row.label}/{level}"
        assert path == ("pictures", wanted)
    for row, _, (path, along, at, _) in _measures("figure4"):
        kind, split, _, metric = path
        assert (split, along, at) == ("train", (kind, "sigma"), row.x)
        assert f"{kind} noise" in row.panel
        assert {"acc1": "accuracy, %", "loss": "entropy, nats"}[metric] in row.panel
        assert row.unit == {"acc1": "%", "loss": "nats"}[metric]
    for row, _, (path, along, at, _) in _measures("table13"):
        assert (path, along, at) == (("curves", "bim", "acc1"), ("eps",), row.x)
        assert row.label == f"{row.paper}, eps {at:g}/255"


# So few that they are measured in a moment.
LEVELS = {0.0, 0.01, 0.25, 1.0, 2.0}
SHOWN = ("impulse_noise", "snow")


@pytest.fixture(scope="module")
def found(analysed_run, tmp_path_factory):
    """The three analyses on a network of a tiny run, by some of the places' options."""
    few = {
        "noise": {"absolute": "0,0.01", "relative": "0,0.25", "splits": "train"}
        | {"num_draws": 1, "num_train_examples": 20},
        "attacks": {"eps": "1,2", "steps": 1, "num_examples": 20},
        "corruptions": {"names": ",".join(SHOWN), "num_examples": 10},
    }
    options = {
        name: dict(next(p.options for p in PLACES if p.analysis == name)) | fewer
        for name, fewer in few.items()
    }
    folder = analysed_run.copy(tmp_path_factory.mktemp("read") / "run")
    return analyze(
        folder, list(few), networks=["spaced"], options=options, num_devices=1
    )


def _is_found(measure: Measure) -> bool:
    if measure.along:
        return measure.at in LEVELS
    return measure.path[1].startswith((*SHOWN, "clean"))


def test_every_measure_is_in_what_its_analysis_writes(found):
    """A number a seed each; the pictures of Figure 6 are PNG files."""
    measures = {(p.analysis, p.measure) for p in PLACES if p.measure}
    for analysis, measure in measures:
        if not _is_found(measure):
            continue
        if measure.once:
            picture = readings.picture_of(found[analysis], measure)
            assert picture and picture.startswith(b"\x89PNG")
            continue
        numbers = readings.by_seed(found[analysis], "spaced", measure)
        assert list(numbers) == [3, 4]
        assert all(isinstance(number, float) for number in numbers.values())


def test_a_measure_is_the_number_at_its_level(found):
    """Read again by hand: eps 2 is the second of 1, 2 and 64."""
    measure = next(
        row.places["spaced"].measure
        for row in ITEMS["table13"].rows
        if row.label == "ResNet-18, eps 2/255"
    )
    rows = {row.seed: row.values for row in found["attacks"].rows}
    by_hand = {seed: of["curves"]["bim"]["acc1"][1] for seed, of in rows.items()}
    assert measure
    assert readings.by_seed(found["attacks"], "spaced", measure) == by_hand
    assert rows[3]["eps"] == [1.0, 2.0, 64.0]


VALUES = {"sigma": [0.0, 0.1], "loss": [1.5, None], "deep": {"clean": 70.5}}


def test_a_number_is_taken_by_path_and_by_level():
    take = functools.partial(readings.number_of, VALUES)
    assert take(Measure(("deep", "clean"))) == 70.5
    assert take(Measure(("loss",), ("sigma",), 0.0)) == 1.5
    assert take(Measure(("loss",), ("sigma",), 0.1)) is None  # not finite
    assert take(Measure(("loss",), ("sigma",), 0.2)) is None  # not measured
    with pytest.raises(ConfigError, match="'deep/noisy' is not .* no 'noisy' among"):
        take(Measure(("deep", "noisy")))


def _evaluation(seed: int, step: int, acc1: float, **more: float) -> dict:
    return {
        "phase": "eval",
        "network": "a",
        "seed": seed,
        "step": step,
        "eval/student/a/acc1": acc1,
    } | more


def test_an_accuracy_on_the_way_is_that_of_the_nearest_evaluation():
    """Of a network of 100 updates: at 30 the one of 25, at 50 the later one."""
    rows = [_evaluation(0, step, float(step)) for step in (25, 40, 60, 100)]
    at = functools.partial(readings.accuracy_at, rows, "a", 100)
    found = {share: at(share)[0] for share in (0.1, 0.3, 0.33, 0.5, 1.0)}
    assert found == {0.1: 25.0, 0.3: 25.0, 0.33: 40.0, 0.5: 60.0, 1.0: 100.0}


def test_a_seed_that_has_not_come_so_far_has_no_accuracy_there():
    """A number of a run that goes on must not stand for the end."""
    rows = [
        _evaluation(0, 50, 60.0),
        _evaluation(1, 50, 61.0),
        _evaluation(1, 100, 70.0),
        {"phase": "train", "network": "a", "seed": 0, "step": 100},
        _evaluation(0, 100, 99.0) | {"network": "b"},
    ]
    assert readings.accuracy_at(rows, "a", 100, 0.5) == {0: 60.0, 1: 61.0}
    assert readings.accuracy_at(rows, "a", 100, 1.0) == {1: 70.0}


def test_an_exit_has_its_own_accuracy():
    rows = [_evaluation(0, 100, 70.0, **{"eval/student/a/exit4/acc1": 68.0})]
    assert readings.accuracy_at(rows, "a", 100, 1.0, "exit4") == {0: 68.0}
    assert readings.accuracy_at(rows, "a", 100, 1.0, "exit9") == {0: None}


def test_an_accuracy_of_a_run_is_the_one_it_quotes(analysed_run):
    """From the log that a run has written, against its own results."""
    results = analysed_run.results
    rows = readings.evaluations(analysed_run.workdir)
    for name, network in results.networks.items():
        found = readings.accuracy_at(rows, name, network.updates, 1.0)
        assert tuple(found.values()) == network.acc1_last.per_seed
        assert tuple(found) == network.seeds


def test_an_unknown_item_lists_the_nearest_first():
    assert items.lookup("table6") is ITEMS["table6"]
    with pytest.raises(ConfigError, match="item='tabel6' is unknown; did you mean 'ta"):
        items.lookup("tabel6")
