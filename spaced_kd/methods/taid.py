"""Interpolated distillation: the target moves from the student to the teacher.

loss = (1 - alpha) CE(z_s, y) + alpha soft(z_s, (1 - lambda) sg z_s + lambda z_t; T)
lambda = start + (end - start) step / updates, or adaptively more

The target's logits lie between the student's own, through which no gradient flows (sg),
and the teacher's; lambda grows with the student's completed updates. With
`taid_adaptive` it may run ahead of that line: after every update but the first it is
at least lambda + rate sigmoid(m) (1 - lambda), where m is a running mean (momentum
`taid_momentum`) of the soft loss's relative decrease since the update before. Source:
Shing et al., "TAID: Temporally Adaptive Interpolated Distillation for Efficient
Knowledge Transfer in Language Models", ICLR 2025 (arXiv:2501.16937), as released
(github.com/SakanaAI/TAID, src/distil_losses/taid.py: from 0.4 to 1, adaptive with rate
5e-4 and momentum 0.99; src/loss.py: alpha 1; T = 1, cross-entropy, which has the
gradient of "kl").

Ours: the linear rate unless asked otherwise; lambda is that of this step, the released
one lags a step or two. Fields of the config: those of `kd` but features, and `taid_*`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import (
    Memory,
    Method,
    Sizes,
    make_mixture,
    no_params,
    taught_logits,
)
from spaced_kd.parallel import BatchAxis

_TINY = 1e-15
"""As released: keeps a vanished loss from dividing by zero."""


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method; adaptive, it remembers lambda, the last loss and a momentum.

    Its metric target_share is lambda.

    Raises:
      ConfigError: unknown soft loss.
    """
    mixture = make_mixture(config, axis)
    start, end = config.taid_start, config.taid_end

    def loss(params, student, teacher, batch, now):
        del params
        share = start + (end - start) * now.step / sizes.updates
        if config.taid_adaptive:
            share = jnp.minimum(end, jnp.maximum(share, now.memory["share"]))
        own = lax.stop_gradient(taught_logits(student))
        targets = (1 - share) * own + share * teacher.logits
        total, metrics = mixture(student, targets, batch)
        return total, metrics | {"target_share": share}

    return Method(
        no_params, loss, memory=_pace(config) if config.taid_adaptive else None
    )


def _pace(config: MethodConfig) -> Memory:
    """Return the memory of how far lambda has run ahead, and of the last loss."""

    def start(student, teacher):
        del student, teacher
        return {
            "share": jnp.float32(config.taid_start),
            "loss": jnp.float32(0.0),
            "momentum": jnp.float32(0.0),
            "seen": jnp.array(False),
        }

    def remember(memory, student, teacher, batch, metrics):
        del student, teacher, batch
        before, after = memory["loss"], metrics["soft_loss"]
        share, seen = metrics["target_share"], memory["seen"]
        change = (before - after) / (before + _TINY)
        beta = config.taid_momentum
        momentum = beta * memory["momentum"] + (1 - beta) * change
        ahead = share + config.taid_rate * jax.nn.sigmoid(momentum) * (1 - share)
        return {
            "share": jnp.where(seen, ahead, share),
            "loss": after,
            "momentum": jnp.where(seen, momentum, 0.0),
            "seen": jnp.array(True),
        }

    return Memory(start, remember)
