import functools
import math

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageEnhance, ImageOps

from spaced_kd.data import policies, policy_tables
from spaced_kd.data.augment_spec import NORMALIZATIONS, AugmentSpec
from spaced_kd.data.pixel_ops import KINDS
from spaced_kd.data.policy_tables import AUTOAUGMENT, RANDAUGMENT, STRENGTHS

SIZE = 32
KEYS = jax.random.split(jax.random.key(5), 20_000)
rng = np.random.default_rng(0)
# Smooth, as photographs are, with noise on top.
WAVES = np.sin(np.arange(SIZE) / rng.uniform(3, 9, (300, 3, 1)))
IMAGES = (
    128
    + 60 * WAVES[:, :, None] * WAVES[:, :, :, None]
    + rng.normal(0, 12, (300, 3, SIZE, SIZE))
)
IMAGES = np.clip(np.moveaxis(IMAGES, 1, -1), 0, 255).astype(np.uint8)
MEAN, STD = NORMALIZATIONS["imagenet"]
jit_autoaugment = jax.jit(policies.draw_autoaugment)
jit_randaugment = jax.jit(policies.draw_randaugment, static_argnums=1)
jit_ops = jax.jit(policies.apply_ops, static_argnums=(2, 3))


def pillow_op(picture, name, value, fill, resampling):
    """One operation by Pillow, with the policy's argument."""
    width, height = picture.size
    matrix = {
        "shear_x": (1, value, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, value, 1, 0),
        "translate_x": (1, 0, value * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, value * height),
    }
    enhance = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "color": ImageEnhance.Color,
        "sharpness": ImageEnhance.Sharpness,
    }
    if name in matrix:
        return picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            matrix[name],
            resampling,
            fillcolor=fill,
        )
    if name in enhance:
        return enhance[name](picture).enhance(value)
    if name == "rotate":
        return picture.rotate(value, resampling, fillcolor=fill)
    if name == "posterize":
        return ImageOps.posterize(picture, int(value)) if value else black(picture)
    if name == "solarize":
        return ImageOps.solarize(picture, value)
    if name == "solarize_add":
        table = [min(255, i + int(value)) if i < 128 else i for i in range(256)]
        return picture.point(table * 3)
    return getattr(ImageOps, name)(picture)


def black(picture):
    return Image.new("RGB", picture.size)


# Arguments by hand: the level's share of the range that the policy's authors publish.
AUTOAUGMENT_BY_HAND = {
    ("shear_y", 7): 0.7 / 3,
    ("shear_y", 8): 0.8 / 3,
    ("translate_x", 8): 400 / 331 / 3,
    ("translate_x", 9): 150 / 331,
    ("translate_y", 3): 50 / 331,
    ("translate_y", 9): 150 / 331,
    ("rotate", 2): 20 / 3,
    ("posterize", 7): 5,
    ("solarize", 2): 256 * 7 / 9,
    ("solarize", 3): 256 * 6 / 9,
    ("solarize", 5): 256 * 4 / 9,
    ("solarize", 8): 256 / 9,
    ("brightness", 3): 1.3,
    ("brightness", 6): 1.6,
    ("brightness", 7): 1.7,
    ("brightness", 9): 1.9,
    ("color", 0): 1.0,
    ("color", 3): 1.3,
    ("color", 7): 1.7,
    ("color", 8): 1.8,
    ("color", 9): 1.9,
    ("contrast", 6): 1.6,
    ("contrast", 7): 1.7,
    ("sharpness", 1): 1.1,
    ("sharpness", 3): 1.3,
    ("sharpness", 5): 1.5,
    ("sharpness", 6): 1.6,
    ("sharpness", 9): 1.9,
}
WITHOUT_ARGUMENT = ("invert", "autocontrast", "equalize")
ENHANCERS = ("brightness", "contrast", "color", "sharpness")


def other_sign(name, value):
    if name in ENHANCERS:
        return 2 - value
    return -value if name.startswith(("shear", "translate")) else value


def test_autoaugment_arguments_are_the_published_ones():
    """A range of eleven levels instead of ten would weaken every operation."""
    used = {(name, level) for pair in AUTOAUGMENT for name, _, level in pair}
    used = {op for op in used if op[0] not in WITHOUT_ARGUMENT}
    assert used == set(AUTOAUGMENT_BY_HAND)
    for (name, level), value in AUTOAUGMENT_BY_HAND.items():
        np.testing.assert_allclose(
            policy_tables.autoaugment_values(name, level),
            (value, other_sign(name, value)),
            rtol=1e-12,
        )


