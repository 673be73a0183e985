"""Where the workers of a sweep run: one engine a file, one line here."""

import ast
from typing import Any

from spaced_kd import registry
from spaced_kd.errors import ConfigError
from spaced_kd.sweep.engines import local, ray, slurm
from spaced_kd.sweep.engines.base import Engine

ENGINES: dict[str, Engine] = {
    "local": local.ENGINE,
    "slurm": slurm.ENGINE,
    "ray": ray.ENGINE,
}
"""Name -> engine."""


def find(name: str) -> Engine:
    """Return an engine.

    Raises:
      ConfigError: there is none of this name.
    """
    return registry.lookup(ENGINES, name, "--engine")


def parse_options(text: str) -> dict[str, Any]:
    """Return the options that a command line gives an engine.

    Args:
      text: `NAME=VALUE,NAME=VALUE`; a value that is no Python literal is a string.

    Raises:
      ConfigError: a part without a name or a value.
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise ConfigError(
                f"--engine_options: '{part}' is not NAME=VALUE, e.g. "
                "--engine_options=partition=gpu,timeout_min=240."
            )
        found[name] = _literal(value)
    return found


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
