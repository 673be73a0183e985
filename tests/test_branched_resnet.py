"""What the comparison with PyTorch does not show of the networks with branches."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd import conv
from spaced_kd.config import ArchConfig
from spaced_kd.errors import ConfigError
from spaced_kd.layers import SepConv
from spaced_kd.models import make_model
from spaced_kd.models.branched_resnet import BranchedResNet
from spaced_kd.models.branches import PatchConv
from spaced_kd.parallel import BatchAxis

SIZES = {"blocks": (1, 1, 1, 1), "base_width": 4}
KINDS = ("separable", "bottleneck")
IMAGE = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))


def _network(**fields):
    return BranchedResNet(5, **SIZES, **fields)


@functools.cache
def _variables(branch="separable"):
    model = _network(branch=branch)
    return jax.jit(lambda: model.init(jax.random.key(0), IMAGE, train=False))()


def _train(model, image, mask=None):
    variables = _variables(getattr(model, "branch", "separable"))
    run = lambda v, x: model.apply(v, x, train=True, mask=mask, mutable=["batch_stats"])
    return jax.jit(run)(variables, image)


@pytest.mark.parametrize("branch", KINDS)
def test_padding_changes_nothing_for_the_real_examples(branch):
    junk = jnp.full((2, 16, 16, 3), 50.0)
    out, moved = _train(_network(branch=branch), IMAGE)
    padded = jnp.concatenate([IMAGE, junk])
    masked, masked_moved = _train(_network(branch=branch), padded, jnp.arange(6) < 4)
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[:4], masked), out, rtol=1e-3, atol=1e-4
    )
    chex.assert_trees_all_close(masked_moved, moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("branch", KINDS)
def test_two_shards_equal_the_whole(branch):
    out, _ = _train(_network(branch=branch), IMAGE)
    model = _network(branch=branch, axis=BatchAxis("d"))
    shard = lambda x: _train(model, x)[0]
    parts = jax.vmap(shard, axis_name="d")(IMAGE.reshape(2, 2, 16, 16, 3))
    joined = jax.tree.map(lambda x: x.reshape(4, *x.shape[2:]), parts)
    chex.assert_trees_all_close(joined, out, rtol=1e-3, atol=1e-4)


def test_kaiming_draws_reach_the_branches():
    """PyTorch's fan out of a grouped convolution is 9 C, of a pointwise one C_out."""
    layer = SepConv(64, BatchAxis(), "kaiming")
    image = jnp.zeros((1, 4, 4, 64))
    params = layer.init(jax.random.key(0), image, False, None)["params"]
    for name, fan in (("depthwise1", 9 * 64), ("pointwise2", 64)):
        found = np.asarray(params[name]["kernel"]).std()
        np.testing.assert_allclose(found, (2 / fan) ** 0.5, rtol=0.1)
    layer = PatchConv(64, 4, "kaiming")
    kernel = layer.init(jax.random.key(0), image)["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), (2 / (16 * 64)) ** 0.5, rtol=0.1)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_map_of_patches_equals_a_convolution_of_that_stride(size):
    """And is none: XLA:CPU's gradients of one are slow inside scan."""
    image = jax.random.normal(jax.random.key(1), (2, 8, 16, 3))
    layer = PatchConv(5, size, "torch")
    variables = layer.init(jax.random.key(0), image)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (size, size, 3, 5)
    expected = jax.lax.conv_general_dilated(
        image, kernel, (size,) * 2, "VALID", dimension_numbers=conv.LAYOUT
    )
    got = layer.apply(variables, image)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    loss = lambda v: jnp.square(layer.apply(v, image)).sum()
    assert "conv_general" not in str(jax.make_jaxpr(jax.grad(loss))(variables))


@pytest.mark.parametrize("branch", KINDS)
@pytest.mark.parametrize(("stem", "side"), [("cifar", 12), ("imagenet", 48)])
def test_an_image_that_cannot_be_halved_is_refused_in_one_line(stem, side, branch):
    model = make_model("resnet18_branches", 5, ArchConfig(stem=stem, branch=branch))
    image = jnp.zeros((1, side, side, 3))
    with pytest.raises(ConfigError, match=f"{side}x{side} pixels.*multiple of") as e:
        jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("stride", "size"), [(1, 6), (2, 6), (2, 5)])
def test_depthwise_equals_a_grouped_convolution_with_its_gradients(stride, size):
    image = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 6))

    def grouped(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=conv.LAYOUT,
            feature_group_count=3,
        )

    ours = lambda x, w: conv.depthwise(x, w, stride)
    results = [
        (form(image, kernel), jax.grad(lambda *a, f=form: (f(*a) ** 2).sum(), (0, 1)))
        for form in (ours, grouped)
    ]
    (out, grads), (expected, expected_grads) = results
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(
        grads(image, kernel), expected_grads(image, kernel), rtol=1e-4, atol=1e-4
    )
