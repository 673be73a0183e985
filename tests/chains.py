"""Tiny chains of runs: an MLP with BatchNorm, or what two plain MLPs can be told."""

import flax.linen as nn
import tiny

from spaced_kd.config import from_config_dict, student
from spaced_kd.layers import BatchNorm, Dense
from spaced_kd.models.base import Model
from spaced_kd.types import ModelOutput


class NormMLP(Model):
    """A hidden layer with BatchNorm, which compiles fast."""

    @nn.compact
    def __call__(self, image, *, train, mask=None):
        hidden = Dense(8)(image.reshape(len(image), -1))
        hidden = nn.relu(BatchNorm(self.axis)(hidden, train=train, mask=mask))
        return ModelOutput(Dense(self.num_classes, name="head")(hidden), hidden)


# Eight steps in two chunks: one program for each network and phase.
NET = {"teacher__model": "norm_mlp", "student__model": "norm_mlp", "num_epochs": 1}
NET |= {"data__num_train_examples": 128}
ALONE = NET | {"teacher__model": "none"}


def fields_of(stages_dir, *, parent_epochs=1, **fields):
    """A born-again network of the third generation, and a spaced arm beside it."""
    arms = {"gen2": student(plan="online"), "spaced": student(plan="spaced")}
    arms["spaced"].space_interval_epochs = 0.5
    fields = NET | {"num_seeds": 2, "teacher__stage": "gen1/gen1"} | fields
    config = tiny.config_dict(arms, **fields)
    config.stages_dir = str(stages_dir)
    config.checkpoint.keep = 100
    second = tiny.config_dict({"gen1": student()}, **NET, teacher__stage="gen0/gen0")
    second.checkpoint.keep = 100
    first = tiny.config_dict({"gen0": student(plan="none")}, **ALONE)
    first.num_epochs = parent_epochs
    config.stages = {"gen0": first, "gen1": second}
    return config


def chain(stages_dir, **fields):
    """Return `fields_of`, resolved."""
    return from_config_dict(fields_of(stages_dir, **fields))


BASE = {"gen0": {"teacher__model": "none"}}


def chained(own=None, *, students=None, base=None):
    """Return the fields of a run with stages; `base`: name -> fields of a stage."""
    config = tiny.config_dict(
        students, **({"teacher__stage": "gen0/gen0"} | (own or {}))
    )
    for name, fields in (BASE if base is None else base).items():
        plan = "online" if "teacher__stage" in fields else "none"
        arms = {name: student(plan=plan)}
        config.stages[name] = tiny.config_dict(arms, **fields)
    return config
