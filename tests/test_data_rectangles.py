import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from spaced_kd.data.erasing import cutout, erase
from spaced_kd.data.random_bits import below, bits_of, happens
from spaced_kd.data.rectangles import crop_boxes, erase_boxes

COUNT = 4000
KEYS = jax.random.split(jax.random.key(3), COUNT)
jit_crop = jax.jit(crop_boxes, static_argnums=(1, 2, 3))
jit_erase_boxes = jax.jit(erase_boxes, static_argnums=(1, 2, 3))
jit_cutout = jax.jit(cutout, static_argnums=2)
jit_erase = jax.jit(erase, static_argnums=2)


@functools.cache
def crops(height, width, scale=0.08):
    return [np.asarray(x) for x in jit_crop(KEYS, scale, height, width)]


@functools.cache
def torchvision_crops(height, width, scale=0.08):
    """RandomResizedCrop written down again in float64, with another generator."""
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(COUNT):
        for _ in range(10):
            area = height * width * rng.uniform(scale, 1)
            aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            wide = round(math.sqrt(area * aspect))
            tall = round(math.sqrt(area / aspect))
            if 0 < wide <= width and 0 < tall <= height:
                top = rng.integers(0, height - tall + 1)
                boxes.append((top, rng.integers(0, width - wide + 1), tall, wide))
                break
        else:
            boxes.append(None)
    return boxes


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 60)])
def test_crops_follow_torchvisions_distribution(height, width):
    """Wrong ranges, a linear aspect or a corner at 0 would give another one."""
    expected = np.array(torchvision_crops(height, width))
    for name, got, other in zip(
        ("top", "left", "height", "width"),
        crops(height, width),
        expected.T,
        strict=True,
    ):
        assert scipy.stats.ks_2samp(got, other).pvalue > 1e-3, name


@pytest.mark.parametrize(("height", "width"), [(64, 64), (20, 33), (12, 60)])
def test_crops_lie_inside_the_image(height, width):
    top, left, tall, wide = crops(height, width)
    assert min(top.min(), left.min()) >= 0 and min(tall.min(), wide.min()) >= 1
    assert (top + tall).max() <= height and (left + wide).max() <= width


def test_where_no_try_fits_the_largest_centred_box_is_taken():
    """12 x 60: 16 x 12 is the widest that 4/3 allows, from (60 - 16) // 2 = 22."""
    boxes = np.stack(crops(12, 60, 0.9), axis=1)
    assert (boxes == (0, 22, 12, 16)).all()
    boxes = np.stack(crops(60, 12, 0.9), axis=1)
    assert (boxes == (22, 0, 16, 12)).all()


def test_crops_have_the_asked_share_and_aspect():
    """Up to the rounding of sides to whole pixels."""
    _, _, tall, wide = crops(64, 64)
    assert (((tall + 0.5) * (wide + 0.5)) >= 0.08 * 64 * 64).all()
    assert ((wide - 0.5) / (tall + 0.5) <= 4 / 3).all()
    assert ((wide + 0.5) / (tall - 0.5) >= 3 / 4).all()


def test_erased_rectangles_follow_timm():
    """Share and aspect in [0.02, 1/3] and [0.3, 1/0.3], smaller than the image."""
    top, left, tall, wide = map(np.asarray, jit_erase_boxes(KEYS, 1.0, 64, 48))
    assert (tall > 0).all() and tall.max() < 64 and wide.max() < 48
    assert (top + tall).max() == 64 and (left + wide).max() == 48
    assert min(top.min(), left.min()) == 0
    share = tall * wide / (64 * 48)
    assert share.min() > 0.018 and share.max() < 0.345
    aspect = np.log(tall / wide)
    assert abs(aspect).max() < math.log(1 / 0.3) + 0.1
    # A rectangle that would not fit is drawn again: that is rare at small shares.
    small = share < 0.1
    limit = math.log(1 / 0.3)
    uniform = scipy.stats.uniform(-limit, 2 * limit)
    jitter = np.random.default_rng(0).uniform(-0.03, 0.03, small.sum())
    assert scipy.stats.kstest(aspect[small] + jitter, uniform.cdf).statistic < 0.05


def test_a_quarter_of_the_images_is_erased():
    tall = np.asarray(jit_erase_boxes(KEYS, 0.25, 64, 64).height)
    assert abs((tall > 0).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / COUNT)


def test_erased_pixels_are_standard_normal_and_independent():
    """One value a channel or a rectangle is timm's other mode."""
    image = np.full((200, 24, 24, 3), 100.0, np.float32)
    got = np.asarray(jit_erase(image, KEYS[:200], 1.0))
    noise = got[got != 100.0]
    assert got.dtype == np.float32 and noise.size > 30_000
    assert scipy.stats.kstest(noise, "norm").pvalue > 1e-3
    box = jit_erase_boxes(jax.vmap(jax.random.split)(KEYS[:200])[:, 0], 1.0, 24, 24)
    area = np.asarray(box.height) * np.asarray(box.width)
    np.testing.assert_array_equal((got != 100.0).sum((1, 2, 3)), 3 * area)
    one = got[got != 100.0].reshape(-1, 3)
    assert abs(np.corrcoef(one.T) - np.eye(3)).max() < 4 / math.sqrt(len(one))


def test_cutout_blackens_one_square_that_the_border_may_cut():
    """The released code clips the square; centres are any of the image's pixels."""
    pixels = np.full((COUNT, 16, 12, 3), 9, np.uint8)
    black = (np.asarray(jit_cutout(pixels, KEYS, 6)) == 0).all(-1)
    rows, columns = black.any(2), black.any(1)
    np.testing.assert_array_equal(black, rows[:, :, None] & columns[:, None, :])
    seen = set()
    for line, size in ((rows, 16), (columns, 12)):
        length = line.sum(1)
        first = line.argmax(1)
        centre = np.where(first > 0, first + 3, length - 3)
        assert (length == np.minimum(centre + 3, size) - first).all()
        counts = np.bincount(centre, minlength=size)
        assert len(counts) == size and scipy.stats.chisquare(counts).pvalue > 1e-3
        seen |= set(length)
    assert seen == {3, 4, 5, 6}


def test_choices_are_exact_at_their_ends():
    """0 and 1 mean never and always, and the largest number is just below the count."""
    bits = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    assert not happens(bits, 0.0).any() and happens(bits, 1.0).all()
    assert happens(bits, 0.5).tolist() == [True, True, True, False, False]
    assert below(bits, 2).tolist() == [0, 0, 0, 1, 1]
    assert below(bits, 2**16).tolist() == [0, 0, 2**15 - 1, 2**15, 2**16 - 1]


def test_numbers_of_an_example_are_uniform():
    """Also of one example's own numbers among each other."""
    got = np.asarray(below(bits_of(KEYS, 3), 7))
    for values in (*got.T, got[:, 0] * 7 + got[:, 2]):
        counts = np.bincount(values, minlength=7)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_rectangles_are_equal_compiled_and_eager():
    """A replay may run in another program: sides must not round differently."""
    keys = KEYS[:500]
    for function in (crop_boxes, erase_boxes):
        compiled = jax.jit(function, static_argnums=(1, 2, 3))(keys, 0.3, 61, 47)
        for a, b in zip(compiled, function(keys, 0.3, 61, 47), strict=True):
            assert a.dtype == jnp.int32
            np.testing.assert_array_equal(a, b)
