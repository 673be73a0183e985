"""DisWOT's similarities as losses: between examples, and between classes.

loss = (1 - alpha) CE(z_s, y) + alpha soft(z_s, z_t; T) + w_r relation + w_c semantic
relation = |R(A_s) - R(A_t)|^2 / B,  R(A) = rows at length 1 of A A^T [B, B]
semantic = |R(z_s^T) - R(z_t^T)|^2 / C,  z^T one row a class, [C, B]

A is the last feature map, one row an example; squared Frobenius norms over the global
batch without its padding. Neither asks for equal widths or map sizes. Source: Dong, Li
and Wei, "DisWOT: Student Architecture Search for Distillation WithOut Training", CVPR
2023 (arXiv:2303.15678), as released (github.com/lliai/DisWOT-CVPR2023, README "Core
Code", distiller_zoo/SP.py); relation is also Tung and Mori, ICCV 2019.

Ours: means over rows, where the source divides by B^2 and C^2, so that a weight means
the same for any batch: 3000, that of its script for `similarity`, is w_r = 47 at its
batch of 64. The paper's semantic term compares class activation maps sum_c w_nc A_c,
for which a method would need the last layer's kernel w; this one their means over the
image, which after pooling are the logits but for the bias. The released one compares
Grad-CAM's weights, the gradient in w: that ranks networks with random weights, but as a
loss its own gradient grows without bound as the student learns its labels. Fields of
the config: those of `kd` but features, and `diswot_*`.
"""

import jax
import jax.numpy as jnp

from spaced_kd import losses
from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Method, Sizes, make_mixture, no_params, taught_logits
from spaced_kd.parallel import BatchAxis


def relation_gap(
    student: jax.Array, teacher: jax.Array, mask: jax.Array | None, axis: BatchAxis
) -> jax.Array:
    """Return how differently two networks find the examples of a batch alike.

    Args:
      student: [b, ...] feature maps of any float type.
      teacher: [b, ...], of any other shape.
      mask: [b] bool, False for padding.
      axis: the devices that share the batch.

    Returns:
      A scalar in [0, 4], as `relation` above.
    """

    def similarities(maps):
        rows = maps.reshape(len(maps), -1).astype(jnp.float32)
        if mask is not None:
            rows = jnp.where(mask[:, None], rows, 0)
        return losses.unit(rows @ axis.whole(rows).T)

    gap = losses.squared_distance(similarities(student), similarities(teacher))
    return losses.batch_mean(gap, mask, axis)


def semantic_gap(
    student: jax.Array, teacher: jax.Array, mask: jax.Array | None, axis: BatchAxis
) -> jax.Array:
    """Return how differently two networks find the classes alike.

    Args:
      student: [b, C] logits.
      teacher: [b, C].
      mask: [b] bool, False for padding.
      axis: the devices that share the batch.

    Returns:
      A scalar in [0, 4], as `semantic` above.
    """

    def similarities(logits):
        if mask is not None:
            logits = jnp.where(mask[:, None], logits, 0)
        return losses.unit(axis.sum(logits.T @ logits))

    return losses.squared_distance(similarities(student), similarities(teacher)).mean()


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the weights of `config`.

    Raises:
      ConfigError: unknown soft loss.
    """
    del sizes
    mixture = make_mixture(config, axis)

    def loss(params, student, teacher, batch, now):
        del params, now
        total, metrics = mixture(student, teacher.logits, batch)
        relation = relation_gap(student.maps[-1], teacher.maps[-1], batch.mask, axis)
        taught = taught_logits(student)
        semantic = semantic_gap(taught, teacher.logits, batch.mask, axis)
        total += config.diswot_relation * relation + config.diswot_semantic * semantic
        return total, metrics | {"relation_loss": relation, "semantic_loss": semantic}

    return Method(no_params, loss, needs_maps=True)
