"""Methods that remember, and the pair that teaches itself: loss, memory, who moves."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny
from jax.test_util import check_grads

from spaced_kd import data, experiment
from spaced_kd.config import StudentConfig, student
from spaced_kd.engine import Engine
from spaced_kd.errors import ConfigError
from spaced_kd.methods import METHODS, make_method
from spaced_kd.methods.base import Now
from spaced_kd.models import make_model
from spaced_kd.models.pair import make_pair
from spaced_kd.parallel import BATCH_AXIS, BatchAxis
from spaced_kd.schedule import Evaluate, Lockstep, Member, Replay
from spaced_kd.types import Batch, ModelOutput

rng = np.random.default_rng(0)
B, C, N = 6, 10, 60
LABELS = rng.integers(0, C, 2 * B)
STUDENT, EARLIER = 2 * rng.normal(size=(2, 2 * B, C))
ALONE = BatchAxis()
log_softmax = functools.partial(scipy.special.log_softmax, axis=1)
softmax = functools.partial(scipy.special.softmax, axis=1)


def _method(name, axis=ALONE, **fields):
    fields = {"soft_loss": "kl", "temperature_squared": "yes"} | fields
    return make_method(StudentConfig(method=name, **fields), axis, tiny.SIZES)


def _outputs(logits, peer=None):
    logits = jnp.asarray(logits, jnp.float32)
    branch = None if peer is None else jnp.asarray(peer, jnp.float32)[:, None]
    return ModelOutput(logits, jnp.zeros((len(logits), 3)), branch_logits=branch)


def _batch(labels, mask=None, example=None):
    mask = None if mask is None else jnp.asarray(mask)
    size = len(labels)
    example = jnp.arange(size) if example is None else jnp.asarray(example)
    raw = jnp.broadcast_to(example[:, None, None, None], (size, 8, 8, 3))
    labels, raw = jnp.asarray(labels, jnp.int32), raw.astype(jnp.uint8)
    return Batch(jnp.zeros((size, 1, 1, 1)), labels, mask, raw, example)


def _ce(logits, labels):
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def _kl(logits, target, temperature):
    p, log_p = softmax(target / temperature), log_softmax(target / temperature)
    return temperature**2 * (p * (log_p - log_softmax(logits / temperature))).sum(1)


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_last_batch_teaches_as_the_formula_says(seen, masked):
    """CE over the rows of both batches as one mean; T^2 KL on the earlier rows."""
    method = _method("dlb", temperature=3.0, dlb_weight=0.7)
    now_real = np.arange(B) < (4 if masked else B)
    before_real = np.arange(B) < (5 if masked else B)
    memory = {"seen": jnp.array(seen), "logits": jnp.asarray(EARLIER[:B], jnp.float32)}
    mask = np.concatenate([now_real, before_real]) if masked else None
    found, parts = method.loss(
        {}, _outputs(STUDENT), None, _batch(LABELS, mask), Now(5, memory)
    )
    ce = _ce(STUDENT, LABELS)
    counted = np.concatenate([now_real, before_real & seen])
    hard = ce[counted].mean()
    soft = seen * _kl(STUDENT[B:], EARLIER[:B], 3.0)[before_real].mean()
    np.testing.assert_allclose(parts["hard_loss"], hard, rtol=1e-5)
    np.testing.assert_allclose(parts["soft_loss"], soft, rtol=1e-5)
    np.testing.assert_allclose(found, hard + 0.7 * soft, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_progressive_targets_are_the_formula(masked):
    """Labels at first, in epoch e the share w (e + 1) / E of what was predicted."""
    method = _method("ps_kd", ps_kd_weight=0.8)
    example = np.array([7, 3, 50, 11, 2, -1 if masked else 0])
    memory, table = np.zeros((N, C)), softmax(EARLIER[:B])
    known = np.array([True, False, True, True, False, True])
    memory[example[known]] = table[known]
    mask = example >= 0 if masked else None
    step = 34  # of 10 an epoch: the fourth of ten epochs
    found, parts = method.loss(
        {},
        _outputs(STUDENT[:B]),
        None,
        _batch(LABELS[:B], mask, example),
        Now(jnp.int32(step), jnp.asarray(memory, jnp.float32)),
    )
    share = 0.8 * 4 / 10
    labels = np.eye(C)[LABELS[:B]]
    own = np.where(known[:, None], table, labels)
    target = (1 - share) * labels + share * own
    losses = -(target * log_softmax(STUDENT[:B])).sum(1)
    np.testing.assert_allclose(parts["own_share"], share, rtol=1e-6)
    np.testing.assert_allclose(found, losses[example >= 0].mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["dlb", "ps_kd"])
def test_the_number_of_devices_changes_neither_loss_nor_memory(name):
    """Each device has half of every batch; all must remember the whole."""
    rows = 2 * B if name == "dlb" else B
    logits, labels = STUDENT[:rows], LABELS[:rows]
    example = np.arange(rows) + 3
    example[B - 1] = -1
    batch = _batch(labels, example >= 0, example)
    alone = _method(name)
    memory = alone.memory.start(_outputs(logits), None)

    def both(axis, logits, batch):
        method = _method(name, axis)
        outputs = ModelOutput(logits, jnp.zeros((len(logits), 3)))
        loss, parts = method.loss({}, outputs, None, batch, Now(jnp.int32(12), memory))
        return loss, method.memory.remember(memory, outputs, None, batch, parts)

    logits = jnp.asarray(logits, jnp.float32)
    expected = both(ALONE, logits, batch)

    def halves(x):
        # A device's rows of the current batch, then its rows of the earlier one.
        parts = x.reshape(rows // B, 2, B // 2, *x.shape[1:])
        return jnp.moveaxis(parts, 1, 0).reshape(2, rows // 2, *x.shape[1:])

    shared = jax.pmap(
        functools.partial(both, BatchAxis(BATCH_AXIS)),
        axis_name=BATCH_AXIS,
        devices=jax.devices()[:2],
    )
    found = shared(*jax.tree.map(halves, (logits, batch)))
    for device in (0, 1):
        own = jax.tree.map(lambda x, d=device: x[d], found)
        chex.assert_trees_all_close(own, expected, rtol=1e-6)


def test_the_memory_of_predictions_is_the_naive_table():
    """A dict that is written row by row, over three batches with padding."""
    method = _method("ps_kd")
    memory, table = method.memory.start(None, None), {}
    for k in range(3):
        example = rng.permutation(N)[:B]
        example[-1] = -1 if k == 1 else example[-1]
        logits = rng.normal(size=(B, C))
        for row, prediction in zip(example, softmax(logits), strict=True):
            if row >= 0:
                table[row] = prediction
        batch = _batch(LABELS[:B], example >= 0, example)
        memory = method.memory.remember(memory, _outputs(logits), None, batch, {})
    expected = np.zeros((N, C))
    for row, prediction in table.items():
        expected[row] = prediction
    np.testing.assert_allclose(memory, expected, rtol=1e-5)


def _prepare(students, **fields):
    config = tiny.config(students, **fields)
    parts = experiment.build(config, data.load(config.data))
    return parts, Engine(parts), experiment.init_states(parts)


STILL = {"student__optim__learning_rate": 1e-12, "student__optim__weight_decay": 0.0}


def test_an_epoch_fills_the_memory_with_each_examples_own_prediction():
    """Through the engine: with a network that stands still, predict() knows them."""
    parts, engine, states = _prepare(
        {"s": student(plan="online", method="ps_kd")}, teacher__model="none", **STILL
    )
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate) and tick.stop <= 7:
            states, _ = engine.advance(states, tick)
    state, train = states[0]["s"], parts.dataset.train
    assert int(state.step) == 7 and len(train.label) == 100
    images = (train.image / 255.0 - parts.spec.mean) / parts.spec.std
    model = parts.networks(ALONE).students["s"].network.model
    outputs = model.apply(
        state.variables, jnp.asarray(images, jnp.float32), train=False
    )
    expected = jax.nn.softmax(outputs.logits)
    np.testing.assert_allclose(state.memory, expected, atol=1e-5)


def test_the_last_batch_is_seen_again_with_another_augmentation(monkeypatch):
    """Through the engine: rows of the step before, newly augmented, old logits."""
    seen = []
    from spaced_kd import steps

    real = steps.extended

    def note(phase, state, batch, key, axis, spec):
        both = real(phase, state, batch, key, axis, spec)
        kept = (state.memory["example"], state.memory["logits"])
        jax.debug.callback(lambda *x: seen.append(x), *both[:2], both.example, *kept)
        return both

    monkeypatch.setattr(steps, "extended", note)
    parts, engine, states = _prepare(
        {"s": student(plan="online", method="dlb")},
        teacher__model="none",
        chunk_steps=1,
        **STILL | tiny.AUGMENT,
    )
    stream = parts.streams[0].teacher
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate) and tick.stop <= 9:
            states, _ = engine.advance(states, tick)
    jax.block_until_ready(states)
    jax.effects_barrier()
    size = parts.config.data.batch_size
    rows = np.asarray(stream.indices(0, 9))
    for t, (image, label, example, kept, logits) in enumerate(seen):
        np.testing.assert_array_equal(example[:size], rows[t])
        np.testing.assert_array_equal(example[size:], rows[max(t - 1, 0)])
        real_rows = example >= 0
        labels = parts.dataset.train.label[example]
        np.testing.assert_array_equal(label[real_rows], labels[real_rows])
        if t:
            np.testing.assert_array_equal(kept, rows[t - 1])
            # The same images under new random numbers.
            earlier = seen[t - 1][0][:size]
            assert not np.allclose(image[size:][kept >= 0], earlier[kept >= 0])
            # What the network, standing still, said of the first view.
            model = parts.networks(ALONE).students["s"].network.model
            outputs = model.apply(states[0]["s"].variables, earlier, train=False)
            expected = np.asarray(outputs.logits)[kept >= 0]
            np.testing.assert_allclose(logits[kept >= 0], expected, atol=1e-5)
    # An epoch's border, and its padding, lie between.
    assert len(seen) == 9 and (rows < 0).any()


@pytest.mark.parametrize("method", ["dlb", "ps_kd", "dml"])
def test_one_device_or_two(method):
    """The same training, memory included, whoever holds which rows."""

    def trained(devices):
        parts, engine, states = _prepare(
            {"s": student(plan="interleaved", method=method)},
            teacher__model="none",
            student__model="narrow_mlp",
            num_devices=devices,
            num_epochs=1,
            chunk_steps=1,
        )
        for tick in parts.ticks:
            if not isinstance(tick, Evaluate):
                states, _ = engine.advance(states, tick)
        return jax.tree.map(np.asarray, states[0]["s"])

    chex.assert_trees_all_close(trained(2), trained(1), rtol=1e-4, atol=1e-5)


def test_the_two_losses_of_a_pair_are_the_formula_and_symmetric():
    """L = CE + w T^2 KL(other || own) for both; exchanging the two exchanges them."""
    method = _method("dml", temperature=2.0, dml_weight=0.5)
    own, peer, labels = STUDENT[:B], EARLIER[:B], LABELS[:B]

    def loss(fn, first, second):
        return fn({}, _outputs(first, second), None, _batch(labels), Now(0))[0]

    first = (_ce(own, labels) + 0.5 * _kl(own, peer, 2.0)).mean()
    second = (_ce(peer, labels) + 0.5 * _kl(peer, own, 2.0)).mean()
    replay, lead = method.replay.loss, method.lead.loss
    np.testing.assert_allclose(loss(replay, own, peer), first, rtol=1e-5)
    np.testing.assert_allclose(loss(lead, own, peer), second, rtol=1e-5)
    np.testing.assert_allclose(loss(method.loss, own, peer), first + second, rtol=1e-5)
    exchanged = loss(lead, peer, own), loss(replay, peer, own)
    np.testing.assert_allclose(exchanged, (first, second), rtol=1e-5)


def test_neither_of_a_pair_pulls_on_the_other():
    """The whole loss gives each network the gradient of its own loss, no more."""
    method = _method("dml", temperature=2.0)

    def slopes(fn):
        def loss(own, peer):
            outputs = _outputs(own, peer)
            return fn({}, outputs, None, _batch(LABELS[:B]), Now(0))[0]

        return jax.grad(loss, (0, 1))(*(jnp.asarray(x[:B]) for x in (STUDENT, EARLIER)))

    whole, lead, replay = map(
        slopes, (method.loss, method.lead.loss, method.replay.loss)
    )
    np.testing.assert_allclose(lead[0], 0)
    np.testing.assert_allclose(replay[1], 0)
    chex.assert_trees_all_close(whole, (replay[0], lead[1]), rtol=1e-5)


PAIR = {"teacher__model": "none", "student__model": "tiny_cnn"}


def test_each_phase_moves_one_network_of_a_pair_and_nothing_of_the_other():
    """Weights, BatchNorm averages and momentum; both have them."""
    _, engine, states = _prepare({"s": student(plan="spaced", method="dml")}, **PAIR)
    copy = lambda states: jax.tree.map(np.array, states[0]["s"])

    def apart(state):
        params, stats = state.params["net"], state.batch_stats
        momentum = state.opt_state.inner_states
        peer = params["peer"], stats["peer"], momentum["peer"]
        without = lambda tree: {k: v for k, v in tree.items() if k != "peer"}
        return (without(params), without(stats), momentum["trunk"]), peer

    own, peer = apart(copy(states))
    lead = Lockstep(0, 2, (Member("s", updates=("lead",)),), False)
    states, _ = engine.advance(states, lead)
    own_led, peer_led = apart(copy(states))
    chex.assert_trees_all_equal(own_led, own)
    states, _ = engine.advance(states, Replay("s", 0, 2, 2))
    own_replayed, peer_replayed = apart(copy(states))
    chex.assert_trees_all_equal(peer_replayed, peer_led)
    for before, after in ((peer, peer_led), (own_led, own_replayed)):
        moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
        assert all(jax.tree.leaves(moved))


def test_a_pair_whose_networks_are_exchanged_trains_to_the_exchanged_pair():
    """The plain method knows no first and no second."""
    _, engine, states = _prepare({"s": student(plan="online", method="dml")}, **PAIR)

    def exchange(tree):
        tree = dict(tree)
        peer = tree.pop("peer")
        return {**peer, "peer": tree}

    def exchanged(state):
        params = state.params | {"net": exchange(state.params["net"])}
        stats = exchange(state.batch_stats)
        fresh = jax.tree.map(jnp.zeros_like, state.opt_state)
        return state.replace(params=params, batch_stats=stats, opt_state=fresh)

    other = [{"s": exchanged(jax.tree.map(jnp.array, states[0]["s"]))}]
    step = Lockstep(0, 4, (Member("s"),), False)
    (found, _), (mirrored, _) = (
        engine.advance(states, step),
        engine.advance(other, step),
    )
    back = mirrored[0]["s"]
    chex.assert_trees_all_close(
        (exchange(back.params["net"]), exchange(back.batch_stats)),
        (found[0]["s"].params["net"], found[0]["s"].batch_stats),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_pair_starts_as_its_network_alone_and_may_have_another_peer():
    image = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    own, peer = make_model("tiny_cnn", 10), make_model("narrow_mlp", 10)
    alone = own.init(jax.random.key(1), image, train=False)
    pair = make_pair(own, peer)
    outputs, variables = pair.init_with_output(jax.random.key(1), image, train=False)
    params = dict(variables["params"])
    peers = params.pop("peer")
    chex.assert_trees_all_equal(params, dict(alone["params"]))
    expected = own.apply(alone, image, train=False)
    chex.assert_trees_all_equal(outputs.logits, expected.logits)
    expected = peer.apply({"params": peers}, image, train=False)
    chex.assert_trees_all_equal(outputs.branch_logits[:, 0], expected.logits)


def test_the_adaptive_rate_is_the_released_one_step_by_step():
    """A loop in Python floats over losses that fall and rise."""
    rate, momentum, start, end = 0.3, 0.8, 0.4, 1.0
    method = _method("taid", taid_adaptive=True, taid_rate=rate, taid_momentum=momentum)
    memory = method.memory.start(None, None)
    share, mean, before, expected = start, 0.0, None, []
    found, soft = [], [2.0, 1.5, 1.8, 0.9, 0.9, 0.2]
    for step, loss in enumerate(soft):
        share = min(end, max(start + (end - start) * step / 100, share))
        expected.append(share)
        _, parts = method.loss(
            {},
            _outputs(STUDENT[:B]),
            _outputs(EARLIER[:B]),
            _batch(LABELS[:B]),
            Now(jnp.int32(step), memory),
        )
        found.append(float(parts["target_share"]))
        if before is not None:
            mean = momentum * mean + (1 - momentum) * (before - loss) / before
            share += rate / (1 + np.exp(-mean)) * (1 - share)
        before = loss
        told = {"soft_loss": jnp.float32(loss), "target_share": found[-1]}
        memory = method.memory.remember(memory, None, None, None, told)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[-1] > 0.65  # the straight line would be at 0.43


@pytest.mark.parametrize("name", ["dlb", "ps_kd", "dml"])
def test_gradients_are_the_slopes_of_the_losses(name):
    method = _method(name, temperature=2.0)
    rows = 2 * B if name == "dlb" else B
    memory = {"seen": jnp.array(True), "logits": jnp.asarray(EARLIER[:B], jnp.float32)}
    if name == "ps_kd":
        memory = jnp.asarray(np.tile(softmax(EARLIER[:B]), (N // B, 1)), jnp.float32)
    phase = method.replay or method

    def loss(logits):
        outputs = _outputs(logits, EARLIER[:rows])
        now = Now(jnp.int32(50), memory)
        return phase.loss({}, outputs, None, _batch(LABELS[:rows]), now)[0]

    logits = jnp.asarray(STUDENT[:rows], jnp.float32)
    check_grads(loss, (logits,), order=1, modes=["rev"], eps=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_remembers_at_first_can_be_saved(name):
    """A checkpoint refuses what is not finite, and the first may come before a loss."""
    method = _method(name, taid_adaptive=True)
    if method.memory:
        outputs = _outputs(STUDENT)
        chex.assert_tree_all_finite(method.memory.start(outputs, outputs))


def test_only_the_batch_itself_counts_as_training_accuracy():
    """DLB passes the last batch too; no other method is measured on it."""
    _, engine, states = _prepare(
        {"s": student(plan="online", method="dlb")}, teacher__model="none", **STILL
    )
    _, (measured,) = engine.advance(states, Lockstep(0, 3, (Member("s"),), False))
    _, engine, states = _prepare(
        {"s": student(plan="none")}, teacher__model="none", **STILL
    )
    _, (expected,) = engine.advance(states, Lockstep(0, 3, (Member("s"),), False))
    np.testing.assert_allclose(measured["s"]["acc1"], expected["s"]["acc1"])


REFUSED = [
    (
        {"teacher__model": "none", "tutor__model": "mlp"},
        "config.tutor.model='mlp' without a stage",
    ),
    (
        {"teacher__model": "none", "student__model": "small_cnn_branches"},
        "has several exits",
    ),
    (
        {"teacher__model": "none", "student__dml_peer": "resnet999"},
        "dml_peer='resnet999' is unknown",
    ),
    (
        {"teacher__model": "none", "student__arch__second_head": True},
        "has two heads",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_a_pair_that_cannot_train_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        _prepare({"s": student(plan="online", method="dml")}, **fields)


def test_a_peer_has_the_options_that_it_shares_with_the_network():
    """Else a peer at 224 pixels would silently have the stem for small images."""
    parts, *_ = _prepare(
        {"s": student(plan="online", method="dml", dml_peer="resnet20")},
        teacher__model="none",
        student__model="resnet8",
        student__arch__stem="imagenet",
        student__arch__weight_init="kaiming",
        data__image_size=32,
    )
    peer = parts.networks(ALONE).students["s"].network.model.peer
    assert (peer.blocks, peer.stem, peer.weight_init) == (
        (3, 3, 3),
        "imagenet",
        "kaiming",
    )
