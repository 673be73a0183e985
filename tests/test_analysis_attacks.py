"""Attacks against closed forms of linear networks, Foolbox, and broken gradients."""

import dataclasses
import functools
import pathlib
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_parity import attack_cases, values

from spaced_kd import style
from spaced_kd.analysis import attacks
from spaced_kd.analysis.attacks import adversary, attacked, masking, report
from spaced_kd.analysis.attacks.options import Options
from spaced_kd.analysis.subject import open_run
from spaced_kd.analyze import analyze
from spaced_kd.config import ArchConfig
from spaced_kd.data.augment import prepare_eval
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.errors import ConfigError
from spaced_kd.models import make_model
from spaced_kd.models.base import Model
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import ModelOutput, Split
from spaced_kd.weights import import_torch, to_torch

SHAPE = (4, 4, 3)
rng = np.random.default_rng(0)
WEIGHTS = rng.normal(size=SHAPE).astype(np.float32)
BIAS = np.float32(-WEIGHTS.sum() / 2)
IMAGES = rng.random((40, *SHAPE)).astype(np.float32)
# Black and white pixels, which can move one way only.
IMAGES[:, 0], IMAGES[:, 1] = 0.0, 1.0
LABELS = rng.integers(0, 2, 40).astype(np.int32)
KEYS = jax.random.split(jax.random.key(0), 40)


def linear(image):
    """Two classes, of logits -s / 2 and s / 2, s = <w, x> + b."""
    s = jnp.tensordot(image, WEIGHTS, 3) + BIAS
    return jnp.stack([-s / 2, s / 2], -1)


def margins(image, label):
    """How far the linear network is on the label's side, in float64."""
    s = np.tensordot(image.astype(np.float64), WEIGHTS.astype(np.float64), 3) + BIAS
    return np.where(label == 1, s, -s)


def worst(eps):
    """The worst image of the ball and the box for `linear`: no search needed."""
    away = -np.where(LABELS == 1, 1, -1)[:, None, None, None] * np.sign(WEIGHTS)
    return np.clip(IMAGES.astype(np.float64) + eps * away, 0, 1)


@jax.jit
def attack_linear(rule):
    return adversary.perturb(linear, IMAGES, LABELS, KEYS, rule)


@pytest.mark.parametrize(
    "rule",
    [
        adversary.fgsm(0.1),
        adversary.bim(0.1, 0.025, 10),
        adversary.bim(0.1, 0.3, 1),
        # From any start, twice the radius is enough to reach the far corner.
        adversary.pgd(0.1, 0.025, 8),
        adversary.pgd(0.1, 0.03, 7, restarts=2),
    ],
)
def test_every_attack_finds_the_worst_image_of_a_linear_network(rule):
    """x + eps sign(w) up to clipping, and the accuracy that follows from it."""
    found = attack_linear(rule)
    np.testing.assert_allclose(found.image, worst(0.1), atol=1e-6)
    left = margins(worst(0.1), LABELS)
    assert 0.1 < np.mean(left > 0) < np.mean(margins(IMAGES, LABELS) > 0)
    np.testing.assert_array_equal(found.correct, left > 0)
    np.testing.assert_allclose(found.loss, np.log1p(np.exp(-left)), rtol=2e-4)


def test_bim_goes_as_far_as_its_steps():
    """Three steps of 0.01 move every free pixel by 0.03, though the ball is larger."""
    found = attack_linear(adversary.bim(0.1, 0.01, 3))
    np.testing.assert_allclose(found.image, worst(0.03), atol=1e-6)


def small_network(seed=0, classes=5):
    """A network with two layers, so that gradients turn on the way."""
    draw = np.random.default_rng(seed)
    first = jnp.asarray(draw.normal(size=(48, 16)) * 0.4, jnp.float32)
    second = jnp.asarray(draw.normal(size=(16, classes)), jnp.float32)

    def logits_of(image):
        flat = (image - 0.5).reshape(len(image), -1)
        return jnp.tanh(flat @ first) @ second

    return logits_of


SMALL = small_network()


traced = []


@jax.jit
def attack_small(rule, image, label, keys):
    traced.append(rule)
    return adversary.perturb(SMALL, image, label, keys, rule)


RULES = {
    "noise": adversary.noise(0.07),
    "fgsm": adversary.fgsm(0.07),
    "bim": adversary.bim(0.07, 0.03, 5),
    "pgd": adversary.pgd(0.07, 0.03, 5, restarts=2),
}


