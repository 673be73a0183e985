import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from spaced_kd.data import augment
from spaced_kd.data.augment import fetch, normalize, prepare_eval
from spaced_kd.data.augment_spec import NORMALIZATIONS, AugmentSpec
from spaced_kd.data.crop_flip_rotate import draw
from spaced_kd.data.erasing import cutout, erase
from spaced_kd.data.policies import apply_policy
from spaced_kd.data.rectangles import crop_boxes
from spaced_kd.data.resample import resize

CIFAR10, IMAGENET = NORMALIZATIONS["cifar10"], NORMALIZATIONS["imagenet"]
SELF_KD = AugmentSpec(
    4, True, 0.0, *CIFAR10, False, fill=128, policy="autoaugment", cutout=8
)
TRANSFORMER = AugmentSpec(
    0,
    True,
    0.0,
    *IMAGENET,
    False,
    size=(24, 24),
    interpolation="bicubic",
    crop_scale=0.08,
    policy="randaugment",
    erasing=0.25,
)
IMAGENET_CNN = AugmentSpec(
    0, True, 15.0, *IMAGENET, False, size=(12, 12), crop_scale=0.08
)
RESIZED_CNN = AugmentSpec(2, True, 15.0, *IMAGENET, True, size=(12, 20), fill=7)
RECIPES = {
    "self_kd": SELF_KD,
    "transformer": TRANSFORMER,
    "imagenet_cnn": IMAGENET_CNN,
    "resized_cnn": RESIZED_CNN,
}
KEY = jax.random.key(11)
rng = np.random.default_rng(0)
IMAGES = rng.integers(1, 256, (20, 16, 16, 3), dtype=np.uint8)
LABELS = rng.integers(0, 100, 20).astype(np.int32)
INDEX = rng.integers(0, 20, 16).astype(np.int32)
POSITION = np.arange(16, dtype=np.int32)
jit_fetch = jax.jit(fetch, static_argnums=5)
every_recipe = pytest.mark.parametrize("spec", RECIPES.values(), ids=RECIPES)


def levels(image, spec):
    """Return the grey levels behind a normalised image that nothing has erased."""
    mean, std = (np.array(x, np.float64) for x in (spec.mean, spec.std))
    return np.rint((np.asarray(image, np.float64) * std + mean) * 255)


def in_order(spec, stages):
    """Return the batch by applying stages one after the other, as documented."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, POSITION)
    choices = draw(KEY, POSITION, spec)
    pixels = jnp.asarray(IMAGES[INDEX])
    for stage in stages:
        pixels = stage(pixels, keys, choices)
    return pixels


def padded_crop(padding, fill):
    def stage(pixels, keys, choices):
        edge = ((padding, padding),) * 2 + ((0, 0),)
        result = []
        for image, (y, x) in zip(pixels, np.asarray(choices.offset), strict=True):
            grown = np.pad(image, edge, constant_values=fill)
            result.append(grown[y : y + image.shape[0], x : x + image.shape[1]])
        return jnp.asarray(np.stack(result))

    return stage


def flip(pixels, keys, choices):
    mirrored = pixels[:, :, ::-1]
    return jnp.where(choices.flip[:, None, None, None], mirrored, pixels)


def rotate(pixels, keys, choices):
    result = []
    for image, angle in zip(np.asarray(pixels), np.asarray(choices.angle), strict=True):
        picture = Image.fromarray(image)
        result.append(np.asarray(picture.rotate(np.degrees(float(angle)))))
    return jnp.asarray(np.stack(result))


def own(purpose):
    """Return the function that gives each example a key for a purpose."""
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))


def resized_crop(spec):
    def stage(pixels, keys, choices):
        box = crop_boxes(own(3)(keys), spec.crop_scale, 16, 16)
        return resize(pixels, spec.size, spec.interpolation, box)

    return stage


def policy(spec):
    return lambda pixels, keys, choices: apply_policy(pixels, own(4)(keys), spec)


def normalized(spec):
    return lambda pixels, keys, choices: normalize(pixels, spec.mean, spec.std)


STAGES = {
    "self_kd": [
        padded_crop(4, 128),
        flip,
        policy(SELF_KD),
        lambda pixels, keys, choices: cutout(pixels, own(5)(keys), 8),
        normalized(SELF_KD),
    ],
    "transformer": [
        resized_crop(TRANSFORMER),
        flip,
        policy(TRANSFORMER),
        normalized(TRANSFORMER),
        lambda image, keys, choices: erase(image, own(6)(keys), 0.25),
    ],
    "imagenet_cnn": [
        resized_crop(IMAGENET_CNN),
        flip,
        rotate,
        normalized(IMAGENET_CNN),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_recipes_apply_their_stages_in_the_published_order(name):
    """Another order or fill, or one stage's random numbers used for another."""
    spec = RECIPES[name]
    got = jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, spec)
    expected = in_order(spec, STAGES[name])
    np.testing.assert_allclose(got.image, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got.label, LABELS[INDEX])


