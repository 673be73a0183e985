import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageOps

from spaced_kd.config import DataConfig
from spaced_kd.data import crop_flip_rotate
from spaced_kd.data.augment import fetch, normalize
from spaced_kd.data.augment_spec import AugmentSpec, spec_of
from spaced_kd.data.crop_flip_rotate import Draw
from spaced_kd.types import Dataset, Split

MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
IDENTITY = AugmentSpec(0, False, 0.0, (0.0,) * 3, (1.0,) * 3, False)
ALL = AugmentSpec(4, True, 15.0, MEAN, STD, True)
KEY = jax.random.key(11)
rng = np.random.default_rng(0)
# From 1: a zero is then always fill.
IMAGES = rng.integers(1, 256, (40, 32, 32, 3), dtype=np.uint8)
LABELS = rng.integers(0, 100, 40).astype(np.int32)
INDEX = rng.integers(0, 40, 24).astype(np.int32)
POSITION = np.arange(24, dtype=np.int32)
jit_fetch = jax.jit(fetch, static_argnums=5)
jit_draw = jax.jit(crop_flip_rotate.draw, static_argnums=2)
trace = jax.jit(crop_flip_rotate.source_pixels, static_argnums=(1, 2, 3))


def pixels(spec, index=INDEX, position=POSITION, images=IMAGES):
    """Return the uint8 pixels behind a batch that is not normalised."""
    unscaled = AugmentSpec(
        spec.crop_padding,
        spec.horizontal_flip,
        spec.rotation_degrees,
        (0.0,) * images.shape[-1],
        (1.0,) * images.shape[-1],
        False,
    )
    labels = np.zeros(len(images), np.int32)
    batch = jit_fetch(images, labels, index, position, KEY, unscaled)
    return np.rint(np.asarray(batch.image, np.float64) * 255).astype(np.uint8)


def by_pillow(image, offset, flip, radians, padding):
    """Crop, flip and rotate as torchvision does with Pillow, given the draw."""
    height, width = image.shape[:2]
    picture = ImageOps.expand(Image.fromarray(image), border=padding, fill=0)
    y, x = offset
    picture = picture.crop((x, y, x + width, y + height))
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    degrees = math.degrees(radians)
    picture = picture.rotate(degrees, Image.Resampling.NEAREST, fillcolor=0)
    return np.asarray(picture)


def expected_pixels(spec, index=INDEX, position=POSITION, images=IMAGES):
    draw = jax.tree.map(np.asarray, jit_draw(KEY, position, spec))
    return np.stack(
        [
            by_pillow(
                images[i],
                draw.offset[row],
                spec.horizontal_flip and draw.flip[row],
                float(draw.angle[row]),
                spec.crop_padding,
            )
            for row, i in enumerate(index)
        ]
    )


@pytest.mark.parametrize(
    "spec",
    [
        IDENTITY,
        AugmentSpec(4, False, 0.0, MEAN, STD, False),
        AugmentSpec(0, True, 0.0, MEAN, STD, False),
        AugmentSpec(4, True, 0.0, MEAN, STD, False),
        AugmentSpec(40, True, 0.0, MEAN, STD, False),
        AugmentSpec(0, False, 15.0, MEAN, STD, False),
        ALL,
    ],
    ids=["identity", "crop", "flip", "crop+flip", "crop wider", "rotation", "all"],
)
def test_pixels_equal_pillow_given_the_same_draw(spec):
    """A wrong order, sign, centre, fill or rounding moves pixels."""
    np.testing.assert_array_equal(pixels(spec), expected_pixels(spec))


@pytest.mark.parametrize("shape", [(33, 21, 3), (8, 8, 1), (5, 64, 3)])
def test_shapes_other_than_cifar_equal_pillow_too(shape):
    """Height and width exchanged, or an odd size's centre, would pass on 32x32."""
    images = rng.integers(1, 256, (40, *shape), dtype=np.uint8)
    spec = AugmentSpec(3, True, 40.0, MEAN, STD, False)
    squeezed = images[..., 0] if shape[-1] == 1 else images
    expected = expected_pixels(spec, images=squeezed).reshape(24, *shape)
    np.testing.assert_array_equal(pixels(spec, images=images), expected)


