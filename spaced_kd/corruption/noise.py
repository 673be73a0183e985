"""Noise on single values; each channel has its own.

Every function takes an image, [H, W, C] uint8, the constants of a severity and a source
of random numbers, and returns an image of that kind.
"""

from collections.abc import Sequence

import numpy as np

from spaced_kd.corruption.levels import fractions, to_bytes


def gaussian_noise(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Add Gaussian noise; constants: its s.d. as a fraction of 255."""
    (scale,) = values
    return to_bytes(fractions(image) + rng.normal(scale=scale, size=image.shape))


def shot_noise(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Count photons; constants: how many make full brightness, in the mean."""
    (photons,) = values
    return to_bytes(rng.poisson(fractions(image) * photons) / photons)


def impulse_noise(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Set values to 0 or 255, as often each; constants: the share that is set."""
    (amount,) = values
    hit = rng.random(image.shape) <= amount
    salt = rng.random(image.shape) <= 0.5
    return np.where(hit, np.where(salt, 255, 0), image).astype(np.uint8)
