"""Maps of a loss over a plane, one panel a network, with common levels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from spaced_kd import style
from spaced_kd.analysis.base import Values
from spaced_kd.analysis.profiles import numbers
from spaced_kd.analysis.scores import METRICS

COLUMNS = 2
LEVELS = 13
LEAST = 1e-3
"""Nats; smaller losses are drawn as this one, or levels would crowd around zero."""


def figure(planes: Mapping[str, Values], label: str) -> Figure | None:
    """Draw the loss over the plane around each network.

    Args:
      planes: network -> {"at": [n], "loss": [y][x]}.
      label: of both axes.

    Returns:
      The figure; None without a finite loss. What is not finite stays white.
    """
    losses = {
        name: np.maximum([numbers(row) for row in plane["loss"]], LEAST)
        for name, plane in planes.items()
    }
    known = np.concatenate([loss[np.isfinite(loss)] for loss in losses.values()])
    if not known.size:
        return None
    levels = np.geomspace(known.min(), max(known.max(), 1.01 * known.min()), LEVELS)
    rows = -(-len(planes) // COLUMNS)
    drawn = Figure(figsize=(style.WIDTH, 2.0 * rows + 0.9))
    grid = drawn.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).flat
    for axes, (name, loss) in zip(grid, losses.items(), strict=False):
        _draw(axes, planes[name]["at"], loss, levels)
        axes.set_title(name)
        axes.set_xlabel(label)
        axes.label_outer()
    for axes in drawn.axes[len(planes) :]:
        axes.set_visible(False)
    _explain(drawn, levels)
    return drawn


def _looks(levels: np.ndarray) -> dict[str, Any]:
    return {"cmap": colormaps["viridis"], "norm": LogNorm(levels[0], levels[-1])}


def _draw(axes: Axes, at: Sequence[float], loss: np.ndarray, levels: np.ndarray):
    masked = np.ma.masked_invalid(loss)
    axes.contourf(at, at, masked, levels, extend="both", **_looks(levels))
    axes.contour(at, at, masked, levels, colors="white", linewidths=0.4)
    axes.set_aspect("equal")
    axes.grid(False)


def _explain(drawn: Figure, levels: np.ndarray) -> None:
    bar = drawn.colorbar(
        ScalarMappable(**_looks(levels)),
        ax=list(drawn.axes),
        location="bottom",
        shrink=0.8,
        aspect=40,
        ticks=levels[::3],
        format=FuncFormatter(lambda value, _: f"{value:.2g}"),
    )
    bar.minorticks_off()
    bar.set_label(METRICS["loss"])
