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
from spaced_kd.config import MethodConfig
from spaced_kd.layers import Dense
from spaced_kd.methods.base import Method, Sizes, make_mixture
from spaced_kd.parallel import BatchAxis


class FeatureAdaptor(nn.Module):
    """Linear, ReLU, linear: from the student's feature width to the teacher's."""

    teacher_dim: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Map [B, student_dim] to [B, teacher_dim]."""
        middle = (features.shape[-1] + self.teacher_dim) // 2
        return Dense(self.teacher_dim)(nn.relu(Dense(middle)(features)))


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the weights and losses of `config`.

    Raises:
      ConfigError: unknown soft or feature loss.
    """
    del sizes
    mixture = make_mixture(config, axis)
    feature_fn = registry.lookup(
        losses.FEATURE_LOSSES, config.feature_loss, "student.feature_loss"
    )

    def init(key, student, teacher):
        if not config.feature_weight:
            return {}
        adaptor = FeatureAdaptor(teacher.features.shape[-1])
        return adaptor.init(key, student.features)["params"]

    def loss(params, student, teacher, batch, now):
        del now
        total, metrics = mixture(student, teacher.logits, batch)
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
