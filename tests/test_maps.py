"""Feature maps of the stages: there when asked for, and nothing else changes."""

import chex
import jax
import jax.numpy as jnp
import pytest

from spaced_kd.config import ArchConfig
from spaced_kd.models import make_model

SHAPES = {
    "mlp": [(1, 1, 128)] * 2,
    "tiny_cnn": [(32, 32, 4), (16, 16, 4)],
    "tiny_branches": [(32, 32, 4), (16, 16, 4), (8, 8, 4)],
    "resnet8": [(32, 32, 16), (16, 16, 32), (8, 8, 64)],
    "resnet18": [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)],
    "resnet18_branches": [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)],
    "deit_tiny": [(4, 4, 192)] * 4,
    "deit_tiny_distilled": [(4, 4, 192)] * 4,
    "pit_tiny": [(7, 7, 64), (4, 4, 128), (2, 2, 256)],
}
PATCHES = ArchConfig(patch_size=8)


def _model(name):
    patches = name.startswith(("deit", "pit"))
    return make_model(name, 10, PATCHES if patches else ArchConfig())


@pytest.mark.parametrize("name", SHAPES)
def test_a_network_gives_the_maps_of_its_stages(name):
    model = _model(name).clone(with_maps=True)
    shapes = jax.eval_shape(
        lambda image: model.init_with_output(jax.random.key(0), image, train=True)[0],
        jnp.zeros((2, 32, 32, 3)),
    )
    assert [x.shape for x in shapes.maps] == [(2, *shape) for shape in SHAPES[name]]


def test_maps_change_nothing_else_and_end_in_the_features():
    """Parameters, logits and features are those of the network without maps."""
    image = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    plain = _model("tiny_cnn")
    start = lambda model: model.init_with_output(jax.random.key(0), image, train=True)
    expected, variables = start(plain)
    outputs, same = start(plain.clone(with_maps=True))
    chex.assert_trees_all_equal(same, variables)
    chex.assert_trees_all_equal(outputs._replace(maps=None), expected)
    means = outputs.maps[-1].mean((1, 2))
    chex.assert_trees_all_close(means, outputs.features, rtol=1e-6)
