"""Curves of loss and accuracy over a distance from the weights, with bands."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

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


class Band(NamedTuple):
    """A curve and its standard deviation; NaN where there is no value."""

    mean: list[float]
    std: list[float]


Profile = Mapping[str, Band]
"""Metric (of `METRICS`) -> its curve."""


def over_seeds(
    found: Found,
    network: str,
    curves: Callable[[Values], Mapping[str, Sequence[float | None]]],
) -> dict[str, Band]:
    """Return mean and standard deviation, 0 for one seed, of a network's last weights.

    Args:
      found: of an analysis.
      network: its name.
      curves: takes metric -> curve out of the values, as long for every seed.
    """

    def band(metric: str) -> Band:
        own = [curves(r.values)[metric] for r in found.last if r.network == network]
        spreads = [Spread.of(column) for column in zip(*own, strict=True)]
        std = [0.0 if s.std is None else s.std for s in spreads]
        return Band(numbers(s.mean for s in spreads), std)

    return {metric: band(metric) for metric in METRICS}


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
            _draw(axes, places, profile[metric], looks[name])
        axes.set_ylabel(ylabel)
        axes.margins(x=0.02)
    _scale_loss(grid[-1], [profile["loss"] for profile in profiles.values()])
    grid[-1].set_xlabel(xlabel)
    grid[-1].locator_params(axis="x", nbins=6)
    style.legend(drawn, dict(looks), names)
    return drawn


def _scale_loss(axes: Axes, bands: Sequence[Band]) -> None:
    finite = [v for band in bands for v in band.mean if math.isfinite(v)]
    if finite and max(finite) > LOG_FROM * min(finite) > 0:
        style.logarithmic(axes, max(finite) / min(finite))


def _draw(axes: Axes, places: Sequence[float], band: Band, look: Look) -> None:
    axes.plot(places, band.mean, marker="o", markersize=2.5, **look)
    low = [m - s for m, s in zip(band.mean, band.std, strict=True)]
    high = [m + s for m, s in zip(band.mean, band.std, strict=True)]
    axes.fill_between(places, low, high, color=look["color"], alpha=0.14, linewidth=0)
