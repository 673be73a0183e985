"""The configuration of a run against the defaults, and the environment without secrets.

Works on the plain values of `config.json`, which may be of another version of the
package: a field that is unknown here is shown, not refused.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from spaced_kd import provenance
from spaced_kd.config import (
    FIXED_TEACHER_CHOICES,
    Config,
    StudentConfig,
    auto_choices,
    special_choices,
)

UNKNOWN = "(not a field of this version)"

_SECRET = re.compile(r"token|secret|passw|credential|api_?key", re.IGNORECASE)


class Setting(NamedTuple):
    """One field: dotted path, this run's value, the default, and what it means."""

    path: str
    value: str
    default: str
    doc: str

    @property
    def differs(self) -> bool:
        """Whether the run has another value than the default."""
        return self.value != self.default


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """Return every field of a resolved config, in its order.

    A student's default is what it inherits; the default of a field that is left at
    "auto" is what `compat` and the student's plan resolve it to. A stage's fields
    follow, likewise.
    """
    named = ("students", "stages")
    rest = {name: value for name, value in config.items() if name not in named}
    fixed = FIXED_TEACHER_CHOICES if config["teacher"].get("stage") else {}
    rows = list(_compare(rest, _defaults(config), _docs(Config)))
    for name, student in config["students"].items():
        # What `config.student` resolved to says nothing of another method's choices.
        same = student["method"] == config["student"]["method"]
        choices = special_choices if same else auto_choices
        special = config["student"] | choices(config["compat"], student) | fixed
        inherited = _choose(student, special, config["student"])
        docs = _docs(StudentConfig)
        rows += _compare(student, inherited, docs, f"students.{name}.")
    for name, stage in config.get("stages", {}).items():
        rows += [
            setting._replace(path=f"stages.{name}.{setting.path}")
            for setting in settings(stage)
        ]
    return rows


def environment(env: Any) -> str:
    """Return `env.json` as indented text with the values of secret names left out."""
    return json.dumps(_redact(env), indent=2, ensure_ascii=False)


def started(env: Mapping[str, Any]) -> list[str]:
    """Return with which code and where a run was started, a line for every change.

    Args:
      env: `env.json`, {} without.
    """
    lines: list[str] = []
    every = [_start(one) for one in provenance.environments(env)]
    for place, line in enumerate(every):
        if not place or line != every[place - 1]:
            lines.append(f"start {place + 1} of {len(every)}: {line}")
    return lines


def _start(env: Mapping[str, Any]) -> str:
    git, devices = env.get("git") or {}, env.get("devices") or {}
    commit = f", commit {str(git.get('commit'))[:12]}" if git else ""
    changes = " with changes" if git.get("dirty") else ""
    version = (env.get("versions") or {}).get("spaced_kd", "unknown version")
    where = f"{devices.get('used')} x {devices.get('kind')}" if devices else "?"
    return f"spaced_kd {version}{commit}{changes}, on {where}"


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    defaults = dataclasses.asdict(Config())
    defaults["student"] |= auto_choices(config["compat"], config["student"])
    teacher = {"method": "hard"} | config["teacher"]
    choices = auto_choices(config["compat"], teacher)
    defaults["teacher"] |= {n: v for n, v in choices.items() if n in teacher}
    if config["teacher"].get("stage"):
        defaults["student"] |= FIXED_TEACHER_CHOICES
    return defaults


def _choose(student: Mapping, special: Mapping, plain: Mapping) -> dict[str, Any]:
    """Take what the plan prescribes where the student has it, else what it inherits."""
    return {
        name: special[name] if student.get(name) == special[name] else plain[name]
        for name in plain
    }


def _compare(
    values: Mapping[str, Any], defaults: Any, docs: Any, prefix: str = ""
) -> Iterator[Setting]:
    for name, value in values.items():
        known = isinstance(defaults, Mapping) and name in defaults
        default = defaults[name] if known else UNKNOWN
        doc = docs.get(name, "") if isinstance(docs, Mapping) else ""
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _compare(value, default, doc, f"{path}.")
        else:
            text = default if not known else json.dumps(default, ensure_ascii=False)
            meaning = doc if isinstance(doc, str) else ""
            yield Setting(path, json.dumps(value, ensure_ascii=False), text, meaning)


def _docs(cls: Any) -> dict[str, Any]:
    docs: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        nested = dataclasses.is_dataclass(field.type)
        docs[field.name] = (
            _docs(field.type) if nested else field.metadata.get("doc", "")
        )
    return docs


def _redact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: "(left out)" if _SECRET.search(str(name)) else _redact(entry)
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [_redact(entry) for entry in value]
    return value
