import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from spaced_kd.data import pixel_ops
from spaced_kd.data.pixel_ops import KINDS, enhance, look_up

COUNT = 64
rng = np.random.default_rng(0)


def narrow_images(shape):
    """Return images whose channels each use another range of levels."""
    low = rng.integers(0, 120, (COUNT, 1, 1, shape[-1]))
    high = rng.integers(121, 256, (COUNT, 1, 1, shape[-1]))
    return rng.integers(low, high + 1, (COUNT, *shape)).astype(np.uint8)


def edge_cases(shape):
    """Return images with one, two and three levels, and dark and bright ones."""
    images = narrow_images(shape)
    images[0] = 77
    images[1] = rng.choice([0, 255], shape)
    images[2] = rng.choice([10, 11, 12], shape)
    images[3] = 0
    images[4] = 255
    return images


# 300 pixels: equalize's step is 1, so its table overflows and must be clipped.
IMAGES = edge_cases((20, 15, 3))
GREY = edge_cases((20, 15, 1))
jit_look_up, jit_enhance = jax.jit(look_up), jax.jit(enhance)
THRESHOLDS = (4 * np.arange(COUNT) + np.arange(COUNT) % 4).astype(np.int32)
FACTORS = rng.uniform(0.1, 1.9, COUNT).astype(np.float32)
FACTORS[:19] = np.arange(1, 20) / np.float32(10)


def kinds(name):
    return np.full(COUNT, KINDS.index(name), np.int32)


def by_pillow(operation, images=IMAGES):
    squeezed = images[..., 0] if images.shape[-1] == 1 else images
    pictures = [
        np.asarray(operation(Image.fromarray(image), i))
        for i, image in enumerate(squeezed)
    ]
    return np.stack(pictures).reshape(images.shape)


def solarize_add(picture, i):
    level = np.arange(256)
    table = np.where(level < 128, np.minimum(level + THRESHOLDS[i] % 111, 255), level)
    return picture.point(table.tolist() * len(picture.getbands()))


TABLES = {
    "identity": (THRESHOLDS, lambda p, i: p),
    "invert": (THRESHOLDS, lambda p, i: ImageOps.invert(p)),
    "autocontrast": (THRESHOLDS, lambda p, i: ImageOps.autocontrast(p)),
    "equalize": (THRESHOLDS, lambda p, i: ImageOps.equalize(p)),
    "posterize": (
        THRESHOLDS % 8 + 1,
        lambda p, i: ImageOps.posterize(p, int(THRESHOLDS[i]) % 8 + 1),
    ),
    "solarize": (THRESHOLDS, lambda p, i: ImageOps.solarize(p, int(THRESHOLDS[i]))),
    "solarize_add": (THRESHOLDS % 111, solarize_add),
}
ENHANCE = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "color": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("images", [IMAGES, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_equal_pillow(name, images):
    """Level by level, also where Pillow's own arithmetic is off by one."""
    argument, operation = TABLES[name]
    got = jit_look_up(images, kinds(name), argument)
    np.testing.assert_array_equal(got, by_pillow(operation, images))


@pytest.mark.parametrize("images", [IMAGES, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("name", ENHANCE)
def test_enhancers_equal_pillow(name, images):
    """Another rounding, grey formula or border would move levels by one."""
    expected = by_pillow(
        lambda p, i: ENHANCE[name](p).enhance(float(FACTORS[i])), images
    )
    np.testing.assert_array_equal(jit_enhance(images, kinds(name), FACTORS), expected)


@pytest.mark.parametrize("factor", [0.1, 0.6, 0.9, 1.0, 1.2, 1.3, 1.9, 0.7234567])
def test_blends_equal_pillow_at_every_pair_of_levels(factor):
    """1.2 and 0.6 are where float32 rounds twice; exact arithmetic differs there."""
    start, stop = np.mgrid[:256, :256].astype(np.uint8)
    expected = Image.blend(Image.fromarray(start), Image.fromarray(stop), factor)
    got = jax.jit(pixel_ops._blend)(
        start.astype(np.int32), stop.astype(np.int32), np.float32(factor)
    )
    np.testing.assert_array_equal(got, np.asarray(expected))


def test_autocontrast_equals_pillow_at_every_range():
    """Pillow's float64 lands below whole quotients in 12,094 of 2.8 million cases."""
    got = jax.jit(pixel_ops._autocontrast)(
        jnp.arange(256)[:, None], jnp.full((256, 1), 255)
    )
    got = np.asarray(got)
    for low in range(0, 255, 5):
        picture = Image.fromarray(np.arange(low, 256, dtype=np.uint8)[None])
        expected = np.asarray(ImageOps.autocontrast(picture))[0]
        np.testing.assert_array_equal(got[low, 0, low:], expected)
    codes = pixel_ops._stretches_rounded_down()
    assert len(codes) == 12_094
    low, high, level = codes >> 16, codes >> 8 & 255, codes & 255
    got = jax.jit(pixel_ops._autocontrast)(low[:, None], high[:, None])
    picked = np.asarray(got)[np.arange(len(codes)), 0, level]
    scale = 255.0 / (high - low)
    np.testing.assert_array_equal(picked, (level * scale - low * scale).astype(int))


def test_posterize_to_no_bits_is_black():
    """timm's strongest posterize; Pillow 13 refuses it, earlier ones return black."""
    got = jit_look_up(IMAGES, kinds("posterize"), np.zeros(COUNT, np.int32))
    assert not np.asarray(got).any()


def test_each_image_gets_its_own_operation():
    """Operations that leak into the neighbours of an image in the batch."""
    kind = rng.integers(0, len(KINDS), COUNT).astype(np.int32)
    argument = (THRESHOLDS % 8 + 1).astype(np.int32)
    got = jit_look_up(IMAGES, kind, argument)
    got = jit_enhance(got, kind, np.where(kind >= 7, FACTORS, np.float32(1)))
    for i in range(COUNT):
        factor = np.float32(FACTORS[i] if kind[i] >= 7 else 1)
        alone = jit_look_up(IMAGES[i : i + 1], kind[i : i + 1], argument[i : i + 1])
        alone = jit_enhance(alone, kind[i : i + 1], factor[None])
        np.testing.assert_array_equal(got[i], alone[0])
