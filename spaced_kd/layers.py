"""Layers that flax has in another form, or not at all."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd.conv import Conv, DepthwiseConv, torch_uniform
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import Dtype


class Dense(nn.Module):
    """A linear layer with bias.

    kernel_init: "torch" (PyTorch's default), "normal" (standard deviation 0.02) or
      "zeros"; the bias starts like the kernel with "torch", else at zero. dtype: of
      the arithmetic and the result; the parameters are float32.
    """

    width: int
    kernel_init: str = "torch"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [..., D] of any float type to [..., width] of `dtype`."""
        zeros = nn.initializers.zeros
        kernel_init, bias_init = {
            "torch": (torch_uniform(x.shape[-1]),) * 2,
            "normal": (nn.initializers.normal(0.02), zeros),
            "zeros": (zeros, zeros),
        }[self.kernel_init]
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.width))
        bias = self.param("bias", bias_init, (self.width,))
        return x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(
            self.dtype
        )


def pooled(x: jax.Array) -> jax.Array:
    """Average [b, H, W, C] of any float type over the image, to [b, C] float32."""
    return x.astype(jnp.float32).mean((1, 2))


class BatchNorm(nn.Module):
    """Batch normalisation over the real examples of the global batch.

    Unlike `flax.linen.BatchNorm` the statistics are sums over devices divided once, so
    that padding may fall on any device, and the running variance is the unbiased one,
    as in PyTorch. momentum is the share that the old running value keeps. Statistics
    are float32 whatever the type of the activations, which the result has again.
    """

    axis: BatchAxis = BatchAxis()
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> jax.Array:
        """Normalise [b, ..., C]; mask [b] bool leaves padding out of the statistics."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        zeros, ones = lambda: jnp.zeros(channels), lambda: jnp.ones(channels)
        running_mean = self.variable("batch_stats", "mean", zeros)
        running_var = self.variable("batch_stats", "var", ones)
        if train:
            mean, var, count = self._statistics(x, mask)
            if not self.is_initializing():
                # A part of a batch that is all padding moves nothing.
                keep = jnp.where(count > 0, self.momentum, 1.0)
                unbiased = var * count / jnp.maximum(count - 1, 1)
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        return (x * factor + (bias - mean * factor)).astype(x.dtype)

    def _statistics(self, x, mask):
        axes = tuple(range(x.ndim - 1))
        weighted = x.astype(jnp.float32)
        count = jnp.float32(x.size // x.shape[-1])
        if mask is not None:
            shape = mask.shape + (1,) * (x.ndim - 1)
            weighted = jnp.where(mask.reshape(shape), weighted, 0)
            count = mask.sum() * jnp.float32(x[0].size // x.shape[-1])
        total, squares, count = self.axis.sum(
            (weighted.sum(axes), jnp.square(weighted).sum(axes), count)
        )
        divisor = jnp.maximum(count, 1)
        mean = total / divisor
        return mean, jnp.maximum(squares / divisor - jnp.square(mean), 0), count


class SepConv(nn.Module):
    """Two depthwise separable 3x3 convolutions; the first halves the image.

    What exits on intermediate maps are made of (Zhang et al. 2021, Hao et al. 2023).
    """

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
