"""Pictures of the plan: who trained when, and on whose knowledge."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.config import TWO_WAY
from spaced_kd.report.course import (
    Block,
    Knowledge,
    Lanes,
    is_taught_by_finished,
    knowledge,
    lanes,
    learns_alone,
    own_lanes,
)
from spaced_kd.style import Look

LANE_INCHES = style.WIDTH - 0.85
LETTER_INCHES = 0.062
"""Width of a lane and of a letter in it: which blocks have room for a label."""

TITLE_LETTERS = 50
"""What has room above a lane."""

_CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.0}
_NOTE: dict[str, Any] = _CENTRED | {"color": "#777777"}


def timeline_figure(
    plan: Mapping[str, Any],
    students: Mapping[str, Mapping[str, Any]],
    looks: dict[str, Look],
    last: int | None = None,
) -> Figure:
    """Draw two lanes for each student: see `course.Lanes`.

    Args:
      plan: `plan.json`.
      students: name -> its part of the config, top to bottom.
      looks: their colours.
      last: training steps to show; all by default. Blocks are labelled only where some
        are given.
    """
    found = {name: _lanes(plan, name, its) for name, its in students.items()}
    end = max(lane.end for lane in found.values())
    shown = end if last is None else min(last, end)
    figure = Figure(figsize=(style.WIDTH, 0.7 * len(students) + 0.5))
    rows = figure.subplots(len(students), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, lane) in zip(rows, found.items(), strict=True):
        colours = style.TEACHER_COLOUR, looks[name]["color"]
        for level, blocks, colour in zip((1, 0), lane, colours, strict=True):
            _draw_lane(axes, blocks, level, colour, shown, labelled=last is not None)
        if is_taught_by_finished(plan, students[name]):
            axes.text(0.5 * shown, 1, "trained before this run", **_NOTE)
        _frame(axes, _lane_names(plan, students[name]))
        axes.set_title(_title(name, plan["networks"][name]))
    rows[-1].tick_params(axis="x", length=3)
    rows[-1].set_xlim(0, shown)
    rows[-1].set_xlabel("training steps in order, as if this student trained alone")
    style.thousands(rows[-1].xaxis)
    return figure


def _lanes(plan: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> Lanes:
    if learns_alone(plan, settings):
        return own_lanes(plan["segments"], name, settings)
    return lanes(plan["segments"], name)


def _title(name: str, ledger: Mapping[str, Any]) -> str:
    plan, steps = ledger["plan"], ledger["space_interval_steps"]
    title = name
    how = f"interval {steps:,} steps" if steps else name
    if varying := ledger.get("interval_schedule"):
        how = f"interval {varying}, from {steps:,} steps"
    for part in (plan, how):
        if part != name and len(title) + len(part) < TITLE_LETTERS:
            title += f", {part}"
    return title


def _lane_names(plan: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    if settings["method"] in TWO_WAY:
        return ["peer", "student"]
    if learns_alone(plan, settings):
        return ["labels", "whole loss"]
    return ["teacher", "student"]


def _frame(axes: Axes, names: list[str]) -> None:
    axes.set_yticks([1, 0], names)
    axes.set_ylim(-0.5, 1.5)
    axes.grid(axis="y", visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


def _draw_lane(
    axes: Axes, blocks: list[Block], level: int, colour: str, end: int, labelled: bool
) -> None:
    visible = [block for block in blocks if block.at < end]
    spans = [(block.at, block.steps) for block in visible]
    axes.broken_barh(spans, (level - 0.42, 0.84), facecolors=colour, edgecolor="none")
    if not visible and blocks:
        note = f"begins after step {blocks[0].at:,}"
        axes.text(0.5 * end, level, note, **_NOTE)
    for block in visible if labelled else ():
        stop = min(block.at + block.steps, end)
        cut = " \u2192" if stop < block.at + block.steps else ""
        text = f"{_batches(block)}{cut}"
        if (stop - block.at) / end * LANE_INCHES > LETTER_INCHES * len(text) + 0.04:
            middle = (block.at + stop) / 2
            axes.text(middle, level, text, color=style.ink_on(colour), **_CENTRED)


def _batches(block: Block) -> str:
    last = f"{block.stop:,}"
    return last if block.steps == 1 else f"{block.start + 1:,}\u2013{last}"


def knowledge_figure(
    plan: Mapping[str, Any],
    students: Mapping[str, Mapping[str, Any]],
    looks: dict[str, Look],
    last: int | None = None,
) -> Figure | None:
    """Draw how many updates the teacher had behind it when each batch was learned.

    Of a network that is its own teacher: how many batches it had met. A teacher that
    was finished before the run has no line.

    Args:
      plan: `plan.json`.
      students: name -> its part of the config.
      looks: their colours.
      last: batches to show; all by default.

    Returns:
      The figure; None if no student learns from somebody who learns.
    """
    every = {
        name: knowledge(plan["segments"], name, settings)
        for name, settings in students.items()
        if not is_taught_by_finished(plan, settings)
    }
    found = {name: pieces for name, pieces in every.items() if pieces}
    if not found:
        return None
    shown = last or plan["total_steps"]
    top = (1.05 if last is None else 1.5) * shown
    figure, axes = style.panel(height=3.2, names=list(found))
    outside = []
    for order, (name, pieces) in enumerate(found.items()):
        # Lines that coincide stay visible: later ones are thinner and on top.
        width = 1.2 + 2.4 * (len(found) - 1 - order) / len(found)
        look: Look = {**looks[name], "linewidth": width}
        batches, updates = _steps(pieces)
        axes.plot(batches, updates, **look)
        if min(piece.first for piece in pieces) >= top:
            outside.append(f"{name}: from {pieces[0].first:,}")
    axes.text(0.02, 0.97, "\n".join(outside), va="top", transform=axes.transAxes)
    axes.set_xlabel("batch t of the stream")
    who = [_who_teaches(plan, students[name]) for name in found]
    axes.set_ylabel(_what_is_known(who))
    axes.set_xlim(0, shown)
    axes.set_ylim(0, top)
    style.thousands(axes.xaxis)
    style.thousands(axes.yaxis)
    style.legend(figure, looks, list(found))
    return figure


_KNOWN = {
    "teacher": ("updates of the teacher that taught t", "updates of t's teacher"),
    "peer": ("updates of the peer that taught t", "updates of t's peer"),
    "itself": ("batches met when t was learned", "batches met at t"),
}
"""Who teaches -> what is drawn, alone and beside others, in the order of mention."""


def _who_teaches(plan: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    if settings["method"] in TWO_WAY:
        return "peer"
    return "itself" if learns_alone(plan, settings) else "teacher"


def _what_is_known(teachers: Iterable[str]) -> str:
    found = [_KNOWN[who] for who in _KNOWN if who in set(teachers)]
    if len(found) == 1:
        return found[0][0]
    return ", or ".join(short for _, short in found)


def _steps(pieces: list[Knowledge]) -> tuple[list[float], list[float]]:
    """Return a line that jumps between pieces and breaks where batches are missing."""
    xs: list[float] = []
    ys: list[float] = []
    expected = None
    for piece in pieces:
        if expected not in (None, piece.start):
            xs.append(math.nan)
            ys.append(math.nan)
        # Batches are counted from 1, so that the line is the paper's ceil(t / s) * s;
        # a flat piece reaches half a batch further, so that jumps are upright.
        half = 0.5 if piece.frozen else 0.0
        xs += [piece.start + 1 - half, piece.stop + half]
        ys += [piece.first, piece.last]
        expected = piece.stop
    return xs, ys
