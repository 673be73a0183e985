"""Curves over training: mean over seeds, and a band of one standard deviation."""

import bisect
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.results import metric_prefix
from spaced_kd.style import Look
from spaced_kd.writers import Row

MAX_BINS = 200
"""Points of a training curve; more cannot be told apart in a figure."""


class Point(NamedTuple):
    """A measurement of one network and seed; epoch: its updates (step) as epochs."""

    step: int
    epoch: float
    value: float


Track = list[Point]
"""One seed's measurements, by rising step."""


class Curve(NamedTuple):
    """Mean and standard deviation where all seeds were measured, and what is beyond.

    std: None for one seed.
    tails: one seed each, from the last common step on: seeds of an unfinished run.
    """

    epochs: list[float]
    mean: list[float]
    std: list[float] | None
    tails: list[Track]


Measure = Callable[[Row], float | None]
"""Takes a value out of a row; None where the row has it not."""


def tracks(rows: Iterable[Row], measure: Measure) -> list[Track]:
    """Return one track a seed, of the rows that have the value."""
    by_seed: dict[int, dict[int, Point]] = {}
    for row in rows:
        value = measure(row)
        if value is not None and math.isfinite(value):
            point = Point(row["step"], row["epoch"], value)
            by_seed.setdefault(row["seed"], {})[point.step] = point
    return [sorted(by_seed[seed].values()) for seed in sorted(by_seed)]


