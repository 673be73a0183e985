"""One-for-all distillation, for pairs of unlike networks: all is compared as logits.

loss = (1 - alpha) CE(z_s, y) + alpha [ofa(z_s, z_t) + w sum_k ofa(B_k(map_k), z_t)]
ofa(z, z_t) = -sum_c [(p_t,c + m_c)^gamma - m_c] log p_c,   m = onehot(y)

p = softmax(z / T), without T^2. B_k is a small network of its own ("exit branch") from
the student's k-th feature map to logits; the student's optimiser trains it, and nobody
reads it after training. gamma > 1 adds to the label's share of the target, the more
the surer the teacher is of it; at gamma = 1 ofa is the soft cross-entropy. Source: Hao
et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
Distillation", NeurIPS 2023 (arXiv:2310.19444), as released (github.com/Hao840/OFAKD,
distillers/ofa.py and utils.py: weights 1 of all three terms, T = 1, gamma 1 for
CIFAR-100, 1.5 for ImageNet). Fields of the config: `kd_weight`, `temperature`,
`label_smoothing` and `ofa_*`.

Ours: alpha, so that 0.5 is half the released loss. Branches by the shape of the maps
(`ExitBranches`), which hold no class token: where the released code reads it off, the
tokens are averaged here, as there for networks without one. DeiT's maps follow blocks
3, 6, 9 and 12 of 12, there 2, 4, 10 and 12.
"""

import math
from collections.abc import Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from spaced_kd import losses
from spaced_kd.config import MethodConfig
from spaced_kd.conv import Conv
from spaced_kd.layers import Dense, SepConv, pooled
from spaced_kd.methods.base import Method, Sizes, taught_logits
from spaced_kd.parallel import BatchAxis
from spaced_kd.transformer import Block, layer_norm, patches
from spaced_kd.types import ModelOutput, exit_name

_SIDE = 7
"""Patches a side, below which token branches do not merge them (the released 49)."""


def ofa_divergence(
    student_logits: jax.Array,
    teacher_logits: jax.Array,
    labels: jax.Array,
    gamma: float,
    temperature: float,
) -> jax.Array:
    """Return ofa(z, z_t) as above, in nats, per example.

    Args:
      student_logits: [B, C].
      teacher_logits: [B, C].
      labels: [B] int32 in [0, C).
      gamma: > 0; 1 gives `losses.soft_cross_entropy`.
      temperature: > 0.

    Returns:
      [B], not averaged; not negative, never 0 at equality.
    """
    label = jax.nn.one_hot(labels, student_logits.shape[-1])
    target = (jax.nn.softmax(teacher_logits / temperature) + label) ** gamma - label
    log_probs = jax.nn.log_softmax(student_logits / temperature)
    return -jnp.sum(target * log_probs, axis=-1)


class ConvBranch(nn.Module):
    """Halve a map as often as later stages do, then pool and classify.

    width: channels at the end, doubled from halving to halving before; without any, a
      1x1 convolution gives them.
    """

    halvings: int
    width: int
    num_classes: int
    axis: BatchAxis

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Map [b, H, W, C] to [b, num_classes]; `mask` leaves padding out of norms."""
        if not self.halvings:
            x = Conv(self.width, 1, 1, "kaiming", name="widen")(x)
        for place in range(1, self.halvings + 1):
            channels = self.width if place == self.halvings else 2 * x.shape[-1]
            sep = SepConv(channels, self.axis, "kaiming", name=f"sep{place}")
            x = sep(x, True, mask)
        return Dense(self.num_classes, "normal", name="head")(pooled(x))


class TokenBranch(nn.Module):
    """Merge patches by fours down to 7 or more a side, attend, average, classify."""

    blocks: int
    num_classes: int
    axis: BatchAxis

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [b, H, W, C] to [b, num_classes]; all in C channels."""
        width = x.shape[-1]
        while all(n % 2 == 0 and n // 2 >= _SIDE for n in x.shape[1:3]):
            fours = patches(x, 2, 2)
            fours = layer_norm(dtype=x.dtype)(fours)
            x = nn.gelu(Dense(width, "normal", x.dtype)(fours), approximate=False)
        x = x.reshape(x.shape[0], -1, width)
        for _ in range(self.blocks):
            x = Block(math.gcd(4, width), 0.0, self.axis, "normal")(x, True)
        mean = x.astype(jnp.float32).mean(1)
        return Dense(self.num_classes, "normal", name="head")(mean)


class ExitBranches(nn.Module):
    """A branch on every map of a student.

    Token branches where all maps are grids of one size, as a transformer's without
    pooling; else convolutional ones. Branch k of K maps has K - k halvings, or
    max(K - k, 1) blocks. width: of the convolutional ones' last maps, the wider of
    student's and teacher's features.
    """

    width: int
    num_classes: int
    axis: BatchAxis

    @nn.compact
    def __call__(
        self, maps: Sequence[jax.Array], mask: jax.Array | None
    ) -> list[jax.Array]:
        """Map K maps [b, H, W, C], the shallowest first, to K times [b, classes]."""
        tokens = len(maps) > 1 and len({x.shape[1:3] for x in maps}) == 1
        tokens = tokens and maps[0].shape[1:3] != (1, 1)
        logits = []
        for number, x in enumerate(maps, 1):
            later, name = len(maps) - number, exit_name(number)
            if tokens:
                branch = TokenBranch(
                    max(later, 1), self.num_classes, self.axis, name=name
                )
                logits.append(branch(x))
            else:
                branch = ConvBranch(
                    later, self.width, self.num_classes, self.axis, name=name
                )
                logits.append(branch(x, mask))
        return logits


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the weights of `config`.

    Its metrics: loss = (1 - alpha) hard_loss + alpha (soft_loss + w branch_loss).
    """
    del sizes

    def branches(student: ModelOutput, teacher: ModelOutput, axis: BatchAxis):
        width = max(student.features.shape[-1], teacher.features.shape[-1])
        return ExitBranches(width, student.logits.shape[-1], axis)

    def init(key, student, teacher):
        layers = branches(student, teacher, BatchAxis())
        return layers.init(key, student.maps, None)["params"]

    def loss(params, student, teacher, batch, now):
        del now
        layers = branches(student, teacher, axis)
        # Running statistics of BatchNorm, which nothing reads: fresh and thrown away.
        exits, _ = layers.apply(
            {"params": params}, student.maps, batch.mask, mutable=["batch_stats"]
        )

        def compared(logits):
            values = ofa_divergence(
                logits,
                teacher.logits,
                batch.label,
                config.ofa_gamma,
                config.temperature,
            )
            return losses.batch_mean(values, batch.mask, axis)

        hard = losses.cross_entropy(student.logits, batch.label, config.label_smoothing)
        metrics = {
            "hard_loss": losses.batch_mean(hard, batch.mask, axis),
            "soft_loss": compared(taught_logits(student)),
            "branch_loss": sum(map(compared, cast(list[jax.Array], exits))),
        }
        taught = metrics["soft_loss"] + config.ofa_weight * metrics["branch_loss"]
        share = config.kd_weight
        return (1 - share) * metrics["hard_loss"] + share * taught, metrics

    return Method(init, loss, needs_maps=True)
