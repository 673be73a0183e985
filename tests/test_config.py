import dataclasses
import json
import pathlib

import pytest
import tiny

from spaced_kd import config as config_lib
from spaced_kd.config import (
    COMPAT,
    Config,
    base_config,
    fingerprint,
    from_config_dict,
    science,
    student,
)
from spaced_kd.errors import ConfigError


def _with(**fields):
    return tiny.config_dict(**fields)


BAD = {
    "num_epochs": [0, -1, 2.5, True, None, "3"],
    "num_seeds": [0, "many"],
    "seed": [-1, 1.0],
    "compat": ["papper", "", None, 3],
    "seed_layout": ["vmap"],
    "chunk_steps": [0],
    "compose": ["Scan"],
    "data__batch_size": [0, -128, 12.5],
    "data__last_batch": ["pad"],
    "data__rotation_degrees": [-1.0, 181.0, float("nan"), "15"],
    "data__horizontal_flip": [1, "yes"],
    "teacher__optim__learning_rate": [0.0, -0.1, float("nan"), float("inf")],
    "student__optim__momentum": [-0.1, 1.1],
    "student__plan": ["space", None],
    "student__kd_weight": [-0.1, 1.5, float("nan")],
    "student__temperature": [0.0, -3.0],
    "student__feature_weight": [-1.0],
    "student__remainder": ["keep"],
    "student__temperature_squared": [True],
    "student__space_interval_epochs": [-1.5, float("inf")],
    "checkpoint__keep": [0, 1],
}


@pytest.mark.parametrize(
    ("path", "value"), [(path, v) for path, values in BAD.items() for v in values]
)
def test_bad_values_give_one_line_with_the_field_and_the_value(path, value):
    """Most of these pass a locked ConfigDict without a word (reliability 2)."""
    config = base_config()
    config.students = {"s": student()}
    config.unlock()
    *parents, last = path.split("__")
    node = config
    for parent in parents:
        node = node[parent]
    with node.ignore_type():
        node[last] = value
    with pytest.raises(ConfigError) as error:
        from_config_dict(config)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 250
    assert last in message
    assert repr(value).strip("'") in message


def test_unknown_fields_and_names_get_the_nearest_known_one():
    config = _with()
    config.unlock()
    config.num_epoch = 3
    with pytest.raises(ConfigError, match="did you mean 'num_epochs'"):
        from_config_dict(config)
    with pytest.raises(ConfigError, match="did you mean 'plan'"):
        student(plam="online")
    with pytest.raises(ConfigError, match="did you mean 'spaced'"):
        from_config_dict(_with(students={"s": student(plan="spacd")}))


@pytest.mark.parametrize("name", ["a/b", "x-y", "", "x" * 49, "a b", "teacher"])
def test_student_names_are_safe_as_file_names(name):
    with pytest.raises(ConfigError):
        from_config_dict(_with(students={name: student()}))


def test_a_run_without_students_is_refused():
    with pytest.raises(ConfigError, match="students is empty"):
        from_config_dict(base_config())


def test_students_inherit_what_they_leave_open():
    """config.student sets all; a student's own value wins, also inside optim."""
    config = _with(
        students={
            "a": student(plan="online"),
            "b": student(kd_weight=0.9, optim={"momentum": 0.5}),
        },
        student__kd_weight=0.1,
        student__optim__learning_rate=0.2,
    )
    resolved = from_config_dict(config)
    a, b = resolved.students["a"], resolved.students["b"]
    assert (a.kd_weight, b.kd_weight) == (0.1, 0.9)
    assert (a.optim.momentum, b.optim.momentum) == (0.9, 0.5)
    assert a.optim.learning_rate == b.optim.learning_rate == 0.2


# Written out from the specification (method A.5, A.6, E, I), not read from the table.
CHOICES = {
    "recommended": ("kl", "yes", "before", "batch", "different", "drop", "exact"),
    "paper": ("kl", "no", "after", "running", "same", "flush", "exact"),
    "released": ("probspace", "no", "before", "batch", "different", "drop", "exact"),
}
CHOICE_FIELDS = (
    "soft_loss",
    "temperature_squared",
    "online_teacher",
    "teacher_bn",
    "init",
    "remainder",
    "replay",
)


