"""What a reviewer asks for, one field each: every control does what it is called."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from spaced_kd import checks, data, experiment, ledger, optim, schedule, steps
from spaced_kd.config import OptimConfig, StudentConfig, student
from spaced_kd.engine import Engine
from spaced_kd.errors import ConfigError
from spaced_kd.layers import BatchNorm, Dense
from spaced_kd.methods import hard
from spaced_kd.models.base import Model
from spaced_kd.parallel import BatchAxis
from spaced_kd.schedule import Lockstep, Member, Replay
from spaced_kd.state import TRUNK, init_state
from spaced_kd.types import Batch, ModelOutput
from spaced_kd.update import Network

RATE, DECAY, RHO = 0.1, 0.01, 0.5
NARROW = {"teacher__model": "narrow_mlp", "student__model": "narrow_mlp"}
EMA = {"teacher__ema_decay": 0.7, "student__teacher_weights": "ema"}


class Linear(Model):
    """Logits are a linear map of the pixels; with `norm` of normalised features."""

    norm: bool = False

    @nn.compact
    def __call__(self, image, *, train, mask=None):
        x = image.reshape(image.shape[0], -1)
        if self.norm:
            x = BatchNorm()(Dense(4)(x), train=train, mask=mask)
        return ModelOutput(Dense(self.num_classes)(x), x)


def _prepare(students, **fields):
    config = tiny.config(students, **fields)
    parts = experiment.build(config, data.load(config.data))
    return parts, Engine(parts), experiment.init_states(parts)


def _in_lockstep(engine, states, member, count):
    """Return the states after so many batches, and the teacher's weights at each."""
    weights = [jax.device_get(states[0]["teacher"].params["net"])]
    for t in range(count):
        states, _ = engine.advance(states, Lockstep(t, t + 1, (member,)))
        weights.append(jax.device_get(states[0]["teacher"].params["net"]))
    return states, weights


def _by_hand(engine, states, weights):
    """Return the parameters of a student that replays batches one by one.

    Batch t against a teacher that was given weights[t].
    """
    seed = states[0] | {"hand": jax.device_get(states[0]["hand"])}
    teacher = seed["teacher"]
    for t, net in enumerate(weights):
        seed["teacher"] = teacher.replace(params=teacher.params | {"net": net})
        (seed,), _ = engine.advance([seed], Replay("hand", t, t + 1, t))
    return seed["hand"].params


def _images(count):
    return jax.random.normal(jax.random.key(0), (count, 2, 2, 3))


def _step(batch, *, rho, norm=False):
    """One update on the labels; returns the state before and after, and metrics."""
    config = OptimConfig(learning_rate=RATE, weight_decay=DECAY)
    rate = optim.learning_rate_schedule(config, 10, 100)
    network = Network(
        Linear(num_classes=5, norm=norm),
        optim.make_optimizer(config),
        rate,
        sam_rho=rho,
    )
    variables = network.model.init(jax.random.key(1), batch.image, train=False)
    state = init_state(variables, {}, network.tx)
    labels = hard.make_loss(BatchAxis()).whole
    step = steps.make_teacher_step(network, labels, BatchAxis())
    new, _, measured = step(state, batch, jax.random.key(2), None)
    return state, new, measured


def _loss_and_grads(kernel, bias, x, label):
    """Mean cross-entropy of a linear map and its gradient, in float64."""
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(x))
    loss = -np.log(p[rows, label]).mean()
    p[rows, label] -= 1
    return loss, x.T @ p / len(x), p.mean(0)


def test_sam_takes_the_gradient_uphill_and_the_step_from_where_it_stood():
    """Foret et al., Eq. 2 and 3, in NumPy; weight decay stays out of the climb."""
    batch = Batch(_images(6), jnp.array([0, 1, 2, 3, 4, 0]))
    state, new, measured = _step(batch, rho=RHO)
    x = np.asarray(batch.image, np.float64).reshape(6, -1)
    weights = state.params["net"]["Dense_0"]
    w, b = (np.asarray(weights[k], np.float64) for k in ("kernel", "bias"))
    loss, gw, gb = _loss_and_grads(w, b, x, batch.label)
    norm = np.sqrt(np.square(gw).sum() + np.square(gb).sum())
    above = w + RHO * gw / norm, b + RHO * gb / norm
    _, up_w, up_b = _loss_and_grads(*above, x, batch.label)
    got = new.params["net"]["Dense_0"]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    close(got["kernel"], w - RATE * (up_w + DECAY * w))
    close(got["bias"], b - RATE * (up_b + DECAY * b))
    close(measured["loss"], loss)
    # The climb is what moves the step, far above the tolerance.
    assert np.abs(RATE * (up_w - gw)).max() > 1e-3


def test_sam_at_no_distance_is_the_plain_update():
    batch = Batch(_images(6), jnp.array([0, 1, 2, 3, 4, 0]))
    plain, near = (_step(batch, rho=rho)[1] for rho in (0.0, 1e-6))
    chex.assert_trees_all_close(plain, near, rtol=1e-5, atol=1e-6)


