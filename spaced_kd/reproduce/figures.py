"""The paper's figures with our numbers; the paper's own, where it prints them, grey."""

import io
import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from spaced_kd import style
from spaced_kd.reproduce.items import Item, Place, Row
from spaced_kd.reproduce.numbers import Number, shared_with
from spaced_kd.reproduce.tables import printed_in_paper
from spaced_kd.spread import Spread

Numbers = Mapping[Place, Number]
Drawn = tuple[str, str, Figure]
"""File name without ending, caption, figure."""

_GREY = "#9a9a9a"
_MARKS = {"marker": "o", "markersize": 3}


def draw(item: Item, numbers: Numbers) -> list[Drawn]:
    """Draw an item, as far as its runs are finished; inside `style.drawing()`.

    Returns:
      Its pictures; none for a table, or as long as nothing is finished.
    """
    found = [numbers[place] for place in item.places]
    if item.kind == "table" or not any(n.by_seed or n.picture for n in found):
        return []
    if item.kind == "study":
        return [_study(item, numbers)]
    if item.unit == "picture":
        return [_pictures(item, numbers)]
    kind = _intervals if item.name == "figure2" else _panels
    return kind(item, numbers)


def _intervals(item: Item, numbers: Numbers) -> list[Drawn]:
    """Paper Figure 2: accuracies over the interval, and a parabola through all."""
    return [_sweep(item, numbers), _fit(item, numbers)]


def _on_axis(item: Item) -> dict[str, float]:
    columns = item.columns.items()
    return {name: c.x for name, c in columns if not math.isnan(c.x)}


def _sweep(item: Item, numbers: Numbers) -> Drawn:
    columns, rows = _on_axis(item), _different(item, numbers)
    labels = [row.label for row in rows]
    looks = style.line_looks(labels)
    figure, axes = style.panel(names=labels)
    for row in rows:
        spreads = [_spread(row, column, numbers) for column in columns]
        style.band(axes, list(columns.values()), spreads, looks[row.label] | _MARKS)
    axes.set_xlabel(item.axis)
    axes.set_ylabel("top-1 accuracy, %")
    style.legend(figure, looks, labels)
    return "figure2b", "2b. Accuracy over the interval", figure


def _fit(item: Item, numbers: Numbers) -> Drawn:
    """Draw all rows' accuracies minus that of online KD, ours and the paper's.

    Deviation: the paper fits the accuracies themselves, whose rows lie tens of points
    apart; what depends on the interval is their difference to the row's online KD.
    """
    figure, axes = style.panel()
    axes.axhline(0.0, color="#777777", linewidth=0.8)
    ours = lambda row, column: _spread(row, column, numbers).mean
    theirs = lambda row, column: _value(item, row, column)
    for name, colour, values, rows in (
        ("paper", _GREY, theirs, item.rows),
        ("ours", style.STUDENT_COLOURS[0], ours, _different(item, numbers)),
    ):
        x, y = _minus_online(item, values, rows)
        axes.plot(x, y, "o", markersize=3.5, color=colour, label=name)
        parabola = quadratic(x, y)
        if parabola is not None:
            fine = np.linspace(min(x), max(x), 100)
            label = f"{name}: {_summit(parabola, min(x), max(x))}"
            axes.plot(fine, np.polyval(parabola, fine), color=colour, label=label)
    axes.set_xlabel(item.axis)
    axes.set_ylabel("minus online KD, points")
    axes.legend()
    return "figure2c", "2c. Quadratic fit of all rows, minus online KD", figure


def quadratic(x: Sequence[float], y: Sequence[float]) -> np.ndarray | None:
    """Return the least-squares parabola's coefficients, highest power first.

    None where fewer than three different places determine none.
    """
    return np.polyfit(x, y, 2) if len(set(x)) >= 3 else None


def _summit(parabola: np.ndarray, low: float, high: float) -> str:
    """Say where a parabola is highest, or that it has no highest point in between."""
    bend, slope, _ = parabola
    if bend >= 0:
        return "no maximum"
    top = -slope / (2 * bend)
    return f"highest at {top:.2f}" + ("" if low <= top <= high else ", outside")


