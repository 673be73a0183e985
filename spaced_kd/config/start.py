"""What a config file starts from: every field, to be overridden."""

from typing import Any

import ml_collections

from spaced_kd import registry
from spaced_kd.config.compat import has_method_defaults
from spaced_kd.config.roles import StudentConfig
from spaced_kd.config.run import Config
from spaced_kd.fields import to_config_dict


def base_config() -> ml_collections.ConfigDict:
    """Return every field at its default, ready for overrides; `students` is empty."""
    return to_config_dict(Config, is_open=has_method_defaults)


def student(**overrides: Any) -> ml_collections.ConfigDict:
    """Return a student whose fields inherit from `config.student` unless given here.

    Example: `config.students.spaced_1_5 = student(plan="spaced")`.

    Raises:
      ConfigError: a field that students do not have.
    """
    fields = to_config_dict(StudentConfig, is_open=lambda _: True)
    for name in overrides:
        registry.lookup(dict.fromkeys(fields), name, "student field")
    fields.update(overrides)
    return fields