def test_autoaugment_has_the_25_published_subpolicies():
    """Sums over the released code's table: a mistyped cell would move one of them."""
    assert len(AUTOAUGMENT) == 25
    first, second = zip(*AUTOAUGMENT, strict=True)
    weighted = lambda ops, field: sum(i * op[field] for i, op in enumerate(ops, 1))
    assert weighted(first, 1) == pytest.approx(188.4)
    assert weighted(second, 1) == pytest.approx(174.6)
    assert (weighted(first, 2), weighted(second, 2)) == (1850, 1475)
    names = [name for name, *_ in first + second]
    assert {name: names.count(name) for name in set(names)} == {
        "invert": 3,
        "contrast": 2,
        "rotate": 1,
        "translate_x": 2,
        "translate_y": 5,
        "sharpness": 5,
        "shear_y": 2,
        "autocontrast": 7,
        "equalize": 8,
        "posterize": 1,
        "color": 5,
        "brightness": 4,
        "solarize": 4,
    }


@pytest.mark.parametrize("negative", [0, 1], ids=["+", "-"])
def test_every_autoaugment_row_does_what_pillow_does(negative):
    """All 50 operations with the device's own arguments, as the released code."""
    flat = [op for pair in AUTOAUGMENT for op in pair]
    rows = 2 * np.arange(50) + negative
    table = policy_tables.autoaugment_table(SIZE, SIZE)
    ops = jax.tree.map(lambda column: column[rows], table)
    got = np.asarray(jit_ops(IMAGES[:50], ops, (128,) * 3, "bicubic"))
    for i, (name, _, level) in enumerate(flat):
        value = AUTOAUGMENT_BY_HAND.get((name, level), 0.0)
        value = other_sign(name, value) if negative else value
        smooth = name.startswith("shear")
        resampling = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        expected = np.asarray(
            pillow_op(Image.fromarray(IMAGES[i]), name, value, (128,) * 3, resampling)
        )
        different = abs(got[i].astype(int) - expected)
        assert different.max() <= smooth, (name, level)
        # At most 0.36 % of an image, at a shear by 4/15, where whole pixels are ties.
        assert (different > 0).mean() < 0.005, (name, level)


# Strength 0, 4.5, 9 and 10 of 10, by hand from timm's "increasing" arguments.
RANDAUGMENT_BY_HAND = {
    "rotate": (0, 13.5, 27, 30),
    "posterize": (4, 3, 1, 0),
    "solarize": (256, 141, 26, 0),
    "solarize_add": (0, 49, 99, 110),
    "color": (1, 1.405, 1.81, 1.9),
    "contrast": (1, 1.405, 1.81, 1.9),
    "brightness": (1, 1.405, 1.81, 1.9),
    "sharpness": (1, 1.405, 1.81, 1.9),
    "shear_x": (0, 0.135, 0.27, 0.3),
    "shear_y": (0, 0.135, 0.27, 0.3),
    "translate_x": (0, 0.2025, 0.405, 0.45),
    "translate_y": (0, 0.2025, 0.405, 0.45),
}


