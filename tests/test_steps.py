"""Equivalences of the compiled chunks, through the engine that runs them."""

import collections
import dataclasses
import functools
import hashlib
import json

import chex
import compiler
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny

from spaced_kd import data, experiment, losses, schedule, steps
from spaced_kd.config import student
from spaced_kd.engine import Engine
from spaced_kd.errors import ConfigError
from spaced_kd.feeds import Resident
from spaced_kd.layers import Dense
from spaced_kd.methods import hard, make_method
from spaced_kd.models import MODELS, make_model
from spaced_kd.models.base import Model
from spaced_kd.parallel import BatchAxis
from spaced_kd.schedule import Evaluate, Lockstep, Member, Replay
from spaced_kd.state import init_state
from spaced_kd.types import Batch, ModelOutput
from spaced_kd.update import Network


def _prepare(config):
    parts = experiment.build(config, data.load(config.data))
    return parts, Engine(parts), experiment.init_states(parts)


@functools.cache
def _train_json(text, real_compiler):
    assert real_compiler == compiler.is_real()
    config = tiny.from_config_dict(ml_collections.ConfigDict(json.loads(text)))
    parts, engine, states = _prepare(config)
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate):
            states, _ = engine.advance(states, tick)
    return jax.device_get(states)


def _train(students=None, **fields):
    """Return the final states; the same run is trained once for all tests."""
    config = tiny.config_dict(students, **fields)
    text = json.dumps(config.to_dict(), sort_keys=True)
    return _train_json(text, compiler.is_real())


def _host(tree):
    return jax.tree.map(np.array, tree)


def test_replays_of_students_that_differ_in_when_are_one_program():
    """Else ten intervals of a large network would be compiled ten times."""
    students = {
        "often": student(plan="spaced", space_interval_epochs=4 / 7),
        "rarely": student(plan="spaced", space_interval_epochs=8 / 7),
        "colder": student(plan="spaced", space_interval_epochs=4 / 7, temperature=1.5),
    }
    parts, engine, states = _prepare(tiny.config(students))
    texts = {}
    for tick in engine.usual_ticks():
        if isinstance(tick, Replay):
            program, arguments = engine.first_call(states, tick)
            texts[tick.student] = program.lower(*arguments).as_text()
    assert texts["often"] == texts["rarely"] != texts["colder"]


@pytest.mark.real_compiler
@pytest.mark.parametrize("teacher_bn", ["batch", "running"])
def test_a_replay_leaves_the_teacher_bitwise_as_it_was(teacher_bn):
    """Frozen means everything: weights, BatchNorm averages, momentum."""
    students = {"s": student(plan="spaced", teacher_bn=teacher_bn)}
    config = tiny.config(students, teacher__model="tiny_cnn", student__model="tiny_cnn")
    _, engine, states = _prepare(config)
    states, _ = engine.advance(states, Lockstep(0, 2, ()))
    before = _host(states)
    after, _ = engine.advance(states, Replay("s", 0, 2, 2))
    chex.assert_trees_all_equal(_host(after[0]["teacher"]), before[0]["teacher"])
    assert int(after[0]["s"].step) == 2
    moved = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), _host(after[0]["s"]), before[0]["s"]
    )
    assert all(jax.tree.leaves(moved.params))


def test_no_gradient_reaches_the_teacher():
    """Without the stop, the student's loss would pull on the teacher's outputs."""
    config = tiny.config().students["online"]
    network = Network(make_model("mlp", 10), *_sgd(config.optim))
    method = make_method(config, BatchAxis(), tiny.SIZES)
    image = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    outputs, variables = network.model.init_with_output(
        jax.random.key(1), image, train=False
    )
    state = init_state(
        variables, method.init(jax.random.key(2), outputs, outputs), network.tx
    )
    step = steps.make_student_step(network, method.whole, BatchAxis())
    batch = Batch(image, jnp.arange(4))

    def loss_of(teacher_outputs):
        return step(state, batch, jax.random.key(3), teacher_outputs, jnp.int32(0))[1][
            "loss"
        ]

    teacher = ModelOutput(outputs.logits + 1.0, outputs.features * 2.0)
    grads = jax.grad(loss_of)(teacher)
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, teacher))
    # The control: the loss does depend on the teacher.
    other = ModelOutput(outputs.logits * 3.0, outputs.features)
    assert loss_of(other) != loss_of(teacher)