def rotate_numbered(radians, height, width):
    """Return, by Pillow, the number of each pixel's source pixel, 0 for fill."""
    number = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(number).rotate(
                    math.degrees(angle), Image.Resampling.NEAREST, fillcolor=0
                )
            )
            for angle in radians
        ]
    )


def distance_to_a_tie(radians, height, width):
    """Return how far, in pixels, a source coordinate is from a pixel's border."""
    cos, sin = np.cos(radians)[:, None, None], np.sin(radians)[:, None, None]
    y = (np.arange(height) + 0.5 - height / 2)[:, None]
    x = np.arange(width) + 0.5 - width / 2
    column = cos * x - sin * y + width / 2
    row = sin * x + cos * y + height / 2
    return np.minimum(abs(column - np.rint(column)), abs(row - np.rint(row)))


@pytest.mark.parametrize(
    ("size", "degrees", "least_equal"),
    [(32, 15.0, 0.999998), (64, 15.0, 0.999995), (32, 180.0, 0.999998)],
)
def test_rotation_equals_pillow_but_for_ties(size, degrees, least_equal):
    """Pillow and we round the same angle to 1/65536 pixel, from float64 and float32."""
    spec = AugmentSpec(0, False, degrees, MEAN, STD, False)
    count = 1000
    draw = jit_draw(KEY, jnp.arange(count), spec)
    row, column, inside = map(np.asarray, trace(draw, size, size, spec))
    got = np.where(inside, row * size + column + 1, 0)
    radians = np.asarray(draw.angle, np.float64)
    different = got != rotate_numbered(radians, size, size)
    print(f"{size}x{size}, +-{degrees}: {different.sum()} of {different.size} differ")
    assert 1 - different.mean() >= least_equal
    # Both add up to `size` rounded steps, so that is how far a tie reaches.
    assert (distance_to_a_tie(radians, size, size)[different] < size / 65536).all()


@pytest.mark.parametrize("size", [8, 9])
def test_special_angles_equal_pillow(size):
    """Pillow treats quarter turns apart; the general formula must agree with it."""
    angle = np.radians([0, 90, -90, 180, 45, -45]).astype(np.float32)
    draw = Draw(np.zeros((6, 2), np.int32), np.zeros(6, bool), angle)
    spec = AugmentSpec(0, False, 180.0, MEAN, STD, False)
    row, column, inside = trace(draw, size, size, spec)
    got = np.where(inside, row * size + column + 1, 0)
    expected = rotate_numbered(np.radians([0, 90, -90, 180, 45, -45]), size, size)
    np.testing.assert_array_equal(got, expected)


@functools.cache
def many_draws():
    spec = AugmentSpec(4, True, 15.0, MEAN, STD, False)
    return jax.tree.map(np.asarray, jit_draw(KEY, jnp.arange(20_000), spec))


def test_offsets_are_uniform_over_the_nine_by_nine_places():
    """An off-by-one range would never reach the last place, or reach one too many."""
    y, x = many_draws().offset.T
    counts = np.bincount(y * 9 + x, minlength=81)
    assert len(counts) == 81 and y.min() == x.min() == 0
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_flips_are_fair_and_angles_uniform_and_all_independent():
    """A shared random number would correlate what torchvision draws independently."""
    draw = many_draws()
    assert abs(draw.flip.mean() - 0.5) < 4 * 0.5 / math.sqrt(20_000)
    limit = math.radians(15)
    assert draw.angle.dtype == np.float32 and abs(draw.angle).max() <= np.float32(limit)
    uniform = scipy.stats.uniform(-limit, 2 * limit)
    assert scipy.stats.kstest(draw.angle, uniform.cdf).pvalue > 1e-3
    values = [*draw.offset.T, draw.flip, draw.angle]
    correlation = np.corrcoef(np.array(values, np.float64)) - np.eye(4)
    assert abs(correlation).max() < 4 / math.sqrt(20_000)


def test_draws_do_not_depend_on_the_default_precision():
    """An analysis in float64 must see the pixels that training saw."""
    expected = jit_draw(KEY, POSITION, ALL)
    with jax.enable_x64(True):
        got = jit_draw(KEY, POSITION, ALL)
        image = jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, ALL).image
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert got.angle.dtype == image.dtype == np.float32
    np.testing.assert_array_equal(
        image, jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, ALL).image
    )