def thin(track: Track, width: int, ends: Sequence[int]) -> Track:
    """Average over bins of `width` steps.

    Args:
      track: one seed's; each point stands for the steps since the network's row before.
      width: of a bin, steps.
      ends: steps at which the network's training rows end, rising, also of rows that
        lack the value (self KD's steps on the labels alone).
    """
    bins: dict[int, list[tuple[int, float, float]]] = {}
    for step, epoch, value in track:
        place = bisect.bisect_left(ends, step)
        steps = step - (ends[place - 1] if place else 0)
        centre = epoch * (1 - steps / 2 / step)
        bins.setdefault((step - 1) // width, []).append((steps, centre, value))
    return [
        Point(number, *(_weighted(entries, place) for place in (1, 2)))
        for number, entries in sorted(bins.items())
    ]


def _weighted(entries: list[tuple[int, float, float]], place: int) -> float:
    total = sum(entry[0] for entry in entries)
    return math.fsum(entry[0] * entry[place] for entry in entries) / total


def aggregate(seeds: Sequence[Track]) -> Curve:
    """Summarise the tracks of all seeds."""
    values = [{point.step: point for point in track} for track in seeds]
    common = sorted(set.intersection(*map(set, values)))
    columns = [[points[step] for points in values] for step in common]
    end = common[-1] if common else -1
    tails = [[point for point in track if point.step >= end] for track in seeds]
    return Curve(
        epochs=[statistics.fmean(p.epoch for p in column) for column in columns],
        mean=[statistics.fmean(p.value for p in column) for column in columns],
        std=(
            [statistics.stdev(p.value for p in column) for column in columns]
            if len(seeds) > 1
            else None
        ),
        tails=[tail for tail in tails if len(tail) > 1 or not common],
    )


def draw(axes: Axes, curve: Curve, look: Look) -> None:
    """Draw a curve, its band, and what is beyond the last common step."""
    marker = "o" if len(curve.epochs) < 20 else None
    axes.plot(curve.epochs, curve.mean, marker=marker, markersize=3, **look)
    if curve.std is not None:
        low = _lower_edge(curve)
        high = [m + s for m, s in zip(curve.mean, curve.std, strict=True)]
        axes.fill_between(
            curve.epochs, low, high, color=look["color"], alpha=0.14, linewidth=0
        )
    for tail in curve.tails:
        epochs, values = [p.epoch for p in tail], [p.value for p in tail]
        axes.plot(epochs, values, color=look["color"], linewidth=0.7, alpha=0.8)


def evaluation_figure(
    rows: Sequence[Row],
    looks: dict[str, Look],
    metric: Callable[[str], Measure],
    ylabel: str,
    *,
    from_half: bool = False,
) -> Figure | None:
    """Draw a value of the evaluations over each network's own epochs.

    Args:
      rows: of all networks.
      looks: networks to draw, and how.
      metric: network -> how to take the value out of its rows.
      ylabel: name and unit of the value.
      from_half: leave the first half of each network's epochs out.

    Returns:
      The figure; None if no network has two such evaluations. A teacher that was
      trained before the run is a level line.
    """
    curves, levels = {}, {}
    for name in looks:
        own = [r for r in rows if r["network"] == name and r["phase"] == "eval"]
        if from_half:
            half = max((row["epoch"] for row in own), default=0.0) / 2
            own = [row for row in own if row["epoch"] >= half]
        seeds = tracks(own, metric(name))
        if max(map(len, seeds), default=0) > 1:
            curves[name] = aggregate(seeds)
        elif seeds and not any(point.step for track in seeds for point in track):
            levels[name] = statistics.fmean(track[0].value for track in seeds)
    return _figure(curves, looks, ylabel, levels) if curves else None


def training_figure(
    rows: Sequence[Row],
    looks: dict[str, Look],
    metric: Callable[[str], str],
    ylabel: str,
) -> Figure | None:
    """Draw a value of the training rows over each network's own epochs.

    Args:
      rows: of all networks.
      looks: networks to draw, and how.
      metric: network -> key of the value, without the network's prefix.
      ylabel: name and unit of the value.

    Returns:
      The figure; None if no row has the value.
    """
    keys = {name: metric_prefix(name) + metric(name) for name in looks}
    seeds = {
        name: tracks(rows, lambda row, k=key: row.get(k)) for name, key in keys.items()
    }
    last = max((t[-1].step for found in seeds.values() for t in found), default=0)
    width = max(1, math.ceil(last / MAX_BINS))
    ends = {name: _ends(rows, name) for name in looks}
    curves = {
        name: aggregate([thin(track, width, ends[name]) for track in found])
        for name, found in seeds.items()
        if found
    }
    if not curves:
        return None
    figure = _figure(curves, looks, ylabel)
    values = [value for curve in curves.values() for value in _lower_edge(curve)]
    # A band that reaches zero has no place on a logarithmic axis.
    if values and min(values) > 0 and max(values) > 30 * min(values):
        style.logarithmic(figure.axes[0], max(values) / min(values))
    return figure


def _ends(rows: Iterable[Row], network: str) -> list[int]:
    own = (r for r in rows if r["network"] == network and r["phase"] != "eval")
    return sorted({row["step"] for row in own})


def _lower_edge(curve: Curve) -> list[float]:
    spread = curve.std or [0.0] * len(curve.mean)
    return [mean - std for mean, std in zip(curve.mean, spread, strict=True)]


def _figure(
    curves: Mapping[str, Curve],
    looks: dict[str, Look],
    ylabel: str,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    levels = levels or {}
    names = [name for name in looks if name in curves or name in levels]
    figure, axes = style.panel(names=names)
    for name, value in levels.items():
        axes.axhline(value, **looks[name] | {"linewidth": 1.0})
    for name, curve in curves.items():
        draw(axes, curve, looks[name])
    axes.set_xlabel("epochs of the network's own updates")
    axes.set_ylabel(ylabel)
    axes.margins(x=0.02)
    style.legend(figure, looks, names)
    return figure


def evaluated(metric: str) -> Callable[[str], Measure]:
    """Return how to read an evaluation metric of a network, e.g. `acc1`."""

    def of(network: str) -> Measure:
        key = f"eval/{metric_prefix(network)}{metric}"
        return lambda row: row.get(key)

    return of


def accuracy_gap(network: str) -> Measure:
    """Return how to read by how many points a student is behind its teacher."""
    prefix = f"eval/{metric_prefix(network)}"

    def gap(row: Row) -> float | None:
        teacher, student = row.get(f"{prefix}teacher_acc1"), row.get(f"{prefix}acc1")
        return None if teacher is None or student is None else teacher - student

    return gap
