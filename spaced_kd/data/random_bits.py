"""Random choices in integers, from 32 random bits each.

One call for all bits of an example, because each call of `jax.random` costs the
compiler seconds. No choice passes through a float, whose rounding may differ between
eager and compiled code.
"""

import jax
import jax.numpy as jnp
import numpy as np


def bits_of(keys: jax.Array, count: int) -> jax.Array:
    """Return [b, count] uint32, independent of the other examples.

    Args:
      keys: [b] typed PRNG keys, one an example.
      count: random numbers for each.
    """
    return jax.vmap(lambda key: jax.random.bits(key, (count,), jnp.uint32))(keys)


def below(bits: jax.Array, count) -> jax.Array:
    """Return int32 in [0, count), uniform but for `count` parts in 2**16.

    Args:
      bits: [...] uint32.
      count: 1 to 2**16, a number or [...] int32.
    """
    count = jnp.asarray(count, jnp.uint32)
    return (((bits >> 16) * count) >> 16).astype(jnp.int32)


def happens(bits: jax.Array, probability) -> jax.Array:
    """Return bool, True with this probability to 24 bits.

    Args:
      bits: [...] uint32.
      probability: 0 to 1, a number or [...] float32.
    """
    ticks = jnp.round(jnp.asarray(probability, jnp.float32) * np.float32(2**24))
    return (bits >> 8).astype(jnp.int32) < ticks.astype(jnp.int32)