def _minus_online(
    item: Item, values: Callable[[Row, str], float | None], rows: Iterable[Row]
) -> tuple[list[float], list[float]]:
    x, y = [], []
    for row in rows:
        online = values(row, "online")
        for column, place in _on_axis(item).items():
            own = values(row, column)
            if own is not None and online is not None:
                x.append(place)
                y.append(own - online)
    return x, y


def _study(item: Item, numbers: Numbers) -> Drawn:
    """Draw columns that have a place on the axis as a curve, the others as levels."""
    (row,) = item.rows
    on_axis = _on_axis(item)
    levels = [name for name in item.columns if name not in on_axis]
    names = ["constant", *(item.columns[name].title for name in levels)]
    looks = style.line_looks(names)
    figure, axes = style.panel(names=names)
    spreads = [_spread(row, column, numbers) for column in on_axis]
    places = list(on_axis.values())
    style.band(axes, places, spreads, looks["constant"] | _MARKS)
    for level in levels:
        mean = _spread(row, level, numbers).mean
        if mean is not None:
            look = looks[item.columns[level].title]
            axes.plot([min(places), max(places)], [mean, mean], **look)
    axes.set_xlabel(item.axis)
    axes.set_ylabel("top-1 accuracy, %")
    style.legend(figure, looks, names)
    return item.name, item.title, figure


def _pictures(item: Item, numbers: Numbers) -> Drawn:
    """Draw a grid of images, a row for each of the item's."""
    count = len(item.columns)
    size = style.WIDTH / count
    figure = Figure(figsize=(style.WIDTH, size * len(item.rows)))
    grid = figure.subplots(len(item.rows), count, squeeze=False)
    for line, row in zip(grid, item.rows, strict=True):
        for axes, (name, column) in zip(line, item.columns.items(), strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(False)
            picture = numbers[row.places[name]].picture
            if picture is not None:
                pixels = np.asarray(Image.open(io.BytesIO(picture)))
                axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            if row is item.rows[0]:
                axes.set_title(column.title)
        line[0].set_ylabel(row.label)
    return item.name, f"{item.name[6:]}. {item.title}", figure


def _panels(item: Item, numbers: Numbers) -> list[Drawn]:
    """Draw columns as curves over the rows' places, a figure for each panel."""
    different = _different(item, numbers)
    names = list(dict.fromkeys(row.panel for row in different if row.panel))
    return [_panel(item, numbers, name, k) for k, name in enumerate(names)]


def _panel(item: Item, numbers: Numbers, name: str, index: int) -> Drawn:
    rows = [row for row in item.rows if row.panel == name]
    curves = [c for c in item.columns if any(c in row.places for row in rows)]
    titles = {c: item.columns[c].title for c in curves}
    labels = list(titles.values())
    looks = style.line_looks(labels)
    figure, axes = style.panel(names=labels)
    for column in curves:
        spreads = [_spread(row, column, numbers) for row in rows]
        places = [row.x for row in rows]
        style.band(axes, places, spreads, looks[titles[column]] | _MARKS)
    if _spans_decades([row.x for row in rows]):
        axes.set_xscale("log")
        axes.set_xticks([row.x for row in rows], [f"{row.x:g}" for row in rows])
        axes.minorticks_off()
    axes.set_xlabel(item.axis or name)
    unit = rows[0].unit or item.unit
    axes.set_ylabel("accuracy, %" if unit == "%" else f"loss, {unit}")
    style.legend(figure, looks, labels)
    letter = string.ascii_lowercase[index]
    return f"{item.name}{letter}", f"{item.name[6:]}{letter}. {name}", figure


def _spans_decades(places: Sequence[float]) -> bool:
    return min(places) > 0 and max(places) / min(places) >= 10


def _different(item: Item, numbers: Numbers) -> list[Row]:
    shared = shared_with(item, numbers)
    return [row for row in item.rows if row.label not in shared]


def _spread(row: Row, column: str, numbers: Numbers) -> Spread:
    place = row.places.get(column)
    return Spread.of([]) if place is None else numbers[place].spread


def _value(item: Item, row: Row, column: str) -> float | None:
    printed = printed_in_paper(item, row, column)
    return None if printed is None else float(printed)
