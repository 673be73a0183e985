"""From the overridden fields to frozen, validated dataclasses without open fields."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from spaced_kd import registry
from spaced_kd.config.compat import method_defaults, resolve_auto
from spaced_kd.config.names import DEFAULT_REFERENCE, NO_TEACHER, PLANS
from spaced_kd.config.roles import StudentConfig, TeacherConfig, TutorConfig
from spaced_kd.config.run import Config, reference_names
from spaced_kd.errors import ConfigError
from spaced_kd.fields import parse

_REMEDY = "start from base_config()"

SHARED_WITH_STAGES = (
    "seed",
    "num_seeds",
    "num_devices",
    "compute_dtype",
    "remat",
    "checkpoint",
    "progress",
    "report",
    "imports",
    "data.dir",
    "data.stream_memory_mib",
    "data.stream_threads",
)
"""What a stage takes from the run it trains a teacher for: repetition k of the run
learns from repetition k of the stage, on the same machine in the same way."""


def from_config_dict(config: ml_collections.ConfigDict) -> Config:
    """Resolve what was left open and validate everything, after `config.imports`.

    Raises:
      ConfigError: the first field that is missing, unknown, of the wrong type, out of
        range or not among the choices; the message names it by its dotted path.
    """
    raw = config.to_dict()
    registry.import_modules(str(raw.get("imports") or ""))
    resolved = _resolve(raw, (), {}, {})
    unused = sorted(set(raw.get("stages") or {}) - _stage_names(resolved))
    if unused:
        raise ConfigError(
            f"config.stages.{unused[0]} trains a network that nobody learns from; name "
            f"it in config.teacher.stage='{unused[0]}/NETWORK' or config.tutor.stage, "
            "or leave it out."
        )
    return resolved


def from_dict(values: Mapping[str, Any]) -> Config:
    """Return the config of which `to_dict` gave these values, e.g. in `config.json`.

    Raises:
      ConfigError: they are those of another version.
    """
    return from_config_dict(ml_collections.ConfigDict(values))


def _stage_names(config: Config) -> set[str]:
    names = set(config.stages)
    return names.union(*map(_stage_names, config.stages.values()))


def _resolve(
    raw: dict,
    chain: tuple[str, ...],
    outer: Mapping[str, Any],
    stages: Mapping[str, dict],
) -> Config:
    """Return the config of a run, or of a stage that trains a teacher for one.

    Args:
      raw: all fields.
      chain: names of the stages from the run down to this one; () for the run.
      outer: what a stage has in common with its run, by dotted path.
      stages: fields of every stage that this one may learn from, besides its own.
    """
    raw = _with(raw, outer)
    at = f"config.stages.{chain[-1]}" if chain else "config"
    students = raw.pop("students", None) or {}
    stages = {**stages, **(raw.pop("stages", None) or {})}
    if not students:
        raise ConfigError(
            f"{at}.students is empty; add at least one, e.g. "
            f"{at}.students.spaced_1_5 = student(plan='spaced')."
        )
    defaults = raw.get("student") or {}
    config = parse(Config, raw | {"student": _fill(defaults)}, at, _REMEDY)
    shared = {path: _at(raw, path) for path in SHARED_WITH_STAGES}
    config = _with_trained_networks(config, chain, shared, stages)
    parsed = {
        name: _student(name, fields, defaults, at, config)
        for name, fields in students.items()
    }
    _check_reference(config.reference, parsed, at)
    return dataclasses.replace(
        config,
        teacher=resolve_auto(config.teacher, config.compat),
        student=_choose(config.student, config),
        students=dict(sorted(parsed.items(), key=_table_order)),
    )


def _student(
    name: str, fields: dict, defaults: dict, at: str, run: Config
) -> StudentConfig:
    path = f"{at}.students.{name}"
    _refuse_odd_name(name, path, "student")
    if name in ("teacher", "tutor"):
        raise ConfigError(f"{path}: '{name}' is the {name}'s name; choose another.")
    merged = _fill(_inherit(fields, defaults))
    return _choose(parse(StudentConfig, merged, path, _REMEDY), run)


def _choose(student: StudentConfig, run: Config) -> StudentConfig:
    return resolve_auto(student, run.compat, fixed_teacher=bool(run.teacher.stage))


def _refuse_odd_name(name: str, path: str, what: str) -> None:
    if not name.isidentifier() or len(name) > 48:
        raise ConfigError(
            f"{path}: a {what}'s name must be letters, digits and '_', at most 48, "
            "because files carry it."
        )


def _check_reference(field: str, students: Mapping[str, Any], at: str) -> None:
    wanted = reference_names(field)
    if wanted and wanted != (DEFAULT_REFERENCE,) and not set(wanted) & set(students):
        registry.lookup(students, wanted[0], f"{at}.reference")


def _table_order(entry: tuple[str, StudentConfig]):
    # ConfigDict does not keep the order in which students were written.
    name, student = entry
    return PLANS.index(student.plan), student.space_interval_epochs, name


def _inherit(fields: dict, defaults: dict) -> dict:
    merged = dict(fields)
    for name, default in defaults.items():
        if isinstance(default, dict):
            merged[name] = _inherit(fields.get(name) or {}, default)
        elif merged.get(name) is None:
            merged[name] = default
    return merged


def _fill(fields: dict) -> dict:
    """Give the fields that are still open the default of the student's method."""
    defaults = method_defaults(str(fields.get("method")))
    return {
        name: defaults.get(name) if value is None else value
        for name, value in fields.items()
    }


