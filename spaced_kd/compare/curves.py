"""Accuracy over updates, both runs in one figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spaced_kd import style
from spaced_kd.compare.runs import Run
from spaced_kd.report import curves
from spaced_kd.report.curves import Curve
from spaced_kd.style import Look

LINES = {"A": "-", "B": (0, (4, 1.5))}
"""How a run's lines are drawn; colours tell the networks apart."""

_MOST = len(style.STUDENT_COLOURS)
"""Networks in one figure; more would share a colour."""


def figures(a: Run, b: Run) -> list[Figure]:
    """Return top-1 accuracy on the test set over each network's own updates.

    Networks that no run has evaluated twice are left out; there may be none.
    """
    drawn = {
        letter: {
            name: curve for name in run.results.networks if (curve := _of(run, name))
        }
        for letter, run in (("A", a), ("B", b))
    }
    every = (*a.results.networks, *b.results.networks)
    names = [n for n in dict.fromkeys(every) if any(n in d for d in drawn.values())]
    students = (name for name in names if name != "teacher")
    looks = {
        name: {"color": look["color"]}
        for name, look in style.line_looks(students).items()
    }
    parts = (names[k : k + _MOST] for k in range(0, len(names), _MOST))
    return [_figure(drawn, part, looks) for part in parts]


def _of(run: Run, name: str) -> Curve | None:
    own = [r for r in run.rows if r["network"] == name and r["phase"] == "eval"]
    by_updates = ({**row, "epoch": float(row["step"])} for row in own)
    tracks = curves.tracks(by_updates, curves.evaluated("acc1")(name))
    if max(map(len, tracks), default=0) < 2:
        return None
    return curves.aggregate(tracks)


def _figure(
    drawn: dict[str, dict[str, Curve]], names: Sequence[str], looks: dict[str, Look]
) -> Figure:
    # The runs stand in the legend beside the networks, in the colour of nobody.
    runs = {
        f"run {letter}": {"color": "#777777", "linestyle": line}
        for letter, line in LINES.items()
    }
    lines = {n: looks[n] | {"linestyle": "-"} for n in names} | runs
    shown = [*names, *runs]
    figure, axes = style.panel(height=3.4, names=shown)
    for letter, by_name in drawn.items():
        for name in names:
            if name in by_name:
                look = looks[name] | {"linestyle": LINES[letter]}
                curves.draw(axes, by_name[name], look)
    axes.set_xlabel("updates of the network")
    axes.set_ylabel("top-1 accuracy, %")
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    style.thousands(axes.xaxis)
    style.legend(figure, lines, shown)
    return figure
