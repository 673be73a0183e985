import jax
import numpy as np
import pytest
from PIL import Image

from spaced_kd.data.warp import affine, warp

COUNT = 100
FILL = (124, 116, 104)
rng = np.random.default_rng(0)
jit_warp = jax.jit(warp, static_argnums=(2, 3))
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
RANGES = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 0.45,
    "translate_y": 0.45,
    "rotate": 30.0,
}


def draw(name, shape):
    images = rng.integers(0, 256, (COUNT, *shape, 3), dtype=np.uint8)
    limit = RANGES[name]
    return images, rng.uniform(-limit, limit, COUNT)


def by_pillow(name, images, values, resampling):
    height, width = images.shape[1:3]
    coefficients = {
        "shear_x": lambda v: (1, v, 0, 0, 1, 0),
        "shear_y": lambda v: (1, 0, 0, v, 1, 0),
        "translate_x": lambda v: (1, 0, v * width, 0, 1, 0),
        "translate_y": lambda v: (1, 0, 0, 0, 1, v * height),
    }
    result = []
    for image, value in zip(images, values, strict=True):
        picture = Image.fromarray(image)
        if name == "rotate":
            picture = picture.rotate(value, resampling, fillcolor=FILL)
        else:
            picture = picture.transform(
                picture.size,
                Image.Transform.AFFINE,
                coefficients[name](value),
                resampling,
                fillcolor=FILL,
            )
        result.append(np.asarray(picture))
    return np.stack(result)


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize("name", RANGES)
def test_interpolated_moves_equal_pillow_but_for_one_level(name, interpolation):
    """On noise, 0.05 to 0.24 % of levels differ, by one: both cut fractions off."""
    images, values = draw(name, (32, 24))
    where = affine(name, values, 32, 24, nearest=False)
    got = np.asarray(jit_warp(images, where, FILL, interpolation), np.int32)
    different = got - by_pillow(name, images, values, PILLOW[interpolation])
    print(f"{name}, {interpolation}: {(different != 0).mean():.5%} differ")
    assert abs(different).max() <= 1
    assert (different != 0).mean() < 0.003


@pytest.mark.parametrize("name", RANGES)
def test_nearest_moves_equal_pillow_but_for_ties(name):
    """Pillow steps in 1/65536 pixel, so a tie may fall to the neighbouring pixel."""
    images, values = draw(name, (32, 24))
    where = affine(name, values, 32, 24, nearest=True)
    got = np.asarray(jit_warp(images, where, FILL, "bicubic"))
    expected = by_pillow(name, images, values, Image.Resampling.NEAREST)
    moved = (got != expected).any(-1)
    print(f"{name}: {moved.sum()} of {moved.size} pixels differ")
    assert moved.mean() < 5e-4
    if name.startswith("translate"):
        assert not moved.any()


def test_no_move_changes_nothing():
    """Images whose operation is another one pass through here, too."""
    images, values = draw("rotate", (17, 30))
    where = affine("identity", values, 17, 30, nearest=False)
    np.testing.assert_array_equal(jit_warp(images, where, FILL, "bicubic"), images)


def test_flat_images_stay_flat():
    """Weights that do not add up to one would darken every image a little."""
    images = np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * 2 + 50
    images = np.broadcast_to(images, (COUNT, 16, 16, 3))
    where = affine("shear_x", rng.uniform(-0.3, 0.3, COUNT), 16, 16, nearest=False)
    got = np.asarray(jit_warp(images, where, (7, 7, 7), "bicubic"))
    outside = (got == 7).all(-1)
    np.testing.assert_array_equal(got[~outside], images[~outside])
