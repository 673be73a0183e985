"""Look a name up in one of the literal tables (MODELS, DATASETS, METHODS, ...).

Some tables are also the user's: `spaced_kd.register` adds to them, in whichever process
imports the user's module.
"""

import difflib
import importlib
from collections.abc import Mapping
from typing import TypeVar

from spaced_kd.errors import ConfigError, one_line

T = TypeVar("T")


class Open(dict[str, T]):
    """A table that users may add names of their own to."""


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
    own = _IF_IT_IS_YOURS if isinstance(table, Open) else ""
    raise ConfigError(f"{what}='{name}' is unknown{hint} Known: {known}.{own}")


_IF_IT_IS_YOURS = (
    " If it is your own, name the module that registers it: config.imports='MODULE', "
    "or --imports=MODULE for analyze and export."
)


def import_modules(names: str, what: str = "config.imports") -> None:
    """Import the user's modules, which register what is the user's own.

    Args:
      names: of modules, separated by commas; "": none.
      what: the field or flag that they come from, for the message.

    Raises:
      ConfigError: a module is not found, or imports what is not there.
    """
    for name in filter(None, (part.strip() for part in names.split(","))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"{what}='{name}' cannot be imported ({one_line(error)}); start in the "
                "folder where it lies, or add that to PYTHONPATH."
            ) from error
