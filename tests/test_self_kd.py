"""Self KD: the loss by hand, and what moves when."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny

from spaced_kd import data, experiment, steps
from spaced_kd.config import student
from spaced_kd.engine import Engine
from spaced_kd.errors import ConfigError
from spaced_kd.methods import make_method
from spaced_kd.methods.base import Now
from spaced_kd.models import make_model
from spaced_kd.parallel import BATCH_AXIS, BatchAxis
from spaced_kd.schedule import HARD, METHOD, Evaluate, Lockstep, Member, Replay
from spaced_kd.types import Batch, ModelOutput, Split

ARMS = {
    "labels": student(plan="none", model="tiny_cnn"),
    "plain": student(plan="online"),
    "twice": student(plan="interleaved"),
    "spaced": student(plan="spaced", space_interval_epochs=0.5),
}


def _config(students=None, **fields):
    return tiny.config(students or ARMS, **tiny.SELF_KD | fields)


def _prepare(config):
    parts = experiment.build(config, data.load(config.data))
    return parts, Engine(parts), experiment.init_states(parts)


def _train(config):
    parts, engine, states = _prepare(config)
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate):
            states, _ = engine.advance(states, tick)
    return jax.device_get(states)


rng = np.random.default_rng(0)
B, K, C, D = 6, 3, 5, 4
LABELS = rng.integers(0, C, B).astype(np.int32)
LOGITS, FEATURES, BRANCH_LOGITS, BRANCH_FEATURES = (
    rng.normal(size=shape).astype(np.float32)
    for shape in ((B, C), (B, D), (B, K, C), (B, K, D))
)
OUT = jax.tree.map(
    jnp.asarray,
    ModelOutput(LOGITS, FEATURES, None, BRANCH_LOGITS, BRANCH_FEATURES),  # pyright: ignore
)
BATCH = Batch(jnp.zeros((B, 8, 8, 3)), jnp.asarray(LABELS))


ALONE, ZERO = BatchAxis(), Now(jnp.int32(0))


def _method(axis=ALONE, **fields):
    config = _config({"s": student(plan="online", **fields)})
    return make_method(config.students["s"], axis, tiny.SIZES)


def _ce(logits, labels):
    logits = logits.astype(np.float64)
    return scipy.special.logsumexp(logits, 1) - logits[np.arange(len(labels)), labels]


def _soft_ce(student_logits, teacher_logits, temperature):
    p = scipy.special.softmax(teacher_logits.astype(np.float64) / temperature, axis=1)
    log_q = scipy.special.log_softmax(
        student_logits.astype(np.float64) / temperature, axis=1
    )
    return -(p * log_q).sum(1)


def _loss_by_hand(
    params, rows, compared=(1, 2), scale=1.0, weight=1.0, entropy=0.0, smoothing=0.0
):
    """Method B.2 in float64: branches deepest first, z4 and f4 as constants."""
    labels, z, f = LABELS[rows], LOGITS[rows], FEATURES[rows]
    hard = lambda z: (
        (1 - smoothing) * _ce(z, labels)
        + smoothing * np.mean([_ce(z, np.full(len(labels), c)) for c in range(C)], 0)
    )
    total = hard(z).mean()
    for k in range(K):
        z_k = BRANCH_LOGITS[rows, k]
        soft = (_soft_ce(z_k, z, 3.0) - entropy * _soft_ce(z, z, 3.0)).mean()
        total += weight * (0.3 * scale * soft + 0.7 * hard(z_k).mean())
    for k in compared:
        f_k = BRANCH_FEATURES[rows, k].astype(np.float64)
        if params:
            layer = params[f"exit{K - k}"]
            f_k = f_k @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        total += weight * 0.03 * np.sqrt(((f_k - f) ** 2).sum())
    return total


CASES = {
    "released and recommended": ({}, {}),
    "all branches": ({"feature_branches": "all"}, {"compared": (0, 1, 2)}),
    "with T squared": ({"temperature_squared": "yes"}, {"scale": 9.0}),
    "with smoothed labels": ({"label_smoothing": 0.2}, {"smoothing": 0.2}),
    "divergence": ({"soft_loss": "kl"}, {"entropy": 1.0}),
    "without adaptors": ({"branch_adaptor": "none"}, {}),
    "without features": ({"feature_weight": 0.0}, {"compared": ()}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("padded", [False, True])
def test_the_loss_equals_the_formula_in_float64(case, padded):
    fields, by_hand = CASES[case]
    method = _method(**fields)
    params = method.init(jax.random.key(0), OUT, None)
    assert bool(params) == (case not in ("without adaptors", "without features"))
    rows = np.arange(B - 2 * padded)
    mask = jnp.arange(B) < len(rows) if padded else None
    batch = BATCH._replace(mask=mask)
    loss, parts = method.loss(params, OUT, None, batch, ZERO)
    np.testing.assert_allclose(loss, _loss_by_hand(params, rows, **by_hand), rtol=2e-6)
    total = parts["hard_loss"] + 0.7 * parts["branch_hard_loss"]
    total += 0.3 * parts["soft_loss"] + 0.03 * parts.get("feature_loss", 0.0)
    np.testing.assert_allclose(loss, total, rtol=1e-6)


def test_eleven_branches_may_weigh_as_much_as_three():
    """mean_times_3 with K branches: each 3 / K."""
    method = _method(branch_reduction="mean_times_3", feature_branches="all")
    two = OUT._replace(
        branch_logits=OUT.branch_logits[:, 1:],
        branch_features=OUT.branch_features[:, 1:],
    )
    params = method.init(jax.random.key(0), two, None)
    weighed, parts = method.loss(params, two, None, BATCH, ZERO)
    same = _method(feature_branches="all")
    plain, plain_parts = same.loss(params, two, None, BATCH, ZERO)
    hard = parts["hard_loss"]
    np.testing.assert_allclose(weighed - hard, 1.5 * (plain - hard), rtol=1e-6)
    assert parts["hard_loss"] == plain_parts["hard_loss"]


def test_the_deepest_exit_learns_from_the_labels_alone():
    """Its logits and features are targets: no gradient flows through them."""
    method = _method()
    params = method.init(jax.random.key(0), OUT, None)
    loss = lambda out: method.loss(params, out, None, BATCH, ZERO)[0]
    grads = jax.grad(loss)(OUT)
    p = scipy.special.softmax(LOGITS.astype(np.float64), axis=1)
    expected = (p - np.eye(C)[LABELS]) / B
    np.testing.assert_allclose(grads.logits, expected, atol=1e-7)
    np.testing.assert_array_equal(grads.features, 0)
    assert np.all(np.any(np.asarray(grads.branch_logits) != 0, axis=(0, 2)))
    # As released: the deepest branch's features are compared with nothing.
    moved = np.any(np.asarray(grads.branch_features) != 0, axis=(0, 2))
    assert moved.tolist() == [False, True, True]


def test_the_loss_does_not_depend_on_the_number_of_devices():
    """The feature distance is one norm over the whole batch: summed, then rooted."""
    whole, shared = _method(), _method(axis=BatchAxis(BATCH_AXIS))
    params = whole.init(jax.random.key(0), OUT, None)
    expected, _ = whole.loss(params, OUT, None, BATCH, ZERO)
    halves = lambda x: x.reshape(2, B // 2, *x.shape[1:])
    split = jax.pmap(
        lambda out, batch: shared.loss(params, out, None, batch, ZERO)[0],
        axis_name=BATCH_AXIS,
        devices=jax.devices()[:2],
    )
    got = split(jax.tree.map(halves, OUT), jax.tree.map(halves, BATCH))
    np.testing.assert_allclose(got, [expected, expected], rtol=1e-6)


def _sides(state):
    """(what a label-only step must leave alone, what it must move) of a network."""
    net = state.params["net"]
    branches = {k: v for k, v in net.items() if k.startswith("branch")}
    trunk = {k: v for k, v in net.items() if not k.startswith("branch")}
    inner = state.opt_state.inner_states
    side = branches, state.params["method"], inner["branches"], inner["method"]
    return jax.device_get((side, (trunk, inner["trunk"])))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_on_the_labels_leaves_branches_and_adaptors_bitwise_alone(optimizer):
    """Not even decay, momentum or Adam's count; and the whole loss moves everything."""
    students = {"spaced": ARMS["spaced"]}
    config = _config(students, student__optim__name=optimizer)
    _, engine, states = _prepare(config)
    first = _sides(states[0]["spaced"])
    states, _ = engine.advance(states, Replay("spaced", 0, 3, 3))
    taught = _sides(states[0]["spaced"])
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), first, taught)
    assert all(jax.tree.leaves(changed)), changed
    member = Member("spaced", updates=(HARD,))
    states, _ = engine.advance(states, Lockstep(3, 6, (member,), teacher=False))
    labelled = _sides(states[0]["spaced"])
    chex.assert_trees_all_equal(labelled[0], taught[0])
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), labelled[1], taught[1])
    assert all(jax.tree.leaves(moved))


