"""Lines between networks: barriers, BatchNorm's statistics, which pairs."""

import dataclasses

import jax
import numpy as np
import pytest
import subjects

from spaced_kd import analysis, analyze
from spaced_kd.analysis import batch_stats, landscape, line, noise, pairs
from spaced_kd.analysis.base import Found, Row
from spaced_kd.analysis.subject import Run
from spaced_kd.config import student
from spaced_kd.errors import ConfigError
from spaced_kd.style import line_looks

rng = np.random.default_rng(0)
COUNTS = {"num_train_examples": 40, "num_test_examples": 40}


@pytest.fixture(scope="module")
def run():
    """Small CNNs with BatchNorm."""
    return subjects.make_run()


def test_places_hold_both_ends_and_go_on_beyond():
    found = line.places(10, 0.2)
    np.testing.assert_allclose(found, np.arange(-2, 13) / 10, atol=1e-15)
    assert 0.0 in found and 1.0 in found
    assert line.places(3, 0.0) == [0.0, 1 / 3, 2 / 3, 1.0]


@pytest.mark.parametrize(
    ("intervals", "beyond"),
    [(10, 0.04), (10, 0.25), (10, 0.3), (10, 0.57), (100, 0.07), (100, 0.29)],
)
def test_a_line_ends_exactly_as_far_beyond_as_was_asked_for(intervals, beyond):
    """Also where that is no whole number of steps, and each place comes once."""
    found = line.places(intervals, beyond)
    np.testing.assert_allclose(found[0], -beyond, rtol=1e-12)
    np.testing.assert_allclose(found[-1], 1 + beyond, rtol=1e-12)
    np.testing.assert_allclose(np.add(found, found[::-1]), 1, rtol=1e-12)
    steps = np.diff(found)
    assert steps.min() > 1e-3 and steps.max() < 1 / intervals + 1e-12


def test_a_barrier_is_the_most_that_the_loss_rises_above_the_straight_line():
    """Of t (1 - t) h on a slope: h / 4 at the middle; what is beyond does not count."""
    t = np.array(line.places(10, 0.2))
    loss = 1 + 3 * t + 2.4 * t * (1 - t)
    loss[[0, -1]] = 100
    found = line.barrier(t.tolist(), loss.tolist())
    np.testing.assert_allclose(found, 0.6, rtol=1e-12)
    assert line.barrier([0.0, 0.5, 1.0], [1.0, 0.2, 1.0]) == 0.0
    assert line.barrier([0.0, 0.5, 1.0], [1.0, None, 1.0]) is None


def _first_convolution(images, kernel):
    """3x3, stride 1, zero padding 1, in float64."""
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )


