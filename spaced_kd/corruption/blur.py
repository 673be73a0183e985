"""Blurs. What a function takes and returns: see `noise`."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import fft, ndimage

from spaced_kd.corruption.levels import fractions, to_bytes
from spaced_kd.corruption.zoom import zoom_matrix


def defocus_blur(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Average over a disk; constants: its radius, and the s.d. that softens it, pixels.

    The border is mirrored without repeating the outermost pixel.
    """
    del rng
    height, width = image.shape[:2]
    margin = len(_disk(*values)) // 2
    padded = _mirrored(fractions(image), margin).transpose(2, 0, 1)
    size = tuple(_fast(side) for side in padded.shape[1:])
    # The kernel is symmetric: convolution and correlation are the same.
    spectrum = np.asarray(fft.rfft2(padded, size)) * _disk_spectrum(*values, *size)
    blurred = np.asarray(fft.irfft2(spectrum, size))
    start = 2 * margin
    blurred = blurred[:, start : start + height, start : start + width]
    return to_bytes(blurred.transpose(1, 2, 0))


def _fast(side: int) -> int:
    return fft.next_fast_len(side, real=True) or side


@functools.lru_cache(maxsize=16)
def _disk_spectrum(
    radius: float, softness: float, height: int, width: int
) -> np.ndarray:
    return np.asarray(fft.rfft2(_disk(radius, softness), (height, width)))


@functools.lru_cache(maxsize=16)
def _disk(radius: float, softness: float) -> np.ndarray:
    reach = 8 if radius <= 8 else int(radius)
    at = np.arange(-reach, reach + 1)
    disk = (at[:, None] ** 2 + at**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    near = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    weights = np.exp(-(near**2) / (2 * softness**2))
    weights /= weights.sum()
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, weights, axis, mode="mirror")
    return disk


def _mirrored(image: np.ndarray, margin: int) -> np.ndarray:
    rows, columns = (
        np.pad(np.arange(side), margin, mode="reflect") for side in image.shape[:2]
    )
    return image[rows][:, columns]


def glass_blur(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Blur, move pixels about, blur.

    Pixels are visited from the lower right to the upper left, and each becomes what
    another one near it is by then. (The published code means to swap the two, but
    NumPy's views make it a copy.)

    Constants: s.d. of the Gaussian blur, pixels; d, for offsets of -d to d - 1 rows and
    columns; how often all pixels are visited.
    """
    sigma, reach, times = values[0], int(values[1]), int(values[2])
    height, width = image.shape[:2]
    blurred = to_bytes(_gaussian(fractions(image), sigma))
    rows, columns = (np.arange(side - reach, reach, -1) for side in (height, width))
    visited = np.tile((rows[:, None] * width + columns).ravel(), times)
    offsets = rng.integers(-reach, reach, size=(len(visited), 2)) @ [1, width]
    came_from = list(range(height * width))
    for pixel, offset in zip(visited.tolist(), offsets.tolist(), strict=True):
        came_from[pixel] = came_from[pixel + offset]
    moved = blurred.reshape(height * width, -1)[came_from].reshape(image.shape)
    return to_bytes(_gaussian(fractions(moved), sigma))


def _gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def motion_blur(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Smear along a direction within 45 degrees of the rows; constants: `smear`'s."""
    radius, sigma = values
    smeared = smear(image.astype(np.float64), radius, sigma, rng.uniform(-45, 45))
    return np.clip(smeared, 0, 255).astype(np.uint8)


def smear(image: np.ndarray, radius: float, sigma: float, angle: float) -> np.ndarray:
    """Return the mean of an image's copies, shifted step by step in one direction.

    ImageMagick's motion blur. Beyond the border the outermost pixel is repeated; the
    package imagecorruptions leaves out what lies beyond it, which darkens images whose
    sides are shorter than the kernel.

    Args:
      image: [H, W, ...] float.
      radius: there are 2 radius + 1 copies, 0, 1, 2, ... pixels away.
      sigma: copy i has the weight exp(-i^2 / (2 sigma^2)), scaled to a sum of 1.
      angle: of the direction, degrees; positive: pixels come from below and the right.
    """
    height, width = image.shape[:2]
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    turn = np.deg2rad(angle)
    down = np.ceil(steps * np.sin(turn) - 0.5).astype(int)
    right = np.ceil(steps * np.cos(turn) - 0.5).astype(int)
    margin = len(steps)
    rows, columns = (
        np.clip(np.arange(-margin, side + margin), 0, side - 1)
        for side in (height, width)
    )
    wide = image[rows][:, columns]
    total = np.zeros_like(image)
    for weight, y, x in zip(weights, margin + down, margin + right, strict=True):
        total += weight * wide[y : y + height, x : x + width]
    return total


def zoom_blur(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Average the image and its enlargements; constants: end and step of the factors.

    The factors are 1, 1 + step, ... up to the end, which is left out; the image itself
    counts once more.
    """
    del rng
    down, across = (_zooms(side, *values) for side in image.shape[:2])
    pixels = fractions(image).astype(np.float32)
    tall = np.tensordot(down, pixels, axes=(2, 0))
    total = np.tensordot(tall, across, axes=((0, 2), (0, 2))).swapaxes(1, 2)
    return to_bytes((pixels + total) / (len(down) + 1))


@functools.lru_cache(maxsize=32)
def _zooms(side: int, end: float, step: float) -> np.ndarray:
    factors = np.arange(1, end, step)
    return np.stack([zoom_matrix(side, factor)[:side] for factor in factors])
