"""A resolved config as plain values, and which of them decide the numbers."""

import dataclasses
import hashlib
import json
from typing import Any

from spaced_kd.config.run import Config


def to_dict(config: Config) -> dict[str, Any]:
    """Return the resolved config as plain JSON-able values."""
    return dataclasses.asdict(config)


def science(config: Config) -> dict[str, Any]:
    """Return the flat fields that decide the numbers: dotted path -> value.

    Left out are operational fields (paths, progress, checkpoint cadence), which may
    change between a run and its continuation.
    """
    return dict(_science_fields(config, ""))


def fingerprint(config: Config) -> str:
    """Return the SHA-256 of `science(config)`."""
    text = json.dumps(science(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _science_fields(node, prefix: str):
    for field in dataclasses.fields(node):
        if field.metadata.get("operational"):
            continue
        value = getattr(node, field.name)
        path = f"{prefix}{field.name}"
        if isinstance(value, dict):
            for name, entry in sorted(value.items()):
                yield from _science_fields(entry, f"{path}.{name}.")
        elif dataclasses.is_dataclass(value):
            # What students inherit is already inside each student.
            if field.name != "student":
                yield from _science_fields(value, f"{path}.")
        else:
            yield path, value
