"""What cameras and files do. What a function takes and returns: see `noise`."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from spaced_kd.corruption.levels import fractions, to_bytes


def brightness(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Raise V of hue, saturation and value; constants: by how much, as a fraction.

    V is the largest channel; with hue and saturation fixed all channels grow as it
    does, and black becomes grey.
    """
    del rng
    pixels = fractions(image)
    value = pixels.max(axis=2, keepdims=True)
    raised = np.clip(value + values[0], 0, 1)
    grown = pixels * (raised / np.where(value > 0, value, 1))
    return to_bytes(np.where(value > 0, grown, raised))


def contrast(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Move each value towards its channel's mean; constants: the distance left."""
    del rng
    pixels = fractions(image)
    means = pixels.mean(axis=(0, 1))
    return to_bytes((pixels - means) * values[0] + means)


def jpeg_compression(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Write and read a JPEG file; constants: its quality."""
    del rng
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=int(values[0]))
    return np.asarray(Image.open(file)).reshape(image.shape)


def pixelate(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Shrink by means, enlarge by repetition; constants: the share of the sides."""
    del rng
    height, width = image.shape[:2]
    small = (int(width * values[0]), int(height * values[0]))
    picture = _picture(image).resize(small, Image.Resampling.BOX)
    picture = picture.resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(picture).reshape(image.shape)


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def elastic_transform(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Move three points of the image by an affine map, then each pixel by itself.

    Constants, as shares of the height: the largest step of a pixel before the steps are
    smoothed; the s.d. of the Gaussian that smooths them (of each side); the largest
    step of a point, 0 for no affine map.
    """
    alpha, smoothness, corner = values
    height, width = image.shape[:2]
    pixels = fractions(image).astype(np.float32)
    if corner:
        pixels = _affine(pixels, corner * height, rng)
    sigma = (smoothness * height, smoothness * width)
    # Columns first: the published code's order of draws.
    right, down = (
        ndimage.gaussian_filter(
            rng.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3
        )
        * (alpha * height)
        for _ in range(2)
    )
    at = np.mgrid[:height, :width] + np.stack([down, right])
    return to_bytes(_sampled(pixels, at, "reflect"))


def _affine(pixels: np.ndarray, step: float, rng: np.random.Generator) -> np.ndarray:
    """Map three points around the middle to points up to `step` away."""
    height, width = pixels.shape[:2]
    # In the published code, too, rows and columns of the middle change places.
    first, second = height // 2, width // 2
    reach = min(height, width) // 3
    points = np.array(
        [
            (first + reach, second + reach),
            (first + reach, second - reach),
            (first - reach, second - reach),
        ],
        np.float64,
    )
    moved = points + rng.uniform(-step, step, points.shape)
    ones = np.ones((3, 1))
    # Points are (column, row); each output pixel needs to know where it comes from.
    back = np.linalg.solve(np.hstack([moved, ones]), points)
    rows, columns = np.mgrid[:height, :width]
    source = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back
    return _sampled(pixels, np.stack([source[..., 1], source[..., 0]]), "mirror")


def _sampled(pixels: np.ndarray, at: np.ndarray, mode: str) -> np.ndarray:
    channels = [
        ndimage.map_coordinates(pixels[..., c], at, order=1, mode=mode)
        for c in range(pixels.shape[2])
    ]
    return np.stack(channels, axis=-1)
