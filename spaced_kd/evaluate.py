"""Exact evaluation: every example of the test split counted once, in eval mode."""

import functools
from collections.abc import Callable
from typing import cast

import jax
import numpy as np
from jax import lax

from spaced_kd import metrics
from spaced_kd.data.augment import prepare_eval
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.models.base import Model
from spaced_kd.parallel import BatchAxis, SeedGroup, data_parallel
from spaced_kd.types import Metrics, ModelOutput, Predictions, Variables

Predict = Callable[[Variables, jax.Array], Predictions]


def make_predict(
    model: Model,
    group: SeedGroup,
    num_examples: int,
    batch_size: int,
    spec: AugmentSpec,
) -> Predict:
    """Return predict(variables, images) -> Predictions for num_examples images.

    BatchNorm uses the running statistics. The last batch is filled up by repeating
    example 0, whose extra logits are cut off again.

    Args:
      model: the network.
      group: the devices that share each batch.
      num_examples: rows of `images` [N, H, W, C] uint8.
      batch_size: examples in one batch, all devices together; rounded up to a
        multiple of the devices.
      spec: how images are resized and normalised.
    """
    axis = group.axis
    model = model.clone(axis=BatchAxis())
    batch_size += -batch_size % len(group.devices)
    rounds = -(-num_examples // batch_size)
    index = np.zeros(rounds * batch_size, np.int32)
    index[:num_examples] = np.arange(num_examples)
    index = group.split_batch(index.reshape(rounds, batch_size))

    def logits_of(variables, images, index):
        def body(carry, rows):
            image = prepare_eval(images[rows], spec)
            outputs = model.apply(variables, image, train=False)
            outputs = cast(ModelOutput, outputs)
            return carry, Predictions(outputs.logits, outputs.branch_logits)

        # Every process needs all logits, in the order of the examples.
        return jax.tree.map(axis.gather, lax.scan(body, None, index)[1])

    run = data_parallel(logits_of, group.devices, in_axes=(None, None, 1))

    def predict(variables, images):
        found = run(variables, images, index)
        flat = lambda x: x.reshape(rounds * batch_size, *x.shape[2:])[:num_examples]
        return jax.tree.map(flat, found)

    return predict


def balanced_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """Return rising rows of a split, as many of each class as can be.

    The first ones of every class; where the count does not divide, or a class is
    short, lower classes have one more, or the others fill up.

    Args:
      labels: [N] integers.
      count: rows wanted; at most N are there.
    """
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        rank[own] = np.arange(len(own))
    return np.sort(np.lexsort((labels, rank))[:count])


@functools.partial(jax.jit, static_argnames="quote")
def measure(
    found: Predictions,
    labels: jax.Array,
    teacher_logits: jax.Array | None,
    quote: str = "deepest",
) -> Metrics:
    """Return accuracy and loss, and the gap to the teacher where there is one.

    Args:
      found: what the network predicts.
      labels: [N] int32.
      teacher_logits: [N, C] of the teacher as it stands; None for the teacher itself,
        or without a teacher.
      quote: whose accuracy and loss these are: of the "deepest" exit, or of the
        "ensemble". Those of every exit come under its own name.
    """
    logits = metrics.quoted(found, quote)
    measured = metrics.classification(logits, labels)
    if teacher_logits is not None:
        measured |= metrics.teacher_gap(logits, teacher_logits, labels)
    if found.branch_logits is not None:
        measured |= metrics.by_exit(found, labels)
    return measured
