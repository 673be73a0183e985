"""Random directions in the space of a network's parameters, and steps along them.

A tensor's random numbers are a function of the seed, its name and its shape, so that
networks of one architecture move along the same numbers, and networks that share a
trunk do so there.
"""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.types import Params


def gaussian(seed: Sequence[int], params: Params) -> Params:
    """Return independent N(0, 1) numbers of the shapes and names of `params`.

    On the host: a program that draws them would have to be compiled anew, for a while,
    for every architecture.
    """

    def draw(path, weights):
        generator = np.random.default_rng((*seed, zlib.crc32(_name(path).encode())))
        return jnp.asarray(generator.standard_normal(weights.shape, np.float32))

    return jax.tree_util.tree_map_with_path(draw, params)


@jax.jit
def in_units_of_rms(direction: Params, params: Params) -> Params:
    """Return `direction`, each tensor times the root mean square of its weights."""
    scaled = lambda d, w: d * jnp.sqrt(jnp.square(w).mean())
    return jax.tree.map(scaled, direction, params)


@jax.jit
def filter_normalised(direction: Params, params: Params) -> Params:
    """Return `direction`, each filter as long as the network's own.

    d_f <- d_f |w_f| / |d_f| (Li et al., "Visualizing the Loss Landscape of Neural
    Nets", NeurIPS 2018, section 4). A filter is what makes one output: [:, :, :, c] of
    a convolution's kernel, a column of a linear layer's [in, out]. Biases and
    the scales of BatchNorm and LayerNorm, tensors of one axis, stand still, as in the
    code that the authors released (tomgoldstein/loss-landscape, net_plotter.py,
    `ignore='biasbn'`). A token or a table of positions is one filter, as it is there.

    Args:
      direction: of the structure and shapes of params.
      params: the network's.
    """

    def scaled(path, d, w):
        if w.ndim < 2:
            return jnp.zeros_like(d)
        filters = _name(path).endswith("kernel")
        axes = tuple(range(w.ndim - filters))
        norm = lambda x: jnp.sqrt(jnp.square(x).sum(axes, keepdims=True))
        return d * (norm(w) / norm(d))

    return jax.tree_util.tree_map_with_path(scaled, direction, params)


@jax.jit
def moved(params: Params, direction: Params, distance: float | jax.Array) -> Params:
    """Return params + distance * direction."""
    return jax.tree.map(lambda w, d: w + distance * d, params, direction)


def _name(path) -> str:
    return "/".join(str(getattr(key, "key", key)) for key in path)
