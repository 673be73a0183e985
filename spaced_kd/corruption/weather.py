"""Snow, frost and fog. What a function takes and returns: see `noise`."""

from collections.abc import Sequence

import numpy as np

from spaced_kd.corruption.blur import smear
from spaced_kd.corruption.frost_photos import scaled_photos
from spaced_kd.corruption.levels import fractions, to_bytes
from spaced_kd.corruption.zoom import zoom_matrix

_LUMA = np.array([0.299, 0.587, 0.114])
"""Of red, green and blue in a grey value (ITU-R BT.601)."""


def snow(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Whiten the image and add flakes that fall in two opposite directions.

    Constants: mean, s.d., enlargement and threshold of the noise that makes the flakes;
    radius and sigma with which they are smeared (`blur.smear`); the share of the image
    that is not whitened.

    As in imagecorruptions, enlarged flakes are cut to size after they are smeared, and
    at the lower right; CIFAR-C cuts before and on all sides, which is the same but for
    the flakes at the border.
    """
    mean, scale, zoom, threshold, radius, sigma, kept = values
    height, width = image.shape[:2]
    flakes = rng.normal(mean, scale, (height, width))
    flakes = zoom_matrix(height, zoom) @ flakes @ zoom_matrix(width, zoom).T
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = smear(flakes, radius, sigma, rng.uniform(-135, -45))
    flakes = (np.round(flakes * 255) / 255)[:height, :width, None]
    pixels = fractions(image)
    white = np.maximum(pixels, 1.5 * _grey(pixels) + 0.5)
    pixels = kept * pixels + (1 - kept) * white
    return to_bytes(pixels + flakes + flakes[::-1, ::-1])


def frost(
    image: np.ndarray,
    values: Sequence[float],
    rng: np.random.Generator,
    folder: str = "",
) -> np.ndarray:
    """Add a piece of a picture of frost, drawn from five.

    Deviation: without the published photographs, which may not be shipped, the five are
    made (`frost_photos`), with the same means and s.d. of colours.

    Constants: weight of the image, weight of the frost, scale of the photographs.

    Args:
      image: see `noise`.
      values: the constants.
      rng: draws the picture and the piece.
      folder: of the photographs frost1.png to frost5.jpg; "": our own.
    """
    kept, added, scale = values
    height, width, channels = image.shape
    photos = scaled_photos(folder, scale)
    photo = photos[rng.integers(len(photos))]
    # Too small a photograph is repeated.
    first = [
        rng.integers(max(photo.shape[axis] - (height, width)[axis], 1))
        for axis in (0, 1)
    ]
    rows = (first[0] + np.arange(height)) % photo.shape[0]
    columns = (first[1] + np.arange(width)) % photo.shape[1]
    piece = photo[rows][:, columns]
    if channels == 1:
        piece = _grey(piece)
    return np.clip(kept * image + added * piece, 0, 255).astype(np.uint8)


def fog(
    image: np.ndarray, values: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Add clouds and scale back to the image's range.

    Constants: weight of the clouds, and by how much their detail fades (`_clouds`).
    """
    weight, decay = values
    height, width = image.shape[:2]
    pixels = fractions(image)
    largest = pixels.max()
    side = 1 << (max(height, width) - 1).bit_length()
    clouds = _clouds(side, decay, rng)[:height, :width, None]
    return to_bytes((pixels + weight * clouds) * (largest / (largest + weight)))


def _clouds(side: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Return a random landscape by the diamond-square algorithm, on a torus.

    Args:
      side: a power of two.
      decay: the amplitude is divided by it from one scale to the next finer one.
      rng: of the random heights.

    Returns:
      [side, side] float64, from 0 to 1.
    """
    heights = np.zeros((side, side))
    step, amplitude = side, 100.0

    def around(total: np.ndarray) -> np.ndarray:
        wobble = amplitude * rng.uniform(-amplitude, amplitude, total.shape)
        return total / 4 + wobble

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        centres = around(pairs + np.roll(pairs, -1, 1))
        heights[half::step, half::step] = centres
        above = centres + np.roll(centres, 1, 0)
        heights[::step, half::step] = around(above + corners + np.roll(corners, -1, 1))
        beside = centres + np.roll(centres, 1, 1)
        heights[half::step, ::step] = around(beside + pairs)
        step, amplitude = half, amplitude / decay
    heights -= heights.min()
    return heights / heights.max()


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Return [H, W, 1]; a grey image is its own."""
    return pixels if pixels.shape[2] == 1 else (pixels @ _LUMA)[..., None]