def test_the_draws_of_a_key_are_pinned():
    """Published results name seeds: other draws under the same seed break them."""
    draw = jit_draw(jax.random.key(0), jnp.arange(3), ALL)
    assert draw.offset.tolist() == [[6, 2], [3, 8], [4, 1]]
    assert draw.flip.tolist() == [True, True, False]
    np.testing.assert_allclose(
        np.degrees(draw.angle), [-8.1454496, 7.549149, 7.2803683], rtol=1e-6
    )


def test_normalisation_equals_numpy_in_float64():
    """Scaling after centring, or exchanged mean and std, would show here."""
    got = normalize(jnp.asarray(IMAGES[:4]), MEAN, STD)
    assert got.dtype == jnp.float32
    expected = (IMAGES[:4] / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_fill_is_black_before_normalisation():
    """Zero after normalisation would be mid-grey; torchvision fills before."""
    spec = AugmentSpec(40, False, 0.0, MEAN, STD, False)  # far outside: mostly fill
    image = np.asarray(jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, spec).image)
    fill = pixels(spec) == 0
    black = np.broadcast_to(-np.array(MEAN) / np.array(STD), image.shape)
    assert fill.mean() > 0.3
    np.testing.assert_allclose(image[fill], black[fill], rtol=1e-5)


def test_source_pixels_are_bitwise_equal_compiled_and_eager():
    """A replay may run in another program; and jax #39103 was such a difference."""
    draw = jit_draw(KEY, jnp.arange(2048), ALL)
    eager = crop_flip_rotate.source_pixels(draw, 32, 32, ALL)
    for a, b in zip(eager, trace(draw, 32, 32, ALL), strict=True):
        np.testing.assert_array_equal(a, b)


def test_pixels_do_not_depend_on_how_devices_share_the_batch():
    """Only (key, place in the global batch) may count: 1 device of 24 = 4 of 6."""
    whole = jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, ALL)
    images, labels = jnp.asarray(IMAGES), jnp.asarray(LABELS)
    shards = jax.pmap(
        lambda index, position: fetch(images, labels, index, position, KEY, ALL),
        devices=jax.devices()[:4],
    )(INDEX.reshape(4, 6), POSITION.reshape(4, 6))
    for name in ("image", "label", "mask"):
        joined = np.concatenate(np.asarray(getattr(shards, name)))
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_same_image_at_two_places_is_augmented_differently():
    """One draw for the whole batch would be a much weaker augmentation."""
    same = pixels(ALL, index=np.zeros(8, np.int32), position=POSITION[:8])
    assert len(np.unique(same.reshape(8, -1), axis=0)) == 8


def test_another_key_gives_other_pixels():
    """A key that is ignored would repeat the same augmentation every epoch."""
    one = jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, ALL).image
    two = jit_fetch(IMAGES, LABELS, INDEX, POSITION, jax.random.key(12), ALL).image
    assert np.abs(np.asarray(one) - np.asarray(two)).max(axis=(1, 2, 3)).min() > 0


def test_padding_is_masked_and_does_not_move_the_others():
    """Padding must not leak image 0 or its label, nor change real examples."""
    padded = INDEX.copy()
    padded[[5, 20, 23]] = -1
    real = padded >= 0
    got = jit_fetch(IMAGES, LABELS, padded, POSITION, KEY, ALL)
    full = jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, ALL)
    np.testing.assert_array_equal(got.mask, real)
    assert not np.asarray(got.image)[~real].any()
    assert not np.asarray(got.label)[~real].any()
    np.testing.assert_array_equal(got.image[real], full.image[real])
    np.testing.assert_array_equal(got.label, np.where(real, LABELS[INDEX], 0))


def test_a_run_that_never_pads_has_no_mask():
    """None is how models and losses know to skip the masked arithmetic."""
    assert jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, IDENTITY).mask is None


def test_the_spec_carries_every_field_of_the_config():
    """A dropped field would silently train without that augmentation."""
    split = Split(IMAGES, LABELS)
    dataset = Dataset("x", split, split, 100, MEAN, STD, "")
    config = DataConfig(crop_padding=2, horizontal_flip=False, rotation_degrees=7.0)
    spec = spec_of(config, dataset, padded=True)
    assert spec == AugmentSpec(2, False, 7.0, MEAN, STD, True)
    assert hash(spec) == hash(spec_of(config, dataset, padded=True))
