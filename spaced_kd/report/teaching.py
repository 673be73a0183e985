"""Who teaches whom in a run, in words and as flags for the page's explanations."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from spaced_kd.config import SELF_TAUGHT, TWO_WAY, WITH_BRANCHES
from spaced_kd.report.course import learns_alone, trains_teacher


class Teaching(NamedTuple):
    """Which kinds of teaching a run has.

    teacher: it has one. finished: it was trained before the run. apart: students learn
    beside it. alone: students do without. itself: of these, some are their own teacher;
    branches: with exits that the deepest one teaches. released: some of these replay
    when the released code would. mutual: students learn with a peer. lagged: some
    learn from a teacher that is held back.
    """

    teacher: bool
    finished: bool
    apart: bool
    alone: bool
    itself: bool
    branches: bool
    released: bool
    mutual: bool
    lagged: bool


def teaching(config: Mapping[str, Any], plan: Mapping[str, Any]) -> Teaching:
    """Return the flags of a run.

    Args:
      config: "config" of `config.json`.
      plan: `plan.json`.
    """
    students = config["students"].values()
    mutual = [settings for settings in students if settings["method"] in TWO_WAY]
    others = [settings for settings in students if settings not in mutual]
    alone = [settings for settings in others if learns_alone(plan, settings)]
    itself = [settings for settings in alone if settings["method"] in SELF_TAUGHT]
    branches = [settings for settings in itself if settings["method"] in WITH_BRANCHES]
    has_teacher = "teacher" in plan["networks"]
    return Teaching(
        teacher=has_teacher,
        finished=has_teacher and not trains_teacher(plan),
        apart=len(alone) < len(others),
        alone=bool(alone),
        itself=bool(itself),
        branches=bool(branches),
        released=any(
            settings["plan"] == "spaced" and settings["trigger"] == "released"
            for settings in branches
        ),
        mutual=bool(mutual),
        lagged=any(settings["plan"] == "lagged" for settings in students),
    )


def sentence(config: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Return what was run, for the head of the page.

    Args:
      config: "config" of `config.json`.
      plan: `plan.json`.
    """
    students, seeds = config["students"], config["num_seeds"]
    text = (
        f"{_teacher(config, plan)}{len(students)} student"
        f"{'s' * (len(students) != 1)} on "
        f"{config['data']['name']}{_own_teachers(config, plan)}, "
        f"{config['num_epochs']} epochs of {plan['steps_per_epoch']:,} steps with "
        f"{plan['batch_size']:,} images each, {seeds} seed{'s' * (seeds != 1)}."
    )
    own = {
        n: s["epochs_factor"] for n, s in students.items() if s["epochs_factor"] != 1
    }
    if own:
        other = ", ".join(
            f"{name} {factor * config['num_epochs']:g}" for name, factor in own.items()
        )
        text += f" Epochs of the stream: {other}."
    return text


def _teacher(config: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    if "teacher" not in plan["networks"]:
        return ""
    teacher = config["teacher"]
    # Older runs have teachers that learn from the labels, in the run, without a field.
    method, tutor = teacher.get("method", "hard"), config.get("tutor", {}).get("model")
    how = ""
    if not trains_teacher(plan):
        how = " that was trained before this run"
    elif method not in ("hard", *SELF_TAUGHT):
        how = f" that learns from a trained {tutor} ({method})"
    elif method != "hard":
        how = f" that is its own teacher ({method})"
    return f"One {teacher['model']} teacher{how} and "


def _own_teachers(config: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    methods = [settings["method"] for settings in config["students"].values()]
    itself = _share(
        sum(method in SELF_TAUGHT for method in methods),
        len(methods),
        ("its own teacher", "teaches itself", "teach themselves"),
    )
    mutual = _share(
        sum(method in TWO_WAY for method in methods),
        len(methods),
        ("with a peer", "learns with a peer", "learn with peers"),
    )
    if itself or mutual or "teacher" in plan["networks"]:
        return itself + mutual
    return ", without a teacher"


def _share(count: int, whole: int, words: tuple[str, str, str]) -> str:
    """Return which of the students do something; words: of all, of one, of several."""
    if not count:
        return ""
    if count == whole:
        return f", {'each ' * (count > 1)}{words[0]}"
    return f", {count} of which {words[1 + (count > 1)]}"
