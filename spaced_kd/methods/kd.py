"""Logits and features: the loss of the paper's ResNet experiments.

loss = (1 - alpha) CE(z_s, y) + alpha soft(z_s, z_t; T) + beta feature(M(f_s), f_t)

M is an MLP of the student's, trained with it, also where the widths agree (released
online_KD/models/nets.py:130-139). Paper Eq. 2 has no feature term; Section 5.1 gives
its weight. Which soft loss, and whether it carries T^2, is the config's choice.
"""

from typing import cast

import flax.linen as nn
import jax

from spaced_kd import losses, registry
from spaced_kd.config import StudentConfig
from spaced_kd.layers import Dense
from spaced_kd.methods.base import Method
from spaced_kd.parallel import BatchAxis


class FeatureAdaptor(nn.Module):
    """Linear, ReLU, linear: from the student's feature width to the teacher's."""

    teacher_dim: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Map [B, student_dim] to [B, teacher_dim]."""
        middle = (features.shape[-1] + self.teacher_dim) // 2
        return Dense(self.teacher_dim)(nn.relu(Dense(middle)(features)))


def make(config: StudentConfig, axis: BatchAxis) -> Method:
    """Return the method with the weights and losses of `config`.

    Raises:
      ConfigError: unknown soft or feature loss.
    """
    soft_fn = registry.lookup(losses.SOFT_LOSSES, config.soft_loss, "student.soft_loss")
    feature_fn = registry.lookup(
        losses.FEATURE_LOSSES, config.feature_loss, "student.feature_loss"
    )
    scale = config.temperature**2 if config.temperature_squared == "yes" else 1.0

    def init(key, student, teacher):
        if not config.feature_weight:
            return {}
        adaptor = FeatureAdaptor(teacher.features.shape[-1])
        return adaptor.init(key, student.features)["params"]

    def loss(params, student, teacher, batch, step):
        del step
        hard = losses.cross_entropy(student.logits, batch.label)
        # DeiT's distillation head, where there is one, meets the soft targets.
        taught = student.logits if student.soft_logits is None else student.soft_logits
        soft = scale * soft_fn(taught, teacher.logits, config.temperature)
        hard_loss = losses.batch_mean(hard, batch.mask, axis)
        soft_loss = losses.batch_mean(soft, batch.mask, axis)
        total = (1 - config.kd_weight) * hard_loss + config.kd_weight * soft_loss
        metrics = {"hard_loss": hard_loss, "soft_loss": soft_loss}
        if config.feature_weight:
            adaptor = FeatureAdaptor(teacher.features.shape[-1])
            mapped = adaptor.apply({"params": params}, student.features)
            feature_loss = feature_fn(
                cast(jax.Array, mapped), teacher.features, batch.mask, axis
            )
            total = total + config.feature_weight * feature_loss
            metrics["feature_loss"] = feature_loss
        return total, metrics

    return Method(init, loss)
