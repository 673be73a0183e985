"""BatchNorm's running statistics, estimated again for other weights."""

import functools
from typing import Any

import jax
import numpy as np

from spaced_kd.analysis import chunks
from spaced_kd.analysis.subject import Subject
from spaced_kd.data.augment import prepare_eval
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.layers import BatchNorm
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import Params, Split


def estimated(
    subject: Subject, params: Params, split: Split, batch_size: int
) -> dict[str, Any]:
    """Return the statistics of one pass over a split, in train mode, weights at rest.

    The mean over batches of each batch's mean and unbiased variance, as in "Averaging
    Weights Leads to Wider Optima and Better Generalization" (Izmailov et al., UAI
    2018). A batch counts by its examples; `torch.optim.swa_utils.update_bn` counts all
    batches alike, also a shorter last one. DropPath, which draws random numbers, is
    off.

    Args:
      subject: whose architecture it is.
      params: of that architecture.
      split: in memory; its order decides on the batches.
      batch_size: examples, all devices together.

    Returns:
      "batch_stats"; {} of a network without BatchNorm.
    """
    stats = subject.variables["batch_stats"]
    if not jax.tree.leaves(stats):
        return {}
    run = subject.run
    model: Any = subject.model  # hashable, though pyright does not know it
    program = _program(model, run.group, run.spec)
    variables = {
        "params": params,
        "batch_stats": jax.tree.map(np.zeros_like, stats),
    }
    total: Any = None
    for chunk in chunks.of(split, batch_size, run.group):
        summed = program(variables, chunk)
        total = summed if total is None else jax.tree.map(np.add, total, summed)
    return jax.tree.map(lambda x: x / len(split.label), total)


@functools.cache
def _program(model: Any, group: SeedGroup, spec: AugmentSpec):
    """Compile (variables of zero statistics, chunk) -> statistics times examples."""
    model = model.clone(axis=group.axis)

    def summed(variables, chunk):
        image = prepare_eval(chunk.image, spec)
        _, moved = model.apply(
            variables, image, train=True, mask=chunk.weight > 0, mutable=["batch_stats"]
        )
        # From zero the running values move to this share of the batch's own.
        share = 1 - BatchNorm.momentum
        return jax.tree.map(
            lambda x: x / share * chunk.weight.sum(), moved["batch_stats"]
        )

    return chunks.program(summed, group)
