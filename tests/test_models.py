import pathlib
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import spaced_kd
from spaced_kd.config import ArchConfig
from spaced_kd.errors import ConfigError
from spaced_kd.models import MODELS, make_model, resnet
from spaced_kd.parallel import BatchAxis

PACKAGE = pathlib.Path(spaced_kd.__file__).parent
NOT_FAMILIES = {"pair", "__init__", "base", "branches"}


def _conv_bn(inputs, outputs, size=3):
    return size * size * inputs * outputs + 2 * outputs


def _resnet(blocks, widths, classes, bottleneck=False, stem=3):
    """Count by the definition of the architecture, not by building it."""
    total, inputs = _conv_bn(3, widths[0], stem), widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for place in range(count):
            if bottleneck:
                outputs = 4 * width
                total += _conv_bn(inputs, width, 1) + _conv_bn(width, width)
                total += _conv_bn(width, outputs, 1)
            else:
                outputs = width
                total += _conv_bn(inputs, width) + _conv_bn(width, width)
            changes = inputs != outputs or (stage > 0 and place == 0)
            total += _conv_bn(inputs, outputs, 1) if changes else 0
            inputs = outputs
    return total + (inputs + 1) * classes


def _sep_conv(inputs, outputs):
    """Depthwise, pointwise and norm, once at the width it gets, once at its own."""
    return 2 * 9 * inputs + inputs**2 + 2 * inputs + inputs * outputs + 2 * outputs


