"""Enlarge the middle of an image by linear interpolation."""

import functools
import math

import numpy as np


@functools.lru_cache(maxsize=256)
def zoom_matrix(side: int, factor: float) -> np.ndarray:
    """Return the matrix that enlarges the middle of an image's side.

    The middle ceil(side / factor) pixels are stretched to round(that * factor), `side`
    or a few more, with the first and last kept in place (`scipy.ndimage.zoom` of order
    1).

    Args:
      side: pixels.
      factor: 1 or more.

    Returns:
      [stretched, side] float32; a row has one or two entries, with a sum of 1.
    """
    middle = math.ceil(side / factor)
    start = (side - middle) // 2
    stretched = round(middle * factor)
    rows = np.arange(stretched)
    at = rows * ((middle - 1) / max(stretched - 1, 1))
    left = np.minimum(at.astype(int), max(middle - 2, 0))
    matrix = np.zeros((stretched, side))
    matrix[rows, start + left] = 1 - (at - left)
    matrix[rows, start + np.minimum(left + 1, middle - 1)] += at - left
    return matrix.astype(np.float32)
