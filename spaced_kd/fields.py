"""How a group of options is declared, overridden by flags, and read back.

A group is a frozen dataclass whose fields are made by `option`, `section` and `named`:
default, meaning and bounds stand in one place. `to_config_dict` turns it into the
`ConfigDict` that config files and `--config.a.b=v` change; `parse` turns the values of
that into the dataclass again, validated, and tells the user of the first wrong one.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from spaced_kd import registry
from spaced_kd.errors import ConfigError

_KINDS = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
}


def option(
    default, doc, *, low=None, above=None, high=None, choices=None, **extra
) -> Any:
    """Declare a field with one value.

    Args:
      default: its value where nobody gives another; of the field's type, which is bool,
        int, float or str.
      doc: what it means, with its unit and source, for people.
      low: least value.
      above: exclusive lower bound.
      high: greatest value.
      choices: the only values, or None.
      **extra: what else the field's `metadata` shall say.
    """
    meta = {"doc": doc, "low": low, "above": above, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=meta | extra)


def section(cls, doc, **extra) -> Any:
    """Declare a nested group: `cls` is its dataclass, `doc` and `extra` as above."""
    return dataclasses.field(default_factory=cls, metadata={"doc": doc} | extra)


def named(doc) -> Any:
    """Declare a dict of groups that the user names; `parse` leaves it empty."""
    return dataclasses.field(default_factory=dict, metadata={"doc": doc})


def _never(_: dataclasses.Field) -> bool:
    return False


def to_config_dict(
    cls, is_open: Callable[[dataclasses.Field], bool] = _never
) -> ml_collections.ConfigDict:
    """Return every field of `cls` at its default, ready for overrides.

    Args:
      cls: dataclass with fields of this module; their annotations are types, not the
        strings that `from __future__ import annotations` makes of them.
      is_open: whether an option stays without a value (a placeholder of its type), for
        what reads it to fill; none does by default.
    """
    fields = ml_collections.ConfigDict()
    for field in dataclasses.fields(cls):
        if _is_named(field):
            fields[field.name] = ml_collections.ConfigDict()
        elif dataclasses.is_dataclass(field.type):
            fields[field.name] = to_config_dict(field.type, is_open)
        elif is_open(field):
            fields[field.name] = config_dict.placeholder(field.type)
        else:
            fields[field.name] = field.default
    return fields


def parse(cls, raw: Mapping[str, Any], path: str, remedy: str = "give it") -> Any:
    """Return a `cls` with the values of `raw`, all of them checked.

    Args:
      cls: as for `to_config_dict`.
      raw: field -> value, nested; every field but the named dicts, and no other.
      path: dotted path of `raw`, for messages.
      remedy: what to do about a field that is missing.

    Raises:
      ConfigError: the first field that is unknown or missing, or that `check` refuses.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in raw:
        if name not in known:
            registry.lookup(known, name, f"{path}.{name}: field")
    values = {}
    for name, field in known.items():
        if _is_named(field):
            continue
        dotted = f"{path}.{name}"
        if name not in raw:
            raise ConfigError(f"{dotted} is missing; {remedy}.")
        if dataclasses.is_dataclass(field.type):
            values[name] = parse(field.type, raw[name], dotted, remedy)
        else:
            values[name] = check(raw[name], field, dotted)
    return cls(**values)


def check(value: Any, field: dataclasses.Field, dotted: str) -> Any:
    """Return a field's value, where an integer given for a number became a float.

    Args:
      value: what the user gave.
      field: made by `option`.
      dotted: its path, for messages.

    Raises:
      ConfigError: wrong type, not finite, out of bounds, or not among the choices.
    """
    kind: Any = field.type
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(
            f"{dotted}={value!r} is a {type(value).__name__}; give {_KINDS[kind]}."
        )
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{dotted}={value!r} is not finite; give a finite number.")
    meta = field.metadata
    if meta["choices"] is not None and value not in meta["choices"]:
        registry.lookup(dict.fromkeys(meta["choices"]), str(value), dotted)
    low, above, high = meta["low"], meta["above"], meta["high"]
    if low is not None and value < low:
        raise ConfigError(f"{dotted}={value!r} is too small; give at least {low}.")
    if above is not None and value <= above:
        raise ConfigError(f"{dotted}={value!r} is too small; give more than {above}.")
    if high is not None and value > high:
        raise ConfigError(f"{dotted}={value!r} is too large; give at most {high}.")
    return value


def _is_named(field: dataclasses.Field) -> bool:
    return field.default_factory is dict
