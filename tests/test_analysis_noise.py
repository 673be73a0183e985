"""Noise on the parameters against NumPy, and what it must not touch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import subjects
import tiny

from spaced_kd.analysis import directions, noise, scores
from spaced_kd.analysis.base import Found, Row
from spaced_kd.analysis.subject import outputs_of
from spaced_kd.config import student
from spaced_kd.errors import ConfigError
from spaced_kd.style import line_looks

rng = np.random.default_rng(0)
PARAMS = {
    "conv": {"kernel": rng.normal(size=(3, 3, 2, 40)).astype(np.float32)},
    "head": {
        "kernel": rng.normal(size=(40, 50)).astype(np.float32),
        "bias": rng.normal(size=50).astype(np.float32),
    },
}
OPTIONS = {
    "absolute": "0,0.1,0.2",
    "relative": "0,0.5",
    "num_draws": 2,
    "num_train_examples": 40,
    "num_test_examples": 40,
}


def test_noise_is_standard_normal_and_its_own_in_every_tensor():
    """Numbers shared by two tensors would be one direction, not independent noise."""
    same = {"a": np.zeros(4000, np.float32), "b": np.zeros(4000, np.float32)}
    drawn = directions.gaussian((0,), same)
    a, b = np.asarray(drawn["a"]), np.asarray(drawn["b"])
    # Six standard errors of mean, variance and correlation.
    for x in (a, b):
        assert abs(x.mean()) < 6 / 4000**0.5
        assert abs(x.var() - 1) < 6 * (2 / 4000) ** 0.5
    assert abs((a * b).mean()) < 6 / 4000**0.5


def test_networks_that_share_a_trunk_get_the_same_noise_there():
    more = {**PARAMS, "branch1": {"kernel": np.zeros((4, 4), np.float32)}}
    alone, joined = directions.gaussian((1,), PARAMS), directions.gaussian((1,), more)
    np.testing.assert_array_equal(alone["head"]["kernel"], joined["head"]["kernel"])
    np.testing.assert_array_equal(alone["conv"]["kernel"], joined["conv"]["kernel"])


def test_relative_noise_is_in_units_of_each_tensors_root_mean_square():
    unit = jax.tree.map(lambda w: np.full_like(w, 2.0), PARAMS)
    found = directions.in_units_of_rms(unit, PARAMS)
    for path in (("conv", "kernel"), ("head", "kernel"), ("head", "bias")):
        weights = PARAMS[path[0]][path[1]].astype(np.float64)
        expected = 2 * np.sqrt(np.mean(weights**2))
        np.testing.assert_allclose(found[path[0]][path[1]], expected, rtol=1e-6)


def test_curves_are_mean_and_deviation_over_draws():
    """Of a loss whose value at every point is known: the sum of the weights."""
    params = {"w": np.array([1.0, 2.0], np.float32)}
    draws = [{"w": np.array(d, np.float32)} for d in ([1, 0], [0, 3], [-2, 0])]
    scored = lambda p: {"train": {"loss": float(p["w"].sum()), "acc1": 7.0}}
    found = noise.curves(scored, params, scored(params), [0.0, 0.5, 2.0], draws)
    values = 3 + np.outer([1.0, 3.0, -2.0], [0.0, 0.5, 2.0])
    np.testing.assert_allclose(found["train"]["mean"]["loss"], values.mean(0))
    np.testing.assert_allclose(found["train"]["std"]["loss"], values.std(0, ddof=1))
    assert found["train"]["mean"]["acc1"] == [7.0, 7.0, 7.0]
    assert found["sigma"] == [0.0, 0.5, 2.0]


def test_a_loss_that_overflows_has_no_mean():
    params = {"w": np.zeros(1, np.float32)}
    losses = iter([1.0, None, 2.0])
    scored = lambda p: {"test": {"loss": next(losses), "acc1": 0.0}}
    found = noise.curves(scored, params, scored(params), [0.0, 1.0], [params] * 2)
    assert found["test"]["mean"]["loss"] == [1.0, None]


@pytest.fixture(scope="module")
def measured():
    """A small CNN, the options, and what was measured with them."""
    subject = subjects.make_subject(subjects.make_run())
    options = noise.Options(**OPTIONS)
    return subject, options, noise.measure(subject, options)


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_measured_scores_are_those_of_noisy_weights_by_hand(measured, kind):
    """All parameters are noisy, the running statistics are not, in eval mode."""
    subject, options, found = measured
    params = subject.variables["params"]
    split = subject.run.split("test", 40, "")
    sigma = found[kind]["sigma"][-1]
    scale = lambda w: sigma * (1 if kind == "absolute" else np.sqrt(np.mean(w**2)))
    losses, accuracies = [], []
    for draw in range(2):
        unit = directions.gaussian((options.seed, draw), params)
        noisy = jax.tree.map(lambda w, u: w + scale(w) * u, params, unit)
        variables = {**subject.variables, "params": noisy}
        loss, accuracy = subjects.scores_by_hand(subject, variables, split)
        losses.append(loss)
        accuracies.append(accuracy)
    mean, std = found[kind]["test"]["mean"], found[kind]["test"]["std"]
    np.testing.assert_allclose(mean["loss"][-1], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(std["loss"][-1], np.std(losses, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(mean["acc1"][-1], np.mean(accuracies), rtol=1e-6)


def test_without_noise_every_draw_scores_as_the_network_itself(measured):
    _, _, found = measured
    for kind in ("absolute", "relative"):
        for split in ("train", "test"):
            curves = found[kind][split]
            assert curves["mean"]["loss"][0] == found["clean"][split]["loss"]
            assert curves["std"]["loss"][0] == 0.0


def test_scores_are_of_what_the_network_is_quoted_by():
    """Self KD reports its ensemble, the mean of all exits' logits."""
    fields = tiny.SELF_KD | {"student__model": "small_cnn_branches"}
    run = subjects.make_run(**fields, students={"itself": student(plan="online")})
    subject = subjects.make_subject(run, "itself")
    split = run.split("test", 40, "")
    found = scores.of_params(subject, subject.variables["params"], split)
    forward = jax.jit(functools.partial(outputs_of, subject.model))
    outputs = forward(subject.variables, run.prepare(split.image))
    exits = [outputs.logits, *jnp.moveaxis(outputs.branch_logits, 1, 0)]
    logits = np.mean(np.asarray(exits, np.float64), 0)
    own = logits[np.arange(40), split.label]
    expected = np.mean(np.log(np.exp(logits).sum(-1)) - own)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def _found(values, seeds=(0,), **options):
    options = noise.Options(**OPTIONS | options)
    rows = [Row(n, s, 1, 1.0, values[n]) for n in values for s in seeds]
    fields = {name: getattr(options, name) for name in options.__dataclass_fields__}
    return Found({"reference": "online"}, fields, {}, rows)