def test_sam_moves_the_averages_of_batchnorm_once():
    """A second move would weigh the batch double, and measure weights not kept."""
    batch = Batch(3.0 + _images(6), jnp.array([0, 1, 2, 3, 4, 0]))
    (_, plain, _), (start, sam, _) = (_step(batch, rho=r, norm=True) for r in (0, RHO))
    chex.assert_trees_all_close(sam.batch_stats, plain.batch_stats, rtol=1e-6)
    moved = sam.batch_stats["BatchNorm_0"]["mean"]
    assert np.abs(moved - start.batch_stats["BatchNorm_0"]["mean"]).max() > 0.1
    assert np.abs(sam.params["net"]["Dense_0"]["kernel"]).sum() != pytest.approx(
        np.abs(plain.params["net"]["Dense_0"]["kernel"]).sum(), rel=1e-5
    )


def test_a_climb_leaves_out_the_parts_that_rest():
    """Neither do they move, nor do they count in the distance."""
    params = {"net": {"a": jnp.zeros(2), "branch": jnp.zeros(1)}, "method": jnp.ones(1)}
    grads = {
        "net": {"a": jnp.array([3.0, 4.0]), "branch": jnp.array([12.0])},
        "method": jnp.array([7.0]),
    }
    above = optim.ascend(params, grads, 2.0, (TRUNK,))
    np.testing.assert_allclose(above["net"]["a"], [1.2, 1.6], rtol=1e-6)
    assert (above["net"]["branch"], above["method"]) == (0.0, 1.0)
    level = jax.tree.map(jnp.zeros_like, grads)
    chex.assert_trees_all_equal(optim.ascend(params, level, 2.0, (TRUNK,)), params)


@functools.cache
def _sam_run(**fields):
    """Two updates with SAM, on the labels."""
    students = {"s": student(plan="none", model="narrow_mlp")}
    fields |= {"student__optim__sam_rho": RHO, "teacher__model": "none"}
    _, engine, states = _prepare(students, **fields)
    states, _ = engine.advance(states, Lockstep(0, 2, (Member("s"),), False))
    return jax.device_get(states[0]["s"].params)


@pytest.mark.parametrize("fields", [{"num_devices": 2}, {"micro_batches": 2}])
def test_sam_climbs_by_the_gradient_of_the_whole_batch(fields):
    """Not by that of a device's share or of a part, whose direction differs."""
    chex.assert_trees_all_close(_sam_run(**fields), _sam_run(), rtol=1e-4, atol=1e-6)


def test_sam_counts_twice_in_the_ledger():
    """Its own passes, forward and backward; the frozen teacher answers once."""
    students = {"on": student(plan="online"), "spaced": student(plan="spaced")}
    parts, _, _ = _prepare(students, student__optim__sam_rho=0.1)
    networks = parts.networks(BatchAxis())
    cost = functools.partial(
        steps.passes_per_step, teacher=networks.teacher, students=networks.students
    )
    assert cost(Lockstep(0, 1, (Member("on"),))) == {"teacher": (1, 1), "on": (2, 2)}
    assert cost(Replay("spaced", 0, 1, 1)) == {"spaced": (3, 2)}


def test_a_lagged_student_learns_from_the_teacher_of_the_last_multiple():
    """By hand: replays of one batch each, against copies of the teacher in time."""
    students = {
        "lagged": student(plan="lagged", space_interval_epochs=0.3),
        "hand": student(plan="spaced"),
    }
    _, engine, states = _prepare(students, **NARROW)
    member = Member("lagged", refresh=2)
    states, weights = _in_lockstep(engine, states, member, 5)
    expected = _by_hand(engine, states, [weights[t] for t in (0, 0, 2, 2, 4)])
    got = states[0]["lagged"].params
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-6)


def test_a_lagged_student_costs_a_forward_pass_of_the_teacher():
    parts, _, _ = _prepare({"s": student(plan="lagged", space_interval_epochs=1.0)})
    described = ledger.describe_plan(parts)
    net = described["networks"]["s"]
    assert (net["forward_passes"], net["backward_passes"]) == (42, 21)
    assert net["space_interval_steps"] == 7
    segments = described["segments"]
    assert {row["teacher_refresh"]["s"] for row in segments} == {7}
    line = "s (kd, lagged): 21 updates, interval 1 epochs = 7 steps"
    assert ledger.summary(parts)[1] == line


@pytest.mark.parametrize("sees", ["before", "after"])
def test_students_learn_from_the_average_of_the_teachers_weights(sees):
    """By hand, online and in a replay: NumPy's average is put in for the teacher."""
    students = {
        "online": student(plan="online", online_teacher=sees),
        "spaced": student(plan="spaced"),
        "hand": student(plan="spaced", teacher_weights="live"),
    }
    _, engine, states = _prepare(students, **NARROW, **EMA)
    states, weights = _in_lockstep(engine, states, Member("online"), 4)
    means = weights[:1]
    # The plain mean at first, with 1/2 and 2/3 of what there was; 3/4 is above 0.7.
    for keep, net in zip((1 / 2, 2 / 3, 0.7, 0.7), weights[1:], strict=True):
        blend = lambda m, w, k=keep: k * m + (1 - k) * w
        means.append(jax.tree.map(blend, means[-1], net))
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-6)
    close(states[0]["teacher"].average, means[-1])
    at_their_time = means[:-1] if sees == "before" else means[1:]
    close(states[0]["online"].params, _by_hand(engine, states, at_their_time))
    expected = _by_hand(engine, states, means[-1:] * 2)
    for t in range(2):
        states, _ = engine.advance(states, Replay("spaced", t, t + 1, 4))
    close(states[0]["spaced"].params, expected)


