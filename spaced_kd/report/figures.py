"""Which figures a report has, by section."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from spaced_kd import style
from spaced_kd.config import TWO_WAY
from spaced_kd.exits import ExitResult
from spaced_kd.report import course, curves, exit_figures, interval_figures, timeline
from spaced_kd.results import NetworkResult, network_order
from spaced_kd.style import Look
from spaced_kd.writers import Row

Drawn = tuple[str, str, Figure | None]
"""File name without ending, caption, figure."""


def every_figure(
    config: Mapping[str, Any],
    plan: Mapping[str, Any],
    rows: Sequence[Row],
    networks: Mapping[str, NetworkResult],
) -> dict[str, Sequence[Drawn]]:
    """Draw all figures of a report.

    Args:
      config: "config" of `config.json`.
      plan: `plan.json`.
      rows: of `metrics.jsonl`.
      networks: their results.

    Returns:
      Section -> figures; None where there is nothing to draw yet.
    """
    names = [name for name in network_order(config, plan) if name != "teacher"]
    students = {name: config["students"][name] for name in names}
    looks = style.line_looks(students)
    exits = exit_figures.trained_exits(students, networks)
    return {
        "accuracy": _accuracy_figures(rows, looks),
        "exits": _exit_figures(rows, exits, looks),
        "training": _training_figures(rows, looks, config.get("teacher", {})),
        "timeline": [
            *_timeline_figures(plan, students, looks),
            *_interval_figures(plan, rows, {name: looks[name] for name in students}),
        ],
        "gap": _gap_figures(rows, {name: looks[name] for name in students}),
    }


def _accuracy_figures(rows: Sequence[Row], looks: dict[str, Look]) -> Sequence[Drawn]:
    epochs = [row["epoch"] for row in rows if row["phase"] == "eval"]
    acc1, loss = curves.evaluated("acc1"), curves.evaluated("loss")
    label = "top-1 accuracy, %"
    drawn: list[Drawn] = [
        ("test_accuracy", "Top-1 accuracy on the test set",
         curves.evaluation_figure(rows, looks, acc1, label)),
    ]  # fmt: skip
    if len(set(epochs)) >= 8:
        drawn.append(
            ("test_accuracy_end", "The same, second half of each network's training",
             curves.evaluation_figure(rows, looks, acc1, label, from_half=True))
        )  # fmt: skip
    drawn.append(
        ("test_loss", "Cross-entropy on the test set",
         curves.evaluation_figure(rows, looks, loss, "cross-entropy, nats"))
    )  # fmt: skip
    return drawn


def _exit_figures(
    rows: Sequence[Row],
    exits: Mapping[str, Mapping[str, ExitResult]],
    looks: dict[str, Look],
) -> Sequence[Drawn]:
    along = exit_figures.course_figure
    return [
        ("exits_last", "Top-1 accuracy of every exit at the last evaluation",
         exit_figures.last_figure(exits, looks)),
        ("exits_accuracy", "Top-1 accuracy of every exit over training",
         along(rows, exits, "acc1", "top-1 accuracy, %")),
        ("exits_kl", "From the branches to the deepest exit: KL(deepest || exit)",
         along(rows, exits, "deepest_kl", "nats")),
        ("exits_agreement", "Test images with the deepest exit's top-1 answer",
         along(rows, exits, "deepest_agreement", "%")),
    ]  # fmt: skip


def _training_figures(
    rows: Sequence[Row], looks: dict[str, Look], teacher: Mapping[str, Any]
) -> Sequence[Drawn]:
    # A teacher of an older run learned from the labels alone.
    alone = teacher.get("method", "hard") == "hard"

    def hard(network: str) -> str:
        return "loss" if network == "teacher" and alone else "hard_loss"

    students = {name: look for name, look in looks.items() if name != "teacher"}
    shown = (
        ("train_hard_loss", "Cross-entropy with the labels", looks, hard),
        ("train_branch_loss", "Cross-entropy of the branches with the labels",
         students, lambda _: "branch_hard_loss"),
        ("train_soft_loss", "Soft loss", looks, lambda _: "soft_loss"),
        ("train_feature_loss", "Feature loss", looks, lambda _: "feature_loss"),
        ("train_loss", "What each network minimises", looks, lambda _: "loss"),
    )  # fmt: skip
    return [
        (stem, title, curves.training_figure(rows, networks, metric, "training loss"))
        for stem, title, networks, metric in shown
    ]


def _timeline_figures(
    plan: Mapping[str, Any], students: Mapping[str, Any], looks: dict[str, Look]
) -> Sequence[Drawn]:
    start = course.window(plan)
    how_far = f"How far {_who_teaches(plan, students)} was"
    lanes, known = timeline.timeline_figure, timeline.knowledge_figure
    drawn: list[Drawn] = [
        ("timeline_start", "Who trained when: the beginning; numbers are batches",
         lanes(plan, students, looks, start)),
        ("timeline_whole", "Who trained when: the whole run",
         lanes(plan, students, looks)),
        ("knowledge_start", f"{how_far}: the beginning",
         known(plan, students, looks, start // 2)),
        ("knowledge", f"{how_far}: the whole run",
         known(plan, students, looks)),
    ]  # fmt: skip
    # A short run is all beginning.
    return drawn if start // 2 < plan["total_steps"] else drawn[::3]


def _interval_figures(
    plan: Mapping[str, Any], rows: Sequence[Row], looks: dict[str, Look]
) -> Sequence[Drawn]:
    figure = interval_figures.interval_figure(plan, rows, looks)
    title = "Intervals that change, and what feedback decided on"
    return [("intervals", title, figure)] if figure else []


def _who_teaches(plan: Mapping[str, Any], students: Mapping[str, Any]) -> str:
    every = students.values()
    mutual = [its for its in every if its["method"] in TWO_WAY]
    alone = [its for its in every if its not in mutual]
    apart = [its for its in alone if not course.learns_alone(plan, its)]
    moves = bool(apart) and course.trains_teacher(plan)
    who = ["the teacher"] * moves + ["the network"] * (len(apart) < len(alone))
    return " or ".join(who + ["the peer"] * bool(mutual))


def _gap_figures(rows: Sequence[Row], looks: dict[str, Look]) -> Sequence[Drawn]:
    kl, same = curves.evaluated("teacher_kl"), curves.evaluated("teacher_agreement")
    shown = (
        ("gap_kl", "KL(teacher || student)", kl, "nats"),
        ("gap_agreement", "Test images with the same top-1 answer", same, "%"),
        ("gap_accuracy", "Accuracy, teacher minus student", curves.accuracy_gap,
         "percentage points"),
    )  # fmt: skip
    return [
        (stem, title, curves.evaluation_figure(rows, looks, metric, unit))
        for stem, title, metric, unit in shown
    ]
