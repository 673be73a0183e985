"""What every architecture has in common."""

from collections.abc import Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spaced_kd.parallel import BatchAxis
from spaced_kd.types import Dtype, ModelOutput


class Model(nn.Module):
    """A classifier: `__call__(image, *, train, mask=None) -> ModelOutput`.

    image: [b, H, W, C] float32, normalised. train: True uses the batch's BatchNorm
    statistics and moves the running ones. mask: [b] bool, False for padding.

    A network that draws random numbers in training (DropPath) does so only when the
    call brings the rng "dropout"; without it the call is deterministic.

    A network with branches (exits shallower than the deepest) gives every module or
    parameter that belongs to branches alone a top-level name that starts with `branch`,
    and no other: what trains the deepest exit alone finds by it what must not move. The
    trunk keeps the names, and so for one key the initial values, of the network without
    branches. For the same reason a head that gives `soft_logits` is called `head_dist`.

    num_classes: width of the logits.
    axis: the devices that share a batch; only training calls may name one.
    dtype: of activations and of the kernels they meet; parameters, BatchNorm
      statistics, logits and features are float32.
    remat: compute each block's activations again in the backward pass.
    with_maps: give `ModelOutput.maps`, which some methods compare; changes nothing
      else.
    """

    num_classes: int
    axis: BatchAxis = BatchAxis()
    dtype: Dtype = jnp.float32
    remat: bool = False
    with_maps: bool = False

    def kept(self, maps: Iterable[jax.Array]) -> tuple[jax.Array, ...]:
        """Return `ModelOutput.maps`: these, if the network was asked for them."""
        return tuple(maps) if self.with_maps else ()


def join_exits(exits: Sequence[tuple[jax.Array, jax.Array]]) -> ModelOutput:
    """Return the output of a network with branches.

    Args:
      exits: ([b, num_classes] logits, [b, D] features), the deepest first; at least 2.
    """
    (logits, features), *branches = exits
    branch_logits, branch_features = zip(*branches, strict=True)
    return ModelOutput(
        logits,
        features,
        branch_logits=jnp.stack(branch_logits, 1),
        branch_features=jnp.stack(branch_features, 1),
    )
