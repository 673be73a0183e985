"""docs/chains.md: its configs run, and its commands say what they do."""

import dataclasses
import pathlib
import re

import pytest
from absl import flags as absl_flags

from spaced_kd import data, experiment, flags, stages
from spaced_kd.config import Config, from_config_dict

DOC = pathlib.Path(__file__).parents[1] / "docs" / "chains.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.S)


def _fields(text):
    """Return what a config of the text says, on small images and networks."""
    scope: dict = {}
    exec(text, scope)
    config = scope["get_config"]()
    for part in (config, *config.stages.values()):
        part.data.name, part.data.num_test_examples, part.num_devices = "fake", 40, 1
        part.student.model = "mlp"
        if part.teacher.model != "none":
            part.teacher.model = "mlp"
    return config


def _names(config: Config) -> list[str]:
    found = [f"{role} {s.name}" for role, s in stages.sources(config).items()]
    return found + [n for stage in config.stages.values() for n in _names(stage)]


CHAINS = [["teacher large"], ["teacher gen1", "teacher gen0"], ["tutor large"]]


@pytest.mark.parametrize("place", range(3))
def test_the_configs_are_chains_that_can_be_trained(place):
    """A reader would copy what is refused, or another chain than the text says."""
    config = from_config_dict(_fields(SNIPPETS[place]))
    assert _names(config) == CHAINS[place]
    while config.stages:
        sets = {}
        stages.load_data(config, sets)
        stages.refuse_misfit(config, sets)
        (config,) = config.stages.values()
    experiment.build(config, data.load(config.data))


def _define(values):
    absl_flags.DEFINE_string("workdir", None, "", values)


def test_the_commands_change_the_stage_or_keep_it(tmp_path):
    """The second command of the text would train the large network once more."""
    (tmp_path / "offline.py").write_text(SNIPPETS[0])
    lines = DOC.read_text().replace(" \\\n", " ").splitlines()
    commands = [x.split() for x in lines if "--config=offline.py" in x]

    def key(command):
        file = f"--config={tmp_path / 'offline.py'}"
        given = [file if x.startswith("--config=") else x for x in command[2:]]
        stage = from_config_dict(flags.parse_config(given, _define)[0]).stages["large"]
        known = dataclasses.replace(stage.data, name="fake")
        return stages.key(stage, {stage.data: data.load(known)})

    first, *others, changed = map(key, commands)
    assert len(others) == 2
    assert set(others) == {first} != {changed}