def _sgd(optim):
    from spaced_kd.optim import learning_rate_schedule, make_optimizer

    rate = learning_rate_schedule(optim, 10, 100)
    return make_optimizer(optim), rate


@pytest.fixture
def seen(monkeypatch):
    """Every batch that a compiled step fetches: list of (place in the stream, hash)."""
    log = []
    real = steps._fetch

    def note(step, image, label):
        pixels = np.asarray(image).tobytes() + np.asarray(label).tobytes()
        log.append((int(step), hashlib.sha256(pixels).hexdigest()))

    def fetch(data, key, slot, axis, spec):
        batch = real(data, key, slot, axis, spec)
        jax.debug.callback(note, slot.step, batch.image, batch.label, ordered=True)
        return batch

    monkeypatch.setattr(steps, "_fetch", fetch)
    return log


@pytest.mark.parametrize("replay", ["exact", "reaugment", "reshuffle"])
def test_replayed_pixels(seen, replay):
    """exact repeats the very pixels, in order, once; the other two must not."""
    students = {"s": student(plan="spaced", space_interval_epochs=0.5, replay=replay)}
    config = tiny.config(students, num_epochs=2, **tiny.AUGMENT)
    parts, engine, states = _prepare(config)
    taught, learned = [], []
    for tick in parts.ticks:
        if isinstance(tick, Evaluate):
            continue
        seen.clear()
        states, _ = engine.advance(states, tick)
        jax.block_until_ready(states)
        jax.effects_barrier()
        (taught if isinstance(tick, Lockstep) else learned).extend(seen)
    total = parts.updates["s"]
    assert total == 12
    assert [place for place, _ in learned] == list(range(total))
    if replay == "exact":
        assert learned == taught[:total]
        assert len({digest for _, digest in learned}) == total
    else:
        assert not {d for _, d in learned} & {d for _, d in taught}


def test_a_student_behind_a_teacher_that_is_constantly_ahead_sees_its_old_batches(
    seen,
):
    """Table 11, reading 1: batch t - I again, pixel by pixel, I steps later."""
    students = {"s": student(plan="constant_ahead", space_interval_epochs=0.3)}
    parts, engine, states = _prepare(tiny.config(students, **tiny.AUGMENT))
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate):
            states, _ = engine.advance(states, tick)
    jax.block_until_ready(states)
    jax.effects_barrier()
    total, lag = parts.clock.total_steps, 2
    twice = collections.Counter(seen)
    assert sorted(place for place, _ in twice) == list(range(total))
    expected = {place: 1 + (place < total - lag) for place in range(total)}
    assert {place: count for (place, _), count in twice.items()} == expected


def test_a_reaugmented_replay_shows_the_same_examples():
    """reaugment and reshuffle differ in the order of the images alone."""
    students = {
        "again": student(plan="spaced", replay="reaugment"),
        "fresh": student(plan="spaced", replay="reshuffle"),
    }
    parts, _, _ = _prepare(tiny.config(students))
    group = parts.groups[0]
    feed = Resident(parts, parts.dataset.train)
    slots = lambda name: feed.piece(group, Replay(name, 0, 3, 3))[1][0]
    rows = lambda name: slots(name)["stream"].index
    np.testing.assert_array_equal(rows("again"), parts.streams[0].teacher.indices(0, 3))
    assert not np.array_equal(rows("fresh"), rows("again"))


@pytest.mark.parametrize("model", ["mlp", "tiny_cnn"])
def test_scan_equals_loop(model):
    """Rolling the steps into lax.scan must not change what they compute."""
    fields = {"teacher__model": model, "student__model": model, "num_epochs": 2}
    scanned = _train(**fields)
    looped = _train(compose="loop", **fields)
    chex.assert_trees_all_close(scanned, looped, rtol=2e-4, atol=2e-5)


