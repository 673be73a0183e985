import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import spaced_kd
from spaced_kd.models import MODELS, make_model
from spaced_kd.parallel import BatchAxis

PACKAGE = pathlib.Path(spaced_kd.__file__).parent
NOT_FAMILIES = {"__init__", "base"}


def _conv_bn(inputs, outputs, size=3):
    return size * size * inputs * outputs + 2 * outputs


def _resnet(blocks, widths, classes):
    """Count by the definition of the architecture, not by building it."""
    total, inputs = _conv_bn(3, widths[0]), widths[0]
    for count, width in zip(blocks, widths, strict=True):
        for _ in range(count):
            total += _conv_bn(inputs, width) + _conv_bn(width, width)
            total += _conv_bn(inputs, width, 1) if inputs != width else 0
            inputs = width
    return total + (widths[-1] + 1) * classes


# 11,220,132 is PyTorch's count for ResNet-18 with the CIFAR stem and 100 classes
# (paper's network; method A.9 says 11.22 M).
COUNTS = {
    "mlp": (32 * 32 * 3 + 1) * 128 + 129 * 128 + 129 * 100,
    "small_cnn": _conv_bn(3, 16) + _conv_bn(16, 32) + _conv_bn(32, 64) + 65 * 100,
    "resnet8": _resnet((1, 1, 1), (16, 32, 64), 100),
    "resnet20": _resnet((3, 3, 3), (16, 32, 64), 100),
    "resnet18": 11_220_132,
}


def test_every_family_is_registered_and_counted(monkeypatch):
    monkeypatch.delitem(MODELS, "tiny_cnn")
    files = {p.stem for p in (PACKAGE / "models").glob("*.py")} - NOT_FAMILIES
    sources = {
        getattr(m, "func", m).__module__.rsplit(".", 1)[1] for m in MODELS.values()
    }
    assert files == sources
    assert set(MODELS) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_and_shapes(name):
    """A missing bias, shortcut or stage shows in the count."""
    model = make_model(name, 100)
    image = jnp.zeros((2, 32, 32, 3))
    outputs, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == COUNTS[name]
    assert outputs.logits.shape == (2, 100)
    assert outputs.features.ndim == 2


def test_the_formula_above_agrees_with_the_published_count():
    assert _resnet((2, 2, 2, 2), (64, 128, 256, 512), 100) == COUNTS["resnet18"]
    # Known counts of the three-stage networks at 100 classes (KD benchmarks, PyTorch).
    assert COUNTS["resnet20"] == 278_324
    assert COUNTS["resnet8"] == 83_892


def _run(name, image, variables=None, **kwargs):
    model = make_model(name, 10)
    if variables is None:
        variables = model.init(jax.random.key(0), image, train=False)
    out, moved = model.apply(variables, image, mutable=["batch_stats"], **kwargs)
    return out, moved, variables


@pytest.mark.parametrize("name", ["mlp", "small_cnn", "resnet8"])
def test_only_training_moves_the_running_statistics(name):
    image = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    _, moved, variables = _run(name, image, train=False)
    _, trained, _ = _run(name, image, variables, train=True)
    stats = variables.get("batch_stats", {})
    if moved:
        chex.assert_trees_all_equal(moved["batch_stats"], stats)
    changed = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), trained.get("batch_stats", {}), stats
    )
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize("name", ["mlp", "small_cnn", "resnet8"])
def test_padding_changes_nothing_for_the_real_examples(name):
    """The last batch of an epoch is padded; its junk must not reach BatchNorm."""
    image = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    junk = jnp.full((2, 8, 8, 3), 50.0)
    padded, mask = jnp.concatenate([image, junk]), jnp.arange(6) < 4
    out, moved, variables = _run(name, image, train=True)
    masked, masked_moved, _ = _run(name, padded, variables, train=True, mask=mask)
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[:4], masked), out, rtol=1e-3, atol=1e-4
    )
    chex.assert_trees_all_close(masked_moved, moved, rtol=1e-4, atol=1e-5)


def test_a_network_split_over_devices_equals_the_whole():
    """Synchronised BatchNorm through a residual network, two shards of three."""
    image = jax.random.normal(jax.random.key(1), (6, 8, 8, 3))
    out, _, variables = _run("resnet8", image, train=True)
    model = make_model("resnet8", 10).clone(axis=BatchAxis("d"))

    def shard(x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    parts = jax.vmap(shard, axis_name="d")(image.reshape(2, 3, 8, 8, 3))
    joined = jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), parts)
    chex.assert_trees_all_close(joined, out, rtol=1e-3, atol=1e-4)


def test_gradients_of_a_residual_network_equal_those_of_the_stock_convolution(
    monkeypatch,
):
    """The whole backward pass, strides and shortcuts included."""
    from spaced_kd import conv

    image = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    model = make_model("resnet8", 10)
    variables = model.init(jax.random.key(0), image, train=False)

    def grads():
        loss = lambda p: jnp.square(
            model.apply(variables | {"params": p}, image, train=False).logits
        ).sum()
        return jax.jit(jax.grad(loss))(variables["params"])

    ours = grads()
    monkeypatch.setattr(conv, "canonical", conv.stock)
    chex.assert_trees_all_close(ours, grads(), rtol=1e-3, atol=1e-4)
