"""Pillow's antialiased resize, of whole images or of a box of each, to the last bit.

Where an output pixel reads and with which weights depends on two lengths alone, so it
is tabulated on the host, in float64 as in Pillow; the device computes in integers.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.data.geometry import centre_start

# Pillow's scale of the weights of 8-bit images: 8 bits for the result, 2 for overshoot.
_WEIGHT_BITS = 22


class Box(NamedTuple):
    """A rectangle inside each image, pixels.

    top, left: [b] int32. height, width: [b] int32, at least 1.
    """

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array


class Taps(NamedTuple):
    """Which input pixels make an output pixel; NumPy on the host.

    first: [..., out] int32. weight: [..., out, taps] int32, in 2**-22.
    """

    first: Any
    weight: Any


def resize(
    pixels: jax.Array, size: tuple[int, int], interpolation: str, box: Box | None = None
) -> jax.Array:
    """Return images resized as Pillow 12 does, after a crop to a box.

    Args:
      pixels: [b, H, W, C] uint8.
      size: (height, width) of the result.
      interpolation: "bilinear" or "bicubic".
      box: what to crop before; None: nothing.

    Returns:
      [b, *size, C] uint8.
    """
    height, width = pixels.shape[1:3]
    if box is None:
        rows = jax.tree.map(lambda x: x[None], taps(height, size[0], interpolation))
        columns = jax.tree.map(lambda x: x[None], taps(width, size[1], interpolation))
    else:
        rows = _box_taps(box.top, box.height, height, size[0], interpolation)
        columns = _box_taps(box.left, box.width, width, size[1], interpolation)
    # Rounding between the passes makes their order matter. Pillow 13 begins with the
    # vertical one where the height shrinks by more than twice as many pixels as the
    # width; the recipes date from before.
    return _pass(_pass(pixels, columns), rows)


def centre_crop(pixels: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Return the centre [b, *size, C] of images, placed as in torchvision."""
    top, left = map(centre_start, pixels.shape[1:3], size)
    return pixels[:, top : top + size[0], left : left + size[1]]


@functools.cache
def taps(length: int, out: int, interpolation: str) -> Taps:
    """Return how `out` pixels are made of `length`.

    Source: the coefficients of Pillow's Resample.c.

    Returns:
      first [out] and weight [out, taps].
    """
    kernel, support = _KERNELS[interpolation]
    scale = length / out
    stretch = max(scale, 1.0)
    support *= stretch
    centre = (np.arange(out) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int32), 0)
    stop = np.minimum((centre + support + 0.5).astype(np.int32), length)
    place = first[:, None] + np.arange(2 * math.ceil(support) + 1)
    weight = kernel(np.abs((place - centre[:, None] + 0.5) * (1.0 / stretch)))
    weight = np.where(place < stop[:, None], weight, 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    # Half away from zero.
    scaled = np.trunc(weight * 2**_WEIGHT_BITS + np.copysign(0.5, weight))
    return Taps(first, scaled.astype(np.int32))


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - distance, 0.0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    # Keys' cubic convolution with a = -1/2.
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = -0.5 * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


_KERNELS = {"bilinear": (_linear, 1.0), "bicubic": (_cubic, 2.0)}


@functools.cache
def _taps_of_all_lengths(longest: int, out: int, interpolation: str) -> Taps:
    tables = [taps(n, out, interpolation) for n in range(1, longest + 1)]
    most = max(table.weight.shape[1] for table in tables)
    pad = lambda w: np.pad(w, ((0, 0), (0, most - w.shape[1])))
    return Taps(
        np.stack([table.first for table in tables]),
        np.stack([pad(table.weight) for table in tables]),
    )


def _box_taps(start, length, longest: int, out: int, interpolation: str):
    table = _taps_of_all_lengths(longest, out, interpolation)
    first = jnp.asarray(table.first)[length - 1] + start[:, None]
    return Taps(first, jnp.asarray(table.weight)[length - 1])


def _pass(pixels: jax.Array, table) -> jax.Array:
    """Resample axis 2 and exchange it with axis 1, ready for the other pass."""
    batch = jnp.arange(pixels.shape[0], dtype=jnp.int32)[:, None]
    last = pixels.shape[2] - 1
    total = jnp.int32(1 << (_WEIGHT_BITS - 1))
    for tap in range(table.weight.shape[-1]):
        # A tap beyond the image has no weight.
        place = jnp.minimum(table.first + np.int32(tap), np.int32(last))
        weight = jnp.asarray(table.weight[..., tap])[:, :, None, None]
        total = total + weight * pixels[batch, :, place].astype(jnp.int32)
    return jnp.clip(total >> _WEIGHT_BITS, 0, 255).astype(jnp.uint8)
