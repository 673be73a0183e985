"""Whether networks are as often right as they are confident, on test images."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import special

from spaced_kd import metrics, style
from spaced_kd.analysis import along, reliability
from spaced_kd.analysis.base import Analysis, Column, Drawn, Found, Values
from spaced_kd.analysis.reliability import Bins
from spaced_kd.analysis.subject import Run, Subject
from spaced_kd.fields import option
from spaced_kd.style import Look
from spaced_kd.tables import Table
from spaced_kd.types import Split


@dataclasses.dataclass(frozen=True)
class Options:
    """What is scored, and how."""

    num_examples: int = option(0, "class-balanced test images; 0: all", low=0)
    num_bins: int = option(15, "bins of the confidence (Guo et al. 2017: 15)", low=1)
    seed: int = option(
        0, "which half of the images the temperature is fitted on", low=0
    )


def measure(subject: Subject, options: Options) -> Values:
    """Score a network's probabilities; see `scores`."""
    split = _images(subject.run, options)
    found = subject.predict(subject.variables, split)
    logits = np.asarray(metrics.quoted(found, subject.quote))
    return scores(logits, split.label, options)


def check(run: Run, options: Options) -> None:
    """Refuse too few images for the classes."""
    _images(run, options)


def _images(run: Run, options: Options) -> Split:
    field = "--options.calibration.num_examples"
    return run.split("test", options.num_examples, field)


def scores(logits: np.ndarray, labels: np.ndarray, options: Options) -> Values:
    """Return how good probabilities are.

    Args:
      logits: [N, C], N at least 2.
      labels: [N] integers in [0, C).
      options: as of the analysis.

    Returns:
      acc1, confidence: percent; nll: nats; brier: in [0, 2]; ece, adaptive_ece:
      calibration errors over bins of equal width and of equally many examples, percent;
      bins: those of equal width, sums of `reliability.Bins`; scaling: the temperature
      fitted to one half of the examples, and nll and ece of the other half before and
      after (scaled_) the logits are divided by it.
    """
    measured = metrics.classification(jnp.asarray(logits), jnp.asarray(labels))
    confidence, correct = _answers(logits, labels)
    bins = reliability.equal_width(confidence, correct, options.num_bins)
    ranked = reliability.equal_mass(confidence, correct, options.num_bins)
    return {
        "acc1": float(measured["acc1"]),
        "nll": float(measured["loss"]),
        "confidence": 100.0 * float(confidence.mean()),
        "brier": reliability.brier(logits, labels),
        "ece": 100.0 * bins.error(),
        "adaptive_ece": 100.0 * ranked.error(),
        "bins": {name: list(map(float, sums)) for name, sums in bins._asdict().items()},
        "scaling": _scaling(logits, labels, options),
    }


def _answers(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence of the answers given, and whether they are right; [N]."""
    probs = special.softmax(np.asarray(logits, np.float64), axis=-1)
    correct = metrics.is_correct(jnp.asarray(logits), jnp.asarray(labels))
    return probs.max(-1), np.asarray(correct)


def _scaling(logits: np.ndarray, labels: np.ndarray, options: Options) -> Values:
    order = np.random.default_rng(options.seed).permutation(len(labels))
    fit, rest = np.array_split(order, 2)
    temperature = reliability.best_temperature(logits[fit], labels[fit])

    def scored(name: str, own: np.ndarray) -> Values:
        bins = reliability.equal_width(*_answers(own, labels[rest]), options.num_bins)
        nll = reliability.negative_log_likelihood(own, labels[rest])
        return {f"{name}nll": nll, f"{name}ece": 100.0 * bins.error()}

    before, after = (
        scored("", logits[rest]),
        scored("scaled_", logits[rest] / temperature),
    )
    return {"temperature": temperature, **before, **after}


_COLUMNS = (
    Column("NLL\nnats", along.at("nll"), ".3f"),
    Column("Brier\nscore", along.at("brier"), ".3f"),
    Column("ECE\n%", along.at("ece"), ".2f"),
    Column("temper-\nature", along.at("scaling", "temperature"), ".2f"),
    Column("ECE\nscaled, %", along.at("scaling", "scaled_ece"), ".2f"),
)

_NOTES = (
    "NLL: mean negative log-likelihood of the labels. Brier: mean over the images of "
    "the squared distance of the probabilities from the label, summed over classes. "
    "ECE: expected calibration error, of bins of equal width.",
    "Temperature: what the logits are divided by to be calibrated, fitted on one half "
    "of the images, the same for every network. ECE scaled: of the other half after "
    "that. Differences are paired by seed.",
    "analysis.json has more: top-1, confidence, the adaptive ECE (bins of equally many "
    "images), NLL and ECE of the other half before and after.",
)


def table(found: Found) -> Table | None:
    """Return the scores of the last weights, and differences to the references."""
    if not found.rows:
        return None
    titles = ("network", *(column.title for column in _COLUMNS))
    return Table(titles, tuple(found.block(_COLUMNS)), _NOTES)


def figures(found: Found, looks: Mapping[str, Look]) -> Sequence[Drawn]:
    """Draw a reliability diagram of every network, and scores over the run."""
    scored = (
        ("ece", "Expected calibration error", "%"),
        ("nll", "Negative log-likelihood", "nats"),
        ("brier", "Brier score", "Brier score"),
    )
    caption = (
        "Accuracy (bars) at each confidence, all seeds; grey: share of the images; "
        "dashed: as often right as confident"
    )
    return [
        ("calibration_reliability", caption, reliability_figure(found, looks)),
        *(
            (
                f"calibration_{name}",
                title,
                along.figure(found, looks, {"": along.at(name)}, label),
            )
            for name, title, label in scored
        ),
    ]


def reliability_figure(found: Found, looks: Mapping[str, Look]) -> Figure | None:
    """Draw a diagram for each network, of its last weights and all seeds together.

    Returns:
      The figure; None without networks.
    """
    names = found.networks
    if not names:
        return None
    rows = math.ceil(len(names) / 2)
    figure = Figure(figsize=(style.WIDTH, 2.5 * rows + 0.2))
    grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        own = [row.values["bins"] for row in found.last if row.network == name]
        bins = Bins(*(np.sum([one[key] for one in own], 0) for key in Bins._fields))
        _draw_bins(axes, bins, looks[name])
        # As large as the panel's width allows.
        size = min(9.5, 240 / len(name))
        error = found.spread(name, along.at("ece"))
        axes.set_title(f"{name}\nECE {error} %", fontsize=size)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    figure.supxlabel("confidence", fontsize=9.5, color="#333333")
    figure.supylabel("accuracy", fontsize=9.5, color="#333333")
    return figure


def _draw_bins(axes: Axes, bins: Bins, look: Look) -> None:
    edges = np.linspace(0.0, 1.0, len(bins.count) + 1)
    accuracy = bins.correct / np.maximum(bins.count, 1)
    axes.bar(
        edges[:-1], accuracy, width=edges[1], align="edge", color=look["color"],
        alpha=0.55, edgecolor="white", linewidth=0.5,
    )  # fmt: skip
    axes.stairs(bins.count / bins.count.sum(), edges, color="#777777", linewidth=1.0)
    axes.plot([0, 1], [0, 1], color="#333333", linewidth=0.9, linestyle=(0, (4, 2)))
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1))


ANALYSIS = Analysis(
    title="Calibration",
    about=(
        "Whether networks are as often right as they are confident, the confidence "
        "being the largest probability: on test images, in eval mode, teacher and "
        "students alike."
    ),
    options=Options,
    measure=measure,
    table=table,
    figures=figures,
    check=check,
)
