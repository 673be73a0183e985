import dataclasses

import numpy as np
import pytest

from spaced_kd.config import DataConfig
from spaced_kd.data.augment_spec import AugmentSpec, spec_of
from spaced_kd.errors import ConfigError
from spaced_kd.types import Dataset, Split

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)


def dataset(side=32, channels=3):
    image = np.zeros((2, side, side, channels), np.uint8)
    split = Split(image, np.zeros(2, np.int32))
    return Dataset("x", split, split, 2, MEAN[:channels], STD[:channels], "")


def test_every_field_reaches_the_spec():
    """A dropped field would silently train with another recipe."""
    config = DataConfig(
        image_size=224,
        normalization="imagenet",
        interpolation="bicubic",
        eval_resize=256,
        resized_crop_scale=0.08,
        crop_padding=0,
        fill=128,
        horizontal_flip=False,
        rotation_degrees=7.0,
        policy="randaugment",
        randaugment_layers=3,
        randaugment_magnitude=5.0,
        randaugment_std=0.25,
        cutout_pixels=16,
        random_erasing=0.1,
    )
    expected = AugmentSpec(
        crop_padding=0,
        horizontal_flip=False,
        rotation_degrees=7.0,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        padded=True,
        size=(224, 224),
        interpolation="bicubic",
        crop_scale=0.08,
        eval_resize=256,
        fill=128,
        policy="randaugment",
        layers=3,
        magnitude=5.0,
        magnitude_std=0.25,
        cutout=16,
        erasing=0.1,
    )
    assert spec_of(config, dataset(), padded=True) == expected
    on_host = spec_of(config, dataset(224), padded=True, cropped_on_host=True)
    assert on_host == dataclasses.replace(expected, crop_scale=0.0, eval_resize=0)
    assert isinstance(hash(on_host), int)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("dataset", MEAN, STD),
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_the_normalisation_is_the_asked_one(name, mean, std):
    """The self-KD and transformer recipes both use another data set's numbers."""
    spec = spec_of(DataConfig(normalization=name), dataset(), padded=False)
    assert (spec.mean, spec.std) == (mean, std)


def test_networks_see_the_asked_size_or_the_stored_one():
    assert spec_of(DataConfig(), dataset(), False).output_size(32, 40) == (32, 40)
    config = DataConfig(image_size=24)
    assert spec_of(config, dataset(), False).output_size(32, 40) == (24, 24)


@pytest.mark.parametrize(
    ("fields", "channels", "named"),
    [
        (
            {"resized_crop_scale": 0.08},
            3,
            ("resized_crop_scale=0.08", "crop_padding=4", "0"),
        ),
        ({"eval_resize": 256}, 3, ("eval_resize=256", "image_size")),
        (
            {"eval_resize": 200, "image_size": 224},
            3,
            ("eval_resize=200", "image_size=224"),
        ),
        ({"normalization": "imagenet"}, 1, ("normalization='imagenet'", "1", "3")),
        ({"policy": "autoaugment"}, 2, ("policy='autoaugment'", "2 channels")),
        ({"cutout_pixels": 33}, 3, ("cutout_pixels=33", "32")),
        (
            {"cutout_pixels": 30, "image_size": 24},
            3,
            ("cutout_pixels=30", "24"),
        ),
    ],
)
def test_combinations_without_sense_are_refused_in_one_line(fields, channels, named):
    """They would run and give a recipe that nobody asked for."""
    with pytest.raises(ConfigError) as error:
        spec_of(DataConfig(**fields), dataset(channels=channels), padded=False)
    message = str(error.value)
    assert "\n" not in message
    for part in named:
        assert part in message


def test_grey_images_may_have_a_policy():
    spec_of(DataConfig(policy="autoaugment"), dataset(channels=1), padded=False)
