"""A multilayer perceptron, for digits and for tests: no BatchNorm, no convolution."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from spaced_kd.layers import Dense
from spaced_kd.models.base import TwoHeaded
from spaced_kd.types import ModelOutput


class MLP(TwoHeaded):
    """Flatten, hidden layers with ReLU, a linear head; float32 whatever `dtype`."""

    widths: Sequence[int] = (128, 128)

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C]; nothing here needs `mask`."""
        del mask
        x, maps = image.reshape(image.shape[0], -1), []
        for width in self.widths:
            x = nn.relu(Dense(width)(x))
            maps.append(x[:, None, None])
        logits = Dense(self.num_classes)(x)
        outputs = ModelOutput(logits, x, maps=self.kept(maps))
        return self.with_second_head(outputs, train)
