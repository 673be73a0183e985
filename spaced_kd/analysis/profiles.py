"""Curves of loss and accuracy over a distance from the weights, with bands."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.analysis.base import Found, Values
from spaced_kd.analysis.scores import METRICS
from spaced_kd.spread import Spread
from spaced_kd.style import Look

PANEL_INCHES = 2.1

LOG_FROM = 30
"""A loss whose largest value is more than so many times its smallest has a logarithmic
axis, as in the curves of training."""


Profile = Mapping[str, Sequence[Spread]]
"""Metric (of `METRICS`) -> its curve, place by place."""


def over_seeds(
    found: Found,
    network: str,
    curves: Callable[[Values], Mapping[str, Sequence[float | None]]],
) -> dict[str, list[Spread]]:
    """Return a profile of a network's last weights, over seeds.

    Args:
      found: of an analysis.
      network: its name.
      curves: takes metric -> curve out of the values, as long for every seed.
    """

    def spreads(metric: str) -> list[Spread]:
        own = [curves(r.values)[metric] for r in found.last if r.network == network]
        return [Spread.of(column) for column in zip(*own, strict=True)]

    return {metric: spreads(metric) for metric in METRICS}


def numbers(values: Iterable[float | None]) -> list[float]:
    """Return the values with NaN for None."""
    return [math.nan if value is None else value for value in values]


def figure(
    places: Sequence[float],
    profiles: Mapping[str, Profile],
    looks: Mapping[str, Look],
    xlabel: str,
) -> Figure:
    """Draw accuracy above loss, a line and a band a name.

    Args:
      places: distances from the weights.
      profiles: name -> curves.
      looks: name -> how its line looks.
      xlabel: what the distance is.
    """
    names = list(profiles)
    rows = math.ceil(len(names) / style.legend_columns(names))
    height = PANEL_INCHES * len(METRICS) + 0.3 + style.LEGEND_ROW * rows
    drawn = Figure(figsize=(style.WIDTH, height))
    grid = drawn.subplots(len(METRICS), 1, sharex=True)
    for axes, (metric, ylabel) in zip(grid, METRICS.items(), strict=True):
        for name, profile in profiles.items():
            look = looks[name] | {"marker": "o", "markersize": 2.5}
            style.band(axes, places, profile[metric], look)
        axes.set_ylabel(ylabel)
        axes.margins(x=0.02)
    _scale_loss(grid[-1], [profile["loss"] for profile in profiles.values()])
    grid[-1].set_xlabel(xlabel)
    grid[-1].locator_params(axis="x", nbins=6)
    style.legend(drawn, dict(looks), names)
    return drawn


def _scale_loss(axes: Axes, curves: Sequence[Sequence[Spread]]) -> None:
    means = numbers(spread.mean for curve in curves for spread in curve)
    finite = list(filter(math.isfinite, means))
    if finite and max(finite) > LOG_FROM * min(finite) > 0:
        style.logarithmic(axes, max(finite) / min(finite))
