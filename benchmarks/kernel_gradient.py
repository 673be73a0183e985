"""Other ways to compute a convolution's kernel gradient on CPU, and their speed.

    python benchmarks/kernel_gradient.py

It is what keeps a ResNet step behind compiled PyTorch (docs/performance.md). Prints
GFLOP/s of 3x3 kernel gradients, median of 7 rounds in turns, and the largest relative
difference from ours.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spaced_kd import backend, conv

BATCH = 128
# Channels and side of the image in the stages of ResNet-20 and ResNet-18.
LAYERS = ((16, 32), (32, 16), (64, 8), (64, 32), (128, 16), (256, 8), (512, 4))
ROUNDS = 7


def ours(x, g):
    """Return the gradient as one convolution, channels as batch."""
    return conv._kernel_gradient(x, g, 1, 3)


def gathered(x, g):
    """Return patches (im2col) times the gradient, one product of matrices."""
    columns = jnp.concatenate([s for row in _shifts(x) for s in row], -1)
    return _product(columns, g).reshape(3, 3, x.shape[-1], -1)


def shifted(x, g):
    """Return nine products, one for each place of the kernel."""
    return jnp.stack([jnp.stack([_product(s, g) for s in row]) for row in _shifts(x)])


def row_by_row(x, g):
    """Return three products, one for each row of the kernel."""
    rows = [jnp.concatenate(row, -1) for row in _shifts(x)]
    return jnp.stack([_product(r, g).reshape(3, x.shape[-1], -1) for r in rows])


def rows_as_channels(x, g):
    """Return one convolution in which kernel rows are channels of the gradient."""
    height, channels = x.shape[1], x.shape[-1]
    padded = jnp.pad(g.transpose(1, 2, 0, 3), ((1, 1), (0, 0), (0, 0), (0, 0)))
    stacked = jnp.concatenate([padded[2 - k : 2 - k + height] for k in range(3)], -1)
    images, kernel = lax.optimization_barrier((x.transpose(3, 1, 2, 0), stacked))
    out = lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        ((0, 0), (1, 1)),
        dimension_numbers=conv.LAYOUT,
    )
    return out.reshape(channels, 3, 3, -1).transpose(2, 1, 0, 3)


def in_quarters(x, g):
    """Return four convolutions, each over a quarter of the batch, added up."""
    quarters = zip(jnp.split(x, 4), jnp.split(g, 4), strict=True)
    return sum(ours(part, pull) for part, pull in quarters)


FORMS = (ours, gathered, shifted, row_by_row, rows_as_channels, in_quarters)


def main() -> None:
    """Measure every form on every layer and print a row each."""
    backend.configure()
    print("channels side " + " ".join(f"{form.__name__:>18}" for form in FORMS))
    for channels, side in LAYERS:
        shape = (BATCH, side, side, channels)
        x, g = (jax.random.normal(jax.random.key(k), shape) for k in (0, 1))
        forms = [jax.jit(form) for form in FORMS]
        results = [form(x, g) for form in forms]
        seconds = [[_time(form, x, g) for form in forms] for _ in range(ROUNDS)]
        work = 2 * 9 * channels**2 * BATCH * side**2 / 1e9
        cells = []
        for taken, result in zip(np.median(seconds, 0), results, strict=True):
            error = jnp.abs(result - results[0]).max() / jnp.abs(results[0]).max()
            cells.append(f"{work / taken:8.0f} ({float(error):.0e})")
        print(f"{channels:8d} {side:4d} " + " ".join(f"{c:>18}" for c in cells))


def _shifts(x):
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [
        [padded[:, i : i + height, j : j + width] for j in range(3)] for i in range(3)
    ]


def _product(a, b):
    rows = (((0,), (0,)), ((), ()))
    return lax.dot_general(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), rows)


def _time(form, x, g) -> float:
    start = time.perf_counter()
    form(x, g).block_until_ready()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
