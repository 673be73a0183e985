"""DisWOT's similarities as losses: between examples, and between classes.

loss = (1 - alpha) CE(z_s, y) + alpha soft(z_s, z_t; T) + w_r relation + w_c semantic
relation = |R(A_s) - R(A_t)|^2 / B,  R(A) = rows at length 1 of A A^T [B, B]
semantic = |R(g_s) - R(g_t)|^2 / C,  g = (softmax(z) - onehot(y))^T f / B [C, D]

A is the last feature map, one row an example, padding left out; g is the gradient of
the mean cross-entropy in the last layer's weight, by which Grad-CAM weighs a class's
channels. Sums over the global batch, squared Frobenius norms. Neither asks for equal
widths or map sizes. Source: Dong, Li and Wei, "DisWOT: Student Architecture Search for
Distillation WithOut Training", CVPR 2023 (arXiv:2303.15678), as released
(github.com/lliai/DisWOT-CVPR2023, README "Core Code", distiller_zoo/SP.py; relation is
also Tung and Mori, ICCV 2019).

Ours: means over rows, where the source divides by B^2 and C^2, so that a weight means
the same for any batch: w_r = 3000 of its script for `similarity`, at a batch of 64, is
47 here. The semantic term compares g g^T class by class. The released one compares, for
each class, the outer product of its row of g with itself channel by channel: that needs
equal widths, and of a row at length 1 it keeps the sign alone. Fields of the config:
those of `kd` but features, and `diswot_*`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd import losses
from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Method, Sizes, make_mixture
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


def class_weights(
    logits: jax.Array,
    features: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None,
    axis: BatchAxis,
) -> jax.Array:
    """Return the gradient of the batch's cross-entropy in the last layer's weight.

    Args:
      logits: [b, C], linear in the features.
      features: [b, D].
      labels: [b] int32 in [0, C).
      mask: [b] bool, False for padding.
      axis: the devices that share the batch.

    Returns:
      [C, D] on every device, divided by its largest entry: the squares of a network
      that is nearly right everywhere would otherwise be too small for float32.
    """
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
    if mask is not None:
        error = jnp.where(mask[:, None], error, 0)
    weights = axis.sum(error.T @ features)
    largest = lax.stop_gradient(jnp.abs(weights).max())
    return weights / jnp.where(largest > 0, largest, 1.0)


def semantic_gap(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return how differently two networks find the classes alike.

    Args:
      student: [C, D] as from `class_weights`; no scale matters.
      teacher: [C, D'].

    Returns:
      A scalar in [0, 4], as `semantic` above.
    """
    similarities = lambda weights: losses.unit(weights @ weights.T)
    return losses.squared_distance(similarities(student), similarities(teacher)).mean()


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the weights of `config`.

    Raises:
      ConfigError: unknown soft loss.
    """
    del sizes
    mixture = make_mixture(config, axis)

    def init(key, student, teacher):
        del key, student, teacher
        return {}

    def loss(params, student, teacher, batch, now):
        del params, now
        total, metrics = mixture(student, teacher.logits, batch)
        relation = relation_gap(student.maps[-1], teacher.maps[-1], batch.mask, axis)
        semantic = semantic_gap(
            *(
                class_weights(net.logits, net.features, batch.label, batch.mask, axis)
                for net in (student, teacher)
            )
        )
        total += config.diswot_relation * relation + config.diswot_semantic * semantic
        return total, metrics | {"relation_loss": relation, "semantic_loss": semantic}

    return Method(init, loss, needs_maps=True)
