"""One file, one line: nothing is forgotten in a table, and every entry works."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
import tiny

import spaced_kd
from spaced_kd import losses
from spaced_kd.config import (
    TWO_WAY,
    WITH_BRANCHES,
    WITH_PEER,
    WITH_TWO_HEADS,
    WITHOUT_TEACHER,
    StudentConfig,
)
from spaced_kd.data import DATASETS
from spaced_kd.errors import ConfigError
from spaced_kd.methods import METHODS, make_method
from spaced_kd.methods.base import Now
from spaced_kd.parallel import BatchAxis
from spaced_kd.registry import lookup
from spaced_kd.state import BRANCHES, PARTS, PEER
from spaced_kd.types import Batch, ModelOutput

PACKAGE = pathlib.Path(spaced_kd.__file__).parent


def test_every_method_file_is_in_the_table():
    files = {path.stem for path in (PACKAGE / "methods").glob("*.py")}
    assert files - {"__init__", "base"} == set(METHODS)


def test_every_data_set_has_its_file():
    for name in DATASETS:
        assert (PACKAGE / "data" / f"{name}.py").exists()


def test_an_unknown_name_lists_all_nearest_first():
    with pytest.raises(ConfigError) as error:
        lookup({"alpha": 1, "beta": 2, "gamma": 3}, "betta", "config.x")
    assert str(error.value) == (
        "config.x='betta' is unknown; did you mean 'beta'? Known: beta, alpha, gamma."
    )


def _outputs(key, dim, rows=6):
    a, b, c = jax.random.split(key, 3)
    features = jax.nn.relu(jax.random.normal(b, (rows, dim)))
    logits = jax.random.normal(a, (rows, 3, 10))
    stacked = jnp.stack([features * k for k in (2, 3)], 1)
    maps = jax.nn.relu(jax.random.normal(c, (rows, 4, 4, dim)))
    maps = (maps[..., :2], maps[:, ::2, ::2])
    return ModelOutput(logits[:, 0], features, None, logits[:, 1:], stacked, maps)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dims", [(5, 5), (4, 7)])
def test_methods_give_a_finite_loss_that_moves_the_student_and_ignores_order(
    name, dims
):
    """Also with a teacher of another width; compiled, as every loss is in a run."""
    config = StudentConfig(method=name, soft_loss="kl", temperature_squared="yes")
    method = make_method(config, BatchAxis(), tiny.SIZES)
    keys = jax.random.split(jax.random.key(0), 3)
    rows = 6 * method.batches
    student = _outputs(keys[0], dims[0], rows)
    teacher = _outputs(keys[1], dims[1], rows)
    params = jax.jit(method.init)(keys[2], student, teacher)
    label = jnp.arange(rows) % 10
    batch = Batch(jnp.zeros((rows, 1, 1, 1)), label, example=jnp.arange(rows))
    memory = method.memory.start(student, teacher) if method.memory else ()

    def loss(params, student, order):
        pick = lambda tree: jax.tree.map(lambda x: x[order], tree)
        now = Now(0, memory)
        return method.loss(params, pick(student), pick(teacher), pick(batch), now)[0]

    run = jax.jit(jax.value_and_grad(loss, (0, 1)))
    value, grads = run(params, student, jnp.arange(rows))
    assert value.shape == ()
    chex.assert_tree_all_finite((value, grads))
    assert jnp.abs(grads[1].logits).max() > 0
    order = jnp.array([3, 1, 5, 0, 2, 4])
    order = jnp.concatenate([order + 6 * k for k in range(method.batches)])
    chex.assert_trees_all_close(run(params, student, order)[0], value, rtol=1e-5)


EVERY_LOSS = [("soft_loss", name) for name in losses.SOFT_LOSSES]
EVERY_LOSS += [("feature_loss", name) for name in losses.FEATURE_LOSSES]


@pytest.mark.parametrize(("field", "name"), EVERY_LOSS)
def test_every_loss_of_the_tables_trains(field, name):
    """Gradient descent on what a network gives must lower the loss that was chosen."""
    weights = {"kd_weight": 1.0, "feature_weight": 0.0}
    if field == "feature_loss":
        weights = {"kd_weight": 0.0, "feature_weight": 1.0}
    config = StudentConfig(**{"soft_loss": "kl", field: name} | weights)  # pyright: ignore
    method = make_method(config, BatchAxis(), tiny.SIZES)
    keys = jax.random.split(jax.random.key(1), 3)
    student, teacher = _outputs(keys[0], 4), _outputs(keys[1], 7)
    batch = Batch(jnp.zeros((6, 1, 1, 1)), jnp.arange(6))
    start = method.init(keys[2], student, teacher), student.logits

    @jax.jit
    def chosen(learned):
        params, logits = learned
        outputs = student._replace(logits=logits)
        return method.loss(params, outputs, teacher, batch, Now(0))[1][field]

    slope = jax.jit(jax.grad(chosen))
    learned = start
    for _ in range(50):
        slopes = slope(learned)
        # Of unit length: the slopes of the released losses differ by a thousand.
        pace = 0.05 / optax.tree.norm(slopes)
        learned = jax.tree.map(lambda p, g, r=pace: p - r * g, learned, slopes)
    assert chosen(learned) < chosen(start) - 1e-3


def test_the_kd_loss_is_the_weighted_sum_of_its_parts():
    """(1 - alpha) CE + alpha T^2 KL + beta dist, from the reported parts."""
    config = StudentConfig(
        kd_weight=0.3,
        feature_weight=0.03,
        temperature=3.0,
        soft_loss="kl",
        temperature_squared="yes",
    )
    method = make_method(config, BatchAxis(), tiny.SIZES)
    keys = jax.random.split(jax.random.key(0), 3)
    student, teacher = _outputs(keys[0], 4), _outputs(keys[1], 7)
    batch = Batch(jnp.zeros((6, 1, 1, 1)), jnp.arange(6))
    params = method.init(keys[2], student, teacher)
    total, parts = method.loss(params, student, teacher, batch, Now(0))
    expected = (
        0.7 * parts["hard_loss"]
        + 0.3 * parts["soft_loss"]
        + 0.03 * parts["feature_loss"]
    )
    chex.assert_trees_all_close(total, expected, rtol=1e-6)
    for soft_loss, factor in (("kl", 9), ("mse", 1)):
        found = [
            make_method(
                StudentConfig(soft_loss=soft_loss, temperature_squared=squared),
                BatchAxis(),
                tiny.SIZES,
            ).loss(params, student, teacher, batch, Now(0))[1]["soft_loss"]
            for squared in ("yes", "no")
        ]
        chex.assert_trees_all_close(found[0], factor * found[1], rtol=1e-5)
    shapes = [x.shape for x in jax.tree.leaves(params)]
    # Linear 4 -> floor((4 + 7) / 2) -> 7, as released.
    assert sorted(shapes) == [(4, 5), (5,), (5, 7), (7,)]


@pytest.mark.parametrize("name", METHODS)
def test_what_the_config_says_of_a_method_is_true_of_it(name):
    """The plan is made before methods are, from the config's lists of their names."""
    config = StudentConfig(method=name, soft_loss="kl", temperature_squared="yes")
    method = make_method(config, BatchAxis(), tiny.SIZES)
    assert method.needs_teacher == (name not in WITHOUT_TEACHER)
    assert (BRANCHES in method.trains) == (name in WITH_BRANCHES)
    assert (method.lead is not None) == (name in TWO_WAY)
    assert (PEER in method.trains) == (name in WITH_PEER)
    assert method.needs_soft_head == (name in WITH_TWO_HEADS)
    assert (method.lead is None) == (method.replay is None)
    assert set(method.trains) < set(PARTS)
