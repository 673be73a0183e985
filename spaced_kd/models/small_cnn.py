"""A small convolutional network, for digits and for tests, also with branches."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax

from spaced_kd.conv import Conv
from spaced_kd.layers import BatchNorm, Dense, pooled
from spaced_kd.models.base import TwoHeaded, join_exits
from spaced_kd.types import ModelOutput


class SmallCNN(TwoHeaded):
    """Convolutions with BatchNorm and ReLU, halving the image from the second on.

    branches: with an exit after every convolution: pooling, a hidden layer of the
    deepest features' width with ReLU, a head; in float32.
    """

    channels: Sequence[int] = (16, 32, 64)
    branches: bool = False

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C]; the last branch follows the first convolution."""
        x, maps = image.astype(self.dtype), []
        for place, channels in enumerate(self.channels):
            x = Conv(channels, stride=1 if place == 0 else 2)(x)
            x = nn.relu(BatchNorm(self.axis)(x, train=train, mask=mask))
            maps.append(x)
        *shallow, features = map(pooled, maps)
        logits = Dense(self.num_classes)(features)
        if not self.branches:
            outputs = ModelOutput(logits, features, maps=self.kept(maps))
            return self.with_second_head(outputs, train)
        exits = [(logits, features)]
        for number in range(len(shallow), 0, -1):
            name = f"branch{number}"
            align = Dense(self.channels[-1], name=f"{name}_align")
            hidden = nn.relu(align(shallow[number - 1]))
            head = Dense(self.num_classes, name=f"{name}_head")
            exits.append((head(hidden), hidden))
        outputs = join_exits(exits)._replace(maps=self.kept(maps))
        return self.with_second_head(outputs, train)


small_cnn_branches = functools.partial(SmallCNN, branches=True)
