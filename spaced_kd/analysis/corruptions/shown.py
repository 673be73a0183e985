"""Table and figures of the accuracy on corrupted images."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from spaced_kd import style
from spaced_kd.analysis.base import Drawn, Found, Values
from spaced_kd.analysis.corruptions.images import chosen_names, chosen_severities
from spaced_kd.spread import Spread
from spaced_kd.style import Look
from spaced_kd.tables import Table

_COLUMNS = 2  # panels side by side
_PICTURE = 0.9  # inches

Pick = Callable[[Values], float | None]


def table(found: Found) -> Table | None:
    """Return accuracies by severity as the paper's tables have them, then relative."""
    if not found.rows:
        return None
    names = chosen_names(found.options)
    rows = []
    for severity in chosen_severities(found.options):
        picks = [_clean, *_picks("accuracy", names, severity)]
        rows += _block(found, f"{severity}, %", picks=picks)
    for severity in chosen_severities(found.options):
        picks = _picks("relative", names, severity)
        rows += _block(found, f"{severity}, % of clean", "", picks=picks)
    titles = ["severity", "network", "clean", *map(_title, names), "mean"]
    return Table(tuple(titles), tuple(rows), _notes(found))


def _clean(values: Values) -> float:
    return values["clean"]


def _picks(kind: str, names: Sequence[str], severity: int) -> list[Pick]:
    """Return what the columns show: each corruption, and their mean."""
    columns: list[Pick] = [
        lambda values, name=name: values[kind][name][str(severity)] for name in names
    ]
    return [*columns, lambda values: Spread.of([pick(values) for pick in columns]).mean]


def _block(found: Found, *labels: str, picks: Sequence[Pick]) -> list[tuple[str, ...]]:
    """Return a row of each network, then of each difference to a reference.

    Args:
      found: what was measured.
      *labels: the first column, then any between the network and the values.
      picks: a value for each column that is left.
    """
    first, *rest = labels
    rows = [
        (first, network, *rest, *(str(found.spread(network, pick)) for pick in picks))
        for network in found.networks
    ]
    for other in found.references:
        for network in found.networks:
            if network not in (other, "teacher"):
                apart = (str(found.difference(network, other, p)) for p in picks)
                rows.append((first, f"{network} - {other}", *rest, *apart))
    return rows


def _title(name: str) -> str:
    return name.replace("_", "\n", 1)


def _notes(found: Found) -> tuple[str, ...]:
    values, options = found.rows[0].values, found.options
    if values["source"] == "official":
        images = (
            "The images are the published corrupted ones; the constants of CIFAR-C and "
            "Tiny-ImageNet-C are mostly milder than the paper's, which are ImageNet-C's"
        )
    else:
        images = (
            f"The images are corrupted by our own code with the constants of "
            f"{options['constants']}, seed {options['seed']}"
        )
        if "frost" in chosen_names(options) and not options["frost_dir"]:
            images += "; frost has pictures of our own, not the published photographs"
    return (
        f"{images}; {values['examples']} test images.",
        "Mean ± sample standard deviation over seeds; differences are paired by seed, "
        "with Student's 95 % interval of their mean where there are 3 seeds or more.",
    )


def figures(found: Found, looks: Mapping[str, Look]) -> Sequence[Drawn]:
    """Return accuracy over severity, and the pictures (paper Figure 6)."""
    return [
        (
            "corruptions_severity",
            "Accuracy over severity; 0 is the clean image. Bars: s.d. over seeds.",
            _courses(found, looks) if found.rows else None,
        ),
        (
            "corruptions_pictures",
            "One test image, as corrupted at each severity (as paper Figure 6).",
            _grid(found) if found.once else None,
        ),
    ]


def _courses(found: Found, looks: Mapping[str, Look]) -> Figure:
    names = chosen_names(found.options)
    networks = found.networks
    height = math.ceil(len(names) / _COLUMNS)
    legend = math.ceil(len(networks) / style.legend_columns(networks))
    figure = Figure(
        figsize=(style.WIDTH, 1.6 * height + 0.4 + style.LEGEND_ROW * legend)
    )
    grid = figure.subplots(height, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        _course(axes, found, name, looks)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    # The lowest of each column, which a hidden panel may lie below.
    for axes in grid.flat[: len(names)][-_COLUMNS:]:
        axes.set_xlabel("severity")
        axes.tick_params(labelbottom=True)
    figure.supylabel("top-1 accuracy, %", fontsize=9.5, color="#333333")
    style.legend(figure, dict(looks), networks)
    return figure


def _course(axes: Axes, found: Found, name: str, looks: Mapping[str, Look]) -> None:
    severities = chosen_severities(found.options)
    picks: list[Pick] = [
        _clean,
        *(lambda values, s=str(s): values["accuracy"][name][s] for s in severities),
    ]
    for network in found.networks:
        spreads = [found.spread(network, pick) for pick in picks]
        axes.errorbar(
            [0, *severities],
            [math.nan if s.mean is None else s.mean for s in spreads],
            yerr=[s.std or 0.0 for s in spreads],
            marker="o", markersize=3.0, capsize=2.0, **looks[network],
        )  # fmt: skip
    axes.set_title(name.replace("_", " "))
    axes.set_xticks([0, *severities])


def _grid(found: Found) -> Figure:
    """Draw a row of pictures for each corruption: clean, then by severity."""
    names, severities = chosen_names(found.options), chosen_severities(found.options)
    pictures = found.once["pictures"]
    columns = [""] * ("clean" in pictures) + [str(s) for s in severities]
    size = (_PICTURE * len(columns) + 0.6, _PICTURE * len(names) + 0.3)
    figure = Figure(figsize=size)
    grid = figure.subplots(len(names), len(columns), squeeze=False)
    for name, row in zip(names, grid, strict=True):
        row[0].set_ylabel(name.replace("_", "\n", 1), fontsize=8.0)
        for column, axes in zip(columns, row, strict=True):
            content = pictures[f"{name}/{column}" if column else "clean"]
            image = Image.open(io.BytesIO(base64.b64decode(content)))
            axes.imshow(
                np.asarray(image), cmap="gray", vmin=0, vmax=255, interpolation="none"
            )
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    for column, axes in zip(columns, grid[0], strict=True):
        axes.set_title(f"severity {column}" if column else "clean", fontsize=8.0)
    return figure
