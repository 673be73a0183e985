"""Self-distillation ResNets: three shallow branches, each with attention and a head.

Zhang et al., "Self-Distillation: Towards Efficient and Compact Neural Networks" (2021),
as in the code released with the journal article, which the spaced self-distillation
experiments take over; not the bottleneck branches of "Be Your Own Teacher" (2019). The
trunk is a four-stage ResNet. The linear maps between the features of the branches and
of the deepest head belong to the method that compares them, not to the network.
"""

import functools

import flax.linen as nn
import jax

from spaced_kd.conv import Conv, DepthwiseConv
from spaced_kd.errors import ConfigError
from spaced_kd.layers import BatchNorm, Dense
from spaced_kd.models.base import join_exits
from spaced_kd.models.resnet import Bottleneck, ResNet, pooled
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import ModelOutput


class SepConv(nn.Module):
    """Two depthwise separable 3x3 convolutions; the first halves the image."""

    channels: int
    axis: BatchAxis
    weight_init: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Map [b, H, W, C_in] to [b, ceil(H / 2), ceil(W / 2), channels]."""
        x = self._half(x, 1, 2, x.shape[-1], train, mask)
        return self._half(x, 2, 1, self.channels, train, mask)

    def _half(self, x, place: int, stride: int, channels: int, train: bool, mask):
        x = DepthwiseConv(stride, self.weight_init, name=f"depthwise{place}")(x)
        x = Conv(channels, 1, 1, self.weight_init, name=f"pointwise{place}")(x)
        norm = BatchNorm(self.axis, name=f"sep_norm{place}")
        return nn.relu(norm(x, train=train, mask=mask))


class Attention(nn.Module):
    """A factor in [0.5, 1) for every number of a stage's output.

    Not lower, because the sigmoid follows a ReLU.
    """

    axis: BatchAxis
    weight_init: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Map [b, H, W, C], H and W even, to factors of the same shape and type."""
        y = SepConv(x.shape[-1], self.axis, self.weight_init, name="sep")(
            x, train, mask
        )
        y = nn.relu(BatchNorm(self.axis, name="norm")(y, train=train, mask=mask))
        return nn.sigmoid(jax.image.resize(y, x.shape, "bilinear"))


class BranchedResNet(ResNet):
    """A ResNet of four stages with a branch after each of the first three.

    A branch reads the stage's output times its attention, is halved by SepConvs until
    it has the size and the channels of the last stage, and ends in pooling and a head
    of its own. The trunk goes on with what the attention has not touched.
    """

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C] four times; logits and features are the deepest's.

        features are [b, 512 e] at the default width, e = 1 with basic blocks, 4 with
        bottlenecks; branch_logits [b, 3, num_classes] and branch_features [b, 3, 512 e]
        belong to stage 3, 2 and 1 in this order, in train and in eval mode.

        Raises:
          ConfigError: a stage's output has an odd number of rows or columns.
        """
        *stages, last = self.stages(image, train, mask)
        _check_sizes(image, stages, self.stem)
        exits = [self._exit("head", last)]
        for number in (3, 2, 1):
            x = self._branch(number, stages[number - 1], last.shape[-1], train, mask)
            exits.append(self._exit(f"branch{number}_head", x))
        return join_exits(exits)

    def _exit(self, name: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = pooled(x)
        return Dense(self.num_classes, name=name)(features), features

    def _branch(self, number: int, x, width: int, train: bool, mask):
        sep = nn.remat(SepConv, static_argnums=(2,)) if self.remat else SepConv
        attention = (
            nn.remat(Attention, static_argnums=(2,)) if self.remat else Attention
        )
        name = f"branch{number}_attention"
        x = x * attention(self.axis, self.weight_init, name=name)(x, train, mask)
        for place in range(1, 5 - number):
            name = f"branch{number}_sep{place}"
            channels = width // 2 ** (4 - number - place)
            x = sep(channels, self.axis, self.weight_init, name=name)(x, train, mask)
        return x


def _check_sizes(image: jax.Array, stages: list[jax.Array], stem: str) -> None:
    if all(side % 2 == 0 for x in stages for side in x.shape[1:3]):
        return
    height, width = image.shape[1:3]
    raise ConfigError(
        f"an image of {height}x{width} pixels cannot be halved evenly by the branches "
        f"of this network (arch.stem={stem!r}); set data.image_size to a multiple of "
        f"{32 if stem == 'imagenet' else 8}, or choose the network without branches."
    )


resnet18_branches = functools.partial(BranchedResNet, blocks=(2, 2, 2, 2))
resnet50_branches = functools.partial(
    BranchedResNet, block=Bottleneck, blocks=(3, 4, 6, 3)
)
resnet101_branches = functools.partial(
    BranchedResNet, block=Bottleneck, blocks=(3, 4, 23, 3)
)
