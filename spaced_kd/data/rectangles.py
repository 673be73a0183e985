"""Random rectangles of uniform area and log-uniform aspect: which to keep, to erase.

No multiplication is followed by an addition: compilers may fuse the two, and eager and
compiled code would round to different rectangles.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.data.geometry import ASPECTS, TRIES, centred_box
from spaced_kd.data.random_bits import below, bits_of, happens
from spaced_kd.data.resample import Box

# Equally likely areas of the whole image, and aspects.
_NUM_AREAS = 2**16
_NUM_ASPECTS = 2**12
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
    bits = bits_of(keys, 2 * TRIES + 2)
    tall, wide = _sides(bits, (scale, 1.0), ASPECTS[1], height, width)
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    drawn = _first_that_fits(bits, tall, wide, fits, height, width)
    centred = centred_box(height, width)
    return Box(
        *(
            jnp.where(fits.any(1), value, np.int32(other))
            for value, other in zip(drawn, centred, strict=True)
        )
    )


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
    bits = bits_of(keys, 2 * TRIES + 3)
    tall, wide = _sides(bits, _ERASE_AREA, _ERASE_ASPECT, height, width)
    fits = (tall < height) & (wide < width)
    top, left, tall, wide = _first_that_fits(bits, tall, wide, fits, height, width)
    erased = fits.any(1) & happens(bits[:, -1], probability)
    none = np.int32(0)
    return Box(top, left, jnp.where(erased, tall, none), jnp.where(erased, wide, none))


def _sides(bits, area: tuple[float, float], aspect: float, height: int, width: int):
    """Return heights and widths of all tries, [b, tries] int32."""
    low, high = (round(share * _NUM_AREAS) for share in area)
    share = low + below(bits[:, :TRIES], high - low + 1)
    root = jnp.sqrt(share.astype(jnp.float32) * np.float32(height * width / _NUM_AREAS))
    which = below(bits[:, TRIES : 2 * TRIES], _NUM_ASPECTS)
    rounded = lambda x: jnp.round(x).astype(jnp.int32)
    table = _root_aspects(aspect)
    tall = rounded(root * jnp.asarray(table)[which])
    # The aspects are symmetric: the reverse of the table is its inverse.
    return tall, rounded(root * jnp.asarray(table[::-1])[which])


@functools.cache
def _root_aspects(largest: float) -> np.ndarray:
    """Return square roots of equally likely aspects in [1/largest, largest], rising."""
    place = (np.arange(_NUM_ASPECTS) + 0.5) / _NUM_ASPECTS * 2 - 1
    return np.exp(place * math.log(largest) / 2).astype(np.float32)


def _first_that_fits(bits, tall, wide, fits, height: int, width: int) -> Box:
    """Return boxes [b] at random places; of any size where no try fits."""
    first = jnp.argmax(fits, axis=1, keepdims=True)
    tall = jnp.take_along_axis(tall, first, axis=1)[:, 0]
    wide = jnp.take_along_axis(wide, first, axis=1)[:, 0]
    top = below(bits[:, 2 * TRIES], jnp.maximum(height - tall, 0) + 1)
    left = below(bits[:, 2 * TRIES + 1], jnp.maximum(width - wide, 0) + 1)
    return Box(top, left, tall, wide)
