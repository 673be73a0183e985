"""Losses whose Hessians are known, for tests of curvature."""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util

from spaced_kd import losses
from spaced_kd.analysis import chunks
from spaced_kd.analysis.curvature import Risk
from spaced_kd.models.small_cnn import SmallCNN
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import ModelOutput, Split

EXAMPLES = 13
IMAGES = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 4, 4, 2), np.uint8)
LABELS = np.arange(EXAMPLES, dtype=np.int32) % 3
MODEL = SmallCNN(3, channels=(2, 3))


def group(num_devices=1):
    """Return the first devices as a group."""
    return SeedGroup((0,), tuple(jax.devices()[:num_devices]))


def symmetric(values, seed=0):
    """Return a float64 matrix of these eigenvalues, randomly rotated."""
    values = np.asarray(values, np.float64)
    shape = (len(values), len(values))
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=shape))
    return basis * values @ basis.T


def quadratic_loss(params, fixed, chunk):
    """w'Aw / 2 for each of the chunk's examples; A is `fixed`."""
    w, _ = flatten_util.ravel_pytree(params)
    return chunk.weight.sum() * 0.5 * w @ fixed @ w


def quadratic(matrix, params=None, num_devices=1):
    """Return a risk of Hessian `matrix`, over 5 examples in chunks of 2 or 4."""
    if params is None:
        params = jnp.ones(len(matrix))
    return Risk(
        quadratic_loss,
        params,
        jnp.asarray(matrix, jnp.float32),
        split_into(3, 5, num_devices),
        5,
        group(num_devices),
    )


def split_into(count, num_examples=EXAMPLES, num_devices=1):
    """Return the images in this many chunks (more where devices need it)."""
    split = Split(IMAGES[:num_examples], LABELS[:num_examples])
    size = -(-num_examples // count)
    return list(chunks.of(split, size, group(num_devices)))


def regression_loss(params, fixed, chunk):
    """Cross-entropy of a linear classifier: convex, and its own Gauss-Newton."""
    logits = (chunk.image.reshape(len(chunk.label), -1) / fixed) @ params
    return (chunk.weight * losses.cross_entropy(logits, chunk.label)).sum()


def regression(num_chunks=3, num_devices=1):
    """Return the risk of a linear classifier of 13 images, in chunks."""
    weights = np.random.default_rng(2).normal(size=(32, 3))
    return Risk(
        regression_loss,
        jnp.asarray(weights, jnp.float32),
        jnp.float32(256),
        split_into(num_chunks, EXAMPLES, num_devices),
        EXAMPLES,
        group(num_devices),
    )


def regression_hessian():
    """Return its Hessian in closed form: mean of xx' (x) (diag p - pp'), float64."""
    x = IMAGES.reshape(EXAMPLES, -1) / 256
    logits = x @ np.asarray(regression().params, np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    inner = np.einsum("nc,cd->ncd", p, np.eye(3)) - np.einsum("nc,nd->ncd", p, p)
    whole = np.einsum("ni,nj,ncd->icjd", x, x, inner) / EXAMPLES
    return whole.reshape(96, 96)


@functools.cache
def variables():
    """Return a small CNN's variables, BatchNorm's averages not those of the start."""
    made = MODEL.init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)), train=False)
    moved = jax.tree.map(lambda x: 0.5 * x - 0.2, made["batch_stats"])
    return {"params": made["params"], "batch_stats": moved}


def cross_entropy_sum(params, fixed, chunk):
    """A small CNN's summed cross-entropy in eval mode, padding left out."""
    image = chunk.image.astype(jnp.float32) / 128 - 1
    outputs = MODEL.apply({"params": params, "batch_stats": fixed}, image, train=False)
    logits = cast(ModelOutput, outputs).logits
    return (chunk.weight * losses.cross_entropy(logits, chunk.label)).sum()


def classifier(num_chunks=3, num_devices=1):
    """Return a small CNN's cross-entropy over 13 images, in chunks."""
    return Risk(
        cross_entropy_sum,
        variables()["params"],
        variables()["batch_stats"],
        split_into(num_chunks, EXAMPLES, num_devices),
        EXAMPLES,
        group(num_devices),
    )


@functools.cache
def explicit_hessian():
    """Return the small CNN's Hessian by `jax.hessian`, [P, P], of all images."""
    risk = classifier(1)
    flat, unravel = flatten_util.ravel_pytree(risk.params)
    (whole,) = risk.chunks
    mean = lambda w: risk.loss_sum(unravel(w), risk.fixed, whole) / EXAMPLES
    return np.asarray(jax.jit(jax.hessian(mean))(flat), np.float64)


def places(params):
    """Return each parameter's path and its place in the flat vector."""
    found, start = {}, 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(str(getattr(k, "key", k)) for k in path)
        found[name] = slice(start, start + leaf.size)
        start += leaf.size
    return found