def test_an_averaged_teacher_costs_online_students_a_forward_pass():
    parts, _, _ = _prepare({"on": student(plan="online")}, **EMA)
    net = ledger.describe_plan(parts)["networks"]["on"]
    assert (net["forward_passes"], net["backward_passes"]) == (42, 21)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"teacher__ema_decay": 0.0}, "students.s.teacher_weights='ema' needs"),
        (
            {"student__teacher_weights": "live"},
            "ema_decay=0.7 keeps an average that no",
        ),
        ({"student__method": "hard"}, "students.s.teacher_weights='ema' would do"),
    ],
)
def test_an_average_that_is_missing_or_unseen_is_refused(fields, words):
    """A control that does nothing would pass for one that shows nothing."""
    with pytest.raises(ConfigError, match=words) as error:
        _prepare({"s": student(plan="spaced")}, **EMA | fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"plan": "lagged"}, "students.s.plan='lagged' needs a teacher that trains"),
        ({"teacher_weights": "ema"}, "ema_decay=0.7 averages a teacher that trains"),
    ],
)
def test_a_trained_teacher_neither_lags_nor_has_an_average(fields, words):
    """It stands still: either control would be the plain student again."""
    config = tiny.config({"s": student(**{"plan": "online"} | fields)})
    decay = 0.7 if "teacher_weights" in fields else 0.0
    trained = dataclasses.replace(config.teacher, stage="a/b", ema_decay=decay)
    with pytest.raises(ConfigError, match=words) as error:
        checks.networks_named(dataclasses.replace(config, teacher=trained))
        checks.training(dataclasses.replace(config, teacher=trained))
    assert "\n" not in str(error.value)


def _replayed(**fields):
    """Replays in 3 epochs of 4 batches: (step of the stream, batches) of each."""
    config = StudentConfig(**{"remainder": "drop", "replay_fraction": 0.5} | fields)
    plan = schedule.make_plan({"s": config}, schedule.Clock(4, 3))
    spans = [seg for seg in plan if isinstance(seg, Replay)]
    return [(seg.teacher_step, *range(seg.start, seg.stop)) for seg in spans]


def test_a_replay_shows_the_last_share_of_what_was_buffered():
    """Worked out by hand, in every plan that replays; counts are rounded."""
    spaced = {"plan": "spaced", "space_interval_epochs": 1.0}
    assert _replayed(**spaced) == [(4, 2, 3), (8, 6, 7), (12, 10, 11)]
    assert _replayed(**spaced, replay_fraction=0.7)[0] == (4, 1, 2, 3)
    assert _replayed(plan="offline") == [(12, *range(6, 12))]
    window = {"plan": "critical_period", "window_start_epochs": 1.0}
    by_three = {"space_interval_epochs": 0.75, "remainder": "flush"}
    assert _replayed(**window, **by_three) == [(7, 5, 6), (10, 8, 9), (12, 11)]
    itself = {"method": "self_kd", "trigger": "interval"}
    assert _replayed(**spaced, **itself) == _replayed(**spaced)


def test_what_a_replay_leaves_out_is_not_counted():
    """The compute saved is what this control is for."""
    fields = {"replay_fraction": 0.5, "space_interval_epochs": 1.0}
    parts, _, _ = _prepare({"s": student(plan="spaced", **fields)})
    net = ledger.describe_plan(parts)["networks"]["s"]
    # 7 batches a replay: 3.5 of them are rounded to 4.
    counts = net["updates"], net["forward_passes"], net["backward_passes"]
    assert counts == (12, 24, 12)
    assert ledger.summary(parts)[1] == (
        "s (kd, spaced): 12 updates, interval 1 epochs = 7 steps, 3 replays; "
        "9 batches of the stream are never learned"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"replay_fraction": 0.1}, r"of a replay of 4 .* at least 0\.25\.$"),
        (
            {"space_interval_epochs": 2.75, "remainder": "flush"},
            r"of a replay of 1 batch .* at least 1, or remainder='drop'\.$",
        ),
    ],
)
def test_a_share_of_less_than_a_batch_is_refused(fields, words):
    """An arm that never trains, or rounds that vanish, would be quoted as spaced."""
    spaced = {"plan": "spaced", "space_interval_epochs": 1.0}
    with pytest.raises(ConfigError, match=words) as error:
        _replayed(**spaced | fields)
    assert "\n" not in str(error.value)
    assert _replayed(**spaced, replay_fraction=0.25) == [(4, 3), (8, 7), (12, 11)]
