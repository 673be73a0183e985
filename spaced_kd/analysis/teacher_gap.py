"""How far a student is from its teacher: outputs, features, gradients, parameters."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np

from spaced_kd import evaluate, losses, metrics
from spaced_kd.analysis import along, chunks, gradients
from spaced_kd.analysis.base import Analysis, Column, Drawn, Found, Values, taught_by
from spaced_kd.analysis.similarity import compare, linear_cka
from spaced_kd.analysis.subject import Run, Subject, outputs_of
from spaced_kd.config import MethodConfig, StudentConfig
from spaced_kd.data.augment import prepare_eval
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.fields import option
from spaced_kd.models.base import Model
from spaced_kd.parallel import SeedGroup, data_parallel
from spaced_kd.style import Look
from spaced_kd.tables import Table
from spaced_kd.types import Params, Predictions, Split


@dataclasses.dataclass(frozen=True)
class Options:
    """What is looked at."""

    splits: str = option(
        "train,test",
        "images, un-augmented: train, test, or both",
        choices=("train,test", "train", "test"),
    )
    num_examples: int = option(
        2000, "class-balanced examples of each split; 0: all", low=0
    )
    batch_size: int = option(
        0,
        "examples of the batches whose gradients are compared one by one, and that the "
        "device holds at a time; 0: as the run trains",
        low=0,
    )


def parameter_values(student: Params, teacher: Params) -> Values | None:
    """Return how far a student's parameters are from its teacher's.

    Returns:
      distance: Euclidean; relative: that over the teacher's norm; cosine: between both.
      None where the architectures differ.
    """
    if jax.tree.map(np.shape, student) != jax.tree.map(np.shape, teacher):
        return None
    found = compare(student, teacher)
    return {
        "distance": found.distance,
        "relative": found.distance / found.norms[1],
        "cosine": found.cosine,
    }


def output_values(student: jax.Array, teacher: jax.Array, temperature: float) -> Values:
    """Return what `evaluate.measure` leaves out of two networks' logits [N, C].

    Returns:
      soft_kl: mean KL(teacher || student) at the temperature, nats, without T^2;
      confidence: mean of the student's largest probability, percent; confidence_gap:
      the teacher's less that, percentage points.
    """
    own, others = (
        100.0 * float(jax.nn.softmax(logits).max(-1).mean())
        for logits in (student, teacher)
    )
    divergence = losses.kl_divergence(student, teacher, temperature)
    return {
        "soft_kl": float(divergence.mean()),
        "confidence": own,
        "confidence_gap": others - own,
    }


def measure(subject: Subject, options: Options) -> Values | None:
    """Compare a student with its teacher; None for one without, and for the teacher."""
    if subject.teacher is None:
        return None
    values: Values = {
        "parameters": parameter_values(
            subject.variables["params"], subject.teacher.variables["params"]
        )
    }
    for which in options.splits.split(","):
        split = chunks.mixed(_images(subject.run, which, options))
        values[which] = _on_split(subject, subject.teacher, split, options)
    return values


def check(run: Run, options: Options) -> None:
    """Refuse too few images for the classes."""
    for which in options.splits.split(","):
        _images(run, which, options)


def _images(run: Run, which: str, options: Options) -> Split:
    field = "--options.teacher_gap.num_examples"
    return run.split(which, options.num_examples, field)


def _on_split(
    student: Subject, teacher: Subject, split: Split, options: Options
) -> Values:
    run, settings = student.run, cast(StudentConfig, student.settings)
    size = options.batch_size or run.config.data.batch_size
    found, features = _outputs(student, split, size)
    targets, teacher_features = _outputs(teacher, split, size)
    measured = evaluate.measure(found, split.label, targets.logits, settings.quote)
    logits = metrics.quoted(found, settings.quote)
    return {
        **{name: float(measured[name]) for name in _MEASURED},
        **output_values(logits, targets.logits, settings.temperature),
        "cka": linear_cka(features, teacher_features),
        "gradients": _gradients(student, split, size),
    }


def _gradients(student: Subject, split: Split, size: int) -> Values | None:
    """Return `gradients.values_of` batches; None: it was not taught by the teacher."""
    run, teacher = student.run, student.guide
    if teacher is None:
        return None
    losses_of = {f.name: getattr(student.settings, f.name) for f in _LOSS_FIELDS}
    # Type checkers do not see that flax makes models hashable.
    models: Any = student.model, teacher.model
    program = _gradient_program(*models, MethodConfig(**losses_of), run.spec, run.group)
    both = student.variables, teacher.variables
    return gradients.values_of(
        (program(both, chunk), chunk.weight)
        for chunk in chunks.of(split, size, run.group)
    )


_LOSS_FIELDS = dataclasses.fields(MethodConfig)
_MEASURED = "acc1", "teacher_acc1", "teacher_kl", "teacher_agreement"


def _outputs(
    subject: Subject, split: Split, size: int
) -> tuple[Predictions, np.ndarray]:
    """Return what a network says of a split, and its features [N, D]."""
    run, count = subject.run, len(split.label)
    model: Any = subject.model
    program = _output_program(model, run.spec, run.group)
    parts = [
        jax.tree.map(np.asarray, program(subject.variables, chunk))
        for chunk in chunks.of(split, size, run.group)
    ]
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)


# Kept, so that seeds, snapshots and students that differ in weights alone share them.
@functools.lru_cache(maxsize=16)
def _output_program(model: Model, spec: AugmentSpec, group: SeedGroup) -> Callable:
    def outputs(variables, chunk):
        found = outputs_of(model, variables, prepare_eval(chunk.image, spec))
        predicted = Predictions(found.logits, found.branch_logits)
        return jax.tree.map(group.axis.whole, (predicted, found.features))

    return data_parallel(outputs, group.devices, in_axes=(None, 0))


@functools.lru_cache(maxsize=16)
def _gradient_program(
    student: Model,
    teacher: Model,
    config: MethodConfig,
    spec: AugmentSpec,
    group: SeedGroup,
) -> Callable:
    return chunks.program(gradients.sums_of(student, teacher, config, spec), group)


_NOTES = (
    "KL: of the teacher's answers from the student's, KL(teacher || student), at "
    "temperature 1. Same answer: images with the same top-1 class.",
    "Gradients' cosine: of the means over all images, of the cross-entropy and of the "
    "soft loss (with T^2 where the student has that), by the student's parameters.",
    "Distance: Euclidean, of the parameters, as a multiple of the teacher's norm; only "
    "where both have one architecture. Differences are paired by seed.",
    "analysis.json has more: KL at the student's own temperature, confidence, the "
    "gradients' norms and their cosine batch by batch.",
)


def table(found: Found) -> Table | None:
    """Return the gaps of the last weights, and differences to the references."""
    if not found.rows:
        return None
    splits = found.options["splits"].split(",")
    rows = [row for which in splits for row in found.block(_columns(which), which)]
    titles = (column.title for column in _columns(splits[0]))
    return Table(("student", "images", *titles), tuple(rows), _NOTES)


def _columns(which: str) -> Sequence[Column]:
    """Return what is shown of a split; the distance is the same for each."""
    return (
        Column("KL\nnats", along.at(which, "teacher_kl"), ".3f"),
        Column("same\nanswer, %", along.at(which, "teacher_agreement"), ".1f"),
        Column("features'\nCKA", along.at(which, "cka"), ".3f"),
        Column("gradients'\ncosine", along.at(which, "gradients", "cosine"), ".2f"),
        Column("parameters'\ndistance", along.at("parameters", "relative"), ".2f"),
    )


def figures(found: Found, looks: Mapping[str, Look]) -> Sequence[Drawn]:
    """Draw the gaps over the run, or of the last weights; a panel for each split."""

    def drawn(stem: str, caption: str, label: str, *path: str) -> Drawn:
        splits = found.options["splits"].split(",")
        panels = {_IMAGES[which]: along.at(which, *path) for which in splits}
        figure = along.figure(found, looks, panels, label)
        return f"teacher_gap_{stem}", caption, figure

    distance = {"": along.at("parameters", "relative")}
    return [
        drawn("kl", "KL(teacher || student)", "nats", "teacher_kl"),
        drawn("agreement", "Images with the same top-1 answer", "%",
              "teacher_agreement"),
        drawn("confidence", "Mean confidence, teacher minus student",
              "percentage points", "confidence_gap"),
        drawn("features", "Linear CKA of the features, student and teacher", "CKA",
              "cka"),
        drawn("gradients", "Cosine of the gradients of cross-entropy and soft loss",
              "cosine", "gradients", "cosine"),
        drawn("norms", "Norm of the soft loss's gradient over the cross-entropy's",
              "ratio", "gradients", "norm_ratio"),
        ("teacher_gap_parameters", "Distance of the parameters from the teacher's",
         along.figure(found, looks, distance, "multiple of the teacher's norm")),
    ]  # fmt: skip


_IMAGES = {"train": "training images, un-augmented", "test": "test images"}


ANALYSIS = Analysis(
    title="How far students are from their teacher",
    about=(
        "Every student against the teacher that stood beside it, on un-augmented "
        "images and in eval mode: answers, the features that the last layer reads "
        "(linear centred kernel alignment, which is too high where images are not many "
        "more than features), what labels and teacher ask of the student's parameters, "
        "and the parameters themselves. The teacher asks by the gradient of the "
        "configured soft loss, whatever the method; feature terms left out. Students "
        "that learn without the teacher have no such gradient."
    ),
    options=Options,
    measure=measure,
    table=table,
    figures=figures,
    check=check,
    beside=taught_by,
)
