"""The fifteen corruptions of ImageNet-C and CIFAR-C, as seeded code of our own.

Written from the published constants and order of operations, on NumPy, SciPy and Pillow
alone. Images may have any height and width from 8 pixels, and one or three channels. A
grey image is corrupted as such: noise is drawn for its one channel, and frost is added
by its brightness.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from spaced_kd import registry
from spaced_kd.corruption.blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from spaced_kd.corruption.constants import CONSTANTS, PAPER
from spaced_kd.corruption.digital import (
    brightness,
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
)
from spaced_kd.corruption.noise import gaussian_noise, impulse_noise, shot_noise
from spaced_kd.corruption.weather import fog, frost, snow
from spaced_kd.errors import ConfigError, DataError

__all__ = ["CONSTANTS", "CORRUPTIONS", "PAPER", "SMALLEST", "corrupt", "corrupt_all"]

CORRUPTIONS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
"""In the order of ImageNet-C."""

SMALLEST = 8
"""Pixels of the shorter side."""

_AT_ONCE = 16  # images that one thread corrupts before it asks for more

# Values of an image. With fewer, threads mostly wait for the interpreter's lock: two
# were slower than one at 32x32x3.
_WORTH_A_THREAD = 1 << 16


def corrupt(
    image: np.ndarray,
    name: str,
    severity: int,
    constants: str,
    rng: np.random.Generator,
    frost_folder: str = "",
) -> np.ndarray:
    """Return a corrupted image.

    Args:
      image: [H, W, C] uint8, C 1 or 3, sides of 8 or more.
      name: a key of `CORRUPTIONS`.
      severity: 1 to 5.
      constants: "imagenet_c" or "cifar_c", see `constants`.
      rng: of all random numbers.
      frost_folder: for frost, see `weather.frost`.

    Returns:
      [H, W, C] uint8.

    Raises:
      ConfigError: unknown name, severity or constants.
      DataError: an image of another kind, or photographs that are not there.
    """
    operation = registry.lookup(CORRUPTIONS, name, "corruption")
    values = registry.lookup(CONSTANTS, constants, "constants")[name]
    if severity not in range(1, len(values) + 1):
        raise ConfigError(f"severity={severity} is unknown; give 1 to {len(values)}.")
    _check(image)
    if name == "frost":
        return frost(image, values[severity - 1], rng, frost_folder)
    return operation(image, values[severity - 1], rng)


def corrupt_all(
    images: np.ndarray,
    name: str,
    severity: int,
    constants: str,
    seed: int,
    frost_folder: str = "",
) -> np.ndarray:
    """Return corrupted images.

    What an image becomes depends on its own pixels and the arguments, not on the images
    beside it, their order or number: the random numbers are those of a hash of both.

    Args:
      images: [N, H, W, C] uint8.
      name: see `corrupt`.
      severity: see `corrupt`.
      constants: see `corrupt`.
      seed: of the random numbers.
      frost_folder: see `corrupt`.

    Returns:
      [N, H, W, C] uint8.

    Raises:
      ConfigError: see `corrupt`.
      DataError: see `corrupt`.
    """
    corrupted = np.empty_like(images)
    key = f"{seed}/{name}/{severity}".encode()

    def some(start: int) -> None:
        for row in range(start, min(start + _AT_ONCE, len(images))):
            rng = _generator(images[row], key)
            corrupted[row] = corrupt(
                images[row], name, severity, constants, rng, frost_folder
            )

    small = images[0].size < _WORTH_A_THREAD
    with ThreadPoolExecutor(1 if small else os.cpu_count()) as pool:
        # The first error, in the order of the images, ends it.
        for _ in pool.map(some, range(0, len(images), _AT_ONCE)):
            pass
    return corrupted


def _generator(image: np.ndarray, key: bytes) -> np.random.Generator:
    digest = hashlib.blake2b(key, digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return np.random.default_rng(int.from_bytes(digest.digest(), "little"))


def _check(image: np.ndarray) -> None:
    sides, channels = image.shape[:-1], image.shape[-1]
    good = len(sides) == 2 and min(sides) >= SMALLEST and channels in (1, 3)
    if image.dtype != np.uint8 or not good:
        raise DataError(
            f"an image of {image.dtype} {image.shape} cannot be corrupted; it must be "
            f"uint8 [H, W, 1 or 3] with sides of {SMALLEST} pixels or more."
        )