def _branches(widest, classes):
    """What three branches add: attention with a norm, SepConvs, a head."""
    total, halves = 0, {k: widest // 2 ** (4 - k) for k in (1, 2, 3, 4)}
    for k in (1, 2, 3):
        total += _sep_conv(halves[k], halves[k]) + 2 * halves[k]
        total += sum(_sep_conv(halves[j], halves[j + 1]) for j in range(k, 4))
        total += (widest + 1) * classes
    return total


def _bottleneck_branches(widest, classes):
    """1x1 to a quarter, kxk at that width, 1x1 to the last stage's; a head."""
    total, narrow = 0, widest // 4
    for size, inputs in ((8, widest // 8), (4, widest // 4), (2, widest // 2)):
        total += _conv_bn(inputs, narrow, 1) + _conv_bn(narrow, narrow, size)
        total += _conv_bn(narrow, widest, 1) + (widest + 1) * classes
    return total


def _widths(first):
    return tuple(first * 2**stage for stage in range(4))


def _transformer_block(dim):
    """Two norms, qkv, projection, and a perceptron four times as wide."""
    return 4 * dim + (dim + 1) * 3 * dim + (dim + 1) * dim + 8 * dim**2 + 5 * dim


def _deit(side, classes=100, heads=1, patch=16, blocks=12):
    """A token, its position and a linear layer for each head."""
    positions = (side // patch) ** 2 * 192
    total = (3 * patch**2 + 1) * 192 + positions + blocks * _transformer_block(192)
    return total + 2 * 192 + heads * (2 * 192 + 193 * classes)


def _pit(side, classes=100, patch=16, blocks=(2, 6, 4)):
    """Positions are one map of the grid; the token has none."""
    positions = ((side - patch) // (patch // 2) + 1) ** 2 * 64
    total = (3 * patch**2 + 1) * 64 + positions + 64
    for dim, depth in zip((64, 128, 256), blocks, strict=True):
        total += depth * _transformer_block(dim)
    for dim in (64, 128):
        total += (9 + 1) * 2 * dim + (dim + 1) * 2 * dim
    return total + 2 * 256 + 257 * classes


def _token_branches(widths, classes):
    """A LayerNorm, a map to the deepest width and a head after each block but one."""
    return sum(
        2 * width + (width + 1) * widths[-1] + (widths[-1] + 1) * classes
        for width in widths[:-1]
    )


DEIT_WIDTHS, PIT_WIDTHS = [192] * 12, [64] * 2 + [128] * 6 + [256] * 4

# At 100 classes and 32 pixels. 11,220,132 is PyTorch's count for ResNet-18 with the
# CIFAR stem (paper's network; method A.9 says 11.22 M).
COUNTS = {
    "mlp": (32 * 32 * 3 + 1) * 128 + 129 * 128 + 129 * 100,
    "small_cnn": _conv_bn(3, 16) + _conv_bn(16, 32) + _conv_bn(32, 64) + 65 * 100,
    "small_cnn_branches": _conv_bn(3, 16)
    + _conv_bn(16, 32)
    + _conv_bn(32, 64)
    + (16 + 1) * 64
    + (32 + 1) * 64
    + 3 * 65 * 100,
    "resnet8": _resnet((1, 1, 1), (16, 32, 64), 100),
    "resnet20": _resnet((3, 3, 3), (16, 32, 64), 100),
    "resnet32": _resnet((5, 5, 5), (16, 32, 64), 100),
    "resnet56": _resnet((9, 9, 9), (16, 32, 64), 100),
    "resnet110": _resnet((18, 18, 18), (16, 32, 64), 100),
    "resnet18": 11_220_132,
    "resnet34": _resnet((3, 4, 6, 3), _widths(64), 100),
    "resnet50": _resnet((3, 4, 6, 3), _widths(64), 100, bottleneck=True),
    "resnet101": _resnet((3, 4, 23, 3), _widths(64), 100, bottleneck=True),
    "resnet18_branches": 11_220_132 + _branches(512, 100),
    "resnet50_branches": _resnet((3, 4, 6, 3), _widths(64), 100, bottleneck=True)
    + _branches(2048, 100),
    "resnet101_branches": _resnet((3, 4, 23, 3), _widths(64), 100, bottleneck=True)
    + _branches(2048, 100),
    "deit_tiny": _deit(32),
    "deit_tiny_distilled": _deit(32, heads=2),
    "deit_tiny_branches": _deit(32) + _token_branches(DEIT_WIDTHS, 100),
    "pit_tiny": _pit(32),
    "pit_tiny_branches": _pit(32) + _token_branches(PIT_WIDTHS, 100),
}


def test_every_family_is_registered_and_counted(monkeypatch):
    for name in tiny.NETWORKS:
        monkeypatch.delitem(MODELS, name)
    files = {p.stem for p in (PACKAGE / "models").glob("*.py")} - NOT_FAMILIES
    sources = {
        getattr(m, "func", m).__module__.rsplit(".", 1)[1] for m in MODELS.values()
    }
    assert files == sources
    assert set(MODELS) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_and_shapes(name):
    """A missing bias, shortcut or stage shows in the count."""
    outputs, count = _shapes(make_model(name, 100))
    assert count == COUNTS[name]
    assert outputs.logits.shape == (2, 100)
    assert outputs.features.ndim == 2


def _shapes(model, side=32):
    image = jnp.zeros((2, side, side, 3))
    outputs, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), image, train=False)
    )
    return outputs, sum(x.size for x in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("name", "widest"), [("resnet18", 512), ("resnet50", 2048), ("resnet101", 2048)]
)
def test_bottleneck_branches_are_counted(name, widest):
    """Three of them replace attention and separable convolutions; no bias."""
    model = make_model(f"{name}_branches", 100, ArchConfig(branch="bottleneck"))
    expected = COUNTS[name] + _bottleneck_branches(widest, 100)
    assert _shapes(model)[1] == expected


# torchvision's published counts, 1000 classes, ImageNet stem.
TORCHVISION = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_imagenet_networks_have_torchvisions_counts(name):
    model = make_model(name, 1000, ArchConfig(stem="imagenet"))
    assert _shapes(model, 64)[1] == TORCHVISION[name]


# 5,717,416 and 5,910,800 are timm's counts for deit_tiny(_distilled)_patch16_224; it
# gives pit_ti_224 as 4.85 M. 6,167,856 and 5,330,800 are the counts of the PyTorch
# networks in tests/torch_parity, which also has all the others.
TRANSFORMERS = [
    ("deit_tiny", 224, 16, 1000, 5_717_416),
    ("deit_tiny_distilled", 224, 16, 1000, 5_910_800),
    ("pit_tiny", 224, 16, 1000, 4_847_272),
    ("deit_tiny", 224, 16, 100, _deit(224)),
    ("deit_tiny_distilled", 224, 16, 100, _deit(224, heads=2)),
    ("pit_tiny", 224, 16, 100, _pit(224)),
    ("deit_tiny_branches", 224, 16, 100, 6_167_856),
    ("pit_tiny_branches", 224, 16, 100, 5_330_800),
    ("deit_tiny", 32, 4, 100, _deit(32, patch=4)),
    ("pit_tiny", 64, 8, 100, _pit(64, patch=8)),
]


@pytest.mark.parametrize(("name", "side", "patch", "classes", "count"), TRANSFORMERS)
def test_transformers_are_sized_to_the_image(name, side, patch, classes, count):
    """Position embeddings, patches and tokens; the formulas are those above."""
    model = make_model(name, classes, ArchConfig(patch_size=patch))
    assert _shapes(model, side)[1] == count


def test_a_shallower_transformer_has_that_share_of_blocks():
    """And at least one in each stage."""
    less = ArchConfig(patch_size=4, depth_multiple=0.25)
    assert _shapes(make_model("deit_tiny", 10, less), 8)[1] == _deit(8, 10, 1, 4, 3)
    pit = _shapes(make_model("pit_tiny", 10, less), 8)[1]
    assert pit == _pit(8, 10, 4, (1, 2, 1))
    exits = make_model("deit_tiny_branches", 10, less)
    assert _shapes(exits, 8)[0].branch_logits.shape == (2, 2, 10)


@pytest.mark.parametrize(
    ("arch", "width", "millions"),
    [
        ({"param_factor": 2.0}, 90, 22.15),
        ({"param_factor": 4.0}, 128, 44.76),
        ({"param_factor": 8.0}, 181, 89.42),
        ({"channel_multiple": 2.0}, 128, 44.76),
    ],
)
def test_a_wider_resnet_has_the_published_width(arch, width, millions):
    """int(64 sqrt(f)) channels, released nets.py; Tables 9 and 10 (method D.9)."""
    outputs, count = _shapes(make_model("resnet18", 100, ArchConfig(**arch)))
    assert outputs.features.shape == (2, 8 * width)
    assert count == _resnet((2, 2, 2, 2), _widths(width), 100)
    assert round(count / 1e6, 2) == millions


def test_the_imagenet_stem_divides_the_image_by_four_before_the_stages():
    """A missing max-pool would leave the count as it is, but not the shapes."""
    model = make_model("resnet18", 10, ArchConfig(stem="imagenet"))
    image = jnp.zeros((1, 64, 64, 3))
    _, state = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0), image, train=False, capture_intermediates=True
        )
    )
    blocks = state["intermediates"]
    assert blocks["stage1_block1"]["__call__"][0].shape == (1, 16, 16, 64)
    assert blocks["stage4_block1"]["__call__"][0].shape == (1, 2, 2, 512)