def test_a_rested_branch_starts_adam_anew():
    """With a count that went on meanwhile its first step would be three times this."""
    students = {"spaced": student(plan="spaced", space_interval_epochs=2.0)}
    rate = 1e-3
    config = _config(
        students,
        student__optim__name="adamw",
        student__optim__weight_decay=0.0,
        student__optim__learning_rate=rate,
    )
    _, engine, states = _prepare(config)
    member = Member("spaced", updates=(HARD,))
    for start in range(0, 12, 4):
        lead = Lockstep(start, start + 4, (member,), teacher=False)
        states, _ = engine.advance(states, lead)
    before = _sides(states[0]["spaced"])[0][0]
    states, _ = engine.advance(states, Replay("spaced", 0, 1, 12))
    after = _sides(states[0]["spaced"])[0][0]
    heads = [name for name in before if name.endswith("head")]
    assert heads
    for name in heads:
        step = np.abs(after[name]["kernel"] - before[name]["kernel"])
        # Adam's first step is the rate, whatever the gradient (epsilon apart).
        np.testing.assert_allclose(step.max(), rate, rtol=1e-3)


def _move(optim, kind, path, p, g, v):
    """SGD as PyTorch writes it, for what this kind of update may move."""
    keys = [entry.key for entry in path]
    if kind == HARD and (keys[0] == "method" or keys[1].startswith("branch")):
        return p, v
    v = optim.momentum * v + g + optim.weight_decay * p
    return p - optim.learning_rate * v, v