@pytest.mark.real_compiler
@pytest.mark.parametrize("model", ["mlp", "tiny_cnn"])
@pytest.mark.parametrize("chunk_steps", [1, 7])
def test_the_chunk_length_changes_no_bit(chunk_steps, model):
    """Chunks and single steps are mixed; the numbers must not notice."""
    fields = {"teacher__model": model, "student__model": model}
    whole = _train(chunk_steps=4, **fields)
    other = _train(chunk_steps=chunk_steps, **fields)
    chex.assert_trees_all_equal(whole, other)


@pytest.mark.real_compiler
def test_the_teacher_is_bitwise_the_same_for_every_interval():
    """Comparisons are paired: no student may touch the teacher's trajectory."""
    runs = [
        _train({"s": student(plan="spaced", space_interval_epochs=epochs)})
        for epochs in (0.2, 0.5, 1.5)
    ]
    teachers = [run[0]["teacher"] for run in runs]
    chex.assert_trees_all_equal(*teachers)
    students = [run[0]["s"].params for run in runs]
    assert not np.array_equal(
        jax.tree.leaves(students[0])[0], jax.tree.leaves(students[1])[0]
    )


@pytest.mark.parametrize("batch_size", [16, 20])
def test_an_interval_of_one_step_is_online_with_the_updated_teacher(batch_size):
    """Alg. 1's order: teacher update first. The released online order differs.

    16 leaves a padded last batch in each epoch of 100 examples, 20 does not.
    """
    spaced = {"s": student(plan="spaced", space_interval_epochs=0.201)}
    fields = {
        "data__batch_size": batch_size,
        "data__eval_batch_size": 20,
        "teacher__model": "tiny_cnn",
        "student__model": "tiny_cnn",
        "num_epochs": 1,
    }
    spaced_run = _train(spaced, **fields)
    same = _train({"s": student(plan="online", online_teacher="after")}, **fields)
    released = _train({"s": student(plan="online", online_teacher="before")}, **fields)
    close = {"rtol": 1e-3, "atol": 1e-5}
    chex.assert_trees_all_close(spaced_run[0]["s"], same[0]["s"], **close)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(spaced_run[0]["s"], released[0]["s"], **close)


