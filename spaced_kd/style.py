"""How every figure looks, and how it is saved.

Figures are made with matplotlib's object API and inside a style context, so that the
pyplot state, backend and settings of the program that asks for a report stay as they
are. Saving twice gives the same bytes.
"""

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from spaced_kd.spread import Spread
from spaced_kd.writers import storage_error

WIDTH = 4.8
"""Inches; one column of a page, so that text stays readable on a phone."""

LEGEND_ROW = 0.2
"""Inches that a row of the legend takes."""

TEACHER_COLOUR = "#3b3b3b"

# Okabe and Ito's colour-blind safe set without its yellow, which is too pale for lines
# on white, and with two of Paul Tol's "muted" set.
STUDENT_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#999933",
)
LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1)))
"""The second and third eight students have the colours of the first."""

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#777777",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelcolor": "#333333",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "figure.constrained_layout.use": True,
    "font.size": 9.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.5,
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    "svg.hashsalt": "spaced_kd",
    # A "$" in a name is a "$".
    "text.parse_math": False,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}


Look = dict[str, Any]
"""How a network's lines look: keywords of `Axes.plot`."""


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Apply the style to what is drawn and saved inside."""
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which is enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def save(figure: Figure, stem: Path) -> bytes:
    """Write `<stem>.png` and `<stem>.svg`, without dates, and return the SVG.

    Raises:
      StorageError: they cannot be written.
    """
    svg = stem.with_name(stem.name + ".svg")
    png = stem.with_name(stem.name + ".png")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        # The layout is found, and the PNG has the same; without any engine, also the
        # placeholder "none", matplotlib does not draw once more to find it.
        with matplotlib.rc_context({"figure.constrained_layout.use": False}):
            figure.set_layout_engine(None)
        figure.savefig(png, format="png", metadata={"Software": None})
        return svg.read_bytes()
    except OSError as error:
        raise storage_error("write", svg, error) from error


def line_looks(students: Iterable[str]) -> dict[str, Look]:
    """Return each network's colour and line style, the same in every figure."""
    pairs = itertools.product(LINE_STYLES, STUDENT_COLOURS)
    looks: dict[str, Look] = {"teacher": {"color": TEACHER_COLOUR, "linestyle": "-"}}
    for name, (line, colour) in zip(students, itertools.cycle(pairs), strict=False):
        looks[name] = {"color": colour, "linestyle": line}
    return looks


def panel(height: float = 3.0, names: Sequence[str] = ()) -> tuple[Figure, Axes]:
    """Return a figure of one panel.

    Args:
      height: of the panel, inches.
      names: what `legend` will be given, to make room for it.
    """
    rows = math.ceil(len(names) / legend_columns(names)) if names else 0
    figure = Figure(figsize=(WIDTH, height + LEGEND_ROW * rows))
    return figure, figure.add_subplot()


def band(
    axes: Axes, places: Sequence[float], spreads: Sequence[Spread], look: Look
) -> None:
    """Draw means as a line, and one standard deviation to both sides as a band.

    Args:
      axes: a panel.
      places: x.
      spreads: y, one a place; without a mean the line has a gap, without a standard
        deviation the band has no height.
      look: of the line; the band has its colour.
    """
    means = np.array([math.nan if s.mean is None else s.mean for s in spreads])
    stds = np.array([s.std or 0.0 for s in spreads])
    axes.plot(places, means, **look)
    axes.fill_between(
        places, means - stds, means + stds, color=look["color"], alpha=0.14, linewidth=0
    )


def legend(figure: Figure, looks: dict[str, Look], names: Sequence[str]) -> None:
    """Name the lines, below the panel."""
    handles = [Line2D([], [], **looks[name]) for name in names]
    # matplotlib leaves labels out that begin with an underscore.
    labels = [f" {name}" if name.startswith("_") else name for name in names]
    figure.legend(
        handles, labels, loc="outside lower center", ncols=legend_columns(names)
    )


def legend_columns(names: Sequence[str]) -> int:
    """Return how many of these names fit side by side."""
    longest = max(map(len, names), default=1)
    inches = 0.55 + 0.085 * longest
    return max(1, min(len(names), int(WIDTH / inches)))


def thousands(axis: Axis) -> None:
    """Write the ticks of an axis of counts as 12,000."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def logarithmic(axes: Axes, ratio: float) -> None:
    """Make the y axis logarithmic, with ticks that read 0.1, 0.2, 0.5, 1.

    Args:
      axes: a panel.
      ratio: of the largest to the smallest value shown.
    """
    axes.set_yscale("log")
    subs = (1.0, 2.0, 5.0) if ratio < 200 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    # The default labels are formulas, which "text.parse_math" switches off.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def ink_on(colour: str) -> str:
    """Return black or white, whichever can be read on `colour`."""
    red, green, blue = to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "black"
