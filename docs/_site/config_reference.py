"""The reference of every config field, from the dataclasses that declare them."""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

from spaced_kd.config import (
    COMPAT,
    FIXED_TEACHER_CHOICES,
    PLANS,
    Config,
    auto_choices,
    special_choices,
)
from spaced_kd.methods import METHODS

DOCS = Path(__file__).parents[1]
_TABLE_HEAD = "| field | default | values | meaning |\n|---|---|---|---|\n"
_COMPAT_NAMES = tuple(COMPAT)


def groups() -> dict[type, list[str]]:
    """Return every dataclass of the config, and the paths at which it stands.

    A class that others are made from comes right after the first of them, and declares
    the fields that they have in common.
    """
    found: dict[type, list[str]] = {}
    for path, cls in _walk(Config, "config"):
        for base in cls.__mro__:
            if dataclasses.is_dataclass(base):
                found.setdefault(base, []).append(path)
    return found


def _walk(cls: type, path: str) -> Iterator[tuple[str, type]]:
    yield path, cls
    for field in dataclasses.fields(cls):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield from _walk(field.type, f"{path}.{field.name}")


def own_fields(cls: type) -> list[dataclasses.Field]:
    """Return the fields that a class declares itself."""
    return [f for f in dataclasses.fields(cls) if f.name in cls.__annotations__]


def markdown() -> str:
    """Return all fields, a table for each group, and what becomes of "auto"."""
    parts = [_group(cls, paths) for cls, paths in groups().items()]
    return "\n\n".join([*parts, _auto()])


def _group(cls: type, paths: list[str]) -> str:
    title = " and ".join(f"`{path}`" for path in paths)
    about = (cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    rows = [_row(field) for field in own_fields(cls)]
    return f"## {title}\n\n{about}\n\n{_TABLE_HEAD}" + "\n".join(rows)


def _row(field: dataclasses.Field) -> str:
    meaning = escaped(field.metadata["doc"])
    meaning = meaning[0].upper() + meaning[1:] + "."
    if field.metadata.get("operational"):
        meaning += " *Operational.*"
    cells = (f"`{field.name}`", _default(field), _values(field), meaning)
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return a plain text as Markdown, in which backticks are code as before."""
    text = re.sub(r"([|*<\[])", r"\\\1", text)
    return re.sub(r"docs/(\w+\.md)", _page, text)


def _page(found: re.Match) -> str:
    # A field may name a page that a later change brings.
    return f"[{found[1]}]({found[1]})" if (DOCS / found[1]).exists() else found[0]


def _is_group(field: dataclasses.Field) -> bool:
    return field.default_factory is not dataclasses.MISSING


def _default(field: dataclasses.Field) -> str:
    if _is_group(field):
        return ""
    shown = f"`{field.default}`" if field.default != "" else '`""`'
    opens = field.name in auto_choices("recommended", {"method": "kd"})
    return f"[{shown}](#what-auto-becomes)" if opens else shown


def _values(field: dataclasses.Field) -> str:
    if _is_group(field):
        return "a group" if dataclasses.is_dataclass(field.type) else "groups by name"
    choices = field.metadata["choices"] or _keys(field.metadata["doc"])
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    signs = {"low": "≥", "above": ">", "high": "≤"}
    bounds = ((sign, field.metadata[name]) for name, sign in signs.items())
    shown = [f"{sign} {bound:g}" for sign, bound in bounds if bound is not None]
    return ", ".join([field.type.__name__, *shown])


def _keys(doc: str) -> list[str]:
    """Return the names in the table that a field's text says it is a key of."""
    found = re.search(r"a key of ([\w.]+)\.([A-Z_]+)", doc)
    return list(getattr(importlib.import_module(found[1]), found[2])) if found else []


def _auto() -> str:
    rows = [row for name in _open_names() for row in _auto_rows(name)]
    head = f"| field | of which student | {' | '.join(_COMPAT_NAMES)} |\n"
    return (
        "## What auto becomes\n\n"
        "A field at `auto`, or left open, takes the value of the lowest row that is "
        "about its student; `config.compat` chooses the column.\n\n"
        f"{head}|{'---|' * (2 + len(_COMPAT_NAMES))}\n" + "\n".join(rows)
    )


def _open_names() -> list[str]:
    plain = {"method": "kd", "plan": "online"}
    return list(auto_choices("recommended", plain))


def _auto_rows(name: str) -> list[str]:
    plain = {"method": "kd", "plan": "online"}
    usual = _by_compat(auto_choices, name, plain)
    rows = [(name, "any", usual)]
    alike: dict[tuple, list[str]] = {}
    for method in METHODS:
        chosen = _by_compat(special_choices, name, {"method": method})
        if any(chosen) and chosen != usual:
            alike.setdefault(tuple(chosen), []).append(f"`method={method}`")
    rows += [(name, ", ".join(who), chosen) for chosen, who in alike.items()]
    for plan in PLANS:
        chosen = _by_compat(special_choices, name, {"method": "kd", "plan": plan})
        if any(chosen) and chosen != _by_compat(special_choices, name, plain):
            rows.append((name, f"`plan={plan}`", chosen))
    fixed = FIXED_TEACHER_CHOICES.get(name)
    if fixed:
        rows.append((name, "with a teacher trained in a stage", [fixed] * len(COMPAT)))
    return [
        f"| `{field}` | {who} | {' | '.join(f'`{v}`' for v in values)} |"
        for field, who, values in rows
    ]


def _by_compat(choose, name: str, student: dict[str, str]) -> list:
    return [choose(compat, student).get(name) for compat in _COMPAT_NAMES]