@pytest.mark.parametrize("plan", ["online", "spaced", "constant_ahead"])
def test_four_devices_equal_one(plan):
    """Synchronised BatchNorm, psum before the square root, keys by global position."""
    students = {"s": student(plan=plan, space_interval_epochs=0.3)}
    fields = {
        "teacher__model": "tiny_cnn",
        "student__model": "tiny_cnn",
        "num_epochs": 1,
    } | tiny.AUGMENT
    one = _train(students, **fields)
    four = _train(students, num_devices=4, **fields)
    chex.assert_trees_all_close(one, four, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("layout", ["unrolled", "devices"])
def test_seed_layouts_agree(layout):
    """How repetitions share the machine is a matter of speed alone."""
    fields = {"num_seeds": 2, "num_epochs": 1}
    one_by_one = _train(seed_layout="sequential", **fields)
    other = _train(seed_layout=layout, num_devices=2 * (layout == "devices"), **fields)
    chex.assert_trees_all_close(one_by_one, other, rtol=1e-4, atol=1e-6)
    weights = [jax.tree.leaves(run["teacher"].params)[0] for run in one_by_one]
    assert not np.array_equal(*weights)


@pytest.mark.real_compiler
def test_a_repetition_is_the_run_of_its_own_seed():
    """Seed 1 of two repetitions equals a run that starts at seed 1."""
    both = _train(num_seeds=2, num_epochs=1)
    alone = _train(seed=1, num_epochs=1)
    chex.assert_trees_all_equal(both[1], alone[0])


def test_arms_start_from_the_same_student_and_the_teacher_from_another():
    """Different arms with different initial weights would not be paired."""
    _, _, states = _prepare(tiny.config(compat="recommended"))
    seed = states[0]
    chex.assert_trees_all_equal(seed["online"].params, seed["spaced"].params)
    teacher, own = (
        jax.tree.leaves(seed[n].params["net"]) for n in ("teacher", "online")
    )
    assert not any(np.array_equal(a, b) for a, b in zip(teacher, own, strict=True))
    _, _, states = _prepare(tiny.config(compat="paper"))
    chex.assert_trees_all_equal(
        states[0]["teacher"].params["net"], states[0]["online"].params["net"]
    )


def test_outside_a_window_without_teaching_the_adaptor_does_not_move():
    """A zero gradient would still decay it and let its momentum run out."""
    students = {
        "s": student(
            plan="critical_period",
            space_interval_epochs=0.2,
            window_stop_epochs=1.0,
            outside="hard_only",
        )
    }
    _, engine, states = _prepare(tiny.config(students))
    states, _ = engine.advance(states, Lockstep(0, 2, ()))
    states, _ = engine.advance(states, Replay("s", 0, 2, 2))
    before = _host(states[0]["s"])
    states, _ = engine.advance(
        states, Lockstep(2, 4, (Member("s", updates=("hard",)),))
    )
    after = _host(states[0]["s"])
    momentum = lambda s: s.opt_state.inner_states["method"]
    method = lambda s: (s.params["method"], momentum(s))
    chex.assert_trees_all_equal(method(before), method(after))
    assert any(np.any(x) for x in jax.tree.leaves(momentum(before)))
    net = lambda s: jax.tree.leaves(s.params["net"])
    assert not any(
        np.array_equal(a, b) for a, b in zip(net(before), net(after), strict=True)
    )


def test_two_programs_a_kind_of_tick_whatever_the_interval(monkeypatch):
    """Compiling again for every remainder would cost minutes with a large network."""
    config = tiny.config(num_epochs=3)
    parts, engine, states = _prepare(config)
    traces = []
    real = steps.compose

    def counted(step, how):
        chunk = real(step, how)

        def traced(*args):
            traces.append(step)
            return chunk(*args)

        return traced

    monkeypatch.setattr(steps, "compose", counted)
    lengths = set()
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate):
            lengths.add(tick.stop - tick.start)
            states, _ = engine.advance(states, tick)
    assert lengths == {1, 2, 3}
    assert len(traces) == 4


@pytest.mark.parametrize("batch_size", [16, 20])
def test_micro_batches_change_nothing_without_batchnorm(batch_size):
    """Also not the feature distance, which is one norm over the whole batch."""
    fields = {"num_epochs": 1, "data__batch_size": batch_size}
    whole = _train(**fields)
    parts = _train(micro_batches=2, num_devices=2, **fields)
    chex.assert_trees_all_close(whole, parts, rtol=1e-4, atol=1e-6)


def test_micro_batches_normalise_each_part_by_its_own_statistics():
    """By hand: two forward passes with their own BatchNorm, one loss over both."""
    network = Network(make_model("tiny_cnn", 10), *_sgd(tiny.config().teacher.optim))
    image = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    batch = Batch(image, jnp.arange(8))
    variables = network.model.init(jax.random.key(1), image, train=False)
    state = init_state(variables, {}, network.tx)

    def loss(params):
        logits, stats = [], state.batch_stats
        for part in (image[:4], image[4:]):
            outputs, moved = network.model.apply(
                {"params": params, "batch_stats": stats},
                part,
                train=True,
                mutable=["batch_stats"],
            )
            logits.append(outputs.logits)
            stats = moved["batch_stats"]
        log_probs = jax.nn.log_softmax(jnp.concatenate(logits))
        return -log_probs[jnp.arange(8), batch.label].mean(), stats

    grads, stats = jax.grad(loss, has_aux=True)(variables["params"])
    labels = hard.make_loss(BatchAxis()).whole
    network = network._replace(micro_batches=2)
    step = steps.make_teacher_step(network, labels, BatchAxis())
    new, _, _ = step(state, batch, jax.random.key(2), None)
    # The first update of SGD: -0.05 (g + 5e-4 w).
    expected = jax.tree.map(
        lambda w, g: w - 0.05 * (g + 5e-4 * w), variables["params"], grads
    )
    chex.assert_trees_all_close(new.params["net"], expected, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(new.batch_stats, stats, rtol=1e-4, atol=1e-6)


def test_a_part_that_is_all_padding_changes_nothing():
    """The last batch of an epoch may leave whole micro-batches empty."""
    fields = {
        "num_epochs": 1,
        "data__num_train_examples": 20,
        "teacher__model": "tiny_cnn",
        "student__model": "tiny_cnn",
    }
    # Steps of 16 and 4 examples: of 4 parts the second step fills one.
    trained = _train(micro_batches=4, **fields)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(trained))
    averages = jax.tree.leaves(trained[0]["teacher"].batch_stats)
    # Five parts of 4 examples moved each average. Three empty ones that moved it too
    # would shrink it by 0.9^3 = 0.73; the same five parts as batches of their own give
    # nearly the same averages.
    exact = _train(**fields | {"data__batch_size": 4, "data__eval_batch_size": 4})
    other = jax.tree.leaves(exact[0]["teacher"].batch_stats)
    for got, near in zip(averages, other, strict=True):
        np.testing.assert_allclose(got, near, rtol=0.15, atol=0.05)


