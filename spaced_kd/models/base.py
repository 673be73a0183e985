"""What every architecture has in common."""

from collections.abc import Iterable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spaced_kd.layers import Dense
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

    def kept(self, maps: Iterable[jax.Array]) -> tuple[jax.Array, ...] | None:
        """Return `ModelOutput.maps`: these, if the network was asked for them."""
        return tuple(maps) if self.with_maps else None


class TwoHeaded(Model):
    """A network that may have a second head; fields: spaced_kd.config.ArchConfig."""

    second_head: bool = False
    second_head_share: float = 0.5
    second_head_temperature: float = 0.5

    def with_second_head(self, outputs: ModelOutput, train: bool) -> ModelOutput:
        """Return `outputs`, with what a second head makes of the same features.

        Only for a compact `__call__` to call, last. In training its logits are the
        `soft_logits`; in eval mode they are part of the logits (`mixed_logits`). The
        head is linear and starts as the first one does.
        """
        if not self.second_head:
            return outputs
        soft = Dense(self.num_classes, name="head_dist")(outputs.features)
        if train:
            return outputs._replace(soft_logits=soft)
        mixed = mixed_logits(
            outputs.logits, soft, self.second_head_share, self.second_head_temperature
        )
        return outputs._replace(logits=mixed)


def mixed_logits(
    first: jax.Array, second: jax.Array, share: float, temperature: float
) -> jax.Array:
    """Return log((1 - share) softmax(first) + share softmax(second / temperature)).

    Logarithms of probabilities are logits whose softmax they are. Source: Kang et al.,
    arXiv:2505.07675, as released (github.com/erjui/DHO, train_imgnet.py, evaluate),
    where share is 1 - alpha and temperature beta.

    Args:
      first: [..., C] logits.
      second: [..., C] logits.
      share: in [0, 1].
      temperature: > 0.
    """
    return jnp.logaddexp(
        jnp.log(1 - share) + jax.nn.log_softmax(first),
        jnp.log(share) + jax.nn.log_softmax(second / temperature),
    )


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
