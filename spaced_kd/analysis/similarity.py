"""How alike two networks' features are, and two vectors of the parameters' shape."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.types import Params


def linear_cka(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the linear centred kernel alignment of two sets of features.

    |Y'X|^2 / (|X'X| |Y'Y|), Frobenius norms, X and Y less their means over the
    examples: in [0, 1], and 1 where they agree up to rotation and scale. This form
    takes O(n d^2); that of the n x n kernels has the same value. Source: Kornblith et
    al., "Similarity of Neural Network Representations Revisited", ICML 2019, Section 3.

    Args:
      first: [n, d], example by example.
      second: [n, e] of the same examples; e may differ from d.

    Returns:
      The alignment, in float64 throughout; None where one side's features are the same
      for every example.
    """
    if any((z == z[0]).all() for z in (first, second)):
        return None
    x, y = (z - z.mean(0, dtype=np.float64) for z in (first, second))
    within = math.sqrt(np.square(x.T @ x).sum() * np.square(y.T @ y).sum())
    return float(np.square(y.T @ x).sum() / within)


class Vectors(NamedTuple):
    """Two vectors against one another.

    norms: Euclidean, of the first and of the second. distance: between them.
    """

    norms: tuple[float, float]
    dot: float
    distance: float

    @property
    def cosine(self) -> float | None:
        """Of the angle between them; None where one of them is zero."""
        product = self.norms[0] * self.norms[1]
        return self.dot / product if product else None


def compare(first: Params, second: Params) -> Vectors:
    """Compare two pytrees of the same shapes as if each were one long vector."""
    sums = np.asarray(_sums(first, second), np.float64).sum(0)
    first_square, second_square, dot, difference = map(float, sums)
    norms = math.sqrt(first_square), math.sqrt(second_square)
    return Vectors(norms, dot, math.sqrt(difference))


@jax.jit
def _sums(first: Params, second: Params) -> jax.Array:
    """Return [leaves, 4], whose sums over the leaves are those of the long vectors."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return jnp.asarray(
        [[(a * a).sum(), (b * b).sum(), (a * b).sum(), jnp.square(a - b).sum()]
         for a, b in pairs]
    )  # fmt: skip
