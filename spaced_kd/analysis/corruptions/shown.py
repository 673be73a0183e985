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
from spaced_kd.analysis.base import Column, Drawn, Found, Values
from spaced_kd.analysis.corruptions.options import Options
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
    options = Options(**found.options)
    rows = []
    for severity in options.levels:
        columns = [Column("clean", _clean), *_columns("accuracy", options, severity)]
        rows += found.block(columns, f"{severity}, %")
    for severity in options.levels:
        columns = _columns("relative", options, severity)
        rows += found.block(columns, f"{severity}, % of clean", "")
    titles = [column.title for column in _columns("accuracy", options, 1)]
    titles = ["network", "severity", "clean", *titles]
    return Table(tuple(titles), tuple(rows), _notes(found))


def _clean(values: Values) -> float:
    return values["clean"]


def _columns(kind: str, options: Options, severity: int) -> list[Column]:
    """Return a column for each corruption, and their mean."""
    picks: list[Pick] = [
        lambda values, name=name: values[kind][name][str(severity)]
        for name in options.corruptions
    ]
    titles = [name.replace("_", "\n", 1) for name in options.corruptions]
    columns = [Column(*pair) for pair in zip(titles, picks, strict=True)]
    mean = lambda values: Spread.of([pick(values) for pick in picks]).mean
    return [*columns, Column("mean", mean)]


def _notes(found: Found) -> tuple[str, ...]:
    values, options = found.rows[0].values, Options(**found.options)
    if values["source"] == "official":
        images = (
            "The images are the published corrupted ones; the constants of CIFAR-C and "
            "Tiny-ImageNet-C are mostly milder than the paper's, which are ImageNet-C's"
        )
    else:
        images = (
            f"The images are corrupted by our own code with the constants of "
            f"{options.constants}, seed {options.seed}"
        )
        if "frost" in options.corruptions and not options.frost_dir:
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
    names = Options(**found.options).corruptions
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
    severities = Options(**found.options).levels
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
    options = Options(**found.options)
    names, severities = options.corruptions, options.levels
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
