"""Parts of vision transformers: patches, attention, pre-norm blocks, DropPath.

No convolution: patches that overlap by halves and the strided pooling are written with
slices and products of matrices, which stay fast inside `lax.scan` on CPU (conv.py says
why convolutions need care there) and equal PyTorch's strided convolutions.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spaced_kd.conv import depthwise, torch_uniform
from spaced_kd.errors import ConfigError
from spaced_kd.layers import Dense
from spaced_kd.parallel import BatchAxis

TOKEN_INIT = nn.initializers.normal(0.02)
"""Of tokens and position embeddings. The published code truncates at +-2, which is 100
standard deviations away: a plain normal distribution."""

layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): leave a residual branch out, by example.

    rate: probability of leaving it out, in [0, 1]; what stays is scaled by
      1 / (1 - rate). axis: the devices that share the batch; the draw for an example
      depends on its place in the whole batch, not on the device that has it.
    """

    rate: float
    axis: BatchAxis

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [b, ...] to the same shape; x itself unless training with "dropout"."""
        if not train or self.rate == 0 or not self.has_rng("dropout"):
            return x
        stays, key = 1.0 - self.rate, self.make_rng("dropout")
        if stays == 0:
            return jnp.zeros_like(x)

        def draw(place):
            return jax.random.bernoulli(jax.random.fold_in(key, place), stays)

        kept = jax.vmap(draw)(self.axis.positions(x.shape[0]))
        kept = kept.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(kept, x / stays, 0).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention; scores and softmax in float32."""

    heads: int
    kernel_init: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [b, n, dim] to the same shape and type; `heads` divides dim."""
        b, n, dim = x.shape
        width = dim // self.heads
        qkv = Dense(3 * dim, self.kernel_init, x.dtype, name="qkv")(x)
        query, key, value = jnp.moveaxis(qkv.reshape(b, n, 3, self.heads, width), 2, 0)
        scores = jnp.einsum(
            "bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32
        )
        weights = nn.softmax(scores * width**-0.5).astype(x.dtype)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(b, n, dim)
        return Dense(dim, self.kernel_init, x.dtype, name="proj")(mixed)


class Block(nn.Module):
    """Pre-norm attention, then a two-layer perceptron with exact GELU, each residual.

    kernel_init: of every linear layer, see `Dense`. drop_path: rate of this block.
    """

    heads: int
    drop_path: float
    axis: BatchAxis
    kernel_init: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Map [b, n, dim] to the same shape and type; 4 dim hidden units."""
        dense = functools.partial(Dense, kernel_init=self.kernel_init, dtype=x.dtype)
        drop = functools.partial(DropPath, self.drop_path, self.axis)
        y = layer_norm(dtype=x.dtype, name="norm1")(x)
        y = Attention(self.heads, self.kernel_init, name="attn")(y)
        x = x + drop(name="drop_path1")(y, train)
        y = layer_norm(dtype=x.dtype, name="norm2")(x)
        y = nn.gelu(dense(4 * x.shape[-1], name="fc1")(y), approximate=False)
        return x + drop(name="drop_path2")(dense(x.shape[-1], name="fc2")(y), train)


def token_branches(
    tokens: Sequence[jax.Array],
    width: int,
    num_classes: int,
    *,
    align_init: str,
    head_init: str,
) -> list[tuple[jax.Array, jax.Array]]:
    """Return [b, num_classes] logits and [b, width] features of branches, deep first.

    A branch is a LayerNorm of the class token, a linear alignment, whose result are the
    features, and a head, all in float32. The paper (5.1) has an alignment layer and a
    head after each block but says no more of them, and there is no code; the norm is
    there because the deepest head has one. Only for a compact `__call__` to call, to
    which the layers then belong.

    Args:
      tokens: [b, dim] class token after each block but the last, of any float type.
      width: of the deepest exit's features.
      num_classes: width of the logits.
      align_init: of the alignment, see `Dense`.
      head_init: of the head.
    """
    branches = []
    for number in range(len(tokens), 0, -1):
        name = f"branch{number}"
        x = layer_norm(dtype=jnp.float32, name=f"{name}_norm")(tokens[number - 1])
        features = Dense(width, align_init, name=f"{name}_align")(x)
        head = Dense(num_classes, head_init, name=f"{name}_head")
        branches.append((head(features), features))
    return branches


def scaled_depth(depth: int, multiple: float) -> int:
    """Return the blocks of a stage, `depth` at the multiple 1; at least one."""
    return max(1, round(depth * multiple))


class PatchEmbed(nn.Module):
    """A linear map of every patch: a convolution with bias and without padding.

    size: side of a patch, pixels. stride: from patch to patch, pixels; divides size.
    """

    dim: int
    size: int
    stride: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Map [b, H, W, C] to [b, (H - size) / stride + 1, likewise W, dim].

        Raises:
          ConfigError: H or W is smaller than a patch, or not a multiple of the stride.
        """
        height, width, channels = image.shape[1:]
        if (
            min(height, width) < self.size
            or height % self.stride
            or width % self.stride
        ):
            step = "" if self.stride == self.size else f", stride {self.stride}"
            raise ConfigError(
                f"an image of {height}x{width} pixels does not divide into patches "
                f"(arch.patch_size={self.size}{step}); set data.image_size to a "
                f"multiple of {self.stride} from {self.size} on, or another "
                "arch.patch_size."
            )
        fan_in = self.size**2 * channels
        init = torch_uniform(fan_in)
        kernel = self.param("kernel", init, (self.size, self.size, channels, self.dim))
        bias = self.param("bias", init, (self.dim,))
        flat = patches(image, self.size, self.stride)
        kernel = kernel.reshape(fan_in, self.dim).astype(image.dtype)
        return flat @ kernel + bias.astype(image.dtype)


def patches(image: jax.Array, size: int, stride: int) -> jax.Array:
    """Cut [b, H, W, C] into [b, rows, columns, size * size * C], rows of pixels first.

    Args:
      image: H and W multiples of `stride`, at least `size`.
      size: side of a patch; a multiple of `stride`.
      stride: from one patch to the next; with size they overlap by size - stride.
    """
    b, height, width, channels = image.shape
    x = image.reshape(b, height // stride, stride, width, channels)
    x = _join_neighbours(x, 1, size // stride)
    x = x.reshape(*x.shape[:3], width // stride, stride, channels)
    x = _join_neighbours(x, 3, size // stride)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, x.shape[1], x.shape[3], -1)


def _join_neighbours(x: jax.Array, axis: int, count: int) -> jax.Array:
    """Append to each cell along `axis` its next ones, in the axis of pixels."""
    rest = x.shape[axis] - count + 1
    shifted = [
        jax.lax.slice_in_dim(x, start, start + rest, axis=axis)
        for start in range(count)
    ]
    return jnp.concatenate(shifted, axis + 1)


class DepthwisePool(nn.Module):
    """A 3x3 convolution of stride 2, padding 1, that doubles the channels, with bias.

    Outputs 2c and 2c + 1 see channel c alone (PyTorch: groups = channels).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [b, H, W, C] to [b, ceil(H / 2), ceil(W / 2), 2 C] of the same type."""
        channels = x.shape[-1]
        init = torch_uniform(9)
        kernel = self.param("kernel", init, (3, 3, 1, 2 * channels))
        bias = self.param("bias", init, (2 * channels,))
        return depthwise(x, kernel, 2, bias)