@pytest.mark.parametrize("block", [resnet.BasicBlock, resnet.Bottleneck])
def test_kaiming_draws_are_normal_with_he_variance_by_fan_out(block):
    """The released self KD networks; PyTorch's default draws are uniform."""
    kernels = {}
    for scheme in ("torch", "kaiming"):
        model = resnet.ResNet(
            10, block=block, blocks=(1,), base_width=128, weight_init=scheme
        )
        image = jnp.zeros((1, 4, 4, 3))
        params = model.init(jax.random.key(0), image, train=False)["params"]
        kernels[scheme] = np.asarray(params["stage1_block1"]["conv2"]["kernel"])
        assert params["stem_conv"]["kernel"].shape == (3, 3, 3, 128)
    fan = 9 * 128
    assert np.abs(kernels["torch"]).max() <= fan**-0.5
    np.testing.assert_allclose(kernels["torch"].std(), (3 * fan) ** -0.5, rtol=0.02)
    np.testing.assert_allclose(kernels["kaiming"].std(), (2 / fan) ** 0.5, rtol=0.02)
    assert np.abs(kernels["kaiming"]).max() > 3.5 * kernels["kaiming"].std()


def test_an_option_that_a_model_does_not_have_is_named():
    with pytest.raises(ConfigError, match="arch.stem='imagenet' is not an option of"):
        make_model("mlp", 10, ArchConfig(stem="imagenet"))


@pytest.mark.parametrize("block", [resnet.BasicBlock, resnet.Bottleneck])
def test_recomputing_activations_changes_no_number_and_no_name(block):
    """Checkpoints of runs with and without `remat` must be interchangeable."""
    image = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    plain = resnet.ResNet(10, block=block, blocks=(1, 1), base_width=4)
    remat = plain.clone(remat=True)
    variables = plain.init(jax.random.key(0), image, train=False)
    chex.assert_trees_all_equal(
        variables, remat.init(jax.random.key(0), image, train=False)
    )

    def grads(model):
        def loss(params):
            out, moved = model.apply(
                variables | {"params": params},
                image,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.square(out.logits).sum(), moved

        return jax.jit(jax.grad(loss, has_aux=True))

    params = variables["params"]
    chex.assert_trees_all_close(
        grads(remat)(params), grads(plain)(params), rtol=1e-4, atol=1e-5
    )
    kept = [
        len(re.findall(r"rsqrt", str(f.trace(params).jaxpr)))
        for f in map(grads, (plain, remat))
    ]
    assert kept[1] > kept[0], "nothing is computed again"


@pytest.mark.parametrize("name", ["small_cnn", "resnet8"])
def test_bfloat16_touches_activations_only(name):
    """Parameters, running statistics, logits and features stay float32."""
    image = jax.random.normal(jax.random.key(1), (8, 8, 8, 3))
    exact = make_model(name, 10)
    model = make_model(name, 10, compute_dtype="bfloat16")
    variables = model.init(jax.random.key(0), image, train=False)
    chex.assert_trees_all_equal(
        variables, exact.init(jax.random.key(0), image, train=False)
    )
    out, moved = model.apply(variables, image, train=True, mutable=["batch_stats"])
    for leaf in jax.tree.leaves((variables, out, moved)):
        assert leaf.dtype == jnp.float32
    _, state = model.apply(variables, image, train=False, capture_intermediates=True)
    types = {
        str(x.dtype)
        for path, x in jax.tree_util.tree_leaves_with_path(state)
        if "conv" in str(path).lower()
    }
    assert types == {"bfloat16"}
    reference, _ = exact.apply(variables, image, train=True, mutable=["batch_stats"])
    # bfloat16 keeps 8 bits: agreement to a few percent of the spread, not to more.
    error = jnp.abs(out.logits - reference.logits).max()
    assert 0 < error < 0.1 * jnp.abs(reference.logits).max()


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
