"""What the labels and what the teacher ask of a student's parameters."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd import losses
from spaced_kd.analysis.base import Values
from spaced_kd.analysis.chunks import Chunk
from spaced_kd.analysis.similarity import compare
from spaced_kd.analysis.subject import outputs_of
from spaced_kd.config import MethodConfig
from spaced_kd.data.augment import prepare_eval
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.methods.base import make_soft_loss, taught_logits
from spaced_kd.models.base import Model
from spaced_kd.types import Params, Variables


class Gradients(NamedTuple):
    """Of the two terms of the loss, summed over examples; shaped as the parameters."""

    hard: Params
    soft: Params


def sums_of(
    student: Model, teacher: Model, config: MethodConfig, spec: AugmentSpec
) -> Callable[[tuple[Variables, Variables], Chunk], Gradients]:
    """Return fn((student's variables, teacher's), chunk) -> gradients of both terms.

    hard: cross-entropy with the labels (smoothed as the student's), soft: the student's
    soft loss at its temperature, with T^2 where it has that; neither with its weight.
    Both networks are in eval mode; a second head has its part in the logits then.

    Args:
      student: differentiated by its parameters.
      teacher: gives the targets.
      config: the student's, for its losses.
      spec: how images are resized and normalised.
    """
    soft_fn = make_soft_loss(config)

    def sums(both, chunk):
        own, others = both
        image = prepare_eval(chunk.image, spec)
        targets = outputs_of(teacher, others, image).logits

        def terms(params):
            outputs = outputs_of(student, {**own, "params": params}, image)
            hard = losses.cross_entropy(
                outputs.logits, chunk.label, config.label_smoothing
            )
            soft = soft_fn(taught_logits(outputs), targets)
            return (hard * chunk.weight).sum(), (soft * chunk.weight).sum()

        _, pull_back = jax.vjp(terms, own["params"])
        zero, one = jnp.zeros(()), jnp.ones(())
        return Gradients(pull_back((one, zero))[0], pull_back((zero, one))[0])

    return sums


def values_of(found: Iterable[tuple[Gradients, np.ndarray]]) -> Values:
    """Return how the gradients of the two terms stand to one another.

    Args:
      found: sums over each batch, and its examples' weights, 1, or 0 for padding.

    Returns:
      hard_norm, soft_norm: of the mean gradients over all examples; norm_ratio: soft
      over hard; cosine: between them; batch_cosine: the mean of the cosines of batches
      without padding. None where a zero gradient or no such batch leaves no value.
    """
    total, count, cosines = None, 0, []
    for batch, weight in found:
        if weight.all():
            cosines.append(compare(batch.hard, batch.soft).cosine)
        total = batch if total is None else jax.tree.map(jnp.add, total, batch)
        count += int(weight.sum())
    assert total is not None, "there are examples"
    whole = compare(total.hard, total.soft)
    hard_norm, soft_norm = (norm / count for norm in whole.norms)
    known = [cosine for cosine in cosines if cosine is not None]
    return {
        "hard_norm": hard_norm,
        "soft_norm": soft_norm,
        "norm_ratio": soft_norm / hard_norm if hard_norm else None,
        "cosine": whole.cosine,
        "batch_cosine": float(np.mean(known)) if known else None,
    }
