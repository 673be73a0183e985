"""Between bytes and the fractions that most corruptions compute with."""

import numpy as np


def fractions(image: np.ndarray) -> np.ndarray:
    """Return uint8 values as float64 in [0, 1]."""
    return image / 255.0


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Return values of [0, 1] as uint8; others are clipped.

    Rounded down, as the published programs do, so that a value that rounding errors put
    just below a whole level may lose one.
    """
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)