@pytest.mark.parametrize("devices", [1, 4])
def test_estimated_statistics_are_those_of_the_batches(run, devices):
    """Mean and unbiased variance of each batch, the last and shorter one included."""
    run = run if devices == 1 else subjects.make_run(devices=devices)
    subject = subjects.make_subject(run)
    split = run.split("train", 40, "")
    params = subject.variables["params"]
    found = batch_stats.estimated(subject, params, split, 16)
    images = np.asarray(run.prepare(split.image))
    mean, var = np.zeros(16), np.zeros(16)
    for start, size in ((0, 16), (16, 16), (32, 8)):
        x = _first_convolution(images[start : start + size], params["Conv_0"]["kernel"])
        mean += size / 40 * x.mean((0, 1, 2))
        var += size / 40 * x.var((0, 1, 2), ddof=1)
    first = found["BatchNorm_0"]
    np.testing.assert_allclose(first["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(first["var"], var, rtol=1e-4)
    assert set(found) == {"BatchNorm_0", "BatchNorm_1", "BatchNorm_2"}


def test_a_network_without_batch_norm_has_no_statistics():
    run = subjects.make_run("mlp")
    subject = subjects.make_subject(run)
    split = run.split("train", 40, "")
    assert batch_stats.estimated(subject, subject.variables["params"], split, 16) == {}


OPTIONS = line.Options(intervals=2, beyond=0.5, statistics="interpolated")


def _ends(run):
    return subjects.make_subject(run, "online", 0), subjects.make_subject(
        run, "spaced", 1
    )


def _splits(run):
    return {name: run.split(name, 40, "") for name in ("train", "test")}


def test_interpolated_ends_and_middle_score_as_by_hand(run):
    a, b = _ends(run)
    found = line.along(a, b, _splits(run), OPTIONS)
    assert found["at"] == [-0.5, 0.0, 0.5, 1.0, 1.5]
    middle = jax.tree.map(lambda x, y: (x + y) / 2, a.variables, b.variables)
    for place, variables in ((1, a.variables), (2, middle), (3, b.variables)):
        for name, split in _splits(run).items():
            loss, accuracy = subjects.scores_by_hand(a, variables, split)
            np.testing.assert_allclose(found[name]["loss"][place], loss, rtol=1e-5)
            np.testing.assert_allclose(found[name]["acc1"][place], accuracy, rtol=1e-6)


def test_extrapolated_variances_are_not_negative(run):
    """Else activations beyond the ends would be NaN, which a ReLU may hide."""
    a, b = _ends(run)
    for norm in b.variables["batch_stats"].values():
        norm["var"] *= 0.01
    beyond = jax.tree.map(lambda x, y: 1.5 * y - 0.5 * x, a.variables, b.variables)
    for norm in beyond["batch_stats"].values():
        assert (norm["var"] < 0).any()
        norm["var"] = np.maximum(norm["var"], 0)
    found = line.along(a, b, _splits(run), OPTIONS)
    for name, split in _splits(run).items():
        loss, _ = subjects.scores_by_hand(a, beyond, split)
        np.testing.assert_allclose(found[name]["loss"][-1], loss, rtol=1e-4)


def test_recomputed_statistics_are_of_the_weights_in_between(run):
    """The line does not depend on what either network had, only on the images."""
    options = dataclasses.replace(OPTIONS, statistics="recomputed", beyond=0.0)
    a, b = _ends(run)
    images = _splits(run)
    found = line.along(a, b, images, options)
    middle = jax.tree.map(
        lambda x, y: (x + y) / 2, a.variables["params"], b.variables["params"]
    )
    size = run.config.data.batch_size
    stats = batch_stats.estimated(a, middle, images["train"], size)
    expected = {"params": middle, "batch_stats": stats}
    loss, _ = subjects.scores_by_hand(a, expected, images["test"])
    np.testing.assert_allclose(found["test"]["loss"][1], loss, rtol=1e-5)
    for subject in (a, b):
        other = subjects.make_subject(run, key=7)
        subject.variables["batch_stats"] = other.variables["batch_stats"]
    again = line.along(a, b, images, options)
    assert again == found
    interpolated = dataclasses.replace(options, statistics="interpolated")
    assert line.along(a, b, images, interpolated) != found


@pytest.fixture
def mixed_run():
    """MLPs, of which the student other is narrower."""
    students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "other": student(plan="online", model="narrow_mlp"),
        "spaced": student(plan="spaced", space_interval_epochs=0.5),
    }
    return subjects.make_run("mlp", students=students)


def test_by_default_every_student_is_joined_to_the_reference(mixed_run):
    run = mixed_run
    found = {name: pairs.others(run, name, "", "") for name in run.names}
    assert found == {
        "teacher": [],
        "baseline": ["online"],
        "online": [],
        "other": [],
        "spaced": ["online"],
    }
    assert pairs.others(run, "spaced", "spaced-baseline, spaced-online", "") == [
        "baseline",
        "online",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "spaced-other"}, "spaced and other are not of one architecture"),
        ({"pairs": "baseline-spaced,onlin-spaced"}, "did you mean 'online'"),
        ({"num_train_examples": 1}, "--options.line.num_train_examples"),
        ({"num_test_examples": 1}, "--options.line.num_test_examples"),
    ],
)
def test_what_the_run_does_not_have_is_refused_beforehand(mixed_run, options, message):
    """Not after the other networks have been measured for an hour."""
    with pytest.raises(ConfigError, match=message) as error:
        line.ANALYSIS.check(mixed_run, line.Options(**COUNTS | options))
    assert "\n" not in str(error.value)


def test_a_line_depends_on_the_network_at_its_other_end(mixed_run, monkeypatch):
    """Where that was trained on, the line of the first is measured again."""
    saved = lambda run, name, seed: subjects.make_subject(run, name)
    monkeypatch.setattr(Run, "subject", saved)
    monkeypatch.setattr(Run, "last_step", lambda run, name, seed: 1)
    names = {}
    for name in mixed_run.names:
        subject = subjects.make_subject(mixed_run, name)
        ends = line.ANALYSIS.beside(subject, line.Options())
        names[name] = [end.name for end in ends]
    expected = {name: [] for name in mixed_run.names}
    assert names == expected | {"baseline": ["online"], "spaced": ["online"]}
    early = dataclasses.replace(subjects.make_subject(mixed_run, "spaced"), step=0)
    options = line.Options(pairs="spaced-baseline")
    assert not line.ANALYSIS.beside(early, options)
    assert line.measure(early, options) is None


