"""Operations of a forward pass, against counts by hand; what plan.json says of them."""

import flax.linen as nn
import jax
import tiny

from spaced_kd import data, experiment, flops, ledger
from spaced_kd.config import student
from spaced_kd.models.base import Model
from spaced_kd.models.mlp import MLP
from spaced_kd.types import ModelOutput


class OneConvolution(Model):
    """A 3x3 convolution with padding, a mean over places, a dense layer; no biases."""

    @nn.compact
    def __call__(self, image, *, train, mask=None):
        x = nn.Conv(4, (3, 3), use_bias=False)(image).mean((1, 2))
        return ModelOutput(nn.Dense(10, use_bias=False)(x), x, None, None)


def _counted(model, shape):
    return flops.forward_flops([model], shape)[model]


def test_a_convolution_and_a_dense_layer_are_counted_as_by_hand():
    """Breaks if a multiply-add is one operation, or the padding is multiplied too."""
    taps = sum(
        0 <= y + i < 5 and 0 <= x + j < 6
        for y in range(5)
        for x in range(6)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    )
    batch = 3
    by_hand = batch * (2 * taps * 2 * 4 + 2 * 4 * 10)
    # The mean: a sum over places, and a division.
    mean = batch * 4 * (5 * 6 + 1)
    assert abs(_counted(OneConvolution(10), (batch, 5, 6, 2)) - by_hand - mean) <= 12


def test_an_mlp_is_its_matrices_and_little_else():
    """Breaks if backward passes or training are in the count. 192 -> 16 -> 10."""
    batch = 16
    products = 2 * batch * (192 * 16 + 16 * 10)
    counted = _counted(MLP(10, widths=(16,)), (batch, 8, 8, 3))
    assert products < counted < 1.06 * products
    assert _counted(MLP(10, widths=(16,)), (2 * batch, 8, 8, 3)) == 2 * counted


def test_nothing_is_compiled_to_count(monkeypatch):
    """Breaks if every start of a run waits for a compiler. Equal networks: once."""

    def refuse(*_, **__):
        raise AssertionError("compiled")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    lowered = []
    monkeypatch.setattr(flops, "_counted", lambda model, _: lowered.append(model))
    flops.forward_flops([MLP(10), MLP(10), MLP(5)], (2, 8, 8, 3))
    assert lowered == [MLP(10), MLP(5)]
    monkeypatch.setattr(flops, "_counted", flops._count)  # nothing is kept
    assert _counted(MLP(10), (2, 8, 8, 3)) > 0


def test_what_xla_does_not_count_is_none(monkeypatch):
    """Breaks if a backend without a cost analysis stops a run, or counts as 0."""

    def refuse(_):
        raise NotImplementedError

    monkeypatch.setattr(flops, "_counted", flops._count)  # nothing is kept
    for answer in (refuse, lambda _: None, lambda _: {}):
        monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", answer)
        assert _counted(MLP(10), (2, 8, 8, 3)) is None


def test_the_plan_tells_the_operations_of_a_batch_and_the_passes_of_a_step():
    """Breaks if flops are those of an image, or a segment's passes miss the teacher."""
    students = {
        "online": student(plan="online"),
        "spaced": student(plan="spaced", space_interval_epochs=0.5, model="narrow_mlp"),
    }
    config = tiny.config(students)
    parts = experiment.build(config, data.load(config.data))
    plan = ledger.describe_plan(parts)
    counted = {name: net["forward_flops"] for name, net in plan["networks"].items()}
    assert counted["teacher"] == counted["online"] == _counted(MLP(10), (16, 8, 8, 3))
    assert counted["spaced"] == _counted(MLP(10, widths=(16,)), (16, 8, 8, 3))
    assert plan["tutor_forward_flops"] is None
    lockstep, replay = plan["segments"][:2]
    assert lockstep["passes"] == {"teacher": [1, 1], "online": [1, 1]}
    assert replay["passes"] == {"spaced": [2, 1]}
    for name, net in plan["networks"].items():
        passes = [
            (row["stop"] - row["start"]) * row["passes"].get(name, [0, 0])[1]
            for row in plan["segments"]
        ]
        assert sum(passes) == net["backward_passes"]
