"""Progressive self-distillation: targets soften with the network's own predictions.

loss = -sum_c q_c log softmax(z)_c,  q = (1 - a) onehot(y) + a p
a = w (epoch + 1) / epochs

p is what this network predicted for the example when it last learned it, an epoch ago:
the softmax of that update's own pass, augmentation included; onehot(y) the first time.
Source: Kim et al., "Self-Knowledge Distillation with Progressive Refinement of
Targets", ICCV 2021 (arXiv:2006.12000), as released (github.com/lgcnsai/PS-KD-Pytorch,
main.py:274-282, 320-326, 415-467: w = 0.8, no temperature).

Ours: epochs are those of the network's own updates, so that in a spaced run, where it
also learns from labels alone, `a` still reaches w at the end. Fields of the config:
`ps_kd_weight`.
"""

import jax
import jax.numpy as jnp

from spaced_kd import losses, state
from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Memory, Method, Sizes, no_params
from spaced_kd.parallel import BatchAxis


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method; it remembers a prediction for every training example.

    Its memory is one array [num_examples, num_classes] float32, 20 MB for CIFAR-100.
    Its metric own_share is a.
    """
    epochs = -(-sizes.updates // sizes.steps_per_epoch)

    def loss(params, student, teacher, batch, now):
        del params, teacher
        epoch = now.step // sizes.steps_per_epoch
        share = config.ps_kd_weight * (epoch + 1) / epochs
        # Padding reads row 0, which the mask drops.
        earlier = now.memory[jnp.maximum(batch.example, 0)]
        hard = losses.cross_entropy(student.logits, batch.label, config.label_smoothing)
        own = -jnp.sum(earlier * jax.nn.log_softmax(student.logits), axis=-1)
        own = jnp.where(earlier.sum(-1) > 0, own, hard)
        mean = lambda values: losses.batch_mean(values, batch.mask, axis)
        hard_loss, soft_loss = mean(hard), mean(own)
        parts = {"hard_loss": hard_loss, "soft_loss": soft_loss, "own_share": share}
        return (1 - share) * hard_loss + share * soft_loss, parts

    def start(student, teacher):
        del student, teacher
        return jnp.zeros((sizes.num_examples, sizes.num_classes))

    def remember(memory, student, teacher, batch, metrics):
        del teacher, metrics
        example = axis.whole(batch.example)
        rows = jnp.where(example < 0, sizes.num_examples, example)
        predicted = axis.whole(jax.nn.softmax(student.logits))
        return memory.at[rows].set(predicted, mode="drop")

    return Method(
        no_params,
        loss,
        needs_teacher=False,
        trains=(state.TRUNK,),
        memory=Memory(start, remember),
    )