@pytest.mark.parametrize("text", ["online", "online-", "a-a", "a-b,c"])
def test_what_is_no_pair_is_refused_in_a_line(text):
    with pytest.raises(ConfigError, match="is not two networks; give e.g.") as error:
        line.Options(pairs=text)
    assert "\n" not in str(error.value)


def _found():
    at = line.places(2, 0.5)
    rows = []
    for seed, height in ((0, 1.0), (1, 3.0)):
        curve = {"loss": [9.0, 1.0, 2 + height, 3.0, 9.0]}
        curve |= {"acc1": [0.0, 90.0, 85 - height, 80.0, 0.0]}
        values = {"online": {"at": at, "train": curve, "test": curve}}
        rows.append(Row("spaced", seed, 1, 1.0, values))
    options = dataclasses.asdict(OPTIONS)
    students = {"online": {"init": "same"}, "spaced": {"init": "different"}}
    return Found({"students": students, "reference": "online"}, options, {}, rows)


def test_the_table_has_barriers_over_seeds_and_says_where_both_began():
    table = line.table(_found())
    assert table.rows[0] == ("spaced to online", "train", "2.00 ± 1.41", "2.00 ± 1.41")
    assert table.notes[-1] == "spaced to online: from different initial weights."


def test_lines_that_begin_at_one_network_do_not_look_alike():
    found = _found()
    rows = [
        row._replace(values=row.values | {"teacher": row.values["online"]})
        for row in found.rows
    ]
    looks = line_looks(["online", "spaced"])
    (_, _, figure), _ = line.figures(found._replace(rows=rows), looks)
    first, second = figure.axes[1].lines
    assert first.get_color() != second.get_color()


def test_a_figure_has_a_line_for_each_pair():
    (stem, _, figure), _ = line.figures(_found(), line_looks(["online", "spaced"]))
    assert stem == "line_train"
    (drawn,) = figure.axes[1].lines
    np.testing.assert_allclose(drawn.get_xdata(), [-0.5, 0, 0.5, 1, 1.5])
    np.testing.assert_allclose(drawn.get_ydata(), [9, 1, 4, 3, 9])


def test_what_was_not_measured_yet_is_not_shown():
    """The report of an analysis that was stopped before its first network."""
    looks = line_looks(["online"])
    for module in (line, noise, landscape):
        options = dataclasses.asdict(module.Options())
        nothing = Found({"students": {}, "reference": "online"}, options, {}, [])
        assert module.ANALYSIS.table(nothing) is None
        drawn = module.ANALYSIS.figures(nothing, looks)
        assert all(figure is None for _, _, figure in drawn)


SMALL = {
    "noise": COUNTS | {"absolute": "0,0.1", "relative": "0,0.3", "num_draws": 2},
    "landscape": {"line_points": 3, "plane_points": 3, "num_examples": 40},
    "line": COUNTS | {"intervals": 2, "beyond": 0.5},
}


def test_the_command_measures_a_run_for_all_three(analysed_run, tmp_path):
    """Through what a run has saved, and not networks made for the test."""
    workdir = analysed_run.copy(tmp_path / "run")
    found = analyze.analyze(workdir, list(SMALL), seeds=[4], options=SMALL)
    names = ["teacher", "baseline", "online", "spaced"]
    assert found["noise"].networks == found["landscape"].networks == names
    ends = {row.network: list(row.values) for row in found["line"].rows}
    assert ends == {"baseline": ["online"], "spaced": ["online"]}
    # Of all 40 test images; the networks have no BatchNorm that could be recomputed.
    own = lambda name: analysed_run.results.networks[name].acc1_last.per_seed[1]
    clean = found["noise"].spread("spaced", lambda v: v["clean"]["test"]["acc1"])
    along = lambda values: values["online"]["test"]["acc1"]
    first = found["line"].spread("spaced", lambda v: along(v)[1])
    second = found["line"].spread("spaced", lambda v: along(v)[3])
    assert clean.mean == first.mean == pytest.approx(own("spaced"), rel=1e-6)
    assert second.mean == pytest.approx(own("online"), rel=1e-6)
    looks = line_looks(names[1:])
    for name, one in found.items():
        assert analysis.ANALYSES[name].table(one) is not None
        drawn = analysis.ANALYSES[name].figures(one, looks)
        assert drawn and all(figure is not None for _, _, figure in drawn)
