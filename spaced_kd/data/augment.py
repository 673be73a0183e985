"""Augmentation as a pure function of (key, place in the batch), on the device.

A replay recomputes the pixels of a batch from the uint8 data instead of storing them.
Which examples make a batch is the business of `stream`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.data.crop_flip_rotate import draw, source_pixels
from spaced_kd.data.erasing import cutout, erase
from spaced_kd.data.geometry import shorter_side
from spaced_kd.data.policies import apply_policy
from spaced_kd.data.rectangles import crop_boxes
from spaced_kd.data.resample import centre_crop, resize
from spaced_kd.types import Batch

# What an example's random numbers are for. `crop_flip_rotate.draw` splits the same key
# in three, which is folding in 0, 1 and 2.
_CROP, _POLICY, _CUTOUT, _ERASING = 3, 4, 5, 6


def fetch(
    images: jax.Array,
    labels: jax.Array,
    index: jax.Array,
    position: jax.Array,
    key: jax.Array,
    spec: AugmentSpec,
) -> Batch:
    """Return one augmented training batch (method A.8, B.4, C.2: see `AugmentSpec`).

    The pixels depend on (key, position) only, not on how many devices share the batch.

    Args:
      images: [N, H, W, C] uint8, the whole training split.
      labels: [N] int32.
      index: [b] int32, examples of this device; -1 is padding and needs `spec.padded`.
      position: [b] int32, place of each example in the global batch.
      key: typed PRNG key of this step.
      spec: what to do.

    Returns:
      The batch; padded rows are zeros with label 0 and mask False.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, position)
    row = jnp.maximum(index, 0)  # padding shows example 0 until it is masked
    label = labels[row]
    images, row = _resized(images, row, keys, spec)
    pixels = _moved(images, row, draw(key, position, spec), spec)
    if spec.policy != "none":
        pixels = apply_policy(pixels, _for(keys, _POLICY), spec)
    if spec.cutout:
        pixels = cutout(pixels, _for(keys, _CUTOUT), spec.cutout)
    image = normalize(pixels, spec.mean, spec.std)
    if spec.erasing:
        image = erase(image, _for(keys, _ERASING), spec.erasing)
    if not spec.padded:
        return Batch(image, label)
    mask = index >= 0
    image = jnp.where(mask[:, None, None, None], image, 0.0)
    return Batch(image, jnp.where(mask, label, 0), mask)


def prepare_eval(images: jax.Array, spec: AugmentSpec) -> jax.Array:
    """Return test images as networks see them: resized, cropped, normalised.

    Args:
      images: [b, H, W, C] uint8.
      spec: what to do; nothing of it is random here.

    Returns:
      [b, *spec.output_size(H, W), C] float32.
    """
    height, width = images.shape[1:3]
    size = spec.output_size(height, width)
    if spec.eval_resize:
        between = shorter_side(height, width, spec.eval_resize)
        images = centre_crop(resize(images, between, spec.interpolation), size)
    elif size != (height, width):
        images = resize(images, size, spec.interpolation)
    return normalize(images, spec.mean, spec.std)


def normalize(
    images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Return (images / 255 - mean) / std.

    Args:
      images: [..., C] uint8.
      mean: [C], of pixels scaled to [0, 1].
      std: [C], likewise.

    Returns:
      [..., C] float32.
    """
    return standardize(images.astype(jnp.float32) / 255.0, mean, std)


def standardize(
    scaled: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Return (scaled - mean) / std, of pixels [..., C] in [0, 1]; `normalize`'s end."""
    return (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def _for(keys: jax.Array, purpose: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)


def _resized(images, row, keys, spec: AugmentSpec):
    """Return images of the size that networks see, and which of them are shown."""
    height, width = images.shape[1:3]
    size = spec.output_size(height, width)
    if spec.crop_scale:
        box = crop_boxes(_for(keys, _CROP), spec.crop_scale, height, width)
    elif size != (height, width):
        box = None
    else:
        return images, row
    batch = resize(images[row], size, spec.interpolation, box)
    return batch, jnp.arange(len(row), dtype=jnp.int32)


def _moved(images, row, choices, spec: AugmentSpec) -> jax.Array:
    """Return [b, H, W, C] uint8 after crop, flip and rotation."""
    height, width = images.shape[1:3]
    y, x, inside = source_pixels(choices, height, width, spec)
    pixels = images[row[:, None, None], y, x]
    # Filled before normalisation, as in the released code.
    return jnp.where(inside[..., None], pixels, jnp.uint8(spec.fill))
