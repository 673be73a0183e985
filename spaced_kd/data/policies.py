"""AutoAugment and RandAugment: an image draws a row of a table for each layer."""

import jax
import jax.numpy as jnp

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
from spaced_kd.data.rectangles import chance, ticks
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
    probability = ticks([[op[1] for op in pair] for pair in AUTOAUGMENT])

    def one(key: jax.Array) -> jax.Array:
        which, applied, sign = jax.random.split(key, 3)
        pair = jax.random.randint(which, (), 0, len(AUTOAUGMENT), jnp.int32)
        negative = chance(sign, 0.5, (2,)).astype(jnp.int32)
        row = (pair * 2 + jnp.arange(2, dtype=jnp.int32)) * 2 + negative
        limit = jnp.asarray(probability)[pair]
        return jnp.where(chance(applied, limit, (2,)), row, jnp.int32(-1))

    return jax.vmap(one)(keys)


def draw_randaugment(keys: jax.Array, layers: int) -> jax.Array:
    """Return [b, layers] int32, rows of `randaugment_table`, with replacement.

    Args:
      keys: [b] typed PRNG keys, one an example.
      layers: operations on an image.
    """

    def one(key: jax.Array) -> jax.Array:
        which, applied, strength, sign = jax.random.split(key, 4)
        op = jax.random.randint(which, (layers,), 0, len(RANDAUGMENT), jnp.int32)
        level = jax.random.randint(strength, (layers,), 0, STRENGTHS, jnp.int32)
        negative = chance(sign, 0.5, (layers,)).astype(jnp.int32)
        row = (op * STRENGTHS + level) * 2 + negative
        used = chance(applied, _PROBABILITY, (layers,))
        return jnp.where(used, row, jnp.int32(-1))

    return jax.vmap(one)(keys)