def test_randaugment_arguments_are_timms():
    """Without "increasing", posterize and solarize get weaker with the strength."""
    assert set(RANDAUGMENT) == set(RANDAUGMENT_BY_HAND) | set(WITHOUT_ARGUMENT)
    assert len(RANDAUGMENT) == 15
    for name, values in RANDAUGMENT_BY_HAND.items():
        got = policy_tables.randaugment_values(name, np.array([0, 4.5, 9, 10]))
        np.testing.assert_allclose(got[:, 0], values, rtol=1e-12, err_msg=name)
        signed = [other_sign(name, v) if name != "rotate" else -v for v in values]
        np.testing.assert_allclose(got[:, 1], signed, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_every_randaugment_operation_does_what_pillow_does(interpolation):
    """Both signs at several strengths, with the recipe's fill and interpolation."""
    table = policy_tables.randaugment_table(9.0, 0.5, SIZE, SIZE)
    strengths = np.linspace(0, STRENGTHS - 1, 10).astype(int)
    grid = np.array(np.meshgrid(np.arange(15), strengths, [0, 1])).reshape(3, -1)
    op, strength, sign = grid
    rows = (op * STRENGTHS + strength) * 2 + sign
    ops = jax.tree.map(lambda column: column[rows], table)
    fill = (124, 116, 104)
    got = np.asarray(jit_ops(IMAGES[: len(rows)], ops, fill, interpolation))
    deviation = scipy.stats.norm.ppf((strength + 0.5) / STRENGTHS)
    level = np.clip(9 + 0.5 * deviation, 0, 10)
    resampling = Image.Resampling[interpolation.upper()]
    total = []
    for i in range(len(rows)):
        name = RANDAUGMENT[op[i]]
        value = policy_tables.randaugment_values(name, level[i : i + 1])[0, sign[i]]
        picture = Image.fromarray(IMAGES[i])
        expected = np.asarray(pillow_op(picture, name, value, fill, resampling))
        different = abs(got[i].astype(int) - expected)
        moves = name == "rotate" or name.startswith(("shear", "translate"))
        assert different.max() <= moves, (name, value)
        total += [(different > 0).mean()] * moves
    print(f"{interpolation}: {np.mean(total):.4%} of moved levels differ by one")
    assert np.mean(total) < 0.002


@functools.cache
def autoaugment_rows():
    return np.asarray(jit_autoaugment(KEYS))


@functools.cache
def randaugment_rows():
    return np.asarray(jit_randaugment(KEYS, 2))


def test_autoaugment_applies_each_operation_with_its_probability():
    """Shared random numbers, or one probability for both halves, would show here."""
    rows = autoaugment_rows()
    for half in range(2):
        used = rows[:, half] >= 0
        assert (rows[used, half] // 2 % 2 == half).all()
        counts = np.bincount(rows[used, half] // 4, minlength=25)
        probability = np.array([pair[half][1] for pair in AUTOAUGMENT])
        expected = len(rows) / 25 * probability
        spread = np.sqrt(len(rows) * (probability / 25) * (1 - probability / 25))
        assert (abs(counts - expected) <= 4 * spread).all()
        assert abs((rows[used, half] % 2).mean() - 0.5) < 2 / math.sqrt(used.sum())
    both = (rows >= 0).all(1)
    assert (rows[both, 0] // 4 == rows[both, 1] // 4).all()
    product = np.mean([a[1] * b[1] for a, b in AUTOAUGMENT])
    assert abs(both.mean() - product) < 4 * math.sqrt(product / len(rows))


def test_randaugment_draws_uniformly_and_skips_half():
    """15 operations, strengths and signs alike in both layers, drawn independently."""
    rows = randaugment_rows()
    assert abs((rows < 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(rows.size)
    used = rows[rows >= 0]
    for values, count in (
        (used // (2 * STRENGTHS), 15),
        (used // 2 % STRENGTHS, STRENGTHS),
        (used % 2, 2),
    ):
        counts = np.bincount(values, minlength=count)
        assert len(counts) == count and scipy.stats.chisquare(counts).pvalue > 1e-3
    both = rows[(rows >= 0).all(1)] // (2 * STRENGTHS)
    pairs = np.bincount(both[:, 0] * 15 + both[:, 1], minlength=225)
    assert scipy.stats.chisquare(pairs).pvalue > 1e-3


def test_randaugment_strengths_are_the_clipped_normal():
    """m9-mstd0.5: mean 9, deviation 0.5, above 10 all at 10."""
    table = policy_tables.randaugment_table(9.0, 0.5, SIZE, SIZE)
    start = RANDAUGMENT.index("brightness") * STRENGTHS * 2
    factor = table.factor[start : start + 2 * STRENGTHS : 2]
    strength = (factor.astype(np.float64) - 1) / 0.09
    rank = scipy.stats.norm.cdf(9.5, 9, 0.5)
    assert np.mean(strength < 9.5) == pytest.approx(rank, abs=1 / STRENGTHS)
    assert np.mean(strength > 9.999) == pytest.approx(
        1 - scipy.stats.norm.cdf(2), abs=1 / STRENGTHS
    )
    assert np.median(strength) == pytest.approx(9, abs=1e-3)
    assert strength[strength < 9.5].std() == pytest.approx(
        scipy.stats.truncnorm(-20, 1, 9, 0.5).std(), rel=0.01
    )


def test_no_spread_means_one_strength():
    table = policy_tables.randaugment_table(5.0, 0.0, SIZE, SIZE)
    start = RANDAUGMENT.index("color") * STRENGTHS * 2
    assert set(table.factor[start : start + 2 * STRENGTHS]) == {
        np.float32(1.45),
        np.float32(0.55),
    }


def test_a_skipped_layer_is_the_identity():
    table = policy_tables.randaugment_table(9.0, 0.5, SIZE, SIZE)
    ops = jax.tree.map(lambda column: np.repeat(column[-1:], 20, axis=0), table)
    got = jit_ops(IMAGES[:20], ops, (0, 0, 0), "bicubic")
    np.testing.assert_array_equal(got, IMAGES[:20])
    assert KINDS[table.kind[-1]] == "identity"


def test_randaugment_fills_with_the_mean_of_the_normalisation():
    """timm's 124, 116, 104; black or grey edges would be another recipe."""
    spec = AugmentSpec(
        0, False, 0.0, MEAN, STD, False, policy="randaugment", interpolation="bicubic"
    )
    images = np.zeros((300, SIZE, SIZE, 3), np.uint8)
    apply = jax.jit(policies.apply_policy, static_argnums=2)
    got = np.asarray(apply(images, KEYS[:300], spec)).reshape(300, -1, 3)
    rows = np.asarray(jit_randaugment(KEYS[:300], 2)) // (2 * STRENGTHS)
    # The last four operations and rotation bring in pixels; nothing follows them here.
    moving = np.isin(rows[:, 1], [3, 11, 12, 13, 14]) & (rows[:, 0] < 0)
    assert moving.sum() > 5
    for image in got[moving]:
        assert {tuple(level) for level in image} == {(0, 0, 0), (124, 116, 104)}
