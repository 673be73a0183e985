"""What a sweep is told to do: runs by name, each with analyses that follow it."""

import collections
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spaced_kd.config import Config
from spaced_kd.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True)
class Job:
    """An ordinary run, in `<root>/cells/<name>`, and what is measured of it then.

    name: letters, digits, '_' and '-'. config: resolved. analyses: analysis -> option
    -> value; done after training, on every network and seed.
    """

    name: str
    config: Config
    analyses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def refuse_names(jobs: Iterable[Job]) -> None:
    """Check that every job can have a folder of its own.

    Raises:
      ConfigError: a name that no folder can carry, or one that two jobs have.
    """
    counts = collections.Counter(job.name for job in jobs)
    for name, count in counts.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"cell {name!r}: the name must be 1 to 100 letters, digits, '_' or "
                "'-', because a folder carries it."
            )
        if count > 1:
            raise ConfigError(f"cell {name}: {count} cells have this name; give one.")
