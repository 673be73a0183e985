"""What is done to images between storage and network, resolved and checked."""

import dataclasses

from spaced_kd.config import DataConfig
from spaced_kd.errors import ConfigError
from spaced_kd.types import Dataset

NORMALIZATIONS = {
    # As the released self-KD code (CIFAR-10) and transformers (ImageNet) write them.
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Name -> mean and standard deviation per channel, of pixels scaled to [0, 1]."""


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """What is done to an image; hashable, so a compiled step can close over it.

    Training images pass the fields in this order: resized crop or resize, padded crop,
    flip, rotation, policy, cutout, normalisation, erasing. Test images are only resized
    and normalised.

    crop_padding: pixels of `fill` added on each side before a random crop; 0: no crop.
    horizontal_flip: mirror with probability 1/2.
    rotation_degrees: uniform in +-degrees, nearest neighbour; 0: none.
    mean, std: per channel, of pixels scaled to [0, 1].
    padded: whether a batch may hold padding (index -1) and so needs a mask.
    size: (height, width) that networks see, pixels; None: as stored.
    interpolation: "bilinear" or "bicubic", of every resize and of RandAugment.
    crop_scale: least share of the area that a random resized crop keeps; 0: none.
    eval_resize: shorter side of test images before their centre is cropped, pixels;
      0: resize to `size`.
    fill: grey value of what crop and rotation bring in from outside, 0 to 255.
    policy: "none", "autoaugment" or "randaugment".
    layers, magnitude, magnitude_std: of RandAugment; the strength is from 0 to 10.
    cutout: side of one black square, pixels; 0: none.
    erasing: probability that a rectangle becomes noise.
    """

    crop_padding: int
    horizontal_flip: bool
    rotation_degrees: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padded: bool
    size: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    crop_scale: float = 0.0
    eval_resize: int = 0
    fill: int = 0
    policy: str = "none"
    layers: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.5
    cutout: int = 0
    erasing: float = 0.0

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) that networks see of stored images of this size."""
        return self.size or (height, width)


def spec_of(
    config: DataConfig, dataset: Dataset, padded: bool, cropped_on_host: bool = False
) -> AugmentSpec:
    """Return what the config asks to be done to training and test images.

    Args:
      config: the data section.
      dataset: gives the shape of images, and mean and standard deviation unless
        `config.normalization` names others.
      padded: whether the stream ever pads a batch (`Stream.has_padding`).
      cropped_on_host: whether images come at `image_size` already: training images by
        a random resized crop, test images by `eval_resize`.

    Raises:
      ConfigError: fields that make no sense together or for these images.
    """
    mean, std = NORMALIZATIONS.get(config.normalization, (dataset.mean, dataset.std))
    side = config.image_size
    spec = AugmentSpec(
        crop_padding=config.crop_padding,
        horizontal_flip=config.horizontal_flip,
        rotation_degrees=config.rotation_degrees,
        mean=mean,
        std=std,
        padded=padded,
        size=(side, side) if side else None,
        interpolation=config.interpolation,
        crop_scale=0.0 if cropped_on_host else config.resized_crop_scale,
        eval_resize=0 if cropped_on_host else config.eval_resize,
        fill=config.fill,
        policy=config.policy,
        layers=config.randaugment_layers,
        magnitude=config.randaugment_magnitude,
        magnitude_std=config.randaugment_std,
        cutout=config.cutout_pixels,
        erasing=config.random_erasing,
    )
    _check_crops(config)
    _check_images(config, spec, dataset.image_shape)
    return spec


def _check_crops(config: DataConfig) -> None:
    if config.resized_crop_scale and config.crop_padding:
        raise ConfigError(
            f"config.data.resized_crop_scale={config.resized_crop_scale} and "
            f"config.data.crop_padding={config.crop_padding} both crop; set one of "
            "them to 0."
        )
    if config.eval_resize and not config.image_size:
        raise ConfigError(
            f"config.data.eval_resize={config.eval_resize} needs the side to crop to; "
            "set config.data.image_size, or eval_resize=0."
        )
    if config.eval_resize and config.eval_resize < config.image_size:
        raise ConfigError(
            f"config.data.eval_resize={config.eval_resize} is smaller than "
            f"config.data.image_size={config.image_size}, which is cropped from it; "
            "give at least image_size, or 0."
        )


def _check_images(config: DataConfig, spec: AugmentSpec, shape) -> None:
    height, width, channels = shape
    if channels != len(spec.mean):
        raise ConfigError(
            f"config.data.normalization='{config.normalization}' is for images of "
            f"{len(spec.mean)} channels, but '{config.name}' has {channels}; set "
            "normalization='dataset'."
        )
    if config.policy != "none" and channels not in (1, 3):
        raise ConfigError(
            f"config.data.policy='{config.policy}' needs grey or colour images, but "
            f"'{config.name}' has {channels} channels; set policy='none'."
        )
    side = min(spec.output_size(height, width))
    if config.cutout_pixels > side:
        raise ConfigError(
            f"config.data.cutout_pixels={config.cutout_pixels} is larger than the "
            f"images, {side} pixels; give at most {side}, or 0."
        )
