"""The pictures of docs/pictures/, drawn from the plans of real, tiny configs.

`PYTHONPATH=. python docs/_site/pictures.py` writes them; nothing is trained.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import drawing
from drawing import FAINT, IDLE, INK, PAPER, STUDENT, TEACHER, box, label, words

from spaced_kd import data, experiment, ledger
from spaced_kd.config import base_config, from_config_dict, student
from spaced_kd.report import course
from spaced_kd.report.course import Block

FOLDER = Path(__file__).parents[1] / "pictures"

INTERVAL = 4
"""Batches; three of them are the whole training of these pictures."""

PLANS = {
    "online": "each batch when it comes",
    "lagged": "… from an older teacher",
    "spaced": "again, from the teacher after it",
    "constant_ahead": "each batch, an interval late",
    "critical_period": "spaced in the middle only",
    "offline": "all, from the finished teacher",
}
SELF_PLANS = {
    "online": "self KD: whole loss, once",
    "interleaved": "labels, then whole loss",
    "spaced": "labels ahead, then replay",
}
_WINDOW = {"window_start_epochs": 1.0, "window_stop_epochs": 2.0}
_MORE = {"critical_period": _WINDOW}


def plan_of(students: Mapping[str, Any], **fields: str) -> dict[str, Any]:
    """Return `plan.json` of a run of 3 epochs, each of them one interval.

    Args:
      students: name -> student.
      **fields: model or method -> value, of what `student` and `teacher` inherit.
    """
    config = base_config()
    config.num_epochs, config.num_seeds, config.num_devices = 3, 1, 1
    config.data.name, config.data.batch_size = "fake", 512 // INTERVAL
    config.student.space_interval_epochs = 1.0
    config.teacher.model = fields.get("teacher", "mlp")
    config.student.model = fields.get("model", "mlp")
    config.student.method = fields.get("method", "kd")
    config.students = students
    parsed = from_config_dict(config)
    plan = ledger.describe_plan(experiment.build(parsed, data.load(parsed.data)))
    return plan | {"students": {n: vars(s) for n, s in parsed.students.items()}}


def _named(plans: Sequence[str]) -> dict[str, Any]:
    return {name: student(plan=name, **_MORE.get(name, {})) for name in plans}


CELL, ROW = 21, 20
LEFT = 234
"""Pixels: a training step, a lane, and where lanes begin."""


def plans() -> str:
    """Return what teacher and student learn in each plan, one batch a cell."""
    plan = plan_of(_named(list(PLANS)))
    lanes = {name: course.lanes(plan["segments"], name) for name in PLANS}
    return _side_by_side(
        "Six plans of the same teacher and the same twelve batches",
        PLANS,
        lanes,
        ("teacher", "student"),
    )


def self_plans() -> str:
    """Return what a network that teaches itself learns, one batch a cell."""
    fields = {"teacher": "none", "model": "small_cnn_branches", "method": "self_kd"}
    plan = plan_of(_named(list(SELF_PLANS)), **fields)
    settings = plan["students"]
    lanes = {
        name: course.own_lanes(plan["segments"], name, settings[name])
        for name in SELF_PLANS
    }
    return _side_by_side(
        "Self KD: the two phases of a network that teaches itself",
        SELF_PLANS,
        lanes,
        ("labels", "whole loss"),
    )


def _side_by_side(
    title: str,
    about: Mapping[str, str],
    found: Mapping[str, course.Lanes],
    names: tuple[str, str],
) -> str:
    parts, y = [words(16, 28, title, font_weight="bold", font_size=15)], 48
    for name, lanes in found.items():
        parts += [
            words(16, y + 14, name, font_weight="bold"),
            words(16, y + 34, about[name], fill=FAINT, font_size=10.5),
        ]
        for row, (lane, blocks) in enumerate(zip(names, lanes, strict=True)):
            top = y + row * ROW
            place = {"fill": FAINT, "font_size": 10.5, "text_anchor": "end"}
            parts.append(words(LEFT - 8, top + 14, lane, **place))
            parts.append(box(LEFT, top + 1, lanes.end * CELL, ROW - 2, IDLE, rx=3))
            parts += _cells(blocks, top, (TEACHER, STUDENT)[row])
        y += 2 * ROW + 14
    note = "time in training steps, left to right; in a cell: the batch that is learned"
    parts.append(words(LEFT, y + 10, note, fill=FAINT, font_size=11))
    said = "; ".join(f"{name}: {text}" for name, text in about.items())
    return drawing.document(y + 26, title, said, parts)


def _cells(blocks: Sequence[Block], top: int, colour: str) -> list[str]:
    parts = []
    for block in blocks:
        for step in range(block.steps):
            batch, x = block.start + step, LEFT + (block.at + step) * CELL
            # Intervals differ in shade, so that a replay is seen to be the same.
            shade = 1 - 0.22 * (batch // INTERVAL % 2)
            parts += [
                box(x + 1, top + 1, CELL - 2, ROW - 2, colour, rx=3, opacity=shade),
                label(x + CELL / 2, top + ROW / 2, str(batch + 1)),
            ]
    return parts


SEEN = ("online", "lagged", "spaced", "constant_ahead", "offline")


def seen() -> str:
    """Return how many updates the teacher had behind it when a batch was learned."""
    plan = plan_of(_named(SEEN))
    total, wide, high, left = plan["total_steps"], 46, 30, 150
    title = "How far the teacher was when the student learned batch t"
    parts = [words(16, 28, title, font_weight="bold", font_size=15)]
    parts.append(words(16, 62, "batch t", fill=FAINT))
    for t in range(total):
        middle = left + (t + 0.5) * wide
        parts.append(label(middle, 58, str(t + 1), fill=FAINT, font_size=12))
    for row, name in enumerate(SEEN):
        top = 74 + row * (high + 6)
        parts.append(words(16, top + 20, name, font_weight="bold"))
        known = teacher_updates(plan, name)
        for t in range(total):
            x = left + t * wide
            if t not in known:
                parts.append(box(x + 1, top, wide - 2, high, IDLE, rx=3))
                continue
            fill, ink = _lead_colour(known[t] - t, total)
            parts.append(box(x + 1, top, wide - 2, high, fill, rx=3))
            middle = x + wide / 2, top + high / 2
            parts.append(label(*middle, str(known[t]), fill=ink, font_size=13))
    end = 74 + len(SEEN) * (high + 6)
    notes = (
        "in a cell: the teacher's updates; blue: it has not met this batch yet;",
        "red: it has, the darker the further ahead; grey: the student never learns it",
    )
    for row, note in enumerate(notes):
        place = {"fill": FAINT, "font_size": 11}
        parts.append(words(16, end + 14 + 16 * row, note, **place))
    said = "; ".join(f"{n}: {list(teacher_updates(plan, n).values())}" for n in SEEN)
    return drawing.document(end + 46, title, said, parts)


def teacher_updates(plan: Mapping[str, Any], name: str) -> dict[int, int]:
    """Return batch -> updates that the teacher had when it taught that batch."""
    found = {}
    for piece in course.knowledge(plan["segments"], name, plan["students"][name]):
        for t in range(piece.start, piece.stop):
            found[t] = piece.first + (0 if piece.frozen else t - piece.start)
    return found


def _lead_colour(lead: int, total: int) -> tuple[str, str]:
    """Return fill and ink for a teacher so many updates ahead of the batch."""
    hue = TEACHER if lead <= 0 else STUDENT
    share = 0.25 + 0.75 * abs(lead) / total
    fill = _mixed(hue, share)
    return fill, PAPER if share > 0.7 else INK


def _mixed(colour: str, share: float) -> str:
    channels = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - c)):02x}" for c in channels)


MOST = 4
"""Students in the picture of what a teacher costs."""


def cost() -> str:
    """Return the passes of K spaced students with one teacher, and with K teachers."""
    title = (
        "What a batch costs, in forward passes: one teacher for all, or one for each"
    )
    parts = [words(16, 28, title, font_weight="bold", font_size=15)]
    left, scale, y, said = 132, 20, 50, []
    for count in range(1, MOST + 1):
        lead, own = passes(count)
        s = "s" * (count > 1)
        base = y + (22 if count > 1 else 13)
        parts.append(words(16, base, f"{count} student{s}", font_weight="bold"))
        for row, teachers in enumerate((1, count)):
            top, x = y + row * 18, float(left)
            for spent, colour in [(lead, TEACHER)] * teachers + [
                (own, STUDENT)
            ] * count:
                parts.append(box(x, top, spent * scale - 1, 16, colour, rx=2))
                x += spent * scale
            total = teachers * lead + count * own
            text = f"{total:g}" + (" shared" if row == 0 and count > 1 else "")
            parts.append(words(x + 6, top + 13, text, font_size=12))
            said.append(f"{count} student{s}, {teachers} teacher(s): {total:g}")
            if count == 1:
                break
        y += 46 if count > 1 else 30
    for x, colour, text in (
        (left, TEACHER, f"teacher: {lead:g} (forward 1, backward 2)"),
        (left + 280, STUDENT, f"student: {own:g} (the same, and the teacher's answer)"),
    ):
        parts.append(box(x, y + 2, 12, 12, colour, rx=2))
        parts.append(words(x + 18, y + 12, text, fill=FAINT, font_size=11.5))
    return drawing.document(y + 30, title, "; ".join(said), parts)


def passes(count: int) -> tuple[float, float]:
    """Return a batch's passes, by plan.json, of the teacher and of a spaced student."""
    names = [f"spaced_{k}" for k in range(count)]
    plan = plan_of({name: student(plan="spaced") for name in names})
    spent = {
        name: (net["forward_passes"] + 2 * net["backward_passes"]) / plan["total_steps"]
        for name, net in plan["networks"].items()
    }
    (own,) = {spent[name] for name in names}
    return spent["teacher"], own


PICTURES = {"plans": plans, "seen": seen, "self_kd": self_plans, "cost": cost}
"""File name without ending -> what draws it."""


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
