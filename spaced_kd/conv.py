"""The convolution: stock on GPU and TPU, fast inside `lax.scan` on CPU.

XLA:CPU brings convolutions into the layout that its fast kernels need only in a
program's entry computation. Inside a while body (scan, map, cond) the two gradient
convolutions stay in a transposed layout and run as naive loops, many times slower
(jax issue 12868). Here both gradients are written as ordinary forward convolutions in
the canonical layout, with barriers that keep XLA from folding the transposes back. The
gradients equal those of the stock form. The operands are computed once (`_once`).

`jax.jvp` of `jax.grad` (Hessian-vector products) works through both forms; plain
forward mode (`jax.jvp` of a loss) works through the stock form only.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(images: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolve with symmetric zero padding (size - 1) // 2, chosen form by backend.

    Args:
      images: [B, H, W, C_in].
      kernel: [size, size, C_in, C_out], size odd.
      stride: of both spatial axes.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C_out].
    """
    # The backend is fixed before anything is traced, so this is a trace-time choice.
    form = canonical if jax.default_backend() == "cpu" else stock
    return form(images, kernel, stride)


def stock(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`convolve` by XLA's own convolution and its automatic gradients."""
    pad = (kernel.shape[0] - 1) // 2
    return lax.conv_general_dilated(
        images, kernel, (stride, stride), ((pad, pad),) * 2, dimension_numbers=LAYOUT
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def canonical(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`convolve` whose two gradients are convolutions in the canonical layout."""
    return stock(images, kernel, stride)


def _forward(images, kernel, stride):
    images = _once(images)
    return stock(images, kernel, stride), (images, kernel)


def _backward(stride, residuals, gradient):
    images, kernel = residuals
    gradient = _once(gradient)
    return (
        _images_gradient(kernel, gradient, stride, images.shape),
        _kernel_gradient(images, gradient, stride, kernel.shape[0]),
    )


canonical.defvjp(_forward, _backward)


@jax.custom_jvp
def _once(x: jax.Array) -> jax.Array:
    """Return x bit by bit (but subnormal numbers as 0), computed a single time.

    XLA:CPU fuses a copy of a chain of cheap operations into each of its consumers, and
    a transpose runs through its copy in an order that defeats the caches: in a
    ResNet-20 step 40 % of the time went there. XLA does not duplicate divisions, and
    cannot see that the divisor is 1. (Barriers are gone before operations are fused.)
    """
    return x / jnp.where(x == x, jnp.ones((), x.dtype), x)


_once.defjvp(lambda primals, tangents: (_once(*primals), *tangents))


def _images_gradient(kernel, gradient, stride, images_shape):
    # Image row stride * m + r ("phase" r) gets gradient rows m + o through kernel row
    # r + pad - stride * o. One convolution of the gradient computes all phases as
    # channels, without the zeros that a gradient spread out by the stride would have.
    taps, first = _taps(kernel.shape[0], stride)
    absent = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    phases = absent[taps[:, None, :, None], taps[None, :, None, :]]
    phases = lax.optimization_barrier(phases.transpose(0, 1, 5, 2, 3, 4))
    reach, inputs = len(taps), kernel.shape[2]
    out = lax.conv_general_dilated(
        gradient,
        phases.reshape(reach, reach, kernel.shape[3], stride**2 * inputs),
        (1, 1),
        ((-first, first + reach - 1),) * 2,
        dimension_numbers=LAYOUT,
    )
    if stride == 1:
        return out
    count, rows, columns, _ = gradient.shape
    out = out.reshape(count, rows, columns, stride, stride, inputs)
    out = out.transpose(0, 1, 3, 2, 4, 5)
    out = out.reshape(count, rows * stride, columns * stride, inputs)
    return out[:, : images_shape[1], : images_shape[2]]


def _taps(size: int, stride: int) -> tuple[np.ndarray, int]:
    """Return [reach, stride] kernel rows by offset and phase, and the first offset.

    `size`, one past the last row, stands for none.
    """
    pad = (size - 1) // 2
    pairs = {
        ((phase + pad - row) // stride, phase): row
        for phase in range(stride)
        for row in range(size)
        if (phase + pad - row) % stride == 0
    }
    offsets = [offset for offset, _ in pairs]
    first, last = min(offsets), max(offsets)
    taps = [
        [pairs.get((offset, phase), size) for phase in range(stride)]
        for offset in range(first, last + 1)
    ]
    return np.array(taps), first


def _kernel_gradient(images, gradient, stride, size):
    # The images with channels as batch, convolved with the gradient as a large kernel.
    pad = (size - 1) // 2
    by_channel, as_kernel = lax.optimization_barrier(
        (images.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3))
    )
    pads = [
        (pad, stride * (part - 1) + size - full - pad)
        for full, part in zip(images.shape[1:3], gradient.shape[1:3], strict=True)
    ]
    out = lax.conv_general_dilated(
        by_channel,
        as_kernel,
        (1, 1),
        pads,
        rhs_dilation=(stride, stride),
        dimension_numbers=LAYOUT,
    )
    return lax.optimization_barrier(out).transpose(1, 2, 0, 3)


def depthwise(
    images: jax.Array, kernel: jax.Array, stride: int, start: jax.Array | float = 0.0
) -> jax.Array:
    """Convolve every channel for itself, zero padding 1, as shifted multiplies.

    XLA:CPU has no fast kernel for convolutions in groups, nor for their gradients; nine
    products stay elementwise in both directions. They are summed in float32, because
    nine rounded products would lose more than one.

    Args:
      images: [B, H, W, C] of any float type.
      kernel: [3, 3, 1, m C] float32; outputs m c to m c + m - 1 see channel c alone
        (PyTorch: groups = C).
      stride: of both spatial axes.
      start: [m C], what the sum starts from: a bias, or nothing.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), m C] of the images' type.
    """
    count, height, width, channels = images.shape
    rows, columns = -(-height // stride), -(-width // stride)
    # Every product reads the image: it must not be computed for each of them.
    once = _once(images) if jax.default_backend() == "cpu" else images
    padded = jnp.pad(once.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = jnp.broadcast_to(start, kernel.shape[3:]).reshape(channels, -1)
    for i in range(3):
        for j in range(3):
            down = slice(i, i + stride * (rows - 1) + 1, stride)
            across = slice(j, j + stride * (columns - 1) + 1, stride)
            weights = kernel[i, j, 0].reshape(channels, -1)
            total = total + padded[:, down, across, :, None] * weights
    return total.reshape(count, rows, columns, -1).astype(images.dtype)


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """Return PyTorch's default for weights and biases: U(+-1/sqrt(fan_in))."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def kaiming_fan_out(size: int, channels: int) -> nn.initializers.Initializer:
    """Return He's normal initialisation for ReLU by fan out: N(0, 2 / (size^2 C))."""
    return nn.initializers.normal((2 / (size**2 * channels)) ** 0.5)


class Conv(nn.Module):
    """A convolution without bias, computed in the type of its input.

    weight_init: "torch" (PyTorch's default) or "kaiming" (normal, fan out).
    """

    channels: int
    size: int = 3
    stride: int = 1
    weight_init: str = "torch"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map [B, H, W, C_in] to [B, ceil(H/stride), ceil(W/stride), channels]."""
        shape = (self.size, self.size, images.shape[-1], self.channels)
        kernel = self.param("kernel", starting_kernel(self.weight_init, shape), shape)
        return convolve(images, kernel.astype(images.dtype), self.stride)


class DepthwiseConv(nn.Module):
    """A 3x3 convolution of every channel for itself, without bias; see `depthwise`."""

    stride: int = 1
    weight_init: str = "torch"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), C]."""
        shape = (3, 3, 1, images.shape[-1])
        kernel = self.param("kernel", starting_kernel(self.weight_init, shape), shape)
        return depthwise(images, kernel, self.stride)


def starting_kernel(
    weight_init: str, shape: tuple[int, ...]
) -> nn.initializers.Initializer:
    """Return how a kernel [size, size, C_in, C_out] starts; `weight_init`: see Conv."""
    size, _, inputs, channels = shape
    if weight_init == "kaiming":
        return kaiming_fan_out(size, channels)
    return torch_uniform(size**2 * inputs)
