"""Pictures of intervals that change: how long they are, and what decided on them."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.results import metric_prefix
from spaced_kd.style import Look
from spaced_kd.writers import Row

_MEASURED = {
    "gap": "KL(teacher || student)\nnats",
    "plateau": "training loss of\nthe last replay",
}
"""By schedule: what its decisions look at."""


def interval_figure(
    plan: Mapping[str, Any], rows: Iterable[Row], looks: Mapping[str, Look]
) -> Figure | None:
    """Draw the interval over the stream, and below what feedback decided on.

    A dot is a replay: how many batches, when the stream was there. In the panels of
    feedback a full dot is a decision to replay, an open one to wait; the line is what
    the measured value had to reach (gap) or had to stay below (plateau).

    Args:
      plan: `plan.json`; of a run that goes on, what is to come is as it is assumed.
      rows: of `metrics.jsonl`.
      looks: how students' lines look, by name.

    Returns:
      The figure; None if no student's interval changes.
    """
    networks = plan["networks"]
    varying = [name for name in looks if networks[name].get("interval_schedule")]
    if not varying:
        return None
    decided = _decisions(rows)
    panels = [name for name in varying if decided.get(name)]
    figure = Figure(figsize=(style.WIDTH, 2.6 + 1.7 * len(panels) + 0.3))
    heights = [2.0, *[1.3] * len(panels)]
    axes = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    for name in varying:
        lengths = networks[name]["intervals_steps"]
        ends = list(itertools.accumulate(lengths))
        axes[0].plot(ends, lengths, marker="o", markersize=2.5, **looks[name])
    axes[0].set_ylabel("interval, steps")
    axes[0].set_ylim(bottom=0)
    style.thousands(axes[0].yaxis)
    for panel, name in zip(axes[1:], panels, strict=True):
        _draw_decisions(panel, decided[name], looks[name])
        panel.set_title(name)
        panel.set_ylabel(_MEASURED[networks[name]["interval_schedule"]])
    axes[-1].set_xlabel("batches of the stream")
    axes[-1].set_xlim(0, plan["total_steps"])
    style.thousands(axes[-1].xaxis)
    style.legend(figure, dict(looks), varying)
    return figure


def _decisions(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["phase"] == "decide":
            name = row["network"]
            prefix = f"decide/{metric_prefix(name)}"
            short = {k.removeprefix(prefix): v for k, v in row.items()}
            found.setdefault(name, []).append(short)
    return found


def _draw_decisions(axes: Axes, decisions: Sequence[Row], look: Look) -> None:
    colour = look["color"]
    for replays, face in ((1, colour), (0, "white")):
        own = [row for row in decisions if row.get("replay") == replays]
        at, values = _points(own, "measured")
        axes.plot(at, values, "o", color=colour, markerfacecolor=face, markersize=3)
    at, limits = _points([r for r in decisions if "threshold" in r], "threshold")
    axes.step(at, limits, where="mid", color="#777777", linewidth=0.8)


def _points(rows: Sequence[Row], key: str) -> tuple[list[int], list[float]]:
    return [row["teacher_step"] for row in rows], [row[key] for row in rows]
