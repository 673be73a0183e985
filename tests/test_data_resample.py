import jax
import numpy as np
import pytest
from PIL import Image

from spaced_kd.data.geometry import shorter_side
from spaced_kd.data.resample import Box, centre_crop, resize

COUNT = 60
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (COUNT, 16, 12, 3), dtype=np.uint8)
jit_resize = jax.jit(resize, static_argnums=(1, 2))
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def by_pillow(image, size, interpolation):
    """Resize the width, then the height: the order of Pillow before 13."""
    height, width = size
    picture = Image.fromarray(image)
    for target in ((width, picture.height), (width, height)):
        picture = picture.resize(target, PILLOW[interpolation])
    return np.asarray(picture)


@pytest.mark.parametrize("size", [(8, 9), (16, 12), (33, 40), (5, 30), (1, 1)])
@pytest.mark.parametrize("interpolation", PILLOW)
def test_a_resize_equals_pillow(interpolation, size):
    """Antialiased below 1, the border's weights, and rounding between the passes."""
    got = jit_resize(IMAGES, size, interpolation)
    expected = [by_pillow(image, size, interpolation) for image in IMAGES]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("size", [(10, 10), (24, 20)])
@pytest.mark.parametrize("interpolation", PILLOW)
def test_a_resized_box_equals_pillow(interpolation, size):
    """A filter that reads past the box would mix in what the crop leaves out."""
    box = random_boxes()
    got = jit_resize(IMAGES, size, interpolation, box)
    for i, image in enumerate(IMAGES):
        top, left, height, width = (int(x[i]) for x in box)
        crop = np.ascontiguousarray(image[top : top + height, left : left + width])
        np.testing.assert_array_equal(got[i], by_pillow(crop, size, interpolation))


def random_boxes():
    height = rng.integers(1, 17, COUNT).astype(np.int32)
    width = rng.integers(1, 13, COUNT).astype(np.int32)
    top = rng.integers(0, 17 - height).astype(np.int32)
    left = rng.integers(0, 13 - width).astype(np.int32)
    return Box(top, left, height, width)


def test_cifar_to_the_transformers_size_equals_pillow_in_one_call():
    """32 to 224 bicubic is every transformer run on CIFAR; no order is forced here."""
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    got = jit_resize(images, (224, 224), "bicubic")
    for i, image in enumerate(images):
        picture = Image.fromarray(image).resize((224, 224), PILLOW["bicubic"])
        np.testing.assert_array_equal(got[i], np.asarray(picture))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(375, 500, (256, 341)), (500, 375, (341, 256)), (256, 256, (256, 256))],
)
def test_the_shorter_side_is_resized_as_in_torchvision(height, width, expected):
    """256 * 500 / 375 = 341.33, cut off."""
    assert shorter_side(height, width, 256) == expected


def test_the_centre_is_cropped_as_in_torchvision():
    """Margins of 117 and 115 both begin with 58: torchvision rounds halves to even."""
    row = np.arange(341)[None, None, :, None]
    assert centre_crop(row, (1, 224))[0, 0, 0, 0] == 58
    assert centre_crop(row[:, :, :339], (1, 224))[0, 0, 0, 0] == 58
