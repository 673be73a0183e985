"""Look a name up in one of the literal tables (MODELS, DATASETS, METHODS, ...)."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from spaced_kd.errors import ConfigError

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`.

    Args:
      table: name -> thing.
      name: the name the user gave.
      what: the config field or kind, for the message.

    Raises:
      ConfigError: unknown name; lists the nearest names first.
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, n=max(len(table), 1), cutoff=0.5)
    names = near + sorted(set(table) - set(near))
    hint = f"; did you mean '{near[0]}'?" if near else "."
    known = ", ".join(names) or "none"
    raise ConfigError(f"{what}='{name}' is unknown{hint} Known: {known}.")