def test_micro_batches_must_divide_what_a_device_sees():
    with pytest.raises(ConfigError, match="micro_batches=3 does not divide the 16"):
        _prepare(tiny.config(micro_batches=3))


@pytest.mark.parametrize("clock", ["own", "teacher"])
def test_the_rate_of_a_replay_on_either_clock(clock):
    """Released vit/: a replay runs at the rate the teacher has reached."""
    students = {"s": student(plan="spaced", space_interval_epochs=0.5)}
    config = tiny.config(
        students,
        student__optim__schedule="cosine",
        student__optim__schedule_clock=clock,
        teacher__optim__schedule="cosine",
    )
    parts, engine, states = _prepare(config)
    total, rates = parts.clock.total_steps, []
    for tick in parts.ticks:
        if isinstance(tick, Evaluate):
            continue
        at = int(states[0]["teacher"].step)
        states, measured = engine.advance(states, tick)
        if isinstance(tick, Replay):
            got = measured[0]["s"]["learning_rate"]
            times = np.arange(tick.start, tick.stop)
            if clock == "teacher":
                times = np.full(len(times), at - 1)
            own = total if clock == "teacher" else parts.updates["s"]
            expected = 0.025 * (1 + np.cos(np.pi * times / own))
            np.testing.assert_allclose(got, expected, atol=1e-7)
            rates.extend(got)
    assert len(rates) == parts.updates["s"] > 6


def test_a_replay_at_the_end_of_an_epoch_has_that_epochs_rate():
    """Released vit/: the replay is part of the epoch whose last batch it follows."""
    students = {"s": student(plan="spaced", space_interval_epochs=1.0)}
    config = tiny.config(
        students,
        student__optim__schedule="cosine",
        student__optim__schedule_clock="teacher",
        student__optim__schedule_unit="epoch",
    )
    parts, engine, states = _prepare(config)
    by_epoch = [0.025 * (1 + np.cos(np.pi * epoch / 3)) for epoch in range(3)]
    seen = []
    for tick in parts.ticks:
        if isinstance(tick, Evaluate):
            continue
        states, measured = engine.advance(states, tick)
        if isinstance(tick, Replay):
            seen.extend(measured[0]["s"]["learning_rate"])
    np.testing.assert_allclose(seen, np.repeat(by_epoch, 7), atol=1e-7)


def test_same_weights_need_the_same_architecture_to_the_last_option():
    """A wider teacher of the same name has no weights to share."""
    students = {"s": student(plan="online", init="same", model="resnet8")}
    config = tiny.config(
        students, teacher__model="resnet8", teacher__arch__param_factor=2.0
    )
    with pytest.raises(ConfigError, match="init='same' needs the teacher's arch"):
        _prepare(config)


def test_an_offline_student_cannot_run_on_the_clock_of_a_teacher_that_stopped():
    students = {"s": student(plan="offline")}
    config = tiny.config(students, student__optim__schedule_clock="teacher")
    with pytest.raises(ConfigError, match="schedule_clock='teacher' stands still"):
        _prepare(config)


