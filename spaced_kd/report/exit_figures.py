"""How good every exit of a network is, and how far the branches are from the deepest.

Only networks whose exits are all trained have lines: in self KD, and the two networks
of deep mutual learning, which are reported as the exits of one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.config import TWO_WAY, WITH_BRANCHES
from spaced_kd.exits import ExitResult
from spaced_kd.report import curves
from spaced_kd.results import NetworkResult
from spaced_kd.style import Look
from spaced_kd.types import ENSEMBLE, exit_number
from spaced_kd.writers import Row

PANEL_INCHES = 1.35
"""Height of one network's panel, where each has its own."""

DODGE = 0.36
"""Width over which the networks' points at one exit are spread, so that none hides."""


def trained_exits(
    students: Mapping[str, Mapping[str, Any]], networks: Mapping[str, NetworkResult]
) -> dict[str, dict[str, ExitResult]]:
    """Return the exits that training reaches: all, or the deepest alone.

    Args:
      students: name -> its part of the config.
      networks: results; those with a single exit, and the teacher's, are left out.
    """
    found = {}
    for name, net in networks.items():
        every = list(net.exits.items())
        if every and name in students:
            trained = students[name]["method"] in (*WITH_BRANCHES, *TWO_WAY)
            found[name] = dict(every if trained else every[:1])
    return found


def last_figure(
    exits: Mapping[str, Mapping[str, ExitResult]], looks: dict[str, Look]
) -> Figure | None:
    """Draw the accuracy at the last evaluation against the exit, mean +- s.d.

    Args:
      exits: network -> exit -> result, see `trained_exits`.
      looks: how networks are drawn.

    Returns:
      The figure; None if no network with several exits has been evaluated.
    """
    if not exits:
        return None
    deepest = max(_number(name) for its in exits.values() for name in its)
    places = {f"exit{n}": float(n) for n in range(1, deepest + 1)}
    places[ENSEMBLE] = deepest + 1.6
    figure, axes = style.panel(height=3.2, names=list(exits))
    for order, (network, its) in enumerate(exits.items()):
        shift = DODGE * ((order + 0.5) / len(exits) - 0.5)
        shifted = {name: place + shift for name, place in places.items()}
        _draw_last(axes, its, shifted, looks[network])
    axes.axvline(deepest + 0.8, color="#bbbbbb", linewidth=0.8)
    labels = [name.removeprefix("exit") for name in places]
    axes.set_xticks(list(places.values()), labels)
    axes.set_xlabel("exit, from the shallowest to the deepest")
    axes.set_ylabel("top-1 accuracy, %")
    style.legend(figure, looks, list(exits))
    return figure


def _draw_last(
    axes: Axes,
    exits: Mapping[str, ExitResult],
    places: Mapping[str, float],
    look: Look,
) -> None:
    """Draw one network's exits, joined by a line, and its ensemble apart."""
    joined = [name for name in exits if name != ENSEMBLE]
    for names in filter(None, (joined, [n for n in exits if n == ENSEMBLE])):
        spreads = [exits[name].acc1_last for name in names]
        axes.errorbar(
            [places[name] for name in names],
            [math.nan if s.mean is None else s.mean for s in spreads],
            yerr=[s.std or 0.0 for s in spreads],
            marker="o", markersize=3.5, capsize=2.0, **look,
        )  # fmt: skip


def course_figure(
    rows: Sequence[Row],
    exits: Mapping[str, Mapping[str, ExitResult]],
    metric: str,
    ylabel: str,
) -> Figure | None:
    """Draw a value of every exit over its network's own epochs, a panel a network.

    Args:
      rows: of all networks.
      exits: network -> exit -> result, see `trained_exits`.
      metric: of the exits' evaluations, e.g. `acc1`.
      ylabel: name and unit of the value.

    Returns:
      The figure; None if no network has two such evaluations of several exits.
    """
    panels = {name: _courses(rows, name, its, metric) for name, its in exits.items()}
    panels = {name: found for name, found in panels.items() if found}
    if not panels:
        return None
    names = list(dict.fromkeys(name for found in panels.values() for name in found))
    looks = exit_looks([name for its in exits.values() for name in its])
    figure, grid = _stack(len(panels), names)
    for axes, (network, found) in zip(grid, panels.items(), strict=True):
        axes.set_title(network)
        for name, curve in found.items():
            curves.draw(axes, curve, looks[name])
        axes.margins(x=0.02)
    grid[-1].set_xlabel("epochs of the network's own updates")
    figure.supylabel(ylabel, fontsize=9.5, color="#333333")
    style.legend(figure, looks, names)
    return figure


def _stack(count: int, names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels below one another, with room for a legend."""
    rows = math.ceil(len(names) / style.legend_columns(names))
    height = PANEL_INCHES * count + 0.5 + style.LEGEND_ROW * rows
    figure = Figure(figsize=(style.WIDTH, height))
    grid = figure.subplots(count, 1, sharex=True, sharey=True, squeeze=False)
    return figure, list(grid[:, 0])


def _courses(
    rows: Sequence[Row], network: str, exits: Mapping[str, ExitResult], metric: str
) -> dict[str, curves.Curve]:
    """Return the exits' curves; {} where training reaches one exit alone."""
    if len(exits) == 1:
        return {}
    own = [r for r in rows if r["network"] == network and r["phase"] == "eval"]
    found = {
        name: curves.tracks(own, curves.evaluated(f"{name}/{metric}")(network))
        for name in exits
    }
    return {
        name: curves.aggregate(seeds)
        for name, seeds in found.items()
        if max(map(len, seeds), default=0) > 1
    }


def exit_looks(names: Sequence[str]) -> dict[str, Look]:
    """Return the exits' looks: from light to dark with depth; the ensemble is dashed.

    Viridis without its palest end, which tells apart also for colour-blind readers.
    """
    numbers = {name: _number(name) for name in names}
    most = max(numbers.values())
    looks: dict[str, Look] = {}
    for name, number in numbers.items():
        if name == ENSEMBLE:
            looks[name] = {"color": "#d55e00", "linestyle": style.LINE_STYLES[1]}
        else:
            colour = colormaps["viridis"](0.88 * (most - number) / max(most - 1, 1))
            looks[name] = {"color": colour, "linestyle": "-"}
    return looks


def _number(name: str) -> int:
    """Return an exit's number, from 1; 0 for the ensemble, which is none of them."""
    return 0 if name == ENSEMBLE else exit_number(name)
