"""Theorem 4.4 on a run's networks: the trace in its two parts, and the teacher's gap.

The networks have C outputs and learned by cross-entropy; the theorem is about one
output and squared errors. What is measured is therefore the paper's risk of these
networks, not their training loss: half squared errors of all classes' outputs, added
up, against the one-hot label and the teacher's outputs (`squared_risk`).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spaced_kd.analysis import chunks, squared_risk, theorem_toy, theorem_view
from spaced_kd.analysis.base import Analysis, Values
from spaced_kd.analysis.subject import Run, Subject, outputs_of
from spaced_kd.data.augment import prepare_eval
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.fields import option
from spaced_kd.models.base import Model
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import Params, Split, Variables

OUTPUTS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "probabilities": functools.partial(jax.nn.softmax, axis=-1),
    "logits": lambda logits: logits,
}
"""What the squared errors are of."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Of the analysis "theorem"."""

    outputs: str = option(
        "probabilities",
        "what is compared with one-hot labels and with the teacher: probabilities, "
        "which can equal labels as the proof assumes, or logits",
        choices=tuple(OUTPUTS),
    )
    alpha: float = option(
        0.3, "weight of the teacher in the risk (paper 5.1)", above=0.0, high=1.0
    )
    split: str = option("train", "train or test images", choices=("train", "test"))
    num_examples: int = option(
        500, "images of the split, class-balanced; 0: all", low=0
    )
    num_probes: int = option(30, "random probes of the trace", low=2)
    chunk_examples: int = option(100, "images at a time, for memory", low=1)
    seed: int = option(0, "of the probes", low=0)
    toy_seeds: int = option(
        64, "seeds of the analytic cases; below 2: leave them out", low=0
    )


def measure(subject: Subject, options: Options) -> Values:
    """Return the trace's parts with standard errors over probes, and the gap.

    Returns:
      "gauss_newton", "residual" and "trace", their sum, each with "..._error" (summed
      over classes, mean over examples); "identity_error": how far one probe's v'Hv of
      the risk is from the sum of its parts, relative to the larger part;
      "absolute_beta": mean |beta| over examples and classes. Of a network with a
      teacher, and of a teacher, also "teacher_step", "gap" (u, Def. 4.2, against the
      run's last teacher) and "unlinearised_gap" (mean |g* - g|), means over examples
      and classes.
    """
    split = _images(subject.run, options)
    pieces = list(chunks.of(split, options.chunk_examples, subject.run.group))
    teacher = subject.guide
    size = {"num_examples": len(split.label)}
    found = size | _trace(subject, teacher, options, pieces, len(split.label))
    looked_at = _looked_at(subject)
    if looked_at is not None:
        found |= _gap(looked_at, options, pieces, len(split.label))
    return found


def _images(run: Run, options: Options) -> Split:
    field = "--options.theorem.num_examples"
    return run.split(options.split, options.num_examples, field)


def _looked_at(subject: Subject) -> Subject | None:
    """Return the teacher whose gap is a network's; None: it has no part of one."""
    return subject if subject.name == "teacher" else subject.guide


def _trace(
    subject: Subject,
    teacher: Subject | None,
    options: Options,
    pieces: list[chunks.Chunk],
    count: int,
) -> Values:
    alpha = options.alpha if teacher else 0.0
    # Without a teacher its outputs have weight 0; the network's own stand in.
    guide = teacher or subject
    run, models = subject.run, (_hashed(subject), _hashed(guide))
    program = _trace_program(run.spec, run.group, *models, options.outputs, alpha)
    keys = jax.random.split(jax.random.key(options.seed), options.num_probes)
    args = subject.variables, guide.variables, keys
    parts, whole, absolute = _total(program, args, pieces)
    samples = {k: np.asarray(v) / count for k, v in parts._asdict().items()}
    samples["trace"] = samples["gauss_newton"] + samples["residual"]
    found = {}
    for name, values in samples.items():
        found[name] = float(values.mean())
        found[f"{name}_error"] = float(values.std(ddof=1) / len(values) ** 0.5)
    first = {name: values[0] for name, values in samples.items()}
    scale = max(abs(first["gauss_newton"]), abs(first["residual"]))
    # A dead network, whose outputs no weight moves, has parts of exactly 0.
    error = abs(float(whole) / count - first["trace"])
    found["identity_error"] = error / scale if scale else error
    found["absolute_beta"] = float(absolute) / count
    return found


def _gap(
    teacher: Subject, options: Options, pieces: list[chunks.Chunk], count: int
) -> Values:
    run = teacher.run
    final = run.subject("teacher", teacher.seed)
    program = _gap_program(run.spec, run.group, _hashed(teacher), options.outputs)
    linear, whole = _total(program, (final.variables, teacher.variables), pieces)
    return {
        "teacher_step": teacher.step,
        "gap": float(linear) / count,
        "unlinearised_gap": float(whole) / count,
    }


