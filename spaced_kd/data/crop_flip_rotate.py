"""Padded crop, flip and rotation, composed into one lookup of whole pixels."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.data.augment_spec import AugmentSpec

# Pillow rotates in 16.16 fixed point; doing the same makes every pixel agree.
_PILLOW_BITS = 16


class Draw(NamedTuple):
    """The random choices for a batch.

    offset: [b, 2] int32, corner (y, x) of the crop in the padded image.
    flip: [b] bool.
    angle: [b] float32, radians, counter-clockwise.
    """

    offset: jax.Array
    flip: jax.Array
    angle: jax.Array


def draw(key: jax.Array, position: jax.Array, spec: AugmentSpec) -> Draw:
    """Return the random choices of each example.

    Args:
      key: typed PRNG key of this step.
      position: [b] int32, place of each example in the global batch.
      spec: gives the ranges.
    """

    def one(place: jax.Array) -> Draw:
        crop, mirror, turn = jax.random.split(jax.random.fold_in(key, place), 3)
        places = 2 * spec.crop_padding + 1
        # Every type is explicit: the default ones, and with them the numbers, change
        # with jax_enable_x64.
        offset = jax.random.randint(crop, (2,), 0, places, jnp.int32)
        flip = jax.random.bernoulli(mirror, np.float32(0.5))
        return Draw(offset, flip, _angle(turn, spec))

    return jax.vmap(one)(position)


def source_pixels(
    choices: Draw, height: int, width: int, spec: AugmentSpec
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return where each output pixel comes from.

    The operations are crop, then flip, then rotation; an output pixel is traced back
    through them in the opposite order.

    Args:
      choices: the draw of b examples.
      height: of the images.
      width: of the images.
      spec: says which operations apply.

    Returns:
      row and column, [b, H, W] int32, clipped into the image, and inside, [b, H, W]
      bool, False where the pixel comes from outside.
    """
    row = jnp.arange(height)[None, :, None]
    column = jnp.arange(width)[None, None, :]
    inside = jnp.ones((1, 1, 1), bool)
    if spec.rotation_degrees:
        row, column = _rotate(row, column, choices.angle, height, width)
        inside = _within(row, height) & _within(column, width)
    if spec.horizontal_flip:
        mirrored = width - 1 - column
        column = jnp.where(choices.flip[:, None, None], mirrored, column)
    if spec.crop_padding:
        row = row + (choices.offset[:, 0] - spec.crop_padding)[:, None, None]
        column = column + (choices.offset[:, 1] - spec.crop_padding)[:, None, None]
        inside = inside & _within(row, height) & _within(column, width)
    shape = (choices.flip.shape[0], height, width)
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    return (
        jnp.broadcast_to(row, shape),
        jnp.broadcast_to(column, shape),
        jnp.broadcast_to(inside, shape),
    )


def _angle(key: jax.Array, spec: AugmentSpec) -> jax.Array:
    # 24 random bits times one constant: with a single rounding, eager and compiled code
    # cannot differ (jax.random.uniform multiplies and adds, which compilers may fuse).
    ticks = (jax.random.bits(key, dtype=jnp.uint32) >> 8).astype(jnp.int32) - 2**23
    return ticks * np.float32(math.radians(spec.rotation_degrees) / 2**23)


def _rotate(row, column, angle, height: int, width: int):
    """Trace pixels back through a rotation about the centre, as Pillow does.

    `warp` cannot stand in for it: its fractions are finer than the 16 bits with which
    Pillow rotates to the nearest pixel, so that other pixels would be chosen.

    Explicit scalar arithmetic on integers, and no batched matrix-vector product:
    jaxlib 0.10 returns silently wrong numbers for some of those on CPU (jax #39103).
    """
    # The start of the scan needs more than 16 bits: it is the sum of two coefficients
    # times half the image. 3 * size bounds twice that sum; it must fit in 31 bits.
    bits = 30 - (3 * max(height, width)).bit_length()
    cosine, sine = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    fine_cos, fine_sin = _fixed(cosine, bits), _fixed(sine, bits)
    step_cos, step_sin = _fixed(cosine, _PILLOW_BITS), _fixed(sine, _PILLOW_BITS)
    # Twice the coordinate of the centre of output pixel (0, 0), at the finer scale.
    row_start = (height << bits) - fine_sin * (width - 1) - fine_cos * (height - 1)
    column_start = (width << bits) - fine_cos * (width - 1) + fine_sin * (height - 1)
    to_pillow = bits + 1 - _PILLOW_BITS
    half = 1 << (to_pillow - 1)
    row_start = (row_start + half) >> to_pillow
    column_start = (column_start + half) >> to_pillow
    return (
        (row_start + step_sin * column + step_cos * row) >> _PILLOW_BITS,
        (column_start + step_cos * column - step_sin * row) >> _PILLOW_BITS,
    )


def _fixed(value: jax.Array, bits: int) -> jax.Array:
    return jnp.floor(value * 2.0**bits + 0.5).astype(jnp.int32)


def _within(coordinate: jax.Array, size: int) -> jax.Array:
    return (coordinate >= 0) & (coordinate < size)