@pytest.mark.parametrize("name", RULES)
def test_images_stay_in_the_ball_and_in_the_box(name):
    found = attack_small(RULES[name], IMAGES, LABELS, KEYS).image
    moved = np.abs(np.asarray(found, np.float64) - IMAGES)
    assert 0.06 < moved.max() <= 0.07 + 1e-7
    assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", RULES)
def test_a_ball_without_radius_changes_nothing(name):
    found = attack_small(RULES[name]._replace(eps=0.0), IMAGES, LABELS, KEYS)
    np.testing.assert_array_equal(found.image, IMAGES)


@pytest.mark.parametrize("name", RULES)
def test_an_examples_adversary_does_not_depend_on_its_batch(name):
    whole = attack_small(RULES[name], IMAGES, LABELS, KEYS).image
    order = np.random.default_rng(3).integers(0, 40, 40)
    other = attack_small(RULES[name], IMAGES[order], LABELS[order], KEYS[order]).image
    np.testing.assert_allclose(other, whole[order], atol=1e-6)


def test_random_starts_are_a_function_of_the_key():
    rule = adversary.pgd(0.07, 0.0, 0)
    one, again = (attack_small(rule, IMAGES, LABELS, KEYS).image for _ in range(2))
    other = attack_small(rule, IMAGES, LABELS, KEYS[::-1]).image
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.05


def test_random_starts_fill_the_ball_evenly():
    """Uniform in [-eps, eps], of standard deviation eps / sqrt(3) about 0."""
    grey = np.full((40, *SHAPE), 0.5, np.float32)
    rule = adversary.pgd(0.3, 0.0, 0)
    keys = jax.random.split(jax.random.key(1), (10, 40))
    moved = [attack_small(rule, grey, LABELS, own).image - 0.5 for own in keys]
    moved = np.stack(moved)
    # 19,200 draws: four standard errors of mean and deviation.
    assert abs(moved.mean()) < 4 * 0.3 / np.sqrt(3 * moved.size)
    assert abs(moved.std() - 0.3 / np.sqrt(3)) < 4 * 0.3 * 0.26 / np.sqrt(moved.size)


def test_noise_moves_every_pixel_by_the_radius():
    grey = np.full((40, *SHAPE), 0.5, np.float32)
    moved = attack_small(adversary.noise(0.3), grey, LABELS, KEYS).image - 0.5
    np.testing.assert_allclose(np.abs(moved), 0.3, atol=1e-6)
    assert 0.4 < np.mean(moved > 0) < 0.6


def test_more_restarts_never_help_the_network():
    """Of each image the worst is kept: first one that fools, then the largest loss."""
    rule = adversary.pgd(0.07, 0.01, 2)
    one = attack_small(rule, IMAGES, LABELS, KEYS)
    many = attack_small(rule._replace(restarts=8), IMAGES, LABELS, KEYS)
    assert not np.any(many.correct & ~one.correct)
    same = many.correct == one.correct
    assert np.all(many.loss[same] >= one.loss[same])
    assert np.any(many.loss > one.loss + 1e-4)


def test_a_restart_that_fools_is_kept_before_one_of_larger_loss():
    """A wrong answer may have a smaller loss than a right one, of many classes."""
    image = jnp.zeros((2, 1, 1, 1))
    right = adversary.Perturbed(image, jnp.array([1.5, 1.5]), jnp.array([True, True]))
    wrong = adversary.Perturbed(image + 1, right.loss - 0.5, ~right.correct)
    for pair in ((right, wrong), (wrong, right)):
        np.testing.assert_array_equal(adversary._worse(*pair).image, image + 1)


def test_one_program_serves_every_rule():
    """Each eps and each attack compiled anew would take longer than the attack."""
    for rule in RULES.values():
        attack_small(rule._replace(eps=0.01), IMAGES, LABELS, KEYS)
    assert len(traced) == 1


ANSWERS = pathlib.Path(__file__).parent / "torch_parity" / "attacks.npz"
SPEC = AugmentSpec(0, False, 0.0, attack_cases.MEAN, attack_cases.STD, padded=False)