def _by_the_book(config, updates, name="spaced"):
    """Train one arm by a plain loop over updates, with gradients of a plain loss."""
    parts, _, states = _prepare(config)
    train, spec, stream = parts.dataset.train, parts.spec, parts.streams[0].teacher
    assert isinstance(train, Split)
    mean, std = (np.asarray(x, np.float32) for x in (spec.mean, spec.std))
    network, method = make_model("tiny_branches", 10), _method()
    state = jax.device_get(states[0][name])
    params, stats = state.params, state.batch_stats
    velocity = jax.tree.map(np.zeros_like, params)
    optim = config.students[name].optim

    def loss_fn(params, stats, batch, kind):
        variables = {"params": params["net"], "batch_stats": stats}
        outputs, moved = network.apply(
            variables, batch.image, train=True, mask=batch.mask, mutable=["batch_stats"]
        )
        if kind == METHOD:
            loss = method.loss(params["method"], outputs, None, batch, ZERO)[0]
        else:
            log_p = jax.nn.log_softmax(outputs.logits)
            own = -jnp.take_along_axis(log_p, batch.label[:, None], 1)[:, 0]
            loss = jnp.where(batch.mask, own, 0).sum() / batch.mask.sum()
        return loss, moved["batch_stats"]

    step_fn = jax.jit(jax.grad(loss_fn, has_aux=True), static_argnums=3)
    for kind, t in updates:
        rows = np.asarray(stream.indices(t, t + 1))[0]
        image = train.image[np.maximum(rows, 0)].astype(np.float32) / 255
        image, label = (image - mean) / std, train.label[np.maximum(rows, 0)]
        batch = Batch(*map(jnp.asarray, (image, label, rows >= 0)))
        grads, stats = step_fn(params, stats, batch, kind)
        move = functools.partial(_move, optim, kind)
        pairs = jax.tree_util.tree_map_with_path(move, params, grads, velocity)
        is_pair = lambda x: isinstance(x, tuple)
        params = jax.tree.map(lambda pair: pair[0], pairs, is_leaf=is_pair)
        velocity = jax.tree.map(lambda pair: pair[1], pairs, is_leaf=is_pair)
    return params, stats


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["plain", "twice", "spaced"])
def test_the_engine_equals_a_loop_over_algorithm_3_and_4(arm):
    """100 images in batches of 16: seven an epoch, the last one padded."""
    config = _config(num_epochs=2)
    total, interval = 14, 3
    lead = [(HARD, t) for t in range(total)]
    full = [(METHOD, t) for t in range(total)]
    spaced = []
    for t in range(total):
        spaced.append(lead[t])
        if (t + 1) % interval == 0:
            spaced += full[t + 1 - interval : t + 1]
    both = [step for pair in zip(lead, full, strict=True) for step in pair]
    updates = {"plain": full, "twice": both, "spaced": spaced}[arm]
    params, stats = _by_the_book(config, updates, arm)
    state = _final()[0][arm]
    assert int(state.step) == len(updates)
    chex.assert_trees_all_close(state.params, params, rtol=2e-4, atol=2e-5)
    chex.assert_trees_all_close(state.batch_stats, stats, rtol=2e-4, atol=2e-5)


