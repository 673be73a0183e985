"""Operations on grey levels as in Pillow, each image with its own, to the last bit.

Every operation but the enhancers maps a channel's 256 levels to others, so that images
with different operations differ in a small table only. The enhancers all blend with a
degenerate image. Integers throughout, or floats rounded once: eager and compiled code
cannot differ.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

KINDS = (
    "identity",
    "invert",
    "posterize",
    "solarize",
    "solarize_add",
    "autocontrast",
    "equalize",
    "brightness",
    "contrast",
    "color",
    "sharpness",
)
"""What `kind` counts."""

ENHANCERS = KINDS[KINDS.index("brightness") :]

_SOLARIZE_ADD_BELOW = 128
# Fraction of a blended grey level: the most that leaves its range, +-485, 31 bits.
_BLEND_BITS = 21


def look_up(pixels: jax.Array, kind: jax.Array, argument: jax.Array) -> jax.Array:
    """Return images after the operations that map levels to levels.

    Source: Pillow's ImageOps; solarize_add: timm.

    Args:
      pixels: [b, H, W, C] uint8.
      kind: [b] int32, place in KINDS; enhancers change nothing here.
      argument: [b] int32: posterize: bits to keep; solarize: first level to invert;
        solarize_add: what to add to levels below 128.
    """
    b, height, width, channels = pixels.shape
    table = jnp.arange(b * channels, dtype=jnp.int32).reshape(b, 1, 1, channels)
    cell = table * 256 + pixels
    counts = jnp.zeros(b * channels * 256, jnp.int32).at[cell.reshape(-1)].add(1)
    counts = counts.reshape(b, channels, 256)
    low, high = pixels.min((1, 2)), pixels.max((1, 2))
    level = jnp.arange(256, dtype=jnp.int32)
    argument = argument[:, None]
    bright = jnp.minimum(level + argument, 255)
    # [b, 1 or C, 256] each; what does not depend on the image's levels is the same for
    # all channels.
    tables = {
        "invert": 255 - level[None, None],
        "posterize": (level & -(1 << (8 - argument)))[:, None],
        "solarize": jnp.where(level < argument, level, 255 - level)[:, None],
        "solarize_add": jnp.where(level < _SOLARIZE_ADD_BELOW, bright, level)[:, None],
        "autocontrast": _autocontrast(low.astype(jnp.int32), high.astype(jnp.int32)),
        "equalize": _equalize(counts, high),
    }
    result = jnp.broadcast_to(level, counts.shape)
    for name, mapped in tables.items():
        chosen = (kind == KINDS.index(name))[:, None, None]
        result = jnp.where(chosen, mapped, result)
    return result.reshape(-1)[cell].astype(jnp.uint8)


def enhance(pixels: jax.Array, kind: jax.Array, factor: jax.Array) -> jax.Array:
    """Return images blended with their degenerate ones, as Pillow's ImageEnhance.

    Args:
      pixels: [b, H, W, C] uint8, C 1 or 3.
      kind: [b] int32, place in KINDS.
      factor: [b] float32, 0: the degenerate image, 1: unchanged, at most 1.9; must be
        1 where `kind` is no enhancer.
    """
    grey = _grey(pixels)
    area = pixels.shape[1] * pixels.shape[2]
    mean = (2 * grey.sum((1, 2, 3), keepdims=True, dtype=jnp.int32) + area) // (
        2 * area
    )
    degenerate = {"contrast": mean, "color": grey, "sharpness": _smooth(pixels)}
    other = jnp.zeros(pixels.shape, jnp.int32)
    for name, image in degenerate.items():
        chosen = (kind == KINDS.index(name))[:, None, None, None]
        other = jnp.where(chosen, image, other)
    return _blend(other, pixels.astype(jnp.int32), factor[:, None, None, None])


def _autocontrast(low: jax.Array, high: jax.Array) -> jax.Array:
    """Return the tables [b, C, 256] that stretch [low, high] to [0, 255]."""
    level = jnp.arange(256, dtype=jnp.int32)
    low, high = low[..., None], high[..., None]
    quotient = 255 * (level - low) // jnp.maximum(high - low, 1)
    code = (low * 256 + high) * 256 + level
    rare = jnp.asarray(_stretches_rounded_down())
    found = rare[jnp.searchsorted(rare, code).astype(jnp.int32) % rare.size] == code
    stretched = jnp.clip(quotient - found, 0, 255)
    return jnp.where(high > low, stretched, level)


@functools.cache
def _stretches_rounded_down() -> np.ndarray:
    """Return sorted codes (low, high, level) where Pillow lands below the quotient.

    Pillow computes in float64; where the quotient is a whole number, rounding may leave
    the result just below it (1 in 230 of all cases).
    """
    level = np.arange(256)
    codes = []
    for low in range(255):
        high = np.arange(low + 1, 256)[:, None]
        scale = 255.0 / (high - low)
        got = (level * scale - low * scale).astype(np.int64)
        exact = 255 * (level - low) // (high - low)
        rows, levels = np.nonzero((got < exact) & (level >= low) & (level <= high))
        codes.append((low * 256 + high[rows, 0]) * 256 + levels)
    return np.sort(np.concatenate(codes)).astype(np.int32)


def _equalize(counts: jax.Array, high: jax.Array) -> jax.Array:
    """Return the tables [b, C, 256] that make all levels equally frequent."""
    total = counts.sum(-1, dtype=jnp.int32, keepdims=True)
    brightest = jnp.take_along_axis(counts, high[..., None].astype(jnp.int32), axis=-1)
    step = (total - brightest) // 255
    before = jnp.cumsum(counts, axis=-1, dtype=jnp.int32) - counts
    mapped = (step // 2 + before) // jnp.maximum(step, 1)
    level = jnp.arange(256, dtype=jnp.int32)
    return jnp.where(step > 0, jnp.minimum(mapped, 255), level)


def _grey(pixels: jax.Array) -> jax.Array:
    """Return the luma [b, H, W, 1] int32, ITU-R 601 in 16 bits as in Pillow."""
    if pixels.shape[-1] == 1:
        return pixels.astype(jnp.int32)
    red, green, blue = jnp.split(pixels.astype(jnp.int32), 3, axis=-1)
    return (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16


def _smooth(pixels: jax.Array) -> jax.Array:
    """Return Pillow's SMOOTH: weights 1, centre 5, of 13; the border stays as it is."""
    value = pixels.astype(jnp.int32)
    height, width = pixels.shape[1:3]
    if min(height, width) < 3:
        return value
    part = lambda y, x: value[:, y : height - 2 + y, x : width - 2 + x]
    total = 4 * part(1, 1)
    for y in range(3):
        for x in range(3):
            total = total + part(y, x)
    # The nearest integer; 13 is odd, so there are no ties.
    return value.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)


def _blend(start: jax.Array, stop: jax.Array, factor: jax.Array) -> jax.Array:
    """Return start + factor (stop - start), rounded as Pillow's float32 does.

    The product is rounded to float32 and taken to integers, where the sum is exact;
    adding half the spacing of float32 at the sum then repeats its second rounding.
    """
    product = factor * (stop - start).astype(jnp.float32)
    fixed = jnp.round(product * np.float32(2**_BLEND_BITS)).astype(jnp.int32)
    total = (start << _BLEND_BITS) + fixed
    # Half a unit in the last place, in 2**-21, of a number with 24 significant bits.
    half = jnp.int32(128) >> lax.clz(total)
    return jnp.clip((total + half) >> _BLEND_BITS, 0, 255).astype(jnp.uint8)