@pytest.fixture(scope="module")
def same_network():
    """The network that Foolbox attacked, with normalisation, compiled."""
    model = make_model(attack_cases.MODEL, attack_cases.CLASSES, ArchConfig())
    shape = (1, *attack_cases.IMAGE_SHAPE)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros(shape))
    names = to_torch(jax.tree.map(lambda x: np.zeros(x.shape), shapes), model)
    tensors = values.weights({name: x.shape for name, x in names.items()})
    variables = import_torch(tensors, model, attack_cases.IMAGE_SHAPE)
    logits_of = attacked._logits_of(model, variables, SPEC, "deepest")
    keys = jax.random.split(jax.random.key(0), 8)
    return jax.jit(
        lambda *given: adversary.perturb(logits_of, *given[:2], keys, given[2])
    )


@pytest.mark.parametrize("name", attack_cases.CASES)
def test_adversaries_are_foolboxs(name, same_network):
    """Pixel by pixel: a sign of a gradient that differs would be a step's length."""
    kind, *numbers = attack_cases.CASES[name]
    make = {"fgsm": lambda eps, *_: adversary.fgsm(eps)}
    rule = make.get(kind, adversary.bim)(*numbers)
    with np.load(ANSWERS, allow_pickle=False) as file:
        expected, label = file[name], file["label"]
    found = same_network(attack_cases.images(), label, rule)
    np.testing.assert_allclose(found.image, expected, atol=1e-6)
    assert ANSWERS.stat().st_size < 50_000


def test_what_is_attacked_is_what_training_evaluates():
    """Resized, then pixels in [0, 1], then normalised within the network."""
    spec = dataclasses.replace(SPEC, size=(6, 6))
    stored = np.random.default_rng(7).integers(0, 256, (5, 8, 8, 3), np.uint8)
    seen = []
    model = types.SimpleNamespace(
        apply=lambda variables, image, train: seen.append(image) or ModelOutput(1, 2)
    )
    pixels = attacked._pixels(stored, spec)
    attacked._logits_of(model, {}, spec, "deepest")(pixels)
    assert pixels.shape == (5, 6, 6, 3) and 0 <= pixels.min() < pixels.max() <= 1
    np.testing.assert_array_equal(seen[0], prepare_eval(stored, spec))


def test_of_several_exits_the_quoted_one_is_attacked():
    exits = np.arange(12.0).reshape(2, 3, 2) ** 2
    outputs = ModelOutput(exits[:, 0], exits[:, 0], None, exits[:, 1:])
    model = types.SimpleNamespace(apply=lambda variables, image, train: outputs)
    answers = {
        quote: attacked._logits_of(model, {}, SPEC, quote)(IMAGES)
        for quote in ("deepest", "ensemble")
    }
    np.testing.assert_array_equal(answers["deepest"], exits[:, 0])
    np.testing.assert_allclose(answers["ensemble"], exits.mean(1))


class Hiding(Model):
    """`linear`, made to look robust as its parameters say.

    rounded: 1: the margin in steps of 1 / 8, which has no gradient. shattered: height
    of waves so short that the gradient points nowhere.
    """

    @nn.compact
    def __call__(self, image, *, train, mask=None):
        """Classify [b, *SHAPE]."""
        del train, mask
        zero = nn.initializers.zeros_init()
        rounded, shattered = (
            self.param(name, zero, ()) for name in ("rounded", "shattered")
        )
        s = jnp.tensordot(image, WEIGHTS, 3) + BIAS
        s = s + rounded * (jnp.round(8 * s) / 8 - s)
        s = s + shattered * jnp.sin(3e5 * image).sum((1, 2, 3))
        return ModelOutput(jnp.stack([-s / 2, s / 2], -1), s[:, None])


def subject(devices=1, **params):
    """A `Hiding` network and 160 images that it gets right but for a few."""
    draw = np.random.default_rng(5)
    image = draw.integers(0, 256, (160, *SHAPE), np.uint8)
    right = np.tensordot(image / 255.0, WEIGHTS, 3) + BIAS > 0
    label = np.where(draw.random(160) < 0.05, ~right, right).astype(np.int32)
    plain = AugmentSpec(0, False, 0.0, (0.0,) * 3, (1.0,) * 3, padded=False)
    run = types.SimpleNamespace(
        spec=plain,
        group=SeedGroup((0,), tuple(jax.devices()[:devices])),
        dataset=types.SimpleNamespace(num_classes=2),
        split=lambda which, count, field: Split(image, label),
    )
    params = {"rounded": 0.0, "shattered": 0.0} | params
    variables = {"params": {name: jnp.float32(x) for name, x in params.items()}}
    return types.SimpleNamespace(
        run=run, quote="deepest", model=Hiding(2), variables=variables
    )


