"""What becomes of fields that are left open.

A field at "auto" takes the choice of `config.compat`, which its student's method and
plan may overrule; a field without a value takes the default of the method.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from spaced_kd.config.names import AUTO, FEEDBACK_INTERVALS
from spaced_kd.config.roles import StudentConfig

COMPAT: dict[str, dict[str, str]] = {
    # docs/deviations.md gives the source of every cell.
    "recommended": {
        "soft_loss": "kl",
        "temperature_squared": "yes",
        "teacher_bn": "batch",
        "online_teacher": "before",
        "init": "different",
        "remainder": "drop",
        "replay": "exact",
        "trigger": "interval",
        "feature_branches": "not_deepest",
        "quote": "deepest",
    },
    "paper": {
        "soft_loss": "kl",
        "temperature_squared": "no",
        "teacher_bn": "running",
        "online_teacher": "after",
        "init": "same",
        "remainder": "flush",
        "replay": "exact",
        "trigger": "interval",
        "feature_branches": "all",
        "quote": "deepest",
    },
    "released": {
        "soft_loss": "probspace",
        "temperature_squared": "no",
        "teacher_bn": "batch",
        "online_teacher": "before",
        "init": "different",
        "remainder": "drop",
        "replay": "exact",
        "trigger": "released",
        "feature_branches": "not_deepest",
        "quote": "deepest",
    },
}

METHOD_CHOICES: dict[str, dict[str, dict[str, str]]] = {
    # A network that learns from labels alone has no teacher to start like.
    "hard": {compat: {"init": "different"} for compat in COMPAT},
    # Self KD: the released loss is correct there, so it is the recommended one; no
    # teacher to share initial weights with.
    "self_kd": {
        compat: {
            "soft_loss": "kl" if compat == "paper" else "soft_cross_entropy",
            "temperature_squared": "no",
            "init": "different",
            "quote": "ensemble",
        }
        for compat in COMPAT
    },
    # As their authors train them; nobody of theirs to start like.
    "dlb": {
        compat: {"soft_loss": "kl", "temperature_squared": "yes", "init": "different"}
        for compat in COMPAT
    },
    "ps_kd": {compat: {"init": "different"} for compat in COMPAT},
    "dml": {
        compat: {"soft_loss": "kl", "temperature_squared": "yes", "init": "different"}
        for compat in COMPAT
    },
    "shake": {
        compat: {"soft_loss": "kl", "temperature_squared": "yes", "init": "different"}
        for compat in COMPAT
    },
}

FIXED_TEACHER_CHOICES = {"teacher_bn": "running", "init": "different"}
"""Of students whose teacher comes trained: in eval mode, as in every offline KD; what
it began with is not known here, and a born-again network begins with other weights."""

PLAN_CHOICES: dict[str, dict[str, str]] = {
    # Offline KD ("max" in the paper's Table 6) is a program of its own in the released
    # code: a converged teacher in eval mode and freshly drawn batches.
    "offline": {
        "teacher_bn": "running",
        "replay": "reshuffle",
        "remainder": "flush",
        "trigger": "interval",
    },
    # The window's last short round is replayed, so that step counts match.
    "critical_period": {"remainder": "flush"},
    # No teacher, hence the plain loss; from its weights it would be the teacher again.
    "none": {"method": "hard", "init": "different", "quote": "deepest"},
}


def auto_choices(compat: str, student: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a network's fields become that are left open.

    Args:
      compat: a key of COMPAT; another one, of a later version, chooses nothing.
      student: its fields, of which method and plan matter; the teacher has no plan.
    """
    return COMPAT.get(compat, {}) | special_choices(compat, student)


def special_choices(compat: str, student: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `auto_choices` that come from the method and the plan."""
    by_method = METHOD_CHOICES.get(student["method"], {}).get(compat, {})
    feedback = student.get("interval_schedule") in FEEDBACK_INTERVALS
    return (
        method_defaults(student["method"])
        | by_method
        # As many updates whatever is decided: learning rates need their number.
        | ({"remainder": "flush"} if feedback else {})
        | PLAN_CHOICES.get(student.get("plan", ""), {})
    )


def has_method_defaults(field: dataclasses.Field) -> bool:
    """Whether a field's default depends on the method, so that it starts open."""
    return "by_method" in field.metadata


def method_defaults(method: str) -> dict[str, Any]:
    """Return the defaults of the fields that start open, for this method."""
    return {
        field.name: field.metadata["by_method"].get(method, field.default)
        for field in dataclasses.fields(StudentConfig)
        if has_method_defaults(field)
    }


def resolve_auto(network: Any, compat: str, fixed_teacher: bool = False) -> Any:
    """Return a teacher's or student's config without a field at "auto".

    Args:
      network: TeacherConfig or StudentConfig.
      compat: a key of COMPAT.
      fixed_teacher: whether it learns from a network that comes trained.
    """
    choices = auto_choices(compat, vars(network))
    if fixed_teacher:
        choices |= FIXED_TEACHER_CHOICES
    open_names = [n for n in choices if getattr(network, n, None) == AUTO]
    if vars(network).get("plan") == "none":
        # Whatever the run's other students inherit.
        open_names += ["method", "quote"]
    return dataclasses.replace(network, **{n: choices[n] for n in open_names})