def _values(clean, noisy):
    curve = {"mean": {"loss": [0.1, 0.5, 2.0], "acc1": [clean, noisy, noisy - 20]}}
    curve["std"] = {"loss": [0.0, 0.1, 0.2], "acc1": [0.0, 1.0, 2.0]}
    return {
        "clean": {"test": {"loss": 0.1, "acc1": clean}},
        "absolute": {"sigma": [0, 0.1, 0.2], "test": curve},
    }


def test_the_table_has_drops_and_paired_differences():
    values = {"online": _values(90.0, 80.0), "spaced": _values(92.0, 88.0)}
    table = noise.table(_found(values, kind="absolute", splits="test"))
    told = [title.partition("\n")[2].split()[0] for title in table.titles[3:]]
    assert told == ["σ=0.1", "σ=0.2"]
    assert table.rows == (
        ("online", "test", "90.00", "10.00", "30.00"),
        ("spaced", "test", "92.00", "4.00", "24.00"),
        ("spaced - online", "test", "+2.00", "-6.00", "-6.00"),
    )


def test_the_table_compares_with_every_reference():
    names = {"online": (90.0, 80.0), "baseline": (85.0, 60.0), "spaced": (92.0, 88.0)}
    values = {name: _values(*own) for name, own in names.items()}
    found = _found(values, kind="absolute", splits="test")
    found = found._replace(config={"reference": "online,baseline"})
    rows = {row[0]: row[2:] for row in noise.table(found).rows[3:]}
    assert rows == {
        "baseline - online": ("-5.00", "+15.00", "+15.00"),
        "spaced - online": ("+2.00", "-6.00", "-6.00"),
        "spaced - baseline": ("+7.00", "-21.00", "-21.00"),
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_too_few_images_for_the_classes_are_told_before_anything_is_measured(split):
    run = subjects.make_run("mlp")
    options = noise.Options(**OPTIONS | {f"num_{split}_examples": 1})
    with pytest.raises(ConfigError, match=f"--options.noise.num_{split}_examples"):
        noise.ANALYSIS.check(run, options)


def test_bands_are_over_draws_for_one_seed_and_over_seeds_for_several():
    values = {"online": _values(90.0, 80.0)}
    looks = line_looks(["online"])
    for seeds, height in (((0,), 0.4), ((0, 1), 0.0)):
        found = _found(values, seeds, kind="absolute", splits="test")
        ((stem, _, figure),) = noise.figures(found, looks)
        assert stem == "noise_absolute_test"
        (band,) = figure.axes[1].collections
        vertices = band.get_paths()[0].vertices
        at_last = vertices[np.isclose(vertices[:, 0], 0.2), 1]
        np.testing.assert_allclose(np.ptp(at_last), height, atol=1e-12)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("absolute", "0,0.02,0.01", "--options.noise.absolute='0,0.02,0.01'"),
        ("relative", "a,b", "--options.noise.relative='a,b'"),
        ("relative", "-1,2", "rising numbers >= 0"),
        ("splits", "train,tset", "did you mean 'test'"),
    ],
)
def test_options_that_cannot_be_are_refused_in_a_line(option, value, message):
    with pytest.raises(ConfigError, match=message) as error:
        noise.Options(**{option: value})
    assert "\n" not in str(error.value)