class _Noisy(Model):
    """Logits are the draw itself: shows whose random numbers a step uses."""

    drop_path: float = 0.1

    @nn.compact
    def __call__(self, image, *, train, mask=None):
        del mask
        x = Dense(self.num_classes)(image.reshape(image.shape[0], -1))
        if train and self.has_rng("dropout"):
            x = x + jax.random.normal(self.make_rng("dropout"), (self.num_classes,))
        return ModelOutput(x, x)


@pytest.mark.parametrize("drop_path", ["on", "off"])
def test_teacher_and_student_draw_different_noise(monkeypatch, drop_path):
    """A frozen teacher that drops what its student drops would leak the mask."""
    monkeypatch.setitem(MODELS, "noisy", _Noisy)
    same = {"teacher__model": "noisy", "student__model": "noisy"}
    students = {
        "s": student(plan="spaced", init="same", teacher_drop_path=drop_path),
        "o": student(plan="online", init="same", teacher_drop_path=drop_path),
    }
    zero = {"student__feature_weight": 0.0, "student__optim__learning_rate": 1e-30}
    config = tiny.config(students, teacher__optim__learning_rate=1e-30, **same, **zero)
    seen = []

    def soft_loss(taught, teacher, temperature):
        jax.debug.callback(lambda a, b: seen.append((a, b)), taught, teacher)
        return losses.SOFT_LOSSES["kl"](taught, teacher, temperature)

    monkeypatch.setitem(losses.SOFT_LOSSES, "spy", soft_loss)
    for name in config.students:
        config.students[name] = dataclasses.replace(
            config.students[name], soft_loss="spy"
        )
    parts, engine, states = _prepare(config)
    twin = parts.networks(BatchAxis()).students["s"]
    assert twin.teacher_noise == (drop_path == "on")
    states, _ = engine.advance(states, Lockstep(0, 2, (Member("o"),)))
    states, _ = engine.advance(states, Replay("s", 0, 2, 2))
    jax.block_until_ready(states)
    jax.effects_barrier()
    assert len(seen) == 4
    for student_logits, teacher_logits in seen:
        # Equal weights on equal images: what differs is the noise, one draw for all.
        noise = np.asarray(student_logits - teacher_logits)
        assert np.abs(noise).max() > 0.1
        np.testing.assert_allclose(noise, noise[:1].repeat(16, 0), atol=1e-4)


def test_a_shuffled_teacher_answers_for_other_images(monkeypatch):
    """In lockstep as in a replay; anew at each update, the same when it is repeated."""
    seen = []

    def soft_loss(taught, teacher, temperature):
        jax.debug.callback(lambda *pair: seen.append(pair), taught, teacher)
        return losses.SOFT_LOSSES["kl"](taught, teacher, temperature)

    monkeypatch.setitem(losses.SOFT_LOSSES, "spy", soft_loss)
    shuffled = {"init": "same", "soft_loss": "spy", "shuffle_teacher": True}
    students = {plan: student(plan=plan, **shuffled) for plan in ("online", "spaced")}
    # Equal weights that stand still: equal logits mean equal images.
    still = {f"{who}__optim__learning_rate": 1e-30 for who in ("teacher", "student")}
    _, engine, states = _prepare(tiny.config(students, **still))
    states, _ = engine.advance(states, Lockstep(0, 2, (Member("online"),)))
    states, _ = engine.advance(states, Replay("spaced", 0, 2, 2))
    jax.block_until_ready(states)
    jax.effects_barrier()
    orders = []
    for own, shown in seen:
        distance = np.abs(np.asarray(own)[:, None] - np.asarray(shown)[None]).max(-1)
        order = distance.argmin(1)
        assert distance.min(1).max() < 1e-5
        assert sorted(order) == list(range(16)) != list(order)
        orders.append(tuple(order))
    # Two arms at the same two updates of theirs.
    assert len(orders) == 4 and len(set(orders)) == 2


def test_a_shuffled_teacher_needs_a_teacher():
    """A control that does nothing would pass for one that shows nothing."""
    students = {
        "labels": student(plan="none"),
        "alone": student(plan="online", method="hard"),
    }
    config = tiny.config(students, student__shuffle_teacher=True)
    with pytest.raises(ConfigError, match="students.alone.shuffle_teacher") as error:
        _prepare(config)
    assert "\n" not in str(error.value)


