"""AutoAugment and RandAugment: an image draws a row of a table for each layer."""

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.data.pixel_ops import enhance, look_up
from spaced_kd.data.policy_tables import (
    AUTOAUGMENT,
    RANDAUGMENT,
    STRENGTHS,
    Ops,
    autoaugment_table,
    randaugment_table,
)
from spaced_kd.data.random_bits import below, bits_of, happens
from spaced_kd.data.warp import warp

AUTOAUGMENT_FILL = 128
"""Grey level of what shears, translations and rotations bring in (released self KD)."""

# Of each of RandAugment's operations (timm).
_PROBABILITY = 0.5


def apply_policy(pixels: jax.Array, keys: jax.Array, spec: AugmentSpec) -> jax.Array:
    """Return images after the operations that their keys draw.

    Args:
      pixels: [b, H, W, C] uint8, C 1 or 3.
      keys: [b] typed PRNG keys, one an example.
      spec: names the policy.
    """
    height, width, channels = pixels.shape[1:]
    if spec.policy == "autoaugment":
        rows, table = draw_autoaugment(keys), autoaugment_table(height, width)
        fill, interpolation = (AUTOAUGMENT_FILL,) * channels, "bicubic"
    else:
        rows = draw_randaugment(keys, spec.layers)
        table = randaugment_table(spec.magnitude, spec.magnitude_std, height, width)
        fill = tuple(min(255, round(255 * mean)) for mean in spec.mean)
        interpolation = spec.interpolation
    for layer in range(rows.shape[1]):
        chosen = rows[:, layer]
        ops = jax.tree.map(lambda x, row=chosen: jnp.asarray(x)[row], table)
        pixels = apply_ops(pixels, ops, fill, interpolation)
    return pixels


def apply_ops(
    pixels: jax.Array, ops: Ops, fill: tuple[int, ...], interpolation: str
) -> jax.Array:
    """Return images after one operation each.

    Args:
      pixels: [b, H, W, C] uint8, C 1 or 3.
      ops: [b] each.
      fill: [C], levels of what comes from outside, 0 to 255.
      interpolation: "bilinear" or "bicubic".
    """
    pixels = look_up(pixels, ops.kind, ops.argument)
    pixels = enhance(pixels, ops.kind, ops.factor)
    return warp(pixels, ops.where, fill, interpolation)


def draw_autoaugment(keys: jax.Array) -> jax.Array:
    """Return [b, 2] int32, rows of `autoaugment_table`: a sub-policy each.

    Args:
      keys: [b] typed PRNG keys, one an example.
    """
    bits = bits_of(keys, 5)
    pair = below(bits[:, :1], len(AUTOAUGMENT))
    first_or_second = np.arange(2, dtype=np.int32)
    row = (pair * 2 + first_or_second) * 2 + below(bits[:, 1:3], 2)
    probability = np.array([[op[1] for op in pair] for pair in AUTOAUGMENT], np.float32)
    used = happens(bits[:, 3:], jnp.asarray(probability)[pair[:, 0]])
    return jnp.where(used, row, np.int32(-1))


def draw_randaugment(keys: jax.Array, layers: int) -> jax.Array:
    """Return [b, layers] int32, rows of `randaugment_table`, with replacement.

    Args:
      keys: [b] typed PRNG keys, one an example.
      layers: operations on an image.
    """
    bits = bits_of(keys, 4 * layers).reshape(-1, 4, layers)
    op, level = below(bits[:, 0], len(RANDAUGMENT)), below(bits[:, 1], STRENGTHS)
    row = (op * STRENGTHS + level) * 2 + below(bits[:, 2], 2)
    return jnp.where(happens(bits[:, 3], _PROBABILITY), row, np.int32(-1))