def failed(values, attack):
    return {name for name, c in values["checks"][attack].items() if not c["passed"]}


def test_a_sound_network_passes_every_check():
    """And loses what the closed form of a linear network says, at every eps."""
    sound = subject()
    found = attacks.measure(sound, Options(attacks="bim,pgd,fgsm"))
    assert (
        failed(found, "bim") == failed(found, "pgd") == failed(found, "fgsm") == set()
    )
    assert set(found["checks"]["bim"]) == set(masking.SENTENCES)
    split = sound.run.split("test", 0, "")
    image, sign = split.image / 255.0, np.where(split.label == 1, 1, -1)
    for place, eps in enumerate(found["eps"]):
        away = -sign[:, None, None, None] * np.sign(WEIGHTS) * eps / 255
        s = np.tensordot(np.clip(image + away, 0, 1), WEIGHTS, 3) + BIAS
        expected = 100 * np.mean(s * sign > 0)
        for attack in ("bim", "fgsm"):
            curve = found["curves"][attack]
            np.testing.assert_allclose(curve["acc1"][place], expected, atol=1e-4)
    assert found["clean"]["acc1"] > 90
    assert 20 < found["curves"]["bim"]["acc1"][4] < 80


def test_a_network_that_rounds_its_answers_is_found_out():
    found = attacks.measure(subject(rounded=1.0), Options())
    assert found["curves"]["bim"]["acc1"] == [found["clean"]["acc1"]] * 6
    expected = {"has_gradient", "loss_rises", "beats_noise", "reaches_zero"}
    assert failed(found, "bim") == expected


def test_a_network_whose_gradients_point_nowhere_is_found_out():
    """Gradients there are, and yet a huge eps does not break it."""
    found = attacks.measure(subject(shattered=0.01), Options())
    assert "reaches_zero" in failed(found, "bim")
    assert "has_gradient" not in failed(found, "bim")


def test_means_do_not_depend_on_chunks_or_devices():
    """Also random starts: 53 images at a time on 3 devices leave a last chunk of 1."""
    rule = adversary.pgd(8 / 255, 4 / 255, 3, restarts=2)
    found = []
    for devices, size in ((1, 160), (3, 53)):
        one = subject(devices)
        split = one.run.split("test", 0, "")
        key = jax.random.key(0)
        found.append(attacked.means(attacked.under, one, split, rule, key, size))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-6)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"attacks": "bim,cw"}, "--options.attacks.attacks='cw' is unknown"),
        ({"attacks": ""}, "--options.attacks.attacks='' is unknown"),
        ({"eps": "1;2"}, "--options.attacks.eps='1;2' is not a list of rising"),
        ({"eps": "2,1"}, "rising numbers between 0 and large_eps=64"),
        ({"eps": "0,1"}, "rising numbers between 0"),
        ({"eps": "1,nan"}, "rising numbers between 0"),
        ({"eps": "8,64"}, "rising numbers between 0 and large_eps=64"),
    ],
)
def test_options_that_cannot_be_are_refused_in_a_line(fields, words):
    with pytest.raises(ConfigError) as caught:
        Options(**fields)
    assert words in str(caught.value) and "\n" not in str(caught.value)


ATTACKED = {"eps": "2,8", "steps": 3, "num_examples": 30, "batch_size": 16}


@pytest.fixture(scope="module")
def found(analysed_run, tmp_path_factory):
    """Attacks on a run's networks, on one device."""
    workdir = analysed_run.copy(tmp_path_factory.mktemp("attacked") / "run")
    options = {"attacks": ATTACKED}
    return analyze(workdir, ["attacks"], options=options, num_devices=1)["attacks"]


def test_a_runs_networks_are_attacked_at_the_accuracy_they_had(found, analysed_run):
    """Of the same images: eps 0 of an attack is what training evaluated."""
    run = open_run(analysed_run.workdir, num_devices=1)
    split = run.split("test", 30, "")
    for row in found.rows:
        own = run.subject(row.network, row.seed)
        logits = np.asarray(own.predict(own.variables, split).logits)
        right = 100 * np.mean(logits.argmax(-1) == split.label)
        np.testing.assert_allclose(row.values["clean"]["acc1"], right, atol=1e-4)
        curve = row.values["curves"]["bim"]
        assert row.values["clean"]["loss"] < curve["loss"][0] < curve["loss"][1]
        assert curve["acc1"][-1] == 0.0
    assert found.networks == ["teacher", "baseline", "online", "spaced"]


