"""Transformers: patches and pooling as convolutions, DropPath, heads, dtype, remat."""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from spaced_kd.config import ArchConfig
from spaced_kd.errors import ConfigError
from spaced_kd.models import deit, make_model, pit
from spaced_kd.parallel import BatchAxis
from spaced_kd.transformer import (
    Attention,
    DepthwisePool,
    DropPath,
    PatchEmbed,
    layer_norm,
)

LAYOUT = ("NHWC", "HWIO", "NHWC")
IMAGE = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))


def _deit(**fields):
    return deit.DeiT(10, dim=12, depth=3, patch_size=4, **fields)


def _pit(**fields):
    fields = {"dim": 4, "depths": (1, 2), "heads": (1, 2), "patch_size": 4} | fields
    return pit.PiT(10, **fields)


def _start(model, image=IMAGE):
    """Variables whose head is not zero, so that everything shows in the logits."""
    init = lambda: model.init(jax.random.key(0), image, train=False)
    r = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(r.normal(scale=0.2, size=x.shape), jnp.float32)
    return jax.tree.map(draw, jax.eval_shape(init))


def _apply(model, variables, image=IMAGE, train=True, key=None):
    rngs = None if key is None else {"dropout": key}
    return jax.jit(lambda v, x: model.apply(v, x, train=train, rngs=rngs))(
        variables, image
    )


@pytest.mark.parametrize(("size", "stride"), [(4, 4), (4, 2), (6, 2)])
@pytest.mark.parametrize("shape", [(12, 12), (8, 12)])
def test_patches_equal_a_strided_convolution(size, stride, shape):
    """Every pixel must meet its own weight, also in images that are not square."""
    image = jax.random.normal(jax.random.key(1), (2, *shape, 3))
    layer = PatchEmbed(5, size, stride)
    variables = layer.init(jax.random.key(0), image)
    params = variables["params"]
    expected = lax.conv_general_dilated(
        image, params["kernel"], (stride,) * 2, "VALID", dimension_numbers=LAYOUT
    )
    got = layer.apply(variables, image)
    chex.assert_trees_all_close(got, expected + params["bias"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 7), (4, 5), (1, 1)])
def test_pooling_equals_a_grouped_convolution(shape):
    """PyTorch's groups: outputs 2c and 2c + 1 read channel c."""
    grid = jax.random.normal(jax.random.key(1), (2, *shape, 3))
    layer = DepthwisePool()
    variables = layer.init(jax.random.key(0), grid)
    params = variables["params"]
    expected = lax.conv_general_dilated(
        grid,
        params["kernel"],
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=LAYOUT,
        feature_group_count=3,
    )
    got = layer.apply(variables, grid)
    chex.assert_trees_all_close(got, expected + params["bias"], rtol=1e-5, atol=1e-5)


