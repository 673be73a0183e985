"""What every architecture has in common."""

import flax.linen as nn
import jax.numpy as jnp

from spaced_kd.parallel import BatchAxis
from spaced_kd.types import Dtype


class Model(nn.Module):
    """A classifier: `__call__(image, *, train, mask=None) -> ModelOutput`.

    image: [b, H, W, C] float32, normalised. train: True uses the batch's BatchNorm
    statistics and moves the running ones. mask: [b] bool, False for padding.

    A network that draws random numbers in training (DropPath) does so only when the
    call brings the rng "dropout"; without it the call is deterministic.

    num_classes: width of the logits.
    axis: the devices that share a batch; only training calls may name one.
    dtype: of activations and of the kernels they meet; parameters, BatchNorm
      statistics, logits and features are float32.
    remat: compute each block's activations again in the backward pass.
    """

    num_classes: int
    axis: BatchAxis = BatchAxis()
    dtype: Dtype = jnp.float32
    remat: bool = False