@pytest.mark.slow
@every_recipe
def test_recipes_are_equal_compiled_and_eager(spec):
    """A replay may run in another program; and jax #39103 was such a difference."""
    arguments = jnp.asarray(INDEX), jnp.asarray(POSITION), KEY, spec
    eager = fetch(jnp.asarray(IMAGES), jnp.asarray(LABELS), *arguments).image
    compiled = jit_fetch(IMAGES, LABELS, *arguments).image
    if spec.erasing:  # The noise is the one thing that is not a level.
        np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(levels(compiled, spec), levels(eager, spec))
    np.testing.assert_allclose(compiled, eager, rtol=1e-6, atol=1e-6)


@every_recipe
def test_recipes_do_not_depend_on_how_devices_share_the_batch(spec):
    """Only (key, place in the global batch) may count: 1 device of 16 = 4 of 4."""
    whole = jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, spec).image
    images, labels = jnp.asarray(IMAGES), jnp.asarray(LABELS)
    shards = jax.pmap(
        lambda index, position: fetch(images, labels, index, position, KEY, spec),
        devices=jax.devices()[:4],
    )(INDEX.reshape(4, 4), POSITION.reshape(4, 4))
    joined = np.concatenate(np.asarray(shards.image))
    np.testing.assert_allclose(joined, whole, rtol=1e-6, atol=1e-6)


@every_recipe
def test_recipes_do_not_depend_on_the_default_precision(spec):
    """An analysis in float64 must see the pixels that training saw."""
    expected = jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, spec).image
    with jax.enable_x64(True):
        got = jit_fetch(IMAGES, LABELS, INDEX, POSITION, KEY, spec).image
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


@every_recipe
def test_recipes_show_the_same_image_differently_at_two_places(spec):
    """One draw for the whole batch would be a much weaker augmentation."""
    same = np.zeros(8, np.int32)
    image = np.asarray(jit_fetch(IMAGES, LABELS, same, POSITION[:8], KEY, spec).image)
    assert image.shape == (8, *(spec.size or (16, 16)), 3)
    assert len(np.unique(image.reshape(8, -1), axis=0)) == 8


def test_a_fill_reaches_crops_and_rotations():
    """Of a white image only the outside can be grey; black would be another recipe."""
    spec = AugmentSpec(6, True, 40.0, *CIFAR10, False, fill=128)
    white = np.full((20, 16, 16, 3), 255, np.uint8)
    image = jit_fetch(white, LABELS, INDEX, POSITION, KEY, spec).image
    assert set(levels(image, spec).ravel()) == {128, 255}


def test_padding_stays_masked_after_erasing():
    """Noise in padded rows would reach BatchNorm's statistics."""
    spec = AugmentSpec(0, False, 0.0, *CIFAR10, True, erasing=1.0)
    padded = INDEX.copy()
    padded[[3, 9]] = -1
    got = jit_fetch(IMAGES, LABELS, padded, POSITION, KEY, spec)
    assert not np.asarray(got.image)[[3, 9]].any()
    assert np.asarray(got.image)[[2, 4]].any(axis=(1, 2, 3)).all()


def torchvision_eval(image, resize_to, size, resampling):
    """Resize and CenterCrop written down again, with Pillow."""
    picture = Image.fromarray(image)
    width, height = picture.size
    if resize_to:
        short = min(width, height)
        longer = int(resize_to * max(width, height) / short)
        target = (longer, resize_to) if width > height else (resize_to, longer)
        picture = picture.resize(target, resampling)
        left = round((target[0] - size) / 2)
        top = round((target[1] - size) / 2)
        picture = picture.crop((left, top, left + size, top + size))
    else:
        picture = picture.resize((size, size), resampling)
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("shape", "eval_resize", "interpolation"),
    [
        ((20, 27), 18, "bilinear"),
        ((31, 20), 18, "bicubic"),
        ((16, 16), 0, "bicubic"),
        ((8, 8), 0, "bilinear"),
    ],
)
def test_test_images_are_prepared_as_by_torchvision(shape, eval_resize, interpolation):
    """A squeezed instead of a cropped image moves accuracies by points."""
    images = rng.integers(0, 256, (4, *shape, 3), dtype=np.uint8)
    spec = AugmentSpec(
        4,
        True,
        15.0,
        *IMAGENET,
        False,
        size=(16, 16),
        interpolation=interpolation,
        eval_resize=eval_resize,
        policy="randaugment",
        erasing=1.0,
    )
    got = jax.jit(prepare_eval, static_argnums=1)(images, spec)
    resampling = Image.Resampling[interpolation.upper()]
    for i, image in enumerate(images):
        pixels = torchvision_eval(image, eval_resize, 16, resampling)
        expected = (pixels / 255 - np.array(IMAGENET[0])) / np.array(IMAGENET[1])
        np.testing.assert_allclose(got[i], expected, rtol=1e-5, atol=1e-5)


def test_test_images_stay_as_stored_without_a_size():
    spec = AugmentSpec(4, True, 15.0, *CIFAR10, False)
    np.testing.assert_array_equal(
        prepare_eval(jnp.asarray(IMAGES), spec), normalize(IMAGES, *CIFAR10)
    )


def test_no_two_stages_share_random_numbers():
    """`draw` splits the example's key in three, which must not be the stages' keys."""
    purposes = [augment._CROP, augment._POLICY, augment._CUTOUT, augment._ERASING]
    keys = [jax.random.fold_in(KEY, purpose) for purpose in purposes]
    keys += list(jax.random.split(KEY, 3))
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 7