def test_attention_equals_numpy_in_float64():
    """Heads, scale and softmax over keys, against loops."""
    r = np.random.default_rng(0)
    x = r.normal(size=(2, 5, 6))
    layer = Attention(heads=3, kernel_init="torch")
    variables = layer.init(jax.random.key(0), jnp.asarray(x, jnp.float32))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    qkv = x @ p["qkv"]["kernel"] + p["qkv"]["bias"]
    mixed = np.zeros_like(x)
    for b in range(2):
        for head in range(3):
            part = slice(2 * head, 2 * head + 2)
            q, k, v = (qkv[b, :, 6 * i : 6 * i + 6][:, part] for i in range(3))
            e = np.exp(q @ k.T / np.sqrt(2))
            mixed[b, :, part] = e / e.sum(1, keepdims=True) @ v
    expected = mixed @ p["proj"]["kernel"] + p["proj"]["bias"]
    got = layer.apply(variables, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_layer_norm_adds_a_millionth_to_the_variance():
    """As published; PyTorch's and flax's defaults are others."""
    x = np.random.default_rng(0).normal(3.0, 1e-3, size=(4, 50)).astype(np.float32)
    exact = x.astype(np.float64)
    variance = exact.var(1, keepdims=True)
    expected = (exact - exact.mean(1, keepdims=True)) / np.sqrt(variance + 1e-6)
    layer = layer_norm()
    got = layer.apply(layer.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(got, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("make", [_deit, _pit])
def test_no_convolution_is_left_in_a_training_step(make):
    """Its gradient would be slow inside scan on CPU; conv.py has no form for it."""
    model = make()
    variables = _start(model)
    loss = lambda v: jnp.square(model.apply(v, IMAGE, train=True).logits).sum()
    assert "conv_general" not in str(jax.jit(jax.grad(loss)).trace(variables).jaxpr)


@pytest.mark.parametrize(
    ("name", "patch", "shape", "words"),
    [
        ("deit_tiny", 16, (30, 30), "30x30 .*patch_size=16.* multiple of 16"),
        ("deit_tiny", 5, (32, 32), "32x32 .*patch_size=5"),
        ("deit_tiny", 16, (32, 24), "32x24"),
        ("pit_tiny", 16, (36, 36), "36x36 .*patch_size=16, stride 8"),
        ("pit_tiny", 16, (8, 8), "8x8 .*from 16 on"),
        ("pit_tiny", 5, (20, 20), "patch_size=5 is odd"),
    ],
)
def test_patches_that_do_not_fit_are_one_line(name, patch, shape, words):
    model = make_model(name, 10, ArchConfig(patch_size=patch))
    image = jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32)
    with pytest.raises(ConfigError, match=words) as error:
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    assert "\n" not in str(error.value)


ONE_DEVICE = BatchAxis()


def _drop(x, key, rate=0.25, axis=ONE_DEVICE, train=True):
    rngs = None if key is None else {"dropout": key}
    return DropPath(rate, axis).apply({}, x, train, rngs=rngs)


def test_drop_path_leaves_out_whole_examples_and_keeps_the_mean():
    """Rate 0.25: zeros with that probability, the others times 4/3."""
    x = jnp.ones((4000, 2, 3))
    out = np.asarray(_drop(x, jax.random.key(0)), np.float64)
    rows = out.reshape(4000, 6)
    assert (rows == rows[:, :1]).all()
    assert set(np.round(np.unique(rows), 5)) == {0.0, 1.33333}
    # 4 standard deviations of a mean of 4000 draws.
    assert abs((rows[:, 0] == 0).mean() - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5
    assert not np.asarray(_drop(x, jax.random.key(0), rate=1.0)).any()


@pytest.mark.parametrize("case", [{"train": False}, {"key": None}, {"rate": 0.0}])
def test_drop_path_is_off_without_training_without_key_and_at_rate_0(case):
    x = jnp.ones((50, 2))
    arguments = {"key": jax.random.key(0)} | case
    chex.assert_trees_all_equal(_drop(x, **arguments), x)


def test_drop_path_draws_the_same_on_four_devices_as_on_one():
    """The draw belongs to the example's place in the whole batch."""
    x, key = jnp.ones((32, 2)), jax.random.key(3)
    whole = _drop(x, key)
    shard = lambda part: _drop(part, key, axis=BatchAxis("batch"))
    split = jax.pmap(shard, axis_name="batch")(x.reshape(4, 8, 2)).reshape(32, 2)
    chex.assert_trees_all_equal(split, whole)
    assert 0 < (whole == 0).sum() < whole.size


def _rates(model):
    rates = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.append(context.module.rate)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda: model.init(
                jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
            )
        )
    return rates[::2]


def test_drop_path_rates_are_the_published_ones():
    """DeiT: 0 to the rate over 12 blocks, both ends included; PiT: rate * i / 12."""
    np.testing.assert_allclose(_rates(make_model("deit_tiny", 10)), np.arange(12) / 110)
    np.testing.assert_allclose(_rates(make_model("pit_tiny", 10)), np.arange(12) / 120)
    halved = make_model("pit_tiny", 10, ArchConfig(drop_path=0.05))
    np.testing.assert_allclose(_rates(halved), np.arange(12) / 240)
    shallow = ArchConfig(depth_multiple=0.25)
    deit, pit = (make_model(name, 10, shallow) for name in ("deit_tiny", "pit_tiny"))
    np.testing.assert_allclose(_rates(deit), np.arange(3) / 20)
    np.testing.assert_allclose(_rates(pit), np.arange(4) / 40)


def test_two_branches_of_a_network_draw_apart():
    """One key for all would leave out whole networks, never single branches."""
    model = _deit(drop_path=0.9)
    variables = _start(model)
    image = jnp.repeat(IMAGE[:1], 64, 0)
    out = _apply(model, variables, image, key=jax.random.key(0))
    # Blocks 2 and 3 hold 4 branches that may be missing, 16 combinations.
    assert len(np.unique(np.round(np.asarray(out.features), 4), axis=0)) > 6


@pytest.mark.parametrize("make", [_deit, _pit])
def test_recomputing_activations_changes_no_number_and_no_name(make):
    """Also not what DropPath draws, in the backward pass either."""
    plain, remat = make(drop_path=0.5), make(drop_path=0.5, remat=True)
    variables = _start(plain)
    chex.assert_trees_all_equal_shapes(variables, _start(remat))

    def grads(model):
        def loss(variables):
            key = {"dropout": jax.random.key(5)}
            out = model.apply(variables, IMAGE, train=True, rngs=key)
            return jnp.square(out.logits).sum()

        return jax.jit(jax.grad(loss))

    chex.assert_trees_all_close(
        grads(remat)(variables), grads(plain)(variables), rtol=1e-4, atol=1e-4
    )
    kept = [
        str(grads(model).trace(variables).jaxpr).count("erfc")
        for model in (plain, remat)
    ]
    assert kept[1] > kept[0], "nothing is computed again"


@pytest.mark.parametrize("make", [_deit, _pit])
def test_bfloat16_touches_activations_only(make):
    """Parameters, LayerNorm's statistics, logits and features stay float32."""
    model, exact = make(dtype=jnp.bfloat16), make()
    variables = _start(exact)
    init = lambda m: jax.eval_shape(
        lambda: m.init(jax.random.key(0), IMAGE, train=False)
    )
    assert init(model) == init(exact)
    run = jax.jit(
        lambda v: model.apply(v, IMAGE, train=False, capture_intermediates=True)
    )
    out, state = run(variables)
    assert out.logits.dtype == out.features.dtype == jnp.float32
    inner = jax.tree_util.tree_leaves_with_path(state)
    assert {str(x.dtype) for p, x in inner if "block" in str(p)} == {"bfloat16"}
    text = str(run.trace(variables).jaxpr)
    for op in ("exp", "rsqrt"):  # of the softmax and of LayerNorm
        assert set(re.findall(rf":(\w+)\[[^\]]*\] = {op} ", text)) == {"f32"}
    reference = _apply(exact, variables, train=False)
    # bfloat16 keeps 8 bits: agreement to a few percent of the spread, not to more.
    error = jnp.abs(out.logits - reference.logits).max()
    assert 0 < error < 0.1 * jnp.abs(reference.logits).max()


def test_a_distilled_network_has_two_heads_in_training_and_their_mean_after():
    """What the labels and the teacher's targets train, and what is evaluated."""
    model = _deit(distilled=True)
    variables = _start(model)
    trained = _apply(model, variables)
    tested = _apply(model, variables, train=False)
    assert tested.soft_logits is None
    mean = (trained.logits + trained.soft_logits) / 2
    chex.assert_trees_all_close(tested.logits, mean, rtol=1e-5)
    assert jnp.abs(trained.logits - trained.soft_logits).max() > 0.01
    head = variables["params"]["head"]
    read = trained.features @ head["kernel"] + head["bias"]
    chex.assert_trees_all_close(trained.logits, read, rtol=1e-4, atol=1e-5)
    plain = _deit()
    assert _apply(plain, _start(plain)).soft_logits is None


def test_networks_start_as_released():
    """DeiT: N(0, 0.02^2), heads at zero; PiT: PyTorch's uniform draws throughout."""
    image = jnp.zeros((1, 16, 16, 3))

    def start(model):
        init = lambda: model.init(jax.random.key(0), image, train=False)["params"]
        return jax.tree.map(np.asarray, jax.jit(init)())

    params = start(deit.DeiT(10, dim=96, depth=1, patch_size=8, distilled=True))
    for name in ("head", "head_dist"):
        assert not params[name]["kernel"].any() and not params[name]["bias"].any()
    block = params["block1"]
    for layer in (block["attn"]["qkv"], block["attn"]["proj"], block["fc1"]):
        np.testing.assert_allclose(layer["kernel"].std(), 0.02, rtol=0.03)
        assert np.abs(layer["kernel"]).max() > 0.06 and not layer["bias"].any()
    np.testing.assert_allclose(params["pos_embed"].std(), 0.02, rtol=0.15)
    kernel = params["patch_embed"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (3 * 192) ** -0.5, rtol=0.03)
    params = start(pit.PiT(10, depths=(1, 1), heads=(2, 4), patch_size=8))
    for layer, fan in ((params["head"], 128), (params["stage1_block1"]["fc1"], 64)):
        np.testing.assert_allclose(layer["kernel"].std(), (3 * fan) ** -0.5, rtol=0.05)
    assert np.abs(params["stage2_pool"]["conv"]["kernel"]).max() <= 1 / 3
    np.testing.assert_allclose(params["cls_token"].std(), 0.02, rtol=0.3)


def test_branches_start_as_the_rest_of_their_network():
    """DeiT: alignment N(0, 0.02^2) without bias, heads at zero; PiT: uniform draws."""
    image = jnp.zeros((1, 16, 16, 3))

    def start(model):
        init = lambda: model.init(jax.random.key(0), image, train=False)["params"]
        branch = lambda: {k: v for k, v in init().items() if k.startswith("branch1")}
        return jax.tree.map(np.asarray, jax.jit(branch)())

    found = start(deit.DeiT(10, dim=96, depth=2, patch_size=8, branches=True))
    align, head = found["branch1_align"], found["branch1_head"]
    assert not any(x.any() for x in (align["bias"], head["kernel"], head["bias"]))
    np.testing.assert_allclose(align["kernel"].std(), 0.02, rtol=0.03)
    assert np.abs(align["kernel"]).max() > 0.06
    thin = {"depths": (1, 1), "heads": (2, 4), "patch_size": 8}
    found = start(pit.PiT(10, **thin, branches=True))
    for layer, fan in (("align", 64), ("head", 128)):
        kernel, bias = (found[f"branch1_{layer}"][x] for x in ("kernel", "bias"))
        np.testing.assert_allclose(kernel.std(), (3 * fan) ** -0.5, rtol=0.05)
        assert max(np.abs(kernel).max(), np.abs(bias).max()) <= fan**-0.5 and bias.any()
    # Both have a norm that starts as every LayerNorm.
    assert (found["branch1_norm"]["scale"] == 1).all()