@pytest.mark.parametrize("compat", CHOICES)
def test_compat_follows_the_paper_or_the_released_code(compat):
    config = _with(students={"s": student(plan="spaced")}, compat=compat)
    resolved = from_config_dict(config).students["s"]
    found = tuple(getattr(resolved, field) for field in CHOICE_FIELDS)
    assert found == CHOICES[compat]


def test_the_document_on_compat_says_what_the_table_does():
    """A row of docs/deviations.md for each choice, with the same three values."""
    text = (pathlib.Path(__file__).parents[1] / "docs" / "deviations.md").read_text()
    for place, field in enumerate(CHOICE_FIELDS):
        row = next(x for x in text.splitlines() if x.startswith(f"| `{field}`"))
        cells = [cell.strip() for cell in row.split("|")[2:5]]
        for cell, compat in zip(
            cells, ("recommended", "paper", "released"), strict=True
        ):
            assert cell.startswith(f"`{CHOICES[compat][place]}`"), (field, compat)


def test_a_reference_that_no_student_has_is_refused():
    with pytest.raises(ConfigError, match="config.reference='onlin'"):
        from_config_dict(_with(reference="onlin"))


def test_references_may_be_absent_or_none_but_not_all_mistyped():
    """An arm that is left out of a comparison must not stop it."""
    for value in ("", "online, gone", "spaced,"):
        assert from_config_dict(_with(reference=value)).reference == value
    assert config_lib.reference_names("a, b,,a") == ("a", "b")
    with pytest.raises(ConfigError, match="config.reference='onlin'"):
        from_config_dict(_with(reference="onlin,spacd"))


@pytest.mark.parametrize("compat", COMPAT)
def test_compat_decides_what_is_left_open_and_nothing_else(compat):
    """Every cell of the table reaches a student; an explicit value beats it."""
    config = _with(
        students={
            "s": student(plan="spaced"),
            "own": student(plan="spaced", soft_loss="kl"),
        },
        compat=compat,
    )
    resolved = from_config_dict(config)
    for field, value in COMPAT[compat].items():
        assert getattr(resolved.students["s"], field) == value
    assert resolved.students["own"].soft_loss == "kl"
    text = json.dumps(config_lib.to_dict(resolved)["students"])
    assert '"auto"' not in text


def test_every_row_of_compat_covers_every_open_field():
    open_fields = {
        f.name
        for f in dataclasses.fields(config_lib.StudentConfig)
        if f.default == config_lib.AUTO
    }
    for choices in COMPAT.values():
        assert set(choices) == open_fields


def test_offline_is_the_released_program_whatever_compat():
    """Method A.3: eval-mode teacher, freshly drawn batches; both may be overridden."""
    config = _with(
        students={
            "off": student(plan="offline"),
            "same": student(plan="offline", replay="exact", teacher_bn="batch"),
        }
    )
    off, same = (from_config_dict(config).students[n] for n in ("off", "same"))
    assert (off.replay, off.teacher_bn) == ("reshuffle", "running")
    assert (same.replay, same.teacher_bn) == ("exact", "batch")


def test_students_are_listed_as_a_table_would():
    names = {
        "z_base": student(plan="none"),
        "a_off": student(plan="offline"),
        "s15": student(plan="spaced", space_interval_epochs=1.5),
        "s05": student(plan="spaced", space_interval_epochs=0.5),
        "on": student(plan="online"),
    }
    resolved = from_config_dict(_with(students=names))
    assert list(resolved.students) == ["z_base", "on", "s05", "s15", "a_off"]


def test_the_fingerprint_sees_science_and_not_operation():
    """A run may continue with another progress bar, not with another learning rate."""
    config = tiny.config()
    same = dataclasses.replace(config, progress="plain", reference="spaced")
    other = dataclasses.replace(config, num_epochs=4)
    assert fingerprint(config) == fingerprint(same) != fingerprint(other)
    assert "students.spaced.kd_weight" in science(config)
    assert not any(name.startswith("student.") for name in science(config))


def test_every_field_says_what_it_is():
    """docs and --help are made from these; an undocumented field cannot exist."""

    def walk(cls):
        for field in dataclasses.fields(cls):
            assert field.metadata["doc"], field.name
            if dataclasses.is_dataclass(field.type):
                walk(field.type)

    walk(Config)
