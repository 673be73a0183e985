"""Table and figures of the analysis "theorem"."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.analysis import along, theorem_toy
from spaced_kd.analysis.base import Drawn, Found, Values
from spaced_kd.config import WITHOUT_TEACHER
from spaced_kd.spread import Difference, Spread
from spaced_kd.style import Look
from spaced_kd.tables import Table

TITLES = (
    "network",
    "interval\nepochs",
    "u of its teacher\nalong training",
    "trace\nTr H",
    "Gauss-Newton\npart",
    "residual\npart",
    "error of a trace\nover probes",
)


def table(found: Found) -> Table | None:
    """Return a row a network; against each reference the trace and its residual part.

    The theorem allows a difference in the latter alone.
    """
    if not found.rows:
        return None
    against = [
        f"{part} minus\n{name}"
        for name in found.references
        for part in ("Tr H", "residual")
    ]
    return Table(
        (*TITLES, *against),
        tuple(_row(found, name) for name in found.networks),
        (*_notes(found), *(toy_note(name, c) for name, c in found.once.items())),
    )


def _row(found: Found, name: str) -> tuple[str, ...]:
    value = lambda key: _text(found.spread(name, along.at(key)))
    interval = interval_epochs(found.config, name)
    parts = along.at("trace"), along.at("residual")
    return (
        name,
        "-" if interval is None else f"{interval:g}",
        _text(gap_along(found, name)),
        value("trace"),
        value("gauss_newton"),
        value("residual"),
        value("trace_error"),
        *(
            "" if name == other else _text(found.difference(name, other, part))
            for other in found.references
            for part in parts
        ),
    )


def _notes(found: Found) -> tuple[str, ...]:
    errors = (row.values["identity_error"] for row in found.rows)
    worst = max((error for error in errors if error is not None), default=math.nan)
    return (
        "Mean ± s.d. over seeds, of the last weights; differences paired by seed. u: "
        "mean over the snapshots before the last weights (--at=snapshots).",
        "The sum of both parts is within "
        f"{worst:.1e} of v'Hv of the risk itself, for one probe of every network.",
    )


def toy_note(name: str, case: Values) -> str:
    """Return what an analytic case says, in a sentence."""
    gaps, (shared, error) = case["gap"], case["shared"][-1]
    return (
        f"Analytic case '{name}': u falls from {gaps[0][0]:.3g} (s = 1) to "
        f"{gaps[-1][0]:.3g} (offline); Tr H at theta* changes by {shared:+.2g} ± "
        f"{error:.1g}, and falls in {case['holds'][-1]:.0%} of seeds (the theorem: "
        "in the mean it does not rise)."
    )


def interval_epochs(config: Mapping, name: str) -> float | None:
    """Return a student's space interval: online 0, offline the whole training.

    None for the teacher, for what has no part of the teacher, and where it changes.
    """
    student = config["students"].get(name)
    if student is None or student["method"] in WITHOUT_TEACHER:
        return None
    # Older runs have no such field.
    if student.get("interval_schedule", "constant") != "constant":
        return None
    whole = {"online": 0.0, "offline": float(config["num_epochs"])}
    return whole.get(student["plan"], student["space_interval_epochs"])


def gap_along(found: Found, name: str) -> Spread:
    """Return u of a network's teacher, mean over the rows before the last weights."""
    last = {(row.network, row.seed, row.step) for row in found.last}
    by_seed: dict[int, list[float]] = {}
    for row in found.rows:
        early = (row.network, row.seed, row.step) not in last
        if row.network == name and early and row.values.get("gap") is not None:
            by_seed.setdefault(row.seed, []).append(row.values["gap"])
    return Spread.of([statistics.fmean(values) for values in by_seed.values()])


def figures(found: Found, looks: Mapping[str, Look]) -> Sequence[Drawn]:
    """Return what is seen along training, by interval, and the analytic cases."""
    drawn = {
        "theorem_gap": (
            "gap",
            "u of the teacher beside the network",
            "Teacher's gap u (Definition 4.2), mean ± s.d. over seeds.",
        ),
        "theorem_trace": (
            "trace",
            "Tr H of the squared risk",
            "Trace of the squared risk's Hessian, mean ± s.d. over seeds.",
        ),
        "theorem_residual": (
            "residual",
            "residual part of Tr H",
            "The part of the trace in which the theorem's two sides differ.",
        ),
    }
    over_training = [
        (stem, caption, along.figure(found, looks, {"": along.at(value)}, label))
        for stem, (value, label, caption) in drawn.items()
    ]
    by_interval = "Every student and seed: u of its teacher along training, and Tr H."
    toy = "Analytic cases: Tr H minus that of s = 1, mean and standard error."
    return [
        *over_training,
        ("theorem_interval", by_interval, _by_interval(found, looks)),
        ("theorem_toy", toy, _toy(found.once)),
    ]


def _by_interval(found: Found, looks: Mapping[str, Look]) -> Figure | None:
    columns: dict[str, Callable[[str], Spread]] = {
        "u of its teacher": lambda name: gap_along(found, name),
        "Tr H": lambda name: found.spread(name, along.at("trace")),
    }
    places = {n: interval_epochs(found.config, n) for n in found.networks}
    intervals = {n: interval for n, interval in places.items() if interval is not None}
    if len(intervals) < 2:
        return None
    figure, panels = _columns(tuple(columns))
    for axes, spread_of in zip(panels, columns.values(), strict=True):
        for name, interval in intervals.items():
            values = [v for v in spread_of(name).per_seed if v is not None]
            same = [interval] * len(values)
            axes.scatter(same, values, s=14, color=looks[name]["color"])
        axes.set_xlabel("interval, epochs")
    style.legend(figure, dict(looks), list(intervals))
    return figure


def _toy(cases: Values) -> Figure | None:
    if not cases:
        return None
    titles = {"shared": "at one theta*, f = y", "own": "at the student's own weights"}
    figure, panels = _columns(tuple(titles.values()))
    looks = style.line_looks(cases)
    for axes, kind in zip(panels, titles, strict=True):
        for name, case in cases.items():
            mean, error = np.array(case[kind]).T
            axes.errorbar(case["intervals"], mean, error, capsize=2, **looks[name])
        axes.set_xscale("log")
        axes.set_xticks(theorem_toy.INTERVALS, map(str, theorem_toy.INTERVALS))
        axes.minorticks_off()
        axes.set_xlabel("interval s, steps")
    style.legend(figure, looks, list(cases))
    return figure


def _columns(titles: Sequence[str]) -> tuple[Figure, Sequence[Axes]]:
    """Return panels side by side, with room for a legend."""
    figure = Figure(figsize=(1.5 * style.WIDTH, 3.6))
    panels = list(figure.subplots(1, len(titles)))
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
    return figure, panels


def _text(spread: Spread | Difference) -> str:
    """Return e.g. `0.0123 ± 0.0004`; traces and gaps span many powers of ten."""
    if spread.mean is None:
        return "-"
    sign = "+" if isinstance(spread, Difference) else ""
    text = f"{spread.mean:{sign}.3g}"
    return text if spread.std is None else f"{text} ± {_rounded(spread.std)}"


def _rounded(value: float) -> str:
    """Return two digits, as 120 rather than 1.2e+02."""
    return f"{float(f'{value:.2g}'):g}"
