"""Crop and resize encoded images on the host, to the one size that a batch needs.

The random crop is torchvision's RandomResizedCrop, as in the released code (method A.8,
C.2), the test image its Resize and CenterCrop; pixels come from Pillow, as there.
Flip, rotation, policies and normalisation follow on the device.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from spaced_kd.config import DataConfig
from spaced_kd.data.geometry import (
    ASPECTS,
    TRIES,
    centre_start,
    centred_box,
    shorter_side,
)

Draws = Callable[[], float]
"""Returns a new uniform number in [0, 1) at each call."""

Box = tuple[int, int, int, int]
"""(left, top, right, bottom), pixels; right and bottom are outside."""


@dataclasses.dataclass(frozen=True)
class HostCrop:
    """What the host does to an image.

    side: of the result, pixels.
    least_share: of the image's area in a random crop; 0: the whole image is resized.
    eval_resize: shorter side of a test image before its centre is cut out, pixels; 0:
      the whole image is resized.
    resample: of every resize.
    """

    side: int
    least_share: float
    eval_resize: int
    resample: Image.Resampling


def host_crop_of(config: DataConfig, side: int) -> HostCrop:
    """Return what the config asks for, with results of `side` pixels."""
    resample = Image.Resampling[config.interpolation.upper()]
    return HostCrop(side, config.resized_crop_scale, config.eval_resize, resample)


def crop_draws(words: np.ndarray, step: int, place: int) -> Draws:
    """Return a sequence of random numbers, a pure function of its arguments.

    A replay that passes the same arguments draws the same crop. The numbers are those
    of Philox, whose key and counter are the arguments; they do not change with NumPy's
    version.

    Args:
      words: [up to 4] uint32, `jax.random.key_data` of the augmentation key.
      step: place in the stream.
      place: of the example in the global batch.
    """
    padded = np.zeros(4, np.uint32)
    padded[: words.size] = words.ravel()
    # The lowest word counts the draws of one example.
    counter = np.array([0, 0, place, step], np.uint64)
    philox = np.random.Philox(key=padded.view(np.uint64), counter=counter)
    return np.random.Generator(philox).random


def train_pixels(image: Image.Image, crop: HostCrop, draw: Draws) -> np.ndarray:
    """Return [side, side, 3] uint8: a random part of the image, resized."""
    if crop.least_share:
        image = image.crop(random_box(*image.size, crop.least_share, draw))
    return _resized(image, (crop.side, crop.side), crop.resample)


def eval_pixels(image: Image.Image, crop: HostCrop) -> np.ndarray:
    """Return [side, side, 3] uint8: the resized image, or the centre of it."""
    side, shorter = crop.side, crop.eval_resize
    if not shorter:
        return _resized(image, (side, side), crop.resample)
    height, width = shorter_side(image.height, image.width, shorter)
    top, left = centre_start(height, side), centre_start(width, side)
    pixels = _resized(image, (width, height), crop.resample)
    return pixels[top : top + side, left : left + side]


def random_box(width: int, height: int, least_share: float, draw: Draws) -> Box:
    """Return the part of an image that a random resized crop shows.

    Its share of the area is uniform in [least_share, 1], its aspect log-uniform in
    [3/4, 4/3]. What does not fit into the image is drawn again; after ten times it is
    the largest centred part whose aspect is within bounds.

    Args:
      width: of the image, pixels.
      height: likewise.
      least_share: in (0, 1].
      draw: decides.
    """
    low, high = map(math.log, ASPECTS)
    for _ in range(TRIES):
        area = width * height * (least_share + (1 - least_share) * draw())
        aspect = math.exp(low + (high - low) * draw())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(draw() * (height - h + 1))
            left = int(draw() * (width - w + 1))
            return left, top, left + w, top + h
    top, left, h, w = centred_box(height, width)
    return left, top, left + w, top + h


def _resized(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling
) -> np.ndarray:
    return np.asarray(image.resize(size, resample))
