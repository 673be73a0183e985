"""Figures of a value over the run, or of the last weights where there are no others."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.analysis.base import Found, Values
from spaced_kd.analysis.profiles import numbers
from spaced_kd.spread import Spread
from spaced_kd.style import Look

Value = Callable[[Values], float | None]

Track = list[tuple[float, Spread]]
"""A network's epochs, rising, and the value over seeds at each."""


def at(*path: str) -> Value:
    """Return how to take a value out of a row; None where the row has it not."""

    def take(values: Values) -> float | None:
        found: Any = values
        for name in path:
            found = None if found is None else found.get(name)
        return found

    return take


def figure(
    found: Found, looks: Mapping[str, Look], panels: Mapping[str, Value], label: str
) -> Figure | None:
    """Draw a value of every network, mean +- s.d. over seeds.

    Args:
      found: whose rows are drawn.
      looks: how networks are drawn.
      panels: title -> what to take of a row; one panel each, below one another.
      label: name and unit of the value.

    Returns:
      Curves over each network's own epochs where any was measured at several; else a
      point a network; None where none has the value.
    """
    tracks = {title: _tracks(found, value) for title, value in panels.items()}
    names = [n for n in found.networks if any(n in of for of in tracks.values())]
    if not names:
        return None
    if any(len(track) > 1 for of in tracks.values() for track in of.values()):
        return _curves(tracks, names, looks, label)
    return _points(tracks, names, looks, label)


def _tracks(found: Found, value: Value) -> dict[str, Track]:
    """Return the networks' tracks, of the steps at which every seed has the value."""
    tracks: dict[str, Track] = {}
    for name in found.networks:
        rows = [row for row in found.rows if row.network == name]
        count = len({row.seed for row in rows})
        at: dict[float, list[float | None]] = {}
        for row in rows:
            at.setdefault(row.epoch, []).append(value(row.values))
        spreads = {e: Spread.of(values) for e, values in at.items()}
        track = [
            (epoch, spread)
            for epoch, spread in sorted(spreads.items())
            if spread.mean is not None and len(spread.per_seed) == count
        ]
        if track:
            tracks[name] = track
    return tracks


def _curves(
    tracks: Mapping[str, Mapping[str, Track]],
    names: list[str],
    looks: Mapping[str, Look],
    label: str,
) -> Figure:
    legend_rows = math.ceil(len(names) / style.legend_columns(names))
    height = 2.5 * len(tracks) + 0.5 + style.LEGEND_ROW * legend_rows
    figure, grid = _grid(list(tracks), height)
    for axes, of in zip(grid, tracks.values(), strict=True):
        for name, track in of.items():
            _draw_curve(axes, track, looks[name])
        axes.set_ylabel(label)
        axes.margins(x=0.02)
    grid[-1].set_xlabel("epochs of the network's own updates")
    style.legend(figure, dict(looks), names)
    return figure


def _draw_curve(axes: Axes, track: Track, look: Look) -> None:
    epochs, spreads = zip(*track, strict=True)
    marker = "o" if len(track) < 20 else None
    style.band(axes, epochs, spreads, look | {"marker": marker, "markersize": 3})


def _points(
    tracks: Mapping[str, Mapping[str, Track]],
    names: list[str],
    looks: Mapping[str, Look],
    label: str,
) -> Figure:
    height = (0.27 * len(names) + 0.35) * len(tracks) + 0.6
    figure, grid = _grid(list(tracks), height)
    for axes, of in zip(grid, tracks.values(), strict=True):
        for name, track in of.items():
            _, last = track[-1]
            place, colour = names.index(name), looks[name]["color"]
            axes.errorbar(
                numbers([last.mean]), [place], xerr=[last.std or 0.0],
                marker="o", markersize=4, capsize=2.5, color=colour,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
    grid[-1].set_xlabel(label)
    return figure


def _grid(titles: list[str], height: float) -> tuple[Figure, list[Axes]]:
    """Return panels below one another, with one x axis; a single one has no title."""
    figure = Figure(figsize=(style.WIDTH, height))
    grid = list(figure.subplots(len(titles), 1, sharex=True, squeeze=False)[:, 0])
    if len(titles) > 1:
        for axes, title in zip(grid, titles, strict=True):
            axes.set_title(title)
    return figure, grid
