"""Random rectangles of uniform area and log-uniform aspect: which to keep, to erase.

No multiplication is followed by an addition: compilers may fuse the two, and eager and
compiled code would round to different rectangles.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.data.resample import Box

_TRIES = 10
_ASPECTS = 4096
_TICKS = 2**24
_CROP_ASPECT = 4 / 3
_ERASE_ASPECT = 1 / 0.3
_ERASE_AREA = (0.02, 1 / 3)


def crop_boxes(keys: jax.Array, scale: float, height: int, width: int) -> Box:
    """Return the box of each image's random resized crop.

    Source: torchvision's RandomResizedCrop: area uniform in [scale, 1] of the image,
    aspect log-uniform in [3/4, 4/3], the first of ten tries that fits; else the largest
    centred box of an allowed aspect.

    Args:
      keys: [b] typed PRNG keys, one an example.
      scale: least share of the area.
      height: of the images, pixels.
      width: likewise.
    """
    fallback = np.array(_centre_box(height, width), np.int32)

    def one(key: jax.Array) -> Box:
        sides, corner = jax.random.split(key)
        tall, wide = _sides(sides, (scale, 1.0), _CROP_ASPECT, height, width)
        fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
        tall, wide = _first(fits, tall), _first(fits, wide)
        top, left = _corner(corner, tall, wide, height, width)
        drawn = jnp.stack([top, left, tall, wide])
        return Box(*jnp.where(fits.any(), drawn, fallback))

    return jax.vmap(one)(keys)


def erase_boxes(keys: jax.Array, probability: float, height: int, width: int) -> Box:
    """Return the box of each image that is erased; its sides are 0 where none is.

    Source: timm's RandomErasing: area uniform in [0.02, 1/3] of the image, aspect
    log-uniform in [0.3, 1/0.3], the first of ten tries that is smaller than the image.

    Args:
      keys: [b] typed PRNG keys, one an example.
      probability: of erasing anything.
      height: of the images, pixels.
      width: likewise.
    """

    def one(key: jax.Array) -> Box:
        chosen, sides, corner = jax.random.split(key, 3)
        tall, wide = _sides(sides, _ERASE_AREA, _ERASE_ASPECT, height, width)
        fits = (tall < height) & (wide < width)
        tall, wide = _first(fits, tall), _first(fits, wide)
        top, left = _corner(corner, tall, wide, height, width)
        erased = fits.any() & chance(chosen, probability)
        zero = jnp.int32(0)
        return Box(
            top, left, jnp.where(erased, tall, zero), jnp.where(erased, wide, zero)
        )

    return jax.vmap(one)(keys)


def chance(key: jax.Array, probability, shape: tuple[int, ...] = ()) -> jax.Array:
    """Return [*shape] bool, True with this probability, to 24 bits.

    Args:
      key: typed PRNG key.
      probability: a number, or a NumPy array or traced [*shape] int32 of 24-bit ticks
        from `ticks`.
      shape: of the result.
    """
    limit = ticks(probability) if isinstance(probability, float) else probability
    bits = jax.random.bits(key, shape, jnp.uint32) >> 8
    return bits.astype(jnp.int32) < limit


def ticks(probability) -> np.ndarray:
    """Return probabilities as int32 in units of 2**-24."""
    return np.rint(np.asarray(probability, np.float64) * _TICKS).astype(np.int32)


def _sides(key, area, aspect: float, height: int, width: int):
    """Return heights and widths of all tries, [tries] int32."""
    of_area, of_aspect = jax.random.split(key)
    low, high = ticks(area)
    share = jax.random.randint(of_area, (_TRIES,), low, high + 1, jnp.int32)
    root = jnp.sqrt(share.astype(jnp.float32) * np.float32(height * width / _TICKS))
    which = jax.random.randint(of_aspect, (_TRIES,), 0, _ASPECTS, jnp.int32)
    stretch = jnp.asarray(_root_aspects(aspect))[which]
    shrink = jnp.asarray(_root_aspects(aspect)[::-1])[which]
    rounded = lambda x: jnp.round(x).astype(jnp.int32)
    return rounded(root * stretch), rounded(root * shrink)


@functools.cache
def _root_aspects(largest: float) -> np.ndarray:
    """Return square roots of equally likely aspects in [1/largest, largest], rising."""
    place = (np.arange(_ASPECTS) + 0.5) / _ASPECTS * 2 - 1
    return np.exp(place * math.log(largest) / 2).astype(np.float32)


def _first(fits: jax.Array, values: jax.Array) -> jax.Array:
    return values[jnp.argmax(fits)]


def _corner(key, tall, wide, height: int, width: int):
    down, right = jax.random.split(key)
    # A rectangle that does not fit is replaced by the caller.
    rooms = jnp.maximum(height - tall, 0), jnp.maximum(width - wide, 0)
    top = jax.random.randint(down, (), 0, rooms[0] + 1, jnp.int32)
    return top, jax.random.randint(right, (), 0, rooms[1] + 1, jnp.int32)


def _centre_box(height: int, width: int) -> tuple[int, int, int, int]:
    tall, wide = height, width
    if width / height < 1 / _CROP_ASPECT:
        tall = round(width * _CROP_ASPECT)
    elif width / height > _CROP_ASPECT:
        wide = round(height * _CROP_ASPECT)
    return (height - tall) // 2, (width - wide) // 2, tall, wide