def test_two_references_are_compared_once(found):
    config = {**found.config, "reference": "baseline,online"}
    drawn = report.table(found._replace(config=config))
    assert [row[0] for row in drawn.rows[4:]] == [
        "online - baseline",
        "spaced - baseline",
        "spaced - online",
    ]


def test_too_few_images_for_the_classes_are_found_by_the_check(analysed_run):
    run = open_run(analysed_run.workdir)
    attacks.ANALYSIS.check(run, Options(num_examples=10))
    with pytest.raises(ConfigError, match="options.attacks.num_examples=9"):
        attacks.ANALYSIS.check(run, Options(num_examples=9))


def test_the_table_has_every_network_and_its_difference_to_the_reference(found):
    drawn = report.table(found)
    assert [row[0] for row in drawn.rows] == [
        "teacher",
        "baseline",
        "online",
        "spaced",
        "baseline - online",
        "spaced - online",
    ]
    by_seed = {row.network: [] for row in found.rows}
    for row in found.rows:
        by_seed[row.network].append(row.values["curves"]["bim"]["acc1"][1])
    spaced, online = (np.array(by_seed[name]) for name in ("spaced", "online"))
    assert drawn.titles[4] == "eps 8/255\nacc1 %"
    assert drawn.rows[3][4] == f"{spaced.mean():.2f} ± {spaced.std(ddof=1):.2f}"
    minus = spaced - online
    assert drawn.rows[5][4] == f"{minus.mean():+.2f} ± {minus.std(ddof=1):.2f}"
    rule = "30 test images; bim: 3 steps of 0.25 eps; mean ± standard deviation"
    assert drawn.notes[0].startswith(rule)


@pytest.mark.parametrize(("clean", "marked"), [(70.0, True), (30.0, False)])
def test_the_eps_nearest_the_papers_number_is_marked_on_cifar100_alone(
    found, clean, marked
):
    """And only in networks that come down to it."""
    assert not any("*" in title for title in report.table(found).titles)
    rows = []
    for row in found.rows:
        curves = row.values["curves"]
        left = {"bim": curves["bim"] | {"acc1": [40.0, 29.0, 0.0]}}
        new = {
            "curves": curves | left,
            "clean": row.values["clean"] | {"acc1": clean},
        }
        rows.append(row._replace(values=row.values | new))
    data = {**found.config["data"], "name": "cifar100"}
    config = {**found.config, "data": data}
    drawn = report.table(found._replace(config=config, rows=rows))
    if not marked:
        assert not any("*" in title for title in drawn.titles)
        return
    assert drawn.titles[3:] == ("eps 2/255\nacc1 %", "eps 8/255 *\nacc1 %")
    assert any("31.33" in note for note in drawn.notes)


def test_a_check_that_failed_is_told_with_its_numbers(found):
    row = found.rows[-1]
    check = {"passed": False, "found": 12.5, "bar": 5.0, "eps": 64.0}
    checks = {"bim": row.values["checks"]["bim"] | {"reaches_zero": check}}
    rows = [row._replace(values=row.values | {"checks": checks})]
    notes = report.table(found._replace(rows=rows)).notes
    assert (
        "CHECK FAILED: spaced, seed 4, bim: reaches_zero: 12.50 % still right at "
        "64/255, bar 5.00 %, half of chance." in notes
    )


def test_each_attack_has_a_figure_with_a_line_a_network(found):
    looks = style.line_looks(["baseline", "online", "spaced"])
    with style.drawing():
        [(name, caption, figure)] = report.figures(found, looks)
    assert name == "attacks_bim" and "BIM" in caption and figure is not None
    [axes] = figure.axes
    thick = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(thick) == 4 and axes.get_xscale() == "log"
    np.testing.assert_allclose(thick[0].get_xdata(), [2, 8, 64])
    expected = found.spread("teacher", lambda v: v["curves"]["bim"]["acc1"][1]).mean
    np.testing.assert_allclose(thick[0].get_ydata()[1], expected)
