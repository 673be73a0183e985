"""A small convolutional network, for digits and for tests."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spaced_kd.conv import Conv
from spaced_kd.layers import BatchNorm, Dense
from spaced_kd.models.base import Model
from spaced_kd.types import ModelOutput


class SmallCNN(Model):
    """Convolutions with BatchNorm and ReLU, halving the image from the second on."""

    channels: Sequence[int] = (16, 32, 64)

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C]."""
        x = image.astype(self.dtype)
        for place, channels in enumerate(self.channels):
            x = Conv(channels, stride=1 if place == 0 else 2)(x)
            x = nn.relu(BatchNorm(self.axis)(x, train=train, mask=mask))
        features = x.astype(jnp.float32).mean((1, 2))
        return ModelOutput(Dense(self.num_classes)(features), features)
