"""Residual networks (He et al. 2016) with the CIFAR stem: 3x3 stride 1, no max-pool.

The paper's ResNet-18 keeps that stem for every data set (released
online_KD/models/resnet.py). ResNet-8 and ResNet-20 are the three-stage networks of
16, 32 and 64 channels, with 1x1 projection shortcuts as in the KD benchmarks that
publish numbers for them.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax

from spaced_kd.conv import Conv
from spaced_kd.layers import BatchNorm, Dense
from spaced_kd.models.base import Model
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import ModelOutput


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    channels: int
    stride: int
    axis: BatchAxis

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, mask: jax.Array | None
    ) -> jax.Array:
        """Map [b, H, W, C_in] to [b, H / stride, W / stride, channels]."""
        norm = functools.partial(BatchNorm, self.axis)
        y = Conv(self.channels, stride=self.stride, name="conv1")(x)
        y = nn.relu(norm(name="norm1")(y, train=train, mask=mask))
        y = Conv(self.channels, name="conv2")(y)
        y = norm(name="norm2")(y, train=train, mask=mask)
        if x.shape != y.shape:
            x = Conv(self.channels, 1, self.stride, name="shortcut_conv")(x)
            x = norm(name="shortcut_norm")(x, train=train, mask=mask)
        return nn.relu(x + y)


class ResNet(Model):
    """Stem, stages of basic blocks, global average pooling, linear head.

    blocks: blocks of each stage; the first block of each stage after the first halves
      the image. widths: channels of each stage.
    """

    blocks: Sequence[int] = (2, 2, 2, 2)
    widths: Sequence[int] = (64, 128, 256, 512)

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C]; features are the pooled last stage [b, widths[-1]]."""
        x = Conv(self.widths[0], name="stem_conv")(image)
        x = nn.relu(BatchNorm(self.axis, name="stem_norm")(x, train=train, mask=mask))
        for stage, (blocks, width) in enumerate(
            zip(self.blocks, self.widths, strict=True)
        ):
            for place in range(blocks):
                stride = 2 if stage > 0 and place == 0 else 1
                block = BasicBlock(
                    width, stride, self.axis, name=f"stage{stage + 1}_block{place + 1}"
                )
                x = block(x, train=train, mask=mask)
        features = x.mean((1, 2))
        return ModelOutput(Dense(self.num_classes, name="head")(features), features)


resnet8 = functools.partial(ResNet, blocks=(1, 1, 1), widths=(16, 32, 64))
resnet20 = functools.partial(ResNet, blocks=(3, 3, 3), widths=(16, 32, 64))
resnet18 = functools.partial(ResNet, blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512))
