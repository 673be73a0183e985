"""Norm and direction: student features long, and along the teacher's class means.

loss = (1 - alpha) CE(z_s, y) + alpha soft(z_s, z_t; T) + w nd
nd = mean_i [1 - <M(f_s), e_y> / max(|M(f_s)|, |f_t|)]

e_y is the mean of the teacher's features of class y at length 1. A student shorter than
the teacher gains by length as well as by direction, a longer one by direction alone. M
is linear where the widths differ, else nothing. Source: Wang et al., "Improving
Knowledge Distillation via Regularizing Feature Norm and Direction" (arXiv:2305.17007),
as released (github.com/WangYZ1608/Knowledge-Distillation-via-ND, CIFAR/utils.py
DirectNormLoss, CIFAR/train_cifar_kd.py; w is 1 by default, 0.5 to 4 in its scripts).

Ours: a teacher that is still learning has no final class means, so they are a memory:
running means over about the last `nd_window` examples of a class that the student saw
the teacher answer, this batch included. The released ones are those of a finished
teacher in eval mode over the training set. Its M also has BatchNorm and Dropout, and
its soft loss a warm-up over 20 epochs; neither is here. Fields of the config: those of
`kd` but features, and `nd_*`.
"""

from typing import cast

import jax
import jax.numpy as jnp

from spaced_kd import losses
from spaced_kd.config import MethodConfig
from spaced_kd.layers import Dense
from spaced_kd.methods.base import Memory, Method, Sizes, make_mixture
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import Batch

ClassMeans = dict[str, jax.Array]
"""mean: [C, D], 0 for a class not seen yet. weight: [C], how many examples each counts
for, at most the window."""


def norm_and_direction(
    student: jax.Array, teacher: jax.Array, direction: jax.Array
) -> jax.Array:
    """Return 1 - <student, direction> / max(|student|, |teacher|), per example.

    Args:
      student: [B, D] features.
      teacher: [B, D].
      direction: [B, D] of length 1, or 0, which gives 1.

    Returns:
      [B] in [0, 2], not averaged; 0 where the student is no shorter than the teacher
      and points along `direction`.
    """
    length = lambda x: losses.safe_sqrt(jnp.sum(jnp.square(x), axis=-1))
    longer = jnp.maximum(length(student), length(teacher))
    along = jnp.sum(student * direction, axis=-1)
    return 1 - along / jnp.where(longer > 0, longer, 1.0)


def follow_means(
    means: ClassMeans, features: jax.Array, batch: Batch, window: int, axis: BatchAxis
) -> ClassMeans:
    """Return the class means after a batch.

    n examples of a class move its mean by n / (weight + n) of the way to their own, and
    its weight to weight + n, at most `window`: the plain mean until the window is full,
    from then on an exponential one of that length.

    Args:
      means: before it.
      features: [b, D] of this device's share.
      batch: its labels and mask.
      window: >= 1, in examples of one class.
      axis: the devices that share the batch; all come to the same result.
    """
    classes = means["weight"].shape[0]
    member = jax.nn.one_hot(batch.label, classes)
    if batch.mask is not None:
        member = jnp.where(batch.mask[:, None], member, 0)
    total, count = axis.sum((member.T @ features, member.sum(0)))
    weight = means["weight"] + count
    share = count / jnp.maximum(weight, 1)
    fresh = total / jnp.maximum(count, 1)[:, None]
    mean = means["mean"] + share[:, None] * (fresh - means["mean"])
    return {"mean": mean, "weight": jnp.minimum(weight, window)}


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the weights of `config`.

    Raises:
      ConfigError: unknown soft loss.
    """
    mixture = make_mixture(config, axis)

    def start(student, teacher):
        del student
        mean = jnp.zeros((sizes.num_classes, teacher.features.shape[-1]))
        return {"mean": mean, "weight": jnp.zeros(sizes.num_classes)}

    def remember(memory, student, teacher, batch, metrics):
        del student, metrics
        return follow_means(memory, teacher.features, batch, config.nd_window, axis)

    def init(key, student, teacher):
        width = teacher.features.shape[-1]
        if student.features.shape[-1] == width:
            return {}
        return Dense(width).init(key, student.features)["params"]

    def loss(params, student, teacher, batch, now):
        total, metrics = mixture(student, teacher.logits, batch)
        features = student.features
        if params:
            linear = Dense(teacher.features.shape[-1])
            features = cast(jax.Array, linear.apply({"params": params}, features))
        means = remember(now.memory, student, teacher, batch, metrics)
        direction = losses.unit(means["mean"])[batch.label]
        gap = norm_and_direction(features, teacher.features, direction)
        nd_loss = losses.batch_mean(gap, batch.mask, axis)
        return total + config.nd_weight * nd_loss, metrics | {"nd_loss": nd_loss}

    return Method(init, loss, memory=Memory(start, remember))
