"""Self-distillation from the last mini-batch: the network teaches its next step.

loss = CE over both batches + w soft(z', sg z_prev; T)

Every update passes two batches: the current one, and the previous one again under a
second augmentation, with logits z'. z_prev are the logits that the previous update's
pass gave for the previous batch's first view. CE is one mean over the rows of both.
Source: Shen et al., "Self-Distillation from the Last Mini-Batch for Consistency
Regularization", CVPR 2022 (arXiv:2203.16172), as released
(github.com/Meta-knowledge-Lab/DLB, dlb.py:64-113: T = 3, w = 1; soft is T^2 KL, each
batch normalised by itself). At the first update there is no previous batch; at an
epoch's border nothing happens.

Ours: at the first update the second pass shows the current batch again, so that
BatchNorm has something to average, and counts for nothing in the loss; where the host
crops the images, both views have one crop. Fields of the config: `dlb_weight`,
`temperature`, `soft_loss`.
"""

import jax
import jax.numpy as jnp

from spaced_kd import losses, state
from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Memory, Method, Sizes, make_soft_loss, no_params
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import Batch


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method; it remembers the previous batch and its logits.

    Raises:
      ConfigError: unknown soft loss.
    """
    soft_fn = make_soft_loss(config)

    def loss(params, student, teacher, batch, now):
        del params, teacher
        size = batch.label.shape[0] // 2
        seen = now.memory["seen"].astype(jnp.float32)
        counts = jnp.concatenate([jnp.ones(size), jnp.full(size, seen)])
        hard = losses.cross_entropy(student.logits, batch.label, config.label_smoothing)
        total = lambda values: losses.batch_sum(values, batch.mask, axis)
        hard_loss = total(counts * hard) / total(counts)
        earlier = now.memory["logits"][axis.positions(size)]
        mask = None if batch.mask is None else batch.mask[size:]
        soft = soft_fn(student.logits[size:], earlier)
        soft_loss = seen * losses.batch_mean(soft, mask, axis)
        parts = {"hard_loss": hard_loss, "soft_loss": soft_loss}
        return hard_loss + config.dlb_weight * soft_loss, parts

    memory = Memory(
        lambda student, teacher: _nothing_yet(sizes), _remember(axis), _extend(axis)
    )
    return Method(
        no_params,
        loss,
        needs_teacher=False,
        trains=(state.TRUNK,),
        memory=memory,
        batches=2,
    )


def _nothing_yet(sizes: Sizes) -> dict[str, jax.Array]:
    size = sizes.batch_size
    return {
        "raw": jnp.zeros((size, *sizes.image_shape), jnp.uint8),
        "label": jnp.zeros(size, jnp.int32),
        "example": jnp.full(size, -1, jnp.int32),
        "logits": jnp.zeros((size, sizes.num_classes)),
        "seen": jnp.zeros((), bool),
    }


def _images(batch: Batch, axis: BatchAxis) -> dict[str, jax.Array]:
    return {
        name: axis.whole(getattr(batch, name)) for name in ("raw", "label", "example")
    }


def _extend(axis: BatchAxis):
    def extend(memory, batch, view):
        earlier = {
            name: jnp.where(memory["seen"], memory[name], current)
            for name, current in _images(batch, axis).items()
        }
        again = view(**earlier)
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), batch, again)

    return extend


def _remember(axis: BatchAxis):
    def remember(memory, student, teacher, batch, metrics):
        del memory, teacher, metrics
        size = batch.label.shape[0] // 2
        current = jax.tree.map(lambda rows: rows[:size], batch)
        logits = axis.whole(student.logits[:size])
        return _images(current, axis) | {"logits": logits, "seen": jnp.array(True)}

    return remember
