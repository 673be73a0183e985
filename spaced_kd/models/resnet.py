"""Residual networks (He et al. 2016): four stages with blocks of two kinds, or three.

ResNet-18/34/50/101 have four stages, and by default the paper's stem (3x3 stride 1, no
max-pool), which it keeps for every data set (released online_KD/models/resnet.py);
`stem="imagenet"` is the original one. ResNet-8/20/32/56/110 are the three-stage
networks of 16, 32 and 64 channels, with 1x1 projection shortcuts as in the KD
benchmarks that publish numbers for them. A bottleneck's stride is on its 3x3
convolution, as in torchvision.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax

from spaced_kd.conv import Conv
from spaced_kd.layers import BatchNorm, Dense, pooled
from spaced_kd.models.base import TwoHeaded
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import ModelOutput

_EXPANSION = 4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    channels: int
    stride: int
    axis: BatchAxis
    weight_init: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Map [b, H, W, C_in] to [b, H / stride, W / stride, channels]."""
        conv = functools.partial(Conv, weight_init=self.weight_init)
        norm = _norm(self.axis, train, mask)
        y = nn.relu(norm("norm1", conv(self.channels, 3, self.stride, name="conv1")(x)))
        y = norm("norm2", conv(self.channels, name="conv2")(y))
        return nn.relu(_shortcut(self, x, y, norm) + y)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last one four times as wide."""

    channels: int
    stride: int
    axis: BatchAxis
    weight_init: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Map [b, H, W, C_in] to [b, H / stride, W / stride, 4 channels]."""
        conv = functools.partial(Conv, weight_init=self.weight_init)
        norm = _norm(self.axis, train, mask)
        y = nn.relu(norm("norm1", conv(self.channels, 1, name="conv1")(x)))
        y = nn.relu(norm("norm2", conv(self.channels, 3, self.stride, name="conv2")(y)))
        y = norm("norm3", conv(self.channels * _EXPANSION, 1, name="conv3")(y))
        return nn.relu(_shortcut(self, x, y, norm) + y)


def _norm(axis: BatchAxis, train: bool, mask: jax.Array | None):
    return lambda name, x: BatchNorm(axis, name=name)(x, train=train, mask=mask)


def _shortcut(block, x: jax.Array, y: jax.Array, norm) -> jax.Array:
    if x.shape == y.shape:
        return x
    conv = Conv(y.shape[-1], 1, block.stride, block.weight_init, name="shortcut_conv")
    return norm("shortcut_norm", conv(x))


class ResNet(TwoHeaded):
    """Stem, stages of blocks, global average pooling, linear head.

    block: BasicBlock or Bottleneck. blocks: of each stage; the first block of each
    stage after the first halves the image. base_width: channels of the first stage,
    doubled from stage to stage. The rest: spaced_kd.config.ArchConfig.
    """

    block: type[BasicBlock] | type[Bottleneck] = BasicBlock
    blocks: Sequence[int] = (2, 2, 2, 2)
    base_width: int = 64
    stem: str = "cifar"
    param_factor: float = 1.0
    channel_multiple: float = 1.0
    weight_init: str = "torch"

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C]; features are the pooled last stage [b, width]."""
        stages = self.stages(image, train, mask)
        features = pooled(stages[-1])
        logits = Dense(self.num_classes, name="head")(features)
        outputs = ModelOutput(logits, features, maps=self.kept(stages))
        return self.with_second_head(outputs, train)

    def stages(
        self, image: jax.Array, train: bool, mask: jax.Array | None
    ) -> list[jax.Array]:
        """Return each stage's [b, H', W', channels]; only for a `__call__` to call."""
        # Tables 9 and 10 as released (nets.py:13): a factor of the parameters.
        width = int(self.base_width * self.channel_multiple * self.param_factor**0.5)
        x = self._stem(image.astype(self.dtype), width, train, mask)
        block = nn.remat(self.block, static_argnums=(2,)) if self.remat else self.block
        outputs = []
        for stage, blocks in enumerate(self.blocks):
            for place in range(blocks):
                stride = 2 if stage > 0 and place == 0 else 1
                name = f"stage{stage + 1}_block{place + 1}"
                layer = block(
                    width * 2**stage, stride, self.axis, self.weight_init, name=name
                )
                x = layer(x, train, mask)
            outputs.append(x)
        return outputs

    def _stem(self, x, width: int, train: bool, mask):
        large = self.stem == "imagenet"
        size, stride = (7, 2) if large else (3, 1)
        x = Conv(width, size, stride, self.weight_init, name="stem_conv")(x)
        x = nn.relu(BatchNorm(self.axis, name="stem_norm")(x, train=train, mask=mask))
        if large:
            pads = ((1, 1), (1, 1))  # flax's own annotation knows strings only
            x = nn.max_pool(x, (3, 3), (2, 2), pads)  # pyright: ignore
        return x


def _three_stages(depth: int):
    return functools.partial(ResNet, blocks=((depth - 2) // 6,) * 3, base_width=16)


resnet8 = _three_stages(8)
resnet20 = _three_stages(20)
resnet32 = _three_stages(32)
resnet56 = _three_stages(56)
resnet110 = _three_stages(110)
resnet18 = functools.partial(ResNet, blocks=(2, 2, 2, 2))
resnet34 = functools.partial(ResNet, blocks=(3, 4, 6, 3))
resnet50 = functools.partial(ResNet, block=Bottleneck, blocks=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, block=Bottleneck, blocks=(3, 4, 23, 3))