def _total(program: Callable, args: Any, pieces: list[chunks.Chunk]) -> Any:
    """Add up the chunks' sums in float64."""
    sums = [
        jax.tree.map(lambda x: np.asarray(x, np.float64), program(args, piece))
        for piece in pieces
    ]
    return jax.tree.map(lambda *leaves: np.sum(leaves, 0), *sums)


def _hashed(subject: Subject) -> Any:
    """Return the architecture; type checkers do not know that it can be hashed."""
    return subject.model


def _outputs(
    model: Model, variables: Variables, params: Params, image: jax.Array, kind: str
) -> jax.Array:
    """Return [b, C], in eval mode, with `params` in place of the network's own."""
    outputs = outputs_of(model, {**variables, "params": params}, image)
    return OUTPUTS[kind](outputs.logits)


@functools.cache
def _trace_program(
    spec: AugmentSpec,
    group: SeedGroup,
    model: Model,
    guide: Model,
    kind: str,
    alpha: float,
):
    """Compile (variables, the teacher's, keys), chunk -> sums over the chunk.

    `squared_risk.Parts` [probes], the first probe's v'Hv of the risk itself, and |beta|
    averaged over classes.
    """

    def sums(args, chunk: chunks.Chunk):
        variables, taught_by, keys = args
        image = prepare_eval(chunk.image, spec)
        params = variables["params"]
        # Padding weighs nothing: f, y and g all vanish there.
        mask = chunk.weight[:, None]
        outputs = lambda p: mask * _outputs(model, variables, p, image, kind)
        given = mask * _outputs(guide, taught_by, taught_by["params"], image, kind)
        labels = mask * jax.nn.one_hot(chunk.label, given.shape[-1])
        betas = squared_risk.beta(outputs(params), labels, given, alpha)

        def probe(key):
            vector = squared_risk.signs(params, key)
            return squared_risk.probed_parts(outputs, params, betas, vector)

        first, targets = squared_risk.signs(params, keys[0]), (labels, given)
        whole = squared_risk.probed_whole(outputs, params, targets, alpha, first)
        return lax.map(probe, keys), whole, jnp.abs(betas).mean(-1).sum()

    return chunks.program(sums, group)


@functools.cache
def _gap_program(spec: AugmentSpec, group: SeedGroup, model: Model, kind: str):
    """Compile (final variables, earlier variables), chunk -> summed gaps of outputs.

    The linear one is the derivative at the final weights, with the final averages of
    BatchNorm; in the other each network has its own.
    """

    def sums(args, chunk: chunks.Chunk):
        final, before = args
        image = prepare_eval(chunk.image, spec)
        outputs = lambda variables, p: _outputs(model, variables, p, image, kind)
        linear = squared_risk.linear_gap(
            lambda p: outputs(final, p), final["params"], before["params"]
        )
        whole = outputs(final, final["params"]) - outputs(before, before["params"])
        weighed = lambda gap: jnp.sum(chunk.weight * jnp.abs(gap).mean(-1))
        return weighed(linear), weighed(whole)

    return chunks.program(sums, group)


def check(run: Run, options: Options) -> None:
    """Refuse too few images for the classes."""
    _images(run, options)


def beside(subject: Subject, options: Options) -> Sequence[Subject]:
    """Return the teacher of the gap and the run's last one, which it is against."""
    del options
    teacher = _looked_at(subject)
    if teacher is None:
        return ()
    return teacher, subject.run.subject("teacher", subject.seed)


def once(run: Run, options: Options) -> Values:
    """Return the analytic cases with this alpha, by name."""
    del run
    if options.toy_seeds < 2:
        return {}
    return {
        name: theorem_toy.measured(name, options.alpha, options.toy_seeds)
        for name in theorem_toy.CASES
    }


ANALYSIS = Analysis(
    title="Theorem 4.4: the Hessian's trace and the teacher's gap",
    about=(
        "The risk of the paper's theory, not the training loss: half squared errors of "
        "all classes' outputs against the one-hot label (weight 1 - alpha) and the "
        "teacher's outputs (alpha), for labels alone where a network has no teacher. "
        "Its Hessian's trace is Gauss-Newton, mean sum |grad f|^2, plus residual, mean "
        "sum beta tr(Hess f); the theorem compares students by the latter alone. Gap: "
        "u of the teacher that the student had then, against the run's last teacher "
        "(Definition 4.2). Un-augmented images, eval mode, Hutchinson with random "
        "signs; all networks meet the same probes."
    ),
    options=Options,
    measure=measure,
    table=theorem_view.table,
    figures=theorem_view.figures,
    once=once,
    check=check,
    beside=beside,
)
