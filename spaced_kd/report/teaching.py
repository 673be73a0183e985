"""Who teaches whom in a run, in words and as flags for the page's explanations."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from spaced_kd.config import SELF_TAUGHT
from spaced_kd.report.course import learns_alone


class Teaching(NamedTuple):
    """Which kinds of teaching a run has.

    teacher: it has one. apart: students learn beside it. alone: students do without.
    itself: of these, some are their own teacher. released: some of these replay when
    the released code would. lagged: some learn from a teacher that is held back.
    """

    teacher: bool
    apart: bool
    alone: bool
    itself: bool
    released: bool
    lagged: bool


def teaching(config: Mapping[str, Any], plan: Mapping[str, Any]) -> Teaching:
    """Return the flags of a run.

    Args:
      config: "config" of `config.json`.
      plan: `plan.json`.
    """
    students = config["students"].values()
    alone = [settings for settings in students if learns_alone(plan, settings)]
    itself = [settings for settings in alone if settings["method"] in SELF_TAUGHT]
    return Teaching(
        teacher="teacher" in plan["networks"],
        apart=len(alone) < len(students),
        alone=bool(alone),
        itself=bool(itself),
        released=any(
            settings["plan"] == "spaced" and settings["trigger"] == "released"
            for settings in itself
        ),
        lagged=any(settings["plan"] == "lagged" for settings in students),
    )


def sentence(config: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """Return what was run, for the head of the page.

    Args:
      config: "config" of `config.json`.
      plan: `plan.json`.
    """
    students, seeds = config["students"], config["num_seeds"]
    teacher = ""
    if "teacher" in plan["networks"]:
        teacher = f"One {config['teacher']['model']} teacher and "
    text = (
        f"{teacher}{len(students)} student{'s' * (len(students) != 1)} on "
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


def _own_teachers(config: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    students = config["students"].values()
    count = sum(settings["method"] in SELF_TAUGHT for settings in students)
    if not count:
        return "" if "teacher" in plan["networks"] else ", without a teacher"
    if count == len(students):
        return ", each its own teacher" if count > 1 else ", its own teacher"
    return f", {count} of which {'teach themselves' if count > 1 else 'teaches itself'}"
