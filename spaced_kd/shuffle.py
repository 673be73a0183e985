"""The shuffled teacher: outputs that say nothing about the example they come with.

A control. It has the teacher's confidence, its marginal distribution over classes and
its cost, but no knowledge of the image: what a student gains all the same is
regularisation, not teaching. About one example in a batch keeps its own outputs.
"""

import jax
import jax.numpy as jnp

from spaced_kd.parallel import BatchAxis
from spaced_kd.types import ModelOutput


def shuffle_examples(
    outputs: ModelOutput, mask: jax.Array | None, key: jax.Array, axis: BatchAxis
) -> ModelOutput:
    """Return the outputs of this device's examples permuted over the global batch.

    Args:
      outputs: arrays [b, ...] of one device.
      mask: [b] bool, False for padding, whose outputs go to no real example.
      key: equal on all devices.
      axis: the devices that share the batch; how many they are changes nothing.
    """
    size = outputs.logits.shape[0]
    real = axis.whole(jnp.ones(size, bool) if mask is None else mask)
    drawn = jnp.where(real, jax.random.uniform(key, real.shape), 2.0)
    # The k-th real example gets the outputs of the k-th in the drawn order.
    source = jnp.argsort(drawn)[jnp.cumsum(real) - 1]
    own = source[axis.positions(size)]
    return jax.tree.map(lambda values: axis.whole(values)[own], outputs)
