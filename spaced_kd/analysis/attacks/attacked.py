"""What a network makes of a whole split, as it is and under an attack."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax

from spaced_kd import metrics
from spaced_kd.analysis import chunks
from spaced_kd.analysis.attacks import adversary
from spaced_kd.analysis.attacks.adversary import LogitsOf, Rule
from spaced_kd.analysis.chunks import Chunk
from spaced_kd.analysis.subject import Subject
from spaced_kd.data.augment import prepare_eval, standardize
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.models.base import Model
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import ENSEMBLE, ModelOutput, Predictions, Split, Variables

PerExample = Callable[..., dict[str, jax.Array]]
"""(logits_of, image, label, keys, rule) -> [b] each; see `adversary.perturb`."""


def means(
    per_example: PerExample,
    subject: Subject,
    split: Split,
    rule: Rule,
    key: jax.Array,
    batch_size: int,
) -> dict[str, float]:
    """Return means over a split, with the exit that the network is quoted by.

    Args:
      per_example: `clean` or `under`; a program is compiled once for each of them and
        each architecture.
      subject: the network, in eval mode.
      split: in memory.
      rule: how images are attacked.
      key: of the random numbers; each example has its own, whatever the batch size.
      batch_size: examples at once, all devices together.
    """
    run = subject.run
    quote = subject.quote
    model: Any = subject.model  # hashable, which type checkers cannot see
    program = _program(per_example, model, run.group, run.spec, quote)
    totals: dict[str, float] = {}
    first = 0
    for chunk in chunks.of(split, batch_size, run.group):
        found = program(_Args(subject.variables, rule, key, first), chunk)
        totals = {k: totals.get(k, 0.0) + float(v) for k, v in found.items()}
        first += chunk.label.size
    return {name: total / len(split.label) for name, total in totals.items()}


def clean(logits_of: LogitsOf, image, label, keys, rule: Rule) -> dict[str, jax.Array]:
    """Return acc1 and has_gradient, 0 or 100, and loss in nats, of images as they are.

    Nothing is attacked; `keys` and `rule` are not looked at.
    """
    del keys, rule
    found = adversary.judge(logits_of, image, label)
    gradient = adversary.has_gradient(logits_of, image, label)
    return {
        "acc1": 100.0 * found.correct,
        "loss": found.loss,
        "has_gradient": 100.0 * gradient,
    }


def under(logits_of: LogitsOf, image, label, keys, rule: Rule) -> dict[str, jax.Array]:
    """Return acc1 and loss_rose, 0 or 100, and loss in nats, of attacked images."""
    before = adversary.judge(logits_of, image, label)
    found = adversary.perturb(logits_of, image, label, keys, rule)
    return {
        "acc1": 100.0 * found.correct,
        "loss": found.loss,
        "loss_rose": 100.0 * (found.loss > before.loss),
    }


class _Args(NamedTuple):
    """first: place of the chunk's first example in the split."""

    variables: Variables
    rule: Rule
    key: jax.Array
    first: int


@functools.cache
def _program(
    per_example: PerExample,
    model: Any,
    group: SeedGroup,
    spec: AugmentSpec,
    quote: str,
) -> Callable[[_Args, Chunk], dict[str, jax.Array]]:
    """Compile sums of `per_example` over a chunk; `model` is a `Model`."""

    def sums(args: _Args, chunk: Chunk):
        image = _pixels(chunk.image, spec)
        logits_of = _logits_of(model, args.variables, spec, quote)
        place = args.first + group.axis.positions(len(chunk.label))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(args.key, place)
        found = per_example(logits_of, image, chunk.label, keys, args.rule)
        return {name: (one * chunk.weight).sum() for name, one in found.items()}

    return chunks.program(sums, group)


def _pixels(image: jax.Array, spec: AugmentSpec) -> jax.Array:
    """Return stored images resized as networks see them, in [0, 1], not normalised."""
    channels = image.shape[-1]
    plain = dataclasses.replace(spec, mean=(0.0,) * channels, std=(1.0,) * channels)
    return prepare_eval(image, plain)


def _logits_of(
    model: Model, variables: Variables, spec: AugmentSpec, quote: str
) -> LogitsOf:
    def logits_of(image: jax.Array) -> jax.Array:
        seen = standardize(image, spec.mean, spec.std)
        outputs = cast(ModelOutput, model.apply(variables, seen, train=False))
        if quote == ENSEMBLE:
            found = Predictions(outputs.logits, outputs.branch_logits)
            return metrics.ensemble(found)
        return outputs.logits

    return logits_of