def _at(raw: Any, path: str) -> Any:
    for name in path.split("."):
        raw = raw[name]
    return raw


def _with(raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(raw)
    for path, value in values.items():
        name, _, below = path.partition(".")
        # A field that is missing is told of where all fields are looked at.
        below_it = result.get(name) or {}
        result[name] = _with(below_it, {below: value}) if below else value
    return result


def _with_trained_networks(
    config: Config,
    chain: tuple[str, ...],
    shared: Mapping[str, Any],
    stages: Mapping[str, dict],
) -> Config:
    """Return the config with its trained networks, and the stages that these need.

    Args:
      config: all but that.
      chain: as for `_resolve`.
      shared: what they have in common with this run, by dotted path.
      stages: fields of every stage that there is.
    """
    at = f"config.stages.{chain[-1]}" if chain else "config"
    used: dict[str, Config] = {}
    networks: dict[str, Any] = {}
    for role in ("teacher", "tutor"):
        settings = getattr(config, role)
        _check_stage_and_model(role, settings)
        if not settings.stage:
            continue
        field = f"{at}.{role}.stage='{settings.stage}'"
        name, _, network = settings.stage.partition("/")
        fields = registry.lookup(stages, name, f"{field}: stage")
        _refuse_odd_name(name, f"config.stages.{name}", "stage")
        _refuse_circle(name, chain, field)
        used[name] = _resolve(fields, (*chain, name), shared, stages)
        source = _network_of(used[name], name, network, field)
        networks[role] = dataclasses.replace(
            settings, model=source.model, arch=source.arch
        )
    return dataclasses.replace(config, stages=used, **networks)


def _check_stage_and_model(role: str, settings: TeacherConfig | TutorConfig) -> None:
    if role == "tutor" and not settings.stage and settings.model != NO_TEACHER:
        raise ConfigError(
            f"config.tutor.model='{settings.model}' without a stage to "
            "train it; name one in config.tutor.stage, which brings the model."
        )
    if role == "teacher" and settings.stage and settings.model == NO_TEACHER:
        raise ConfigError(
            f"config.teacher.stage='{settings.stage}' brings a teacher, but "
            "config.teacher.model='none'; leave one of them out."
        )


def _refuse_circle(name: str, chain: tuple[str, ...], field: str) -> None:
    if name in chain:
        circle = " -> ".join((*chain[chain.index(name) :], name))
        raise ConfigError(
            f"{field} closes a circle of stages, each of which needs the next "
            f"one first: {circle}; let one of them do without."
        )


def _network_of(
    stage: Config, name: str, network: str, field: str
) -> TeacherConfig | StudentConfig:
    trained: dict[str, TeacherConfig | StudentConfig] = dict(stage.students)
    if stage.teacher.model != NO_TEACHER:
        trained["teacher"] = stage.teacher
    what = f"{field} (give STAGE/NETWORK): network of stage '{name}'"
    return registry.lookup(trained, network, what)
