"""Losses: pure functions of arrays, one value per example, reduced by the caller.

Value spaces are in the argument names: `logits` are unnormalised; nothing here takes
probabilities except where said. Where the released code differs from the paper, both
forms stand here under their own names.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from spaced_kd.parallel import BatchAxis


def batch_mean(
    per_example: jax.Array, mask: jax.Array | None, axis: BatchAxis
) -> jax.Array:
    """Return the mean over the real examples of the global batch.

    Args:
      per_example: [b].
      mask: [b] bool, False for padding; None if there is none.
      axis: the devices that share the batch.
    """
    if mask is None:
        total, count = per_example.sum(), jnp.float32(per_example.shape[0])
    else:
        total = jnp.where(mask, per_example, 0).sum()
        count = mask.sum().astype(jnp.float32)
    total, count = axis.sum((total, count))
    return total / count


def batch_sum(
    per_example: jax.Array, mask: jax.Array | None, axis: BatchAxis
) -> jax.Array:
    """Return the sum over the real examples of the global batch; arguments as above."""
    if mask is not None:
        per_example = jnp.where(mask, per_example, 0)
    return axis.sum(per_example.sum())


def cross_entropy(
    logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """Return -log softmax(logits)[label] in nats, per example.

    With smoothing, -sum_c q_c log softmax(logits)_c where q = (1 - smoothing)
    onehot(label) + smoothing / C (Szegedy et al., "Rethinking the Inception
    Architecture for Computer Vision", CVPR 2016).

    Args:
      logits: [B, C].
      labels: [B] int32 in [0, C).
      smoothing: in [0, 1]; the share of the target that all C classes get.

    Returns:
      [B], not averaged.
    """
    log_probs = jax.nn.log_softmax(logits)
    on_label = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    if not smoothing:
        return on_label
    return (1 - smoothing) * on_label - smoothing * log_probs.mean(-1)


def kl_divergence(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: float
) -> jax.Array:
    """Return KL(teacher || student) at a temperature, in nats, per example.

    sum_c p_t (log p_t - log p_s) with p = softmax(logits / temperature). No factor
    temperature^2: the caller multiplies if its config says so.

    Args:
      student_logits: [B, C].
      teacher_logits: [B, C].
      temperature: > 0.

    Returns:
      [B], not averaged; 0 where both distributions are equal.

    Source: paper Eq. 2 and Section 5.1; Hinton et al. 2015.
    """
    log_student = jax.nn.log_softmax(student_logits / temperature)
    log_teacher = jax.nn.log_softmax(teacher_logits / temperature)
    return jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)


def probspace_divergence(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: float
) -> jax.Array:
    """Return the released code's soft loss, per example: not a divergence.

    sum_c p_t (log p_t - p_s) with p = softmax(logits / temperature): the released
    ResNet code hands the student's probabilities to a function that expects
    log-probabilities (online_KD/train_space.py:72-73, 115-116, 286). Up to a constant
    it is -<p_t, p_s>, and its gradient is about 1 % of the true one early in training.

    Args:
      student_logits: [B, C].
      teacher_logits: [B, C].
      temperature: > 0.

    Returns:
      [B], not averaged; at least -1 - log C, never 0 at equality.
    """
    student_probs = jax.nn.softmax(student_logits / temperature)
    log_teacher = jax.nn.log_softmax(teacher_logits / temperature)
    return jnp.sum(jnp.exp(log_teacher) * (log_teacher - student_probs), axis=-1)


def kl_divergence_per_class(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: float
) -> jax.Array:
    """Return `kl_divergence` divided by the number of classes, per example.

    The batch's mean then is KL / (B C), the released transformers' soft loss
    (vit/pycls/core/distill.py:33-40): about 1 % of the divergence at 100 classes.
    """
    divergence = kl_divergence(student_logits, teacher_logits, temperature)
    return divergence / student_logits.shape[-1]


def soft_cross_entropy(
    student_logits: jax.Array, teacher_logits: jax.Array, temperature: float
) -> jax.Array:
    """Return -sum_c p_t log p_s at a temperature, in nats, per example.

    `kl_divergence` plus the teacher's entropy, which has no gradient for the student:
    the released self KD's soft loss (self_KD/train.py:222-242), there without T^2.
    Arguments and result as there.
    """
    log_student = jax.nn.log_softmax(student_logits / temperature)
    return -jnp.sum(jax.nn.softmax(teacher_logits / temperature) * log_student, axis=-1)


def squared_distance(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return sum_d (student - teacher)^2 of [B, D] values, per example [B]."""
    return jnp.sum(jnp.square(student - teacher), axis=-1)


def mean_squared_error(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return mean_d (student - teacher)^2 of [B, D] values, per example [B]."""
    return jnp.mean(jnp.square(student - teacher), axis=-1)


def mean_absolute_error(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return mean_d |student - teacher| of [B, D] values, per example [B]."""
    return jnp.mean(jnp.abs(student - teacher), axis=-1)


def smooth_l1(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return mean_d of x^2/2 where |x| < 1, else |x| - 1/2, per example [B]."""
    size = jnp.abs(student - teacher)
    return jnp.mean(jnp.where(size < 1, 0.5 * size**2, size - 0.5), axis=-1)


SoftLoss = Callable[[jax.Array, jax.Array, float], jax.Array]
"""(student's logits [B, C], teacher's, temperature) -> values per example [B]."""


def _of_raw_logits(distance: Callable[[jax.Array, jax.Array], jax.Array]) -> SoftLoss:
    def loss(student_logits, teacher_logits, temperature):
        del temperature
        return distance(student_logits, teacher_logits)

    return loss


SOFT_LOSSES: dict[str, SoftLoss] = {
    "kl": kl_divergence,
    "kl_per_class": kl_divergence_per_class,
    "probspace": probspace_divergence,
    "soft_cross_entropy": soft_cross_entropy,
    # The set of paper Table 3, which as released varies the feature loss, on logits:
    # "mse" is the mean over classes, "mse_sum" the sum, each then the batch's mean.
    "l1": _of_raw_logits(mean_absolute_error),
    "smooth_l1": _of_raw_logits(smooth_l1),
    "mse": _of_raw_logits(mean_squared_error),
    "mse_sum": _of_raw_logits(squared_distance),
}

ON_RAW_LOGITS = frozenset({"l1", "smooth_l1", "mse", "mse_sum"})
"""Soft losses that know no temperature, and so no factor temperature^2 either."""


def feature_cross_entropy(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Return -sum_d teacher_d log softmax(student)_d, per example [B].

    The teacher's features are used raw as unnormalised "class probabilities": they come
    out of a ReLU and average pooling, so they are not negative. Source: the row "CE" of
    paper Table 3 as released (online_KD/train_space.py:287-296).
    """
    return -jnp.sum(teacher * jax.nn.log_softmax(student), axis=-1)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Return sqrt(x) with gradient 0 at x = 0 (PyTorch's subgradient of a norm)."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def unit(x: jax.Array) -> jax.Array:
    """Return the vectors [..., D] at length 1; zero stays zero, with gradient 0."""
    length = safe_sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True))
    return x / jnp.where(length > 0, length, 1.0)


class FeatureLoss(NamedTuple):
    """A distance of [B, D] features and how it is reduced over the global batch.

    reduction: "mean" or "sum" of the per-example values, or "norm", the square root of
      their sum. The sum of "norm" is over the whole batch, all devices included, so
      that the value does not depend on how many devices there are.
    """

    per_example: Callable[[jax.Array, jax.Array], jax.Array]
    reduction: str

    def __call__(
        self,
        student: jax.Array,
        teacher: jax.Array,
        mask: jax.Array | None,
        axis: BatchAxis,
    ) -> jax.Array:
        """Return the reduced distance, a scalar."""
        values = self.per_example(student, teacher)
        if self.reduction == "mean":
            return batch_mean(values, mask, axis)
        total = batch_sum(values, mask, axis)
        return safe_sqrt(total) if self.reduction == "norm" else total


FEATURE_LOSSES: dict[str, FeatureLoss] = {
    # Paper Table 3 varies this loss. Its row "MSE (reduction=sum)" is torch.dist in the
    # released code, the Euclidean norm of the whole batch's difference; mse_sum is what
    # the row's name says (at weight 0.03 it is 100 times the cross-entropy).
    "dist": FeatureLoss(squared_distance, "norm"),
    "mse_sum": FeatureLoss(squared_distance, "sum"),
    "mse": FeatureLoss(mean_squared_error, "mean"),
    "l1": FeatureLoss(mean_absolute_error, "mean"),
    "smooth_l1": FeatureLoss(smooth_l1, "mean"),
    "ce": FeatureLoss(feature_cross_entropy, "mean"),
}
