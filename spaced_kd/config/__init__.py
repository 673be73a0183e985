"""Every configuration field, once: default, meaning, unit, range, source.

The dataclasses are the only place where a field is declared: `run.py` has the run's own
and the groups, which are in `data.py`, `roles.py` (teacher, tutor, student),
`network.py` (architecture, optimiser) and `method.py` (loss). `base_config()` turns
them into the `ConfigDict` that config files and `--config.a.b=v` override;
`from_config_dict` turns the result back into frozen, validated dataclasses, which is
what the rest of the package sees.

Two kinds of value are filled in at that moment, so that `config.json` shows what
really ran: a student's field that was left open inherits from `config.student`, and a
field left at "auto" takes the choice of `config.compat` (table COMPAT of `compat.py`).

All names are imported from here; the files behind it are this package's own.
"""

from spaced_kd.config.compat import (
    COMPAT,
    FIXED_TEACHER_CHOICES,
    auto_choices,
    special_choices,
)
from spaced_kd.config.data import DataConfig
from spaced_kd.config.identity import fingerprint, science, to_dict
from spaced_kd.config.method import MethodConfig
from spaced_kd.config.names import (
    AUTO,
    LEADING,
    NO_TEACHER,
    PLANS,
    SELF_TAUGHT,
    TWO_WAY,
    WITH_BRANCHES,
    WITH_PEER,
    WITH_TRAINED_TEACHER,
    WITH_TWO_HEADS,
    WITHOUT_TEACHER,
)
from spaced_kd.config.network import ArchConfig, OptimConfig
from spaced_kd.config.resolve import from_config_dict, from_dict
from spaced_kd.config.roles import (
    StudentConfig,
    TeacherConfig,
    TutorConfig,
    space_interval_steps,
)
from spaced_kd.config.run import (
    CheckpointConfig,
    Config,
    generation,
    reference_names,
)
from spaced_kd.config.start import base_config, student

__all__ = [
    "AUTO",
    "ArchConfig",
    "COMPAT",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "FIXED_TEACHER_CHOICES",
    "LEADING",
    "MethodConfig",
    "NO_TEACHER",
    "OptimConfig",
    "PLANS",
    "SELF_TAUGHT",
    "StudentConfig",
    "TWO_WAY",
    "TeacherConfig",
    "TutorConfig",
    "WITHOUT_TEACHER",
    "WITH_BRANCHES",
    "WITH_PEER",
    "WITH_TRAINED_TEACHER",
    "WITH_TWO_HEADS",
    "auto_choices",
    "base_config",
    "fingerprint",
    "from_config_dict",
    "from_dict",
    "generation",
    "reference_names",
    "science",
    "space_interval_steps",
    "special_choices",
    "student",
    "to_dict",
]
