"""The host's crops: torchvision's rules by hand, its statistics, Pillow's pixels."""

import math

import numpy as np
import pytest
from PIL import Image

from spaced_kd.config import DataConfig
from spaced_kd.data import host_crop

rng = np.random.default_rng(0)
PICTURE = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))


def script(*numbers):
    """Return draws that are given beforehand; one more fails."""
    return iter(numbers).__next__


@pytest.mark.parametrize(
    ("size", "draws", "box"),
    [
        # Area 400 * (.25 + .75 * 0) = 100, aspect 3/4: 8.66 x 11.5 -> 9 x 12;
        # corner int(.5 * 9) = 4, int(.99 * 12) = 11.
        ((20, 20), (0.0, 0.0, 0.5, 0.99), (11, 4, 20, 16)),
        # Aspect exp(log(3/4) + .5 * log(16/9)) = 1: a square of half the side.
        ((20, 20), (0.0, 0.5, 0.0, 0.0), (0, 0, 10, 10)),
        # Area 400, aspect 3/4: 17 x 23 does not fit; then area 100, aspect 1.
        ((20, 20), (1.0, 0.0, 0.0, 0.5, 0.0, 0.0), (0, 0, 10, 10)),
        # Ten times too high; the whole is 2 : 1, cut to 4/3 in the centre: 13 of 20.
        ((20, 10), (1.0, 0.0) * 10, (3, 0, 16, 10)),
        # Ten times too wide; the whole is 1 : 2, cut to 3/4: height 13 of 20.
        ((10, 20), (1.0, 1.0) * 10, (0, 3, 10, 16)),
        # Ten times too wide, though the whole has an aspect within bounds.
        ((20, 20), (1.0, 1.0) * 10, (0, 0, 20, 20)),
    ],
)
def test_the_box_follows_torchvisions_rules(size, draws, box):
    """Order of draws, rounding, ten tries and the fallback, all worked out by hand."""
    assert host_crop.random_box(*size, 0.25, script(*draws)) == box


def test_boxes_have_the_distribution_of_a_random_resized_crop():
    """Area uniform in [share, 1], aspect log-uniform, corners anywhere that fits."""
    words = np.array([1, 2], np.uint32)
    boxes = np.array(
        [
            host_crop.random_box(400, 400, 0.08, host_crop.crop_draws(words, 3, place))
            for place in range(4000)
        ]
    )
    left, top, right, bottom = boxes.T
    width, height = right - left, bottom - top
    assert (left >= 0).all() and (right <= 400).all() and (bottom <= 400).all()
    share, aspect = width * height / 400**2, np.log(width / height)
    small = share < 0.7  # larger ones fit only with some aspects
    # Uniform in [.08, .7]: mean .39, standard deviation .62 / sqrt(12), n about 2600.
    assert abs(share[small].mean() - 0.39) < 4 * 0.62 / math.sqrt(12 * small.sum())
    bound = math.log(4 / 3)
    assert abs(aspect[small].mean()) < 4 * 2 * bound / math.sqrt(12 * small.sum())
    assert abs(aspect[small].std() - 2 * bound / math.sqrt(12)) < 0.01
    for corner, room in ((left, 400 - width), (top, 400 - height)):
        where = (corner / np.maximum(room, 1))[room > 50]
        assert abs(where.mean() - 0.5) < 4 / math.sqrt(12 * len(where))


def test_draws_are_a_function_of_key_step_and_place():
    """A replay must draw the same crop, and no two examples the same numbers."""
    take = lambda *at: tuple(host_crop.crop_draws(*at)() for _ in range(1))
    one, two = np.array([1, 2], np.uint32), np.array([1, 3], np.uint32)
    places = [(w, s, p) for w in (one, two) for s in (0, 1, 300) for p in (0, 1, 127)]
    drawn = [take(*at) for at in places]
    assert drawn == [take(*at) for at in places]
    assert len(set(drawn)) == len(drawn)


def test_draws_do_not_change_with_numpys_version():
    """Another number here would make every old run another run."""
    draw = host_crop.crop_draws(np.array([7, 11], np.uint32), 5, 3)
    # Philox 4x64-10 counts up before its first block; its upper 53 bits are the
    # fraction.
    assert draw() == philox_by_hand((1, 0, 3, 5), (7 + (11 << 32), 0)) / 2**53


def philox_by_hand(counter, key):
    """Salmon et al., 2011: ten rounds of two products and xors; the first word."""
    mask = 2**64 - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (
            (p1 >> 64) ^ c1 ^ k0,
            p1 & mask,
            (p0 >> 64) ^ c3 ^ k1,
            p0 & mask,
        )
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return c0 >> 11


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_training_crop_is_cut_out_and_then_resized(interpolation):
    """To resize with a box would let pixels outside the crop bleed in at its border."""
    config = DataConfig(resized_crop_scale=0.25, interpolation=interpolation)
    crop = host_crop.host_crop_of(config, 16)
    draws = (0.1, 0.3, 0.5, 0.7)
    got = host_crop.train_pixels(PICTURE, crop, script(*draws))
    box = host_crop.random_box(60, 40, 0.25, script(*draws))
    pixels = np.asarray(PICTURE)[box[1] : box[3], box[0] : box[2]]
    resample = {"bilinear": 2, "bicubic": 3}[interpolation]
    expected = np.asarray(Image.fromarray(pixels).resize((16, 16), resample))
    np.testing.assert_array_equal(got, expected)


def test_without_a_random_crop_the_whole_image_is_resized():
    crop = host_crop.host_crop_of(DataConfig(), 16)
    got = host_crop.train_pixels(PICTURE, crop, script())
    np.testing.assert_array_equal(got, np.asarray(PICTURE.resize((16, 16), 2)))


@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [
        # Shorter side to 20: 60 x 40 -> 30 x 20; (30 - 16) / 2 = 7, (20 - 16) / 2 = 2.
        ((60, 40), (30, 20), (7, 2)),
        # 41 x 63 -> 20 x int(30.73); (30 - 16) / 2 = 7.
        ((41, 63), (20, 30), (2, 7)),
        # 40 x 65 -> 20 x 32; 40 x 70 -> 20 x 35: 9.5 is rounded to even, 10.
        ((40, 70), (20, 35), (2, 10)),
    ],
)
def test_a_test_image_is_the_centre_of_the_resized_one(size, resized, corner):
    """Resize and CenterCrop of torchvision with their roundings, worked out by hand."""
    picture = PICTURE.resize(size, 3)
    crop = host_crop.host_crop_of(DataConfig(eval_resize=20), 16)
    got = host_crop.eval_pixels(picture, crop)
    left, top = corner
    whole = np.asarray(picture.resize(resized, 2))
    np.testing.assert_array_equal(got, whole[top : top + 16, left : left + 16])


def test_a_test_image_is_squeezed_where_no_centre_is_asked_for():
    crop = host_crop.host_crop_of(DataConfig(interpolation="bicubic"), 16)
    got = host_crop.eval_pixels(PICTURE, crop)
    np.testing.assert_array_equal(got, np.asarray(PICTURE.resize((16, 16), 3)))
