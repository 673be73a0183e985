"""Groups of options other than a run's config, as an analysis declares them."""

import dataclasses

import pytest

from spaced_kd.errors import ConfigError
from spaced_kd.fields import named, option, parse, section, to_config_dict


@dataclasses.dataclass(frozen=True)
class Probe:
    """A nested group."""

    radius: float = option(0.5, "Euclidean distance", above=0.0)


@dataclasses.dataclass(frozen=True)
class Options:
    """One field of each kind."""

    top: int = option(2, "eigenvalues", low=1)
    kind: str = option("exact", "how", choices=("exact", "random"))
    save: bool = option(False, "keep the vectors", shown=True)
    probe: Probe = section(Probe, "the neighbourhood")
    runs: dict[str, Probe] = named("other groups, by name")


def test_defaults_survive_the_way_through_flags():
    """What nobody overrides is what the dataclass says."""
    fields = to_config_dict(Options)
    assert fields.to_dict() == {
        "top": 2,
        "kind": "exact",
        "save": False,
        "probe": {"radius": 0.5},
        "runs": {},
    }
    assert parse(Options, fields.to_dict(), "options") == Options()


def test_open_fields_have_their_type_and_no_value():
    fields = to_config_dict(Options, is_open=lambda field: field.name == "radius")
    assert fields.probe.radius is None
    assert fields.top == 2
    with pytest.raises(TypeError):
        fields.probe.radius = "far"


def test_values_are_read_at_every_depth():
    raw = {"top": 3, "kind": "random", "save": True, "probe": {"radius": 1}}
    options = parse(Options, raw, "options")
    assert options == Options(top=3, kind="random", save=True, probe=Probe(1.0))
    assert type(options.probe.radius) is float


BAD = {
    "top": (0, "options.top=0 is too small; give at least 1."),
    "kind": (
        "exakt",
        "options.kind='exakt' is unknown; did you mean 'exact'? Known: exact, random.",
    ),
    "save": (1, "options.save=1 is a int; give True or False."),
    "probe": (
        {"radius": 0.0},
        "options.probe.radius=0.0 is too small; give more than 0.0.",
    ),
    "saved": (
        True,
        "options.saved: field='saved' is unknown; did you mean 'save'? "
        "Known: save, kind, probe, runs, top.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_the_message_names_field_value_and_remedy(name):
    value, message = BAD[name]
    raw = to_config_dict(Options).to_dict() | {name: value}
    with pytest.raises(ConfigError) as error:
        parse(Options, raw, "options")
    assert str(error.value) == message


def test_a_missing_field_tells_what_the_caller_would_do():
    raw = {"top": 3, "kind": "exact", "save": True, "probe": {}}
    with pytest.raises(ConfigError) as error:
        parse(Options, raw, "options", "start from get_options()")
    message = "options.probe.radius is missing; start from get_options()."
    assert str(error.value) == message


def test_what_else_a_field_says_stays_with_it():
    meta = {field.name: field.metadata for field in dataclasses.fields(Options)}
    assert meta["save"]["shown"] is True
    assert meta["save"]["doc"] == "keep the vectors"