@functools.cache
def _final():
    return _train(_config(num_epochs=2))


def test_interleaving_is_spacing_by_one_step():
    """What makes it the control: only the distance in time is missing."""
    students = {"one": student(plan="spaced", space_interval_epochs=1 / 7)}
    one = _train(_config(students, num_epochs=2))[0]["one"]
    twice = _final()[0]["twice"]
    chex.assert_trees_all_close(one.params, twice.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fields", [{"num_devices": 4}, {"compose": "loop"}, {"remat": True}]
)
def test_devices_and_composition_change_nothing(fields):
    found = _train(_config(num_epochs=2, **fields))[0]
    for name in ("twice", "spaced"):
        close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-5)
        close(found[name].params, _final()[0][name].params)


def _drop_head(state):
    """DeiT's distillation head with all that its optimiser keeps."""
    return jax.device_get(
        (state.params["net"]["head_dist"], state.opt_state.inner_states["soft_head"])
    )


def test_a_step_on_the_labels_leaves_the_head_of_soft_targets_alone(monkeypatch):
    """AdamW with a zero gradient would go on decaying it (method E32)."""
    from spaced_kd.models import MODELS, deit

    small = functools.partial(deit.DeiT, dim=8, depth=1, heads=2, distilled=True)
    monkeypatch.setitem(MODELS, "tiny_distilled", small)
    students = {
        "s": student(
            plan="critical_period",
            space_interval_epochs=0.2,
            window_stop_epochs=1.0,
            outside="hard_only",
            model="tiny_distilled",
        )
    }
    config = tiny.config(
        students,
        student__arch__patch_size=4,
        student__optim__name="adamw",
        student__optim__weight_decay=0.05,
    )
    _, engine, states = _prepare(config)
    states, _ = engine.advance(states, Lockstep(0, 1, ()))
    before = _drop_head(states[0]["s"])
    states, _ = engine.advance(states, Replay("s", 0, 1, 1))
    taught = _drop_head(states[0]["s"])
    same = jax.tree.map(np.array_equal, before, taught)
    assert not any(jax.tree.leaves(same))
    labels = Member("s", updates=(HARD,))
    states, _ = engine.advance(states, Lockstep(7, 8, (labels,)))
    chex.assert_trees_all_equal(_drop_head(states[0]["s"]), taught)


def test_branches_that_a_teacher_does_not_reach_rest():
    """A student of the run's teacher with exits trains the deepest; others stay."""
    fields = {"teacher__model": "tiny_branches", "student__model": "tiny_branches"}
    config = tiny.config({"kd": student(plan="online")}, **fields)
    _, engine, states = _prepare(config)
    before = jax.device_get(states[0])
    states, _ = engine.advance(states, Lockstep(0, 2, (Member("kd"),)))
    for name in ("kd", "teacher"):
        old, new = before[name], jax.device_get(states[0][name])
        for module, value in old.params["net"].items():
            same = jax.tree.map(np.array_equal, value, new.params["net"][module])
            rests = module.startswith("branch")
            assert all(x == rests for x in jax.tree.leaves(same)), (name, module)


def test_a_network_that_teaches_itself_is_the_same_beside_a_teacher():
    """It looks at nothing of the teacher, which may be in the same program."""
    arms = {"spaced": ARMS["spaced"], "twice": ARMS["twice"]}
    beside = _train(_config(arms, num_epochs=2, teacher__model="tiny_cnn"))[0]
    assert "teacher" in beside
    for name in arms:
        close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-5)
        close(beside[name].params, _final()[0][name].params)


