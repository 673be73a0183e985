"""Parts of an image taken away: a black square, or a rectangle of noise."""

import jax
import jax.numpy as jnp

from spaced_kd.data.random_bits import below, bits_of
from spaced_kd.data.rectangles import erase_boxes
from spaced_kd.data.resample import Box


def cutout(pixels: jax.Array, keys: jax.Array, side: int) -> jax.Array:
    """Return images with one square blackened, whose centre may be any pixel.

    Source: DeVries and Taylor 2017 as in the released self-KD code: from side // 2
    before the centre to side // 2 after it, cut off at the border.

    Args:
      pixels: [b, H, W, C] uint8.
      keys: [b] typed PRNG keys, one an example.
      side: of the square, pixels; an odd side counts as one less.
    """
    height, width = pixels.shape[1:3]
    bits = bits_of(keys, 2)
    row, column = below(bits[:, 0], height), below(bits[:, 1], width)
    half = side // 2
    length = jnp.full_like(row, 2 * half)
    inside = _inside(Box(row - half, column - half, length, length), height, width)
    return jnp.where(inside[..., None], jnp.uint8(0), pixels)


def erase(image: jax.Array, keys: jax.Array, probability: float) -> jax.Array:
    """Return images with a rectangle of independent N(0, 1) values, or as they were.

    Source: timm's RandomErasing in mode "pixel" (Zhong et al. 2020), as the released
    transformers use it: after normalisation.

    Args:
      image: [b, H, W, C] float32.
      keys: [b] typed PRNG keys, one an example.
      probability: of erasing anything.
    """
    height, width = image.shape[1:3]
    pairs = jax.vmap(jax.random.split)(keys)
    box = erase_boxes(pairs[:, 0], probability, height, width)
    draw = lambda key: jax.random.normal(key, image.shape[1:], jnp.float32)
    noise = jax.vmap(draw)(pairs[:, 1])
    return jnp.where(_inside(box, height, width)[..., None], noise, image)


def _inside(box: Box, height: int, width: int) -> jax.Array:
    """Return [b, H, W] bool, True inside the box."""
    row = jnp.arange(height, dtype=jnp.int32) - box.top[:, None]
    column = jnp.arange(width, dtype=jnp.int32) - box.left[:, None]
    rows = (row >= 0) & (row < box.height[:, None])
    columns = (column >= 0) & (column < box.width[:, None])
    return rows[:, :, None] & columns[:, None, :]
