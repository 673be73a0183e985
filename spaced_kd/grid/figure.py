"""The figure of a grid: accuracy against the value, and what spacing brings."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from spaced_kd import style
from spaced_kd.grid.outcome import Entry, Outcome
from spaced_kd.spread import Difference, Spread
from spaced_kd.style import Look

_GAP = math.nan
"""Where a cell has no number, a line breaks."""

_PANEL = 2.6
"""Inches: height of a panel."""


def draw(outcome: Outcome) -> Figure | None:
    """Draw what is finished; inside `style.drawing()`.

    Upper panel: mean over seeds of each student's last accuracy, and a band of one
    standard deviation. Lower panel, if there are differences: their mean, with the
    95 % interval as a bar. A cell that is not finished is named below its place.

    Returns:
      The figure; None as long as no cell is finished.
    """
    if all(entry.results is None for entry in outcome.entries):
        return None
    names, panels = outcome.students, 2 if outcome.pairs else 1
    looks = style.line_looks(names)
    rows = math.ceil(len(names) / style.legend_columns(names))
    height = _PANEL * panels + style.LEGEND_ROW * rows
    figure = Figure(figsize=(style.WIDTH, height))
    axes = list(figure.subplots(panels, sharex=True, squeeze=False)[:, 0])
    values = _values(outcome.entries)
    places = values or [float(k) for k in range(len(outcome.entries))]
    for name in names:
        _draw_student(axes[0], places, outcome.entries, name, looks[name])
    axes[0].set_ylabel("top-1 accuracy, %")
    if outcome.pairs:
        _draw_differences(axes[1], places, outcome, looks)
    if values:
        axes[-1].set_xscale("log")
    _label(axes[-1], places, outcome)
    style.legend(figure, looks, names)
    return figure


def _values(entries: Sequence[Entry]) -> list[float] | None:
    """Return the cells' values; None where one has none, or none for a log axis."""
    values = [entry.cell.value or 0.0 for entry in entries]
    return values if min(values) > 0 else None


def _draw_student(
    axes: Axes,
    places: Sequence[float],
    entries: Sequence[Entry],
    name: str,
    look: Look,
) -> None:
    spreads = [_accuracy(entry, name) for entry in entries]
    style.band(axes, places, spreads, look | {"marker": "o", "markersize": 3})


def _accuracy(entry: Entry, name: str) -> Spread:
    if entry.results is None:
        return Spread.of([])
    return entry.results.students[name].acc1_last


def _draw_differences(
    axes: Axes, places: Sequence[float], outcome: Outcome, looks: dict[str, Look]
) -> None:
    axes.axhline(0.0, color="#777777", linewidth=0.8)
    for name, reference in outcome.pairs:
        found = [entry.difference(name, reference) for entry in outcome.entries]
        means = [_GAP if d is None or d.mean is None else d.mean for d in found]
        axes.errorbar(
            places,
            means,
            yerr=[_half(difference) for difference in found],
            marker="o",
            markersize=3,
            capsize=3,
            **looks[name],
        )
    _, reference = outcome.pairs[0]
    axes.set_ylabel(f"minus {reference}, points")


def _half(difference: Difference | None) -> float:
    """Return half the length of the 95 % interval, if there is one."""
    if difference is None or difference.ci95 is None:
        return _GAP
    low, high = difference.ci95
    return (high - low) / 2


def _label(axes: Axes, places: Sequence[float], outcome: Outcome) -> None:
    labels = (
        entry.cell.label + ("" if entry.results else f"\n{entry.status}")
        for entry in outcome.entries
    )
    axes.set_xticks(places, list(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(outcome.axis)