def test_steps_on_the_labels_alone_are_smoothed_too():
    """Before the window of critical_period a student is a baseline, also in this."""
    window = {"window_start_epochs": 1.0, "outside": "hard_only"}
    students = {
        "baseline": student(plan="none", label_smoothing=0.2),
        "kd": student(plan="critical_period", label_smoothing=0.2, **window),
        "plain": student(plan="critical_period", **window),
    }
    parts, engine, states = _prepare(tiny.config(students))
    states, _ = engine.advance(states, parts.ticks[0])
    assert {int(state.step) for state in states[0].values()} == {4}
    nets = {name: states[0][name].params["net"] for name in students}
    chex.assert_trees_all_close(nets["kd"], nets["baseline"], rtol=1e-6)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), nets["kd"], nets["plain"])
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_a_head_for_soft_targets_needs_a_teacher(monkeypatch):
    """Untrained, it would halve the logits of every evaluation."""

    class TwoHeads(Model):
        @nn.compact
        def __call__(self, image, *, train, mask=None):
            del mask
            x = Dense(self.num_classes)(image.reshape(image.shape[0], -1))
            return ModelOutput(x, x, x if train else None)

    monkeypatch.setitem(MODELS, "two_heads", TwoHeads)
    with pytest.raises(ConfigError, match="teacher.model='two_heads' has a head"):
        _prepare(tiny.config(teacher__model="two_heads"))
    students = {"alone": student(plan="none", model="two_heads")}
    with pytest.raises(ConfigError, match="alone.model='two_heads' has a head"):
        _prepare(tiny.config(students))


def test_bfloat16_leaves_the_state_in_float32_and_trains():
    """Rounded activations, exact parameters; close to float32 after an epoch."""
    fields = {
        "num_epochs": 1,
        "teacher__model": "tiny_cnn",
        "student__model": "tiny_cnn",
    }
    exact = _train(**fields)
    rounded = _train(compute_dtype="bfloat16", **fields)
    kinds = {x.dtype for x in jax.tree.leaves(rounded)}
    assert kinds == {np.dtype("float32"), np.dtype("int32")}
    differences = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), exact[0]["spaced"], rounded[0]["spaced"]
    )
    worst = max(jax.tree.leaves(differences.params))
    assert 0 < worst < 0.05


def test_compute_of_one_step():
    """6 forward-equivalents online, 7 in a replay, and what lagging costs."""
    students = {
        "none": student(plan="none"),
        "before": student(plan="online", online_teacher="before"),
        "after": student(plan="online", online_teacher="after"),
        "ahead": student(plan="constant_ahead"),
        "running": student(plan="online", teacher_bn="running"),
        "spaced": student(plan="spaced"),
    }
    parts = experiment.build(tiny.config(students), data.load(tiny.config().data))
    networks = parts.networks(BatchAxis())
    built = networks.teacher, networks.students
    members = (
        Member("none"),
        Member("before"),
        Member("after"),
        Member("ahead", 2),
        Member("running"),
    )
    assert steps.passes_per_step(Lockstep(0, 1, members), *built) == {
        "teacher": (1, 1),
        "none": (1, 1),
        "before": (1, 1),
        "after": (2, 1),
        "ahead": (2, 1),
        "running": (2, 1),
    }
    replay = steps.passes_per_step(Replay("spaced", 0, 1, 1), *built)
    assert replay == {"spaced": (2, 1)}


def test_schedule_counts_equal_the_states_own(tmp_path):
    """Logs use the plan's counts; learning rates use the states' own."""
    parts, engine, states = _prepare(tiny.config())
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate):
            states, _ = engine.advance(states, tick)
    assert {n: int(s.step) for n, s in states[0].items()} == schedule.updates(
        parts.plan
    )


def test_patches_that_do_not_fit_are_refused_before_anything_is_written():
    students = {"s": student(plan="spaced", model="deit_tiny")}
    with pytest.raises(ConfigError, match="8x8 pixels does not divide into patches"):
        _prepare(tiny.config(students))