@pytest.mark.parametrize("clock", ["own", "teacher"])
def test_the_learning_rate_on_either_clock(clock):
    """Own: its updates, both kinds. Teacher: the stream, which stands in a replay."""
    arms = {
        "spaced": student(plan="spaced", space_interval_epochs=0.5, epochs_factor=2 / 3)
    }
    config = _config(
        arms, student__optim__schedule="cosine", student__optim__schedule_clock=clock
    )
    parts, engine, states = _prepare(config)
    total = 14 if clock == "teacher" else parts.updates["spaced"]
    done, seen = 0, 0
    for tick in parts.ticks:
        if isinstance(tick, Evaluate):
            continue
        states, measured = engine.advance(states, tick)
        length = tick.stop - tick.start
        if clock == "own":
            times = done + np.arange(length)
        elif isinstance(tick, Replay):
            times = np.full(length, tick.teacher_step - 1)
        else:
            times = np.arange(tick.start, tick.stop)
        expected = 0.025 * (1 + np.cos(np.pi * times / total))
        got = measured[0]["spaced"]["learning_rate"]
        np.testing.assert_allclose(got, expected, atol=1e-7)
        done, seen = done + length, seen + isinstance(tick, Replay)
    assert done == parts.updates["spaced"] and seen >= 4


def test_a_replay_shows_the_very_pixels_of_the_label_only_phase(monkeypatch):
    """Augmented: each batch comes twice, the second time with equal pixels."""
    log, real = [], steps._fetch

    def fetch(data, key, slot, axis, spec):
        batch = real(data, key, slot, axis, spec)
        note = lambda step, image: log.append((int(step), np.asarray(image).tobytes()))
        jax.debug.callback(note, slot.step, batch.image, ordered=True)
        return batch

    monkeypatch.setattr(steps, "_fetch", fetch)
    students = {"spaced": student(plan="spaced", space_interval_epochs=1.0)}
    _train(_config(students, num_epochs=2, **tiny.AUGMENT))
    jax.effects_barrier()
    order = [*range(7), *range(7), *range(7, 14), *range(7, 14)]
    assert [step for step, _ in log] == order
    shown = [log[step : step + 7] for step in (0, 7, 14, 21)]
    assert shown[0] == shown[1] and shown[2] == shown[3]
    assert len({pixels for _, pixels in log}) == 14


def test_arms_start_from_the_same_weights():
    """The trunk of the network without branches included: comparisons are paired."""
    _, _, states = _prepare(_config())
    nets = {name: state.params["net"] for name, state in states[0].items()}
    chex.assert_trees_all_equal(nets["plain"], nets["spaced"])
    for name, value in nets["labels"].items():
        chex.assert_trees_all_equal(value, nets["spaced"][name])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"student__model": "tiny_cnn"}, r"method='self_kd'.*_branches"),
        (
            {"student__method": "kd", "student__init": "different"},
            r"students\.plain\.method='kd' needs a teacher",
        ),
        ({"student__init": "same"}, "asks for the teacher's weights"),
        (
            {"student__model": "tiny_cnn", "student__method": "hard",
             "student__quote": "ensemble"},
            r"quote='ensemble'.*does not train",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_in_one_line(fields, message):
    config = _config({"plain": student(plan="online")}, **fields)
    with pytest.raises(ConfigError, match=message) as error:
        experiment.build(config, data.load(config.data))
    assert "\n" not in str(error.value)


def test_the_interval_of_self_kd_is_4_epochs_unless_given():
    """The paper's default for Table 2; 1.5 for students of a teacher."""
    arms = {
        "own": student(plan="spaced"),
        "given": student(plan="spaced", space_interval_epochs=2.0),
        "kd": student(plan="spaced", method="kd"),
    }
    found = _config(arms).students
    assert found["own"].space_interval_epochs == 4.0
    assert found["given"].space_interval_epochs == 2.0
    assert found["kd"].space_interval_epochs == 1.5


@pytest.mark.parametrize(
    ("compat", "trigger", "branches"),
    [
        ("released", "released", "not_deepest"),
        ("paper", "interval", "all"),
        ("recommended", "interval", "not_deepest"),
    ],
)
def test_compat_chooses_the_trigger_and_the_loss(compat, trigger, branches):
    found = _config(compat=compat).students["spaced"]
    assert (found.trigger, found.feature_branches) == (trigger, branches)
    assert (found.temperature_squared, found.init) == ("no", "different")
    assert found.quote == "ensemble"
    assert _config(compat=compat).students["labels"].quote == "deepest"
