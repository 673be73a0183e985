import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from spaced_kd import conv

CASES = [(k, s, size) for k in (1, 3, 7) for s in (1, 2) for size in (8, 7)]


@pytest.mark.parametrize(("kernel_size", "stride", "size"), CASES)
def test_canonical_gradients_equal_the_stock_ones(kernel_size, stride, size):
    """The hand-written backward passes must be the derivative of the forward pass."""
    a, b, c = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(a, (4, size, size, 3))
    kernel = jax.random.normal(b, (kernel_size, kernel_size, 3, 5))
    shape = jax.eval_shape(lambda x, w: conv.stock(x, w, stride), images, kernel).shape
    weight = jax.random.normal(c, shape)

    def grads(form):
        return jax.grad(lambda x, w: (form(x, w, stride) * weight).sum(), (0, 1))(
            images, kernel
        )

    chex.assert_trees_all_close(
        grads(conv.canonical), grads(conv.stock), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_forward_equals_a_convolution_by_hand(stride):
    """Padding and kernel orientation, against nine shifted products in numpy."""
    r = np.random.default_rng(0)
    x, w = r.normal(size=(2, 6, 6, 3)), r.normal(size=(3, 3, 3, 4))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(
        padded[:, i : i + 6, j : j + 6] @ w[i, j] for i in range(3) for j in range(3)
    )[:, ::stride, ::stride]
    got = conv.convolve(
        jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32), stride
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_hessian_vector_products_work_and_agree():
    """Curvature analyses take jvp of grad through this convolution."""
    images = jax.random.normal(jax.random.key(0), (2, 5, 5, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 2))
    vector = jax.random.normal(jax.random.key(2), kernel.shape)

    def hvp(form):
        loss = lambda w: jnp.tanh(form(images, w, 2)).sum()
        return jax.jvp(jax.grad(loss), (kernel,), (vector,))[1]

    chex.assert_trees_all_close(
        hvp(conv.canonical), hvp(conv.stock), rtol=1e-4, atol=1e-5
    )


def _slow_convolutions(form) -> list[str]:
    """Layouts in a compiled scan of training steps of a three-layer network."""
    images = jnp.ones((5, 4, 8, 8, 3))
    kernels = (jnp.ones((3, 3, 3, 4)), jnp.ones((3, 3, 4, 4)), jnp.ones((1, 1, 4, 6)))

    def loss(kernels, x):
        for kernel, stride in zip(kernels, (1, 2, 2), strict=True):
            x = nn.relu(form(x, kernel, stride))
        return jnp.square(x).mean()

    def body(kernels, x):
        grads = jax.grad(loss)(kernels, x)
        return jax.tree.map(lambda w, g: w - 0.1 * g, kernels, grads), None

    scan = jax.jit(lambda kernels, images: lax.scan(body, kernels, images)[0])
    text = scan.lower(kernels, images).compile().as_text()
    # 3 forward, 3 + 2 backward, of which XLA makes the plain 1x1 one a dot.
    assert len(_layouts(text)) >= 7
    return [d for d in _layouts(text) if d != "b01f_01io->b01f"]


def _layouts(text: str) -> list[str]:
    return re.findall(r"convolution\([^\n]*?dim_labels=([^\s,]+)", text)


@pytest.mark.real_compiler
def test_no_slow_convolution_inside_a_compiled_scan_on_cpu():
    """In another layout XLA:CPU runs them as naive loops inside a while body."""
    assert jax.default_backend() == "cpu"
    assert not _slow_convolutions(conv.convolve)
    # The control: without the remedy the guard does find them.
    assert _slow_convolutions(conv.stock)


def _fused_into_transposes(form) -> list[int]:
    """Arithmetic operations in each fused transpose of three layers' gradient."""
    images = jnp.ones((8, 8, 8, 4))
    kernels = (jnp.ones((3, 3, 4, 4)),) * 3

    def loss(kernels):
        x = images
        for kernel in kernels:
            # A residual block's cheap part: normalise, shift, add, rectify.
            x = nn.relu((form(x, kernel, 1) - 0.5) * 1.5 + 0.1 + x)
        return jnp.square(x).mean()

    text = jax.jit(jax.grad(loss)).lower(kernels).compile().as_text()
    bodies = re.findall(r"^%fused_computation[^\n]*\{\n(.*?)^\}", text, re.M | re.S)
    assert bodies
    cheap = re.compile(r" (?:add|multiply|maximum|subtract)\(")
    return sorted(len(cheap.findall(b)) for b in bodies if " transpose(" in b)


@pytest.mark.real_compiler
def test_no_chain_of_operations_is_computed_again_inside_a_transpose(monkeypatch):
    """In the transposes' order that cost 40 % of a ResNet-20 step."""
    # The first layer's gradient has no other consumer: there it is not done twice.
    *others, _ = _fused_into_transposes(conv.canonical)
    assert len(others) > 4 and not any(others)
    monkeypatch.setattr(conv, "_once", lambda x: x)
    *others, _ = _fused_into_transposes(conv.canonical)
    assert max(others) > 3  # the control


@pytest.mark.real_compiler
def test_computing_once_changes_no_bit_and_no_derivative():
    """Infinities, NaN, signs of zero, the smallest and largest normal numbers."""
    values = [0.0, -0.0, 1.5, -3.0, np.inf, -np.inf, np.nan, 1.2e-38, 3.4e38]
    x = jnp.asarray(values, jnp.float32)
    bits = lambda a: np.asarray(a).view(np.uint32)
    np.testing.assert_array_equal(bits(conv._once(x)), bits(x))
    np.testing.assert_array_equal(bits(jax.jit(conv._once)(x)), bits(x))
    assert jax.grad(lambda v: jnp.sin(conv._once(v)))(0.3) == jnp.cos(0.3)
