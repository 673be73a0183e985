"""The two kinds of branch of a self-distillation ResNet, up to pooling and head.

Separable: Zhang et al., "Self-Distillation: Towards Efficient and Compact Neural
Networks" (2021), as in the code released with the journal article, which the spaced
self-distillation experiments take over. Bottleneck: Zhang et al., "Be Your Own Teacher"
(ICCV 2019). Its convolutions have no bias here, because BatchNorm follows and would
take it away again; public re-implementations (there is no release) carry one along.
"""

import flax.linen as nn
import jax

from spaced_kd.conv import Conv, starting_kernel
from spaced_kd.layers import BatchNorm, SepConv
from spaced_kd.parallel import BatchAxis
from spaced_kd.transformer import patches


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


class PatchConv(nn.Module):
    """A convolution of stride `size` without padding or bias: a linear map of patches.

    As a product of matrices it is fast inside `lax.scan` on CPU too (spaced_kd.conv).
    """

    channels: int
    size: int
    weight_init: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [b, H, W, C_in] to [b, H / size, W / size, channels] of the same type."""
        shape = (self.size, self.size, x.shape[-1], self.channels)
        kernel = self.param("kernel", starting_kernel(self.weight_init, shape), shape)
        flat = kernel.reshape(-1, self.channels).astype(x.dtype)
        return patches(x, self.size, self.size) @ flat


class BottleneckBranch(nn.Module):
    """1x1, size x size with stride `size`, and 1x1 convolutions, the first two narrow.

    channels: of the result; a quarter of them between. size: divides the image.
    """

    channels: int
    size: int
    axis: BatchAxis
    weight_init: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """Map [b, H, W, C_in] to [b, H / size, W / size, channels]."""
        narrow, init = self.channels // 4, self.weight_init
        for name, conv in (
            ("squeeze", Conv(narrow, 1, 1, init, name="squeeze")),
            ("shrink", PatchConv(narrow, self.size, init, name="shrink")),
            ("expand", Conv(self.channels, 1, 1, init, name="expand")),
        ):
            norm = BatchNorm(self.axis, name=f"{name}_norm")
            x = nn.relu(norm(conv(x), train=train, mask=mask))
        return x
