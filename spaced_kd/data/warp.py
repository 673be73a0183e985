"""Shears, translations, rotations as in Pillow, each image its own, in integers.

Explicit scalar arithmetic and no batched matrix-vector product: jaxlib 0.10 returns
silently wrong numbers for some of those on CPU (jax #39103).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_FRACTION_BITS = 15
_LOW_BITS = 9


class Affine(NamedTuple):
    """Where output pixels come from; NumPy on the host, [b] each on the device.

    Twice the source coordinate of output pixel (x, y) is, in units of 2**-bits,
    xx (2x + 1 - W) + xy (2y + 1 - H) + x0 for the column and likewise for the row.

    xx, xy, x0, yx, yy, y0: [...] int32.
    nearest: [...] bool, the nearest pixel; else interpolated.
    """

    xx: Any
    xy: Any
    x0: Any
    yx: Any
    yy: Any
    y0: Any
    nearest: Any


def affine(name: str, value: np.ndarray, height: int, width: int, nearest: bool):
    """Return the map of one operation.

    Args:
      name: shear_x, shear_y: columns a row, rows a column, about the top left corner;
        translate_x, translate_y: share of the width, the height; rotate: degrees
        counter-clockwise about the centre; any other: no change.
      value: [...] float64.
      height: of the images, pixels.
      width: likewise.
      nearest: whether to take the nearest pixel.
    """
    one, zero = np.ones_like(value), np.zeros_like(value)
    xx, xy, x0, yx, yy, y0 = one, zero, width * one, zero, one, height * one
    if name == "shear_x":
        xy, x0 = value, width + value * height
    elif name == "shear_y":
        yx, y0 = value, height + value * width
    elif name == "translate_x":
        x0 = width + 2 * value * width
    elif name == "translate_y":
        y0 = height + 2 * value * height
    elif name == "rotate":
        xx = yy = np.cos(np.radians(value))
        yx = np.sin(np.radians(value))
        xy = -yx
    unit = 2.0 ** _bits(height, width)
    fixed = (np.rint(x * unit).astype(np.int32) for x in (xx, xy, x0, yx, yy, y0))
    return Affine(*fixed, nearest=np.full(value.shape, nearest))


def warp(
    pixels: jax.Array, where: Affine, fill: tuple[int, ...], interpolation: str
) -> jax.Array:
    """Return images moved as `PIL.Image.transform` does.

    Differs from Pillow by one grey level where its float64 and our fractions of a
    pixel, 2**-15, fall on two sides of a whole level.

    Args:
      pixels: [b, H, W, C] uint8.
      where: [b] each.
      fill: [C], levels of what comes from outside, 0 to 255.
      interpolation: "bilinear" or "bicubic", where not `where.nearest`.
    """
    height, width = pixels.shape[1:3]
    bits = _bits(height, width)
    where = jax.tree.map(lambda x: x[:, None, None], where)
    x = 2 * jnp.arange(width, dtype=jnp.int32) + (1 - width)
    y = (2 * jnp.arange(height, dtype=jnp.int32) + (1 - height))[:, None]
    column = where.xx * x + where.xy * y + where.x0
    row = where.yx * x + where.yy * y + where.y0
    inside = (row >= 0) & (row < height << (bits + 1))
    inside &= (column >= 0) & (column < width << (bits + 1))
    rows = _taps(row, where.nearest, height, bits, interpolation)
    columns = _taps(column, where.nearest, width, bits, interpolation)
    moved = _interpolate(pixels, rows, columns)
    return jnp.where(inside[..., None], moved, np.asarray(fill, np.uint8))


def _bits(height: int, width: int) -> int:
    # All sums stay below three times the size (`affine`), in 31 bits.
    return 30 - (3 * max(height, width)).bit_length()


def _taps(doubled, nearest, size: int, bits: int, interpolation: str):
    """Return what an axis reads: a list of (place, weight), [b, H, W] int32 each."""
    whole = bits + 1
    # Fractions are rounded, or whole pixels just missed would lose a level.
    half = 1 << (whole - _FRACTION_BITS - 1)
    between = doubled - (1 << bits) + half
    corner = jnp.where(nearest, (doubled >> whole) << whole, between)
    first = corner >> whole
    part = (corner & ((1 << whole) - 1)) >> (whole - _FRACTION_BITS)
    weights = _WEIGHTS[interpolation](part)
    return [
        (jnp.clip(first + offset, 0, size - 1), weight)
        for offset, weight in weights.items()
    ]


def _linear(part: jax.Array) -> dict[int, jax.Array]:
    return {0: (1 << _FRACTION_BITS) - part, 1: part}


def _cubic(part: jax.Array) -> dict[int, jax.Array]:
    # Pillow's transforms use a = -1 where its resize uses -1/2. The weights add up to
    # one whatever the rounding of the powers, so flat areas stay as they are.
    square = (part * part) >> _FRACTION_BITS
    cube = (square * part) >> _FRACTION_BITS
    return {
        -1: 2 * square - part - cube,
        0: (1 << _FRACTION_BITS) - 2 * square + cube,
        1: part + square - cube,
        2: cube - square,
    }


_WEIGHTS = {"bilinear": _linear, "bicubic": _cubic}


def _interpolate(pixels: jax.Array, rows, columns) -> jax.Array:
    batch = jnp.arange(pixels.shape[0], dtype=jnp.int32)[:, None, None]
    high = low = jnp.int32(0)
    for row, row_weight in rows:
        across = jnp.int32(0)
        for column, weight in columns:
            value = pixels[batch, row, column].astype(jnp.int32)
            across = across + weight[..., None] * value
        # Both factors in one product would need 41 bits.
        high = high + row_weight[..., None] * (across >> _LOW_BITS)
        low = low + row_weight[..., None] * (across & ((1 << _LOW_BITS) - 1))
    # Pillow cuts the fraction off.
    whole = (high + (low >> _LOW_BITS)) >> (2 * _FRACTION_BITS - _LOW_BITS)
    return jnp.clip(whole, 0, 255).astype(jnp.uint8)
