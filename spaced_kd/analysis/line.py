"""Loss and accuracy on the straight line between two students.

theta(t) = (1 - t) a + t b. A line without a barrier says that both lie in one basin
(Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML
2020); beyond the ends it shows how each basin goes on.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.analysis import batch_stats, chunks, pairs, profiles, scores
from spaced_kd.analysis.base import Analysis, Drawn, Found, Values
from spaced_kd.analysis.scores import METRICS
from spaced_kd.analysis.subject import Run, Subject
from spaced_kd.fields import option
from spaced_kd.style import Look
from spaced_kd.tables import Table
from spaced_kd.types import Split, Variables

FIELD = "--options.line.pairs"
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Options:
    """Which lines, and on how many images."""

    pairs: str = option(
        "",
        "networks a-b, separated by commas, both of one architecture; empty: every "
        "student with the first of config.reference that the run has",
    )
    intervals: int = option(10, "equal steps from the one student to the other", low=1)
    beyond: float = option(
        0.2, "how far the line goes on beyond both, in distances between them", low=0.0
    )
    statistics: str = option(
        "recomputed",
        "BatchNorm's statistics at each place: recomputed (one pass over the training "
        "images) or interpolated like the weights, which is wrong between two networks",
        choices=("recomputed", "interpolated"),
    )
    num_train_examples: int = option(
        1000, "class-balanced training images, un-augmented; 0: all", low=0
    )
    num_test_examples: int = option(1000, "class-balanced test images; 0: all", low=0)
    seed: int = option(0, "of the batches that statistics are computed of", low=0)

    def __post_init__(self):
        """Refuse what are no pairs, before anything is measured."""
        pairs.named(self.pairs, FIELD)


def places(intervals: int, beyond: float) -> list[float]:
    """Return t in steps of 1 / intervals; 0, 1 and both ends are always among them.

    Args:
      intervals: from 0 to 1.
      beyond: the ends are -beyond and 1 + beyond; the last step may be shorter.
    """
    whole = math.floor(beyond * intervals)
    steps = [k / intervals for k in range(-whole, intervals + whole + 1)]
    rest = beyond - whole / intervals > 1e-9  # More than what floats round to.
    return [-beyond] * rest + steps + [1 + beyond] * rest


def barrier(at: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Return by how much a curve rises most above the straight line of its ends.

    Args:
      at: t; with 0 and 1.
      values: there; only those of 0 <= t <= 1 count.

    Returns:
      At least 0; None where a value between is missing.
    """
    t, found = np.array(at), np.array(profiles.numbers(values))
    inside = (t >= 0) & (t <= 1)
    t, found = t[inside], found[inside]
    return scores.finite(np.max(found - ((1 - t) * found[0] + t * found[-1])))


def measure(subject: Subject, options: Options) -> Values | None:
    """Return the lines from a student to others of its repetition; see `ANALYSIS`.

    None for one that no line begins at, and for weights other than the last ones.
    """
    ends = beside(subject, options)
    if not ends:
        return None
    images = _images(subject.run, options)
    # Where a data set is sorted by class, batches in its order have odd statistics.
    images["train"] = chunks.mixed(images["train"], options.seed)
    return {end.name: along(subject, end, images, options) for end in ends}


def beside(subject: Subject, options: Options) -> list[Subject]:
    """Return the networks at the other ends of its lines; see `measure` for none."""
    run, seed = subject.run, subject.seed
    names = pairs.others(run, subject.name, options.pairs, FIELD)
    if not names or subject.step < run.last_step(subject.name, seed):
        return []
    return [run.subject(name, seed) for name in names]


def check(run: Run, options: Options) -> None:
    """Look for the pairs in the run, and read the images.

    Raises:
      ConfigError: pairs that the run does not have, too few images for the classes.
      DataError: an image that cannot be read.
    """
    pairs.check(run, options.pairs, FIELD)
    _images(run, options)


def _images(run: Run, options: Options) -> dict[str, Split]:
    counts = {"train": options.num_train_examples, "test": options.num_test_examples}
    return {
        name: run.split(name, count, f"--options.line.num_{name}_examples")
        for name, count in counts.items()
    }


