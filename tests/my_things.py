"""What a user might write beside the package: a network, arrays, a method, an analysis.

Tests copy it into a folder of their own.
"""

import dataclasses

import flax.linen as nn
import numpy as np

from spaced_kd import losses, register
from spaced_kd.analysis.base import Analysis
from spaced_kd.layers import Dense
from spaced_kd.methods.base import Method, no_params
from spaced_kd.models.base import Model
from spaced_kd.tables import Table
from spaced_kd.types import ModelOutput


class Linear(Model):
    """One linear layer on the pixels."""

    @nn.compact
    def __call__(self, image, *, train, mask=None):
        """Classify [b, H, W, C]."""
        pixels = image.reshape(len(image), -1)
        return ModelOutput(Dense(self.num_classes, name="head")(pixels), pixels)


def make(config, axis, sizes):
    """Return labels alone, whatever the teacher says, and three of its answers."""

    def loss(params, student, teacher, batch, now):
        hard = losses.cross_entropy(student.logits, batch.label)
        total = losses.batch_mean(hard, batch.mask, axis)
        return total, {"hard_loss": total, "three": total * 0 + 3}

    return Method(no_params, loss)


def images(seed, count):
    """Return [count, 4, 5] uint8 and labels 0 to 2; brightness says the label."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 3
    pixels = rng.integers(0, 60, (count, 4, 5)) + 60 * label[:, None, None]
    return pixels.astype(np.uint8), label


@dataclasses.dataclass(frozen=True)
class Options:
    """None."""


def _table(found):
    rows = [(row.network, str(row.values["weights"])) for row in found.rows]
    return Table(("network", "weights"), tuple(rows), ())


COUNT = Analysis(
    title="Size",
    about="How many weights.",
    options=Options,
    measure=lambda subject, options: {
        "weights": sum(x.size for x in subject.variables["params"]["head"].values())
    },
    table=_table,
    figures=lambda found, looks: [],
)

register.model("my_linear", Linear)
register.arrays("my_arrays", train=images(0, 60), test=images(1, 30))
register.method("my_labels", make)
register.analysis("my_count", COUNT)