def along(
    first: Subject, second: Subject, images: Mapping[str, Split], options: Options
) -> Values:
    """Return {"at": t, "train" and "test": {"loss": [...], "acc1": [...]}}.

    Args:
      first: where t is 0.
      second: where t is 1; of the same architecture.
      images: "train", of which also statistics are computed, in its order, and "test".
      options: of the analysis.
    """
    at = places(options.intervals, options.beyond)
    ends = first.run.group.put([dict(end.variables) for end in (first, second)])
    found = []
    for t in at:
        variables = _between(*ends, t)
        if options.statistics == "recomputed":
            size = first.run.config.data.batch_size
            params = variables["params"]
            stats = batch_stats.estimated(first, params, images["train"], size)
            variables = {"params": params, "batch_stats": stats}
        found.append({n: scores.of(first, variables, images[n]) for n in SPLITS})
    line: Values = {"at": at}
    for name in SPLITS:
        line[name] = {m: [place[name][m] for place in found] for m in METRICS}
    return line


@jax.jit
def _between(first: Variables, second: Variables, t: float) -> Variables:
    """Return (1 - t) first + t second; variances, which may not be negative, from 0."""

    def mixed(path, a, b):
        value = (1 - t) * a + t * b
        return jnp.maximum(value, 0) if path[-1].key == "var" else value

    return jax.tree_util.tree_map_with_path(mixed, first, second)


def _lines(found: Found) -> list[tuple[str, str]]:
    return [
        (name, other)
        for name in found.networks
        for other in next(r.values for r in found.last if r.network == name)
    ]


def table(found: Found) -> Table | None:
    """Return the barriers of loss and accuracy on every line; None without lines."""
    if not found.rows:
        return None
    rows = []
    for name, other in _lines(found):
        for split in SPLITS:
            columns = [_barrier(other, split, metric, s) for metric, s in _RISES]
            shown = (str(found.spread(name, column)) for column in columns)
            rows.append((f"{name} to {other}", split, *shown))
    titles = ("line", "images", "barrier\nloss, nats", "barrier\naccuracy, points")
    notes = (
        "Barrier: how far the loss rises most above, or the accuracy falls below, the "
        "straight line between its values at the two ends; 0: none. Means and standard "
        "deviations are over seeds.",
        *(_origin(found, *pair) for pair in _lines(found)),
    )
    return Table(titles, tuple(rows), notes)


_RISES = (("loss", 1), ("acc1", -1))
"""Metrics, and whether a barrier is where they rise or fall."""


def _barrier(other: str, split: str, metric: str, sign: int):
    def height(values: Values) -> float | None:
        line = values[other]
        signed = [None if v is None else sign * v for v in line[split][metric]]
        return barrier(line["at"], signed)

    return height


def _origin(found: Found, name: str, other: str) -> str:
    """Return with which initial weights the two began.

    Students of one architecture share theirs, or the teacher's: `init` tells which.
    """
    inits = {"teacher": {"init": "same"}} | dict(found.config["students"])
    same = inits[name]["init"] == inits[other]["init"]
    which = "the same" if same else "different"
    return f"{name} to {other}: from {which} initial weights."


def figures(found: Found, looks: Mapping[str, Look]) -> list[Drawn]:
    """Draw accuracy and loss along every line, training and test images apart."""
    del looks  # Of networks; several lines may begin at one.
    return [
        (
            f"line_{split}",
            "Accuracy and loss on the straight line between two networks of a "
            f"repetition, {split} images; bands: one standard deviation over seeds",
            _figure(found, split),
        )
        for split in SPLITS
    ]


def _figure(found: Found, split: str) -> Figure | None:
    bands, at = {}, []
    for name, other in _lines(found):
        take = lambda values, other=other: values[other][split]
        bands[f"{name} to {other}"] = profiles.over_seeds(found, name, take)
        at = next(r.values for r in found.last if r.network == name)[other]["at"]
    xlabel = "t: 0 the first network, 1 the second"
    looks = style.line_looks(bands)
    return profiles.figure(at, bands, looks, xlabel) if bands else None


ANALYSIS = Analysis(
    title="Lines between students",
    about=(
        "Loss and accuracy of the weights (1 - t) a + t b on the straight line between "
        "two networks of one architecture and one repetition, in eval mode. "
        "BatchNorm's statistics of the two would not fit the weights between them: "
        "they are computed again at each place, the two ends included, by one pass in "
        "train mode over the training images that are shown (un-augmented, in batches "
        "of the size of training), unless statistics=interpolated. Of the last weights "
        "alone."
    ),
    options=Options,
    measure=measure,
    table=table,
    figures=figures,
    check=check,
    beside=beside,
)
