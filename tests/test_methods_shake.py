"""SHAKE against its published formula in float64, and who learns in which phase."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny

from spaced_kd import config as config_lib
from spaced_kd import data, experiment, state
from spaced_kd.config import StudentConfig
from spaced_kd.engine import Engine
from spaced_kd.errors import ConfigError
from spaced_kd.methods import make_method
from spaced_kd.methods.base import Now
from spaced_kd.methods.shake import ShadowHead, make_losses, standardized
from spaced_kd.parallel import BATCH_AXIS, BatchAxis
from spaced_kd.schedule import Evaluate, Lockstep, Replay
from spaced_kd.types import Batch, ModelOutput

rng = np.random.default_rng(0)
B, C = 6, 5
STUDENT, TEACHER, SHADOW = (2 * rng.normal(size=(B, C)) for _ in range(3))
LABELS = np.array([0, 4, 2, 2, 1, 3], np.int32)
MAPS = tuple(
    np.maximum(rng.normal(size=(B, size, size, width)), 0)
    for size, width in ((7, 3), (4, 4), (2, 6))
)
ALONE = BatchAxis()
SCALE = 3.1415
PADDING = 2
LIKE_THE_SOURCE = {"soft_loss": "kl", "temperature_squared": "yes", "temperature": 4.0}


def _convolved(x, kernel, stride):
    """Window by window, zeros around the image."""
    size = kernel.shape[0]
    around = (size - 1) // 2
    x = np.pad(x, ((0, 0), (around, around), (around, around), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel)


def _fused(params, x, stride=1):
    x = _convolved(x, params["conv"]["kernel"], stride)
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    return np.maximum(x * params["norm"]["scale"] + params["norm"]["bias"], 0)


def _head_by_hand(params, maps=MAPS):
    """The released head's drawing, for three maps that halve."""
    a, b, c = maps
    x = _fused(params["down2"], a, 2) + _fused(params["side2"], b)
    x = _fused(params["down3"], x, 2) + _fused(params["side3"], c)
    x = _fused(params["last"], x).mean((1, 2))
    return x @ params["linear"]["kernel"] + params["linear"]["bias"]


@functools.cache
def _head_params():
    """Off their starting values, some of which would hide what they do."""
    maps = [jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32) for x in MAPS]
    shapes = jax.eval_shape(ShadowHead(C).init, jax.random.key(0), maps)["params"]
    drawn = lambda x: jnp.asarray(rng.normal(0.5, 0.5, x.shape), jnp.float32)
    return jax.tree.map(drawn, shapes)


def _read(params, maps, mask=None, axis=ALONE):
    head = ShadowHead(params["linear"]["bias"].shape[-1], axis)
    return head.apply({"params": params}, maps, mask, mutable=["batch_stats"])[0]


def _padded(x, junk=9.0):
    x = np.asarray(x)
    rest = np.full((PADDING, *x.shape[1:]), junk, x.dtype)
    return jnp.asarray(np.concatenate([x, rest]), jnp.float32)


def test_the_shadow_head_equals_its_drawing_in_float64():
    """Strides, zeros at the borders, order of the layers, statistics of the batch."""
    params = _head_params()
    expected = _head_by_hand(jax.tree.map(lambda x: np.asarray(x, np.float64), params))
    got = jax.jit(_read)(params, [jnp.asarray(x, jnp.float32) for x in MAPS])
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_the_shadow_head_has_the_released_parameters():
    """On maps of ResNet-56 (16, 32, 64), with a classifier for 100 classes."""
    maps = [jnp.zeros((1, 2**s, 2**s, c)) for s, c in ((2, 16), (1, 32), (0, 64))]
    head = ShadowHead(100)
    shapes = jax.eval_shape(head.init, jax.random.key(0), maps)["params"]
    count = sum(np.prod(x.shape) for x in jax.tree.leaves(shapes))
    kernels = 9 * 16 * 32 + 32 * 32 + 9 * 32 * 64 + 64 * 64 + 9 * 64 * 64
    norms = 2 * (32 + 32 + 64 + 64 + 64)
    assert count == kernels + norms + 64 * 100 + 100


def test_kernels_start_normal_by_fan_out():
    """He's deviation sqrt(2 / (9 C_out)), as released, not PyTorch's default."""
    maps = [jnp.zeros((1, 1, 1, 128))]
    params = jax.jit(ShadowHead(2).init)(jax.random.key(0), maps)["params"]
    deviation = np.std(params["last"]["conv"]["kernel"])
    np.testing.assert_allclose(deviation, np.sqrt(2 / (9 * 128)), rtol=0.01)


@pytest.mark.parametrize("sizes", [(3,), (4, 4), (8, 4, 2, 1), (5, 2), (9, 5)])
def test_the_shadow_head_reads_maps_of_any_network(sizes):
    """One map, maps that do not shrink (transformers), four stages, odd sizes."""
    maps = [
        jnp.ones((2, size, size, 3 + place), jnp.bfloat16)
        for place, size in enumerate(sizes)
    ]
    head = ShadowHead(C)
    logits = jax.eval_shape(lambda: head.init_with_output(jax.random.key(0), maps)[0])
    assert (logits.shape, logits.dtype) == ((2, C), jnp.float32)


def test_maps_that_no_stride_explains_are_refused():
    maps = [jnp.zeros((1, size, size, 3)) for size in (7, 5)]
    with pytest.raises(ConfigError, match="7x7 to 5x5"):
        jax.eval_shape(ShadowHead(C).init, jax.random.key(0), maps)


def test_padding_does_not_reach_the_shadow_heads_statistics():
    expected = _head_by_hand(_head_params())
    mask = jnp.arange(B + PADDING) < B
    got = jax.jit(_read)(_head_params(), [_padded(x) for x in MAPS], mask)[:B]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def _normal(logits):
    mean, variance = logits.mean(1, keepdims=True), logits.var(1, keepdims=True)
    return SCALE * (logits - mean) / np.sqrt(variance + 1e-7)


def _ce(logits):
    return -scipy.special.log_softmax(logits, axis=1)[np.arange(B), LABELS].mean()


def _divergence(learner, target, temperature):
    """T^2 KL(target || learner), the mean over the batch."""
    log_p, log_q = (
        scipy.special.log_softmax(x / temperature, axis=1) for x in (target, learner)
    )
    return temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(1).mean()


def _outputs(logits, soft_logits=None):
    return ModelOutput(
        jnp.asarray(logits, jnp.float32), jnp.zeros((len(logits), 3)), soft_logits
    )


def _batch(padding=0):
    mask = jnp.arange(B + padding) < B if padding else None
    labels = jnp.asarray(np.pad(LABELS, (0, padding)))
    return Batch(jnp.zeros((B + padding, 1, 1, 1)), labels, mask)


def _losses(axis=ALONE, **fields):
    return make_losses(StudentConfig(method="shake", **LIKE_THE_SOURCE | fields), axis)


def test_standardized_logits_have_the_released_mean_and_deviation():
    got = np.asarray(standardized(jnp.asarray(7 + 3 * STUDENT), SCALE))
    np.testing.assert_allclose(got.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(got.std(1), SCALE, rtol=1e-5)
    alike = standardized(jnp.full((1, C), 5.0), SCALE)
    np.testing.assert_array_equal(alike, 0)
    np.testing.assert_array_equal(standardized(alike + 2, 0.0), 2)


def test_the_shadow_head_learns_labels_teacher_and_student():
    total, parts = _losses()[0](
        jnp.asarray(SHADOW), _outputs(STUDENT), _outputs(TEACHER), _batch()
    )
    shadow, student, teacher = map(_normal, (SHADOW, STUDENT, TEACHER))
    expected = {
        "shadow_hard_loss": _ce(shadow),
        "shadow_teacher_loss": ((shadow - teacher) ** 2).mean(),
        "shadow_student_loss": _divergence(shadow, student, 4),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-5)
    np.testing.assert_allclose(total, sum(expected.values()), rtol=1e-5)


def test_the_student_learns_labels_and_shadow_head():
    """And nothing from the teacher itself."""
    total, parts = _losses()[1](jnp.asarray(SHADOW), _outputs(STUDENT), _batch())
    shadow, student = _normal(SHADOW), _normal(STUDENT)
    hard, soft = _ce(student), _divergence(student, shadow, 4)
    np.testing.assert_allclose(parts["hard_loss"], hard, rtol=1e-5)
    np.testing.assert_allclose(parts["soft_loss"], soft, rtol=1e-5)
    np.testing.assert_allclose(total, hard + soft, rtol=1e-5)


def test_without_a_scale_the_logits_are_as_they_are():
    total, _ = _losses(shake_scale=0.0)[1](
        jnp.asarray(SHADOW), _outputs(STUDENT), _batch()
    )
    expected = _ce(STUDENT) + _divergence(STUDENT, SHADOW, 4)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_the_papers_shadow_head_sees_no_labels():
    args = jnp.asarray(SHADOW), _outputs(STUDENT), _outputs(TEACHER), _batch()
    total, parts = _losses()[0](*args)
    without = _losses(shake_hard_weight=0.0)[0](*args)[0]
    np.testing.assert_allclose(total - without, parts["shadow_hard_loss"], rtol=1e-5)


def test_a_distilled_transformer_listens_with_its_distillation_head():
    """Soft targets come from and go to that head, labels to the other."""
    both = _outputs(STUDENT, jnp.asarray(TEACHER, jnp.float32))
    parts = _losses()[1](jnp.asarray(SHADOW), both, _batch())[1]
    soft = _divergence(_normal(TEACHER), _normal(SHADOW), 4)
    np.testing.assert_allclose(parts["soft_loss"], soft, rtol=1e-5)
    np.testing.assert_allclose(parts["hard_loss"], _ce(_normal(STUDENT)), rtol=1e-5)
    parts = _losses()[0](jnp.asarray(SHADOW), both, _outputs(TEACHER), _batch())[1]
    reverse = _divergence(_normal(SHADOW), _normal(TEACHER), 4)
    np.testing.assert_allclose(parts["shadow_student_loss"], reverse, rtol=1e-5)


def _method(axis=ALONE):
    config = StudentConfig(method="shake", **LIKE_THE_SOURCE)
    return make_method(config, axis, tiny.SIZES._replace(num_classes=C))


def _phase(name, axis=ALONE):
    """loss(head's parameters, student, teacher, maps, batch): one phase's scalar."""
    method = _method(axis)
    whole = method.whole
    phase = {"plain": whole, "lead": method.lead, "replay": method.replay}[name]

    def loss(params, student, teacher, maps, batch):
        taught_by = _outputs(teacher)._replace(maps=tuple(maps))
        return phase.loss(params, _outputs(student), taught_by, batch, Now(0))[0]

    return loss


def _arguments(padding=0):
    """With outputs and maps of padding that must not matter."""
    pad = _padded if padding else lambda x: jnp.asarray(x, jnp.float32)
    maps = [pad(x) for x in MAPS]
    return _head_params(), pad(STUDENT), pad(TEACHER), maps, _batch(padding)


@functools.cache
def _value_and_gradients(phase, padding=0):
    """A phase's scalar; gradients by the shadow head's parameters, student's logits."""
    differentiate = jax.jit(jax.value_and_grad(_phase(phase), (0, 1)))
    return differentiate(*_arguments(padding))


def _is_zero(tree):
    return [not np.any(x) for x in jax.tree.leaves(tree)]


def test_the_method_starts_from_one_images_maps():
    """With the parameters that its losses read, and a classifier of its own."""
    maps = tuple(jnp.asarray(x[:1], jnp.float32) for x in MAPS)
    teacher = _outputs(TEACHER[:1])._replace(maps=maps)
    method = _method(BatchAxis(BATCH_AXIS))
    init = lambda key: method.init(key, _outputs(STUDENT[:1]), teacher)
    shapes = jax.eval_shape(init, jax.random.key(0))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, _head_params())


def test_each_phase_trains_its_learner_and_logs_its_losses():
    """A part that does not train rests, optimiser and all."""
    method = _method()
    assert method.needs_maps and method.lead and method.replay
    assert method.lead.trains == (state.METHOD,)
    assert set(method.replay.trains) == {state.TRUNK, state.SOFT_HEAD}
    assert set(method.trains) == {*method.lead.trains, *method.replay.trains}


def test_the_lead_teaches_the_shadow_head_alone():
    """Every parameter of it, and the student not at all: exactly zero."""
    by_head, by_student = _value_and_gradients("lead")[1]
    assert all(_is_zero(by_student))
    assert not any(_is_zero(by_head))


def test_the_replay_teaches_the_student_alone():
    by_head, by_student = _value_and_gradients("replay")[1]
    assert all(_is_zero(by_head))
    assert not any(_is_zero(by_student))


def test_plain_shake_is_both_phases_at_once():
    """One update moves each learner as its own phase does, by the same loss."""
    lead, (by_head, _) = _value_and_gradients("lead")
    replay, (_, by_student) = _value_and_gradients("replay")
    plain, gradients = _value_and_gradients("plain")
    np.testing.assert_allclose(plain, lead + replay, rtol=1e-6)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        gradients,
        (by_head, by_student),
    )


def test_the_students_gradient_is_of_a_target_that_stands_still():
    """Finite differences of the loss by hand, its target held, in float64."""
    shadow = _normal(_head_by_hand(_head_params()))

    def by_hand(student):
        return _ce(_normal(student)) + _divergence(_normal(student), shadow, 4)

    got = _value_and_gradients("replay")[1][1]
    for place in ((0, 0), (1, 4), (5, 2)):
        nudge = np.zeros((B, C))
        nudge[place] = 1e-6
        slope = (by_hand(STUDENT + nudge) - by_hand(STUDENT - nudge)) / 2e-6
        np.testing.assert_allclose(got[place], slope, rtol=1e-3)


def test_padding_changes_nothing():
    value, (by_head, by_student) = _value_and_gradients("plain")
    padded, (head, student) = _value_and_gradients("plain", PADDING)
    np.testing.assert_allclose(padded, value, rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, head, by_head)
    close(student[:B], by_student)
    np.testing.assert_array_equal(student[B:], 0)


def test_the_number_of_devices_changes_nothing():
    """Values, and gradients by the rule that each device's is D times its share."""
    params, student, teacher, maps, batch = _arguments(PADDING)
    params = {name: params[name] for name in ("last", "linear")}
    rest = student, teacher, maps[-1:], batch
    of = lambda axis: jax.value_and_grad(_phase("plain", axis), (0, 1))
    expected, (by_head, by_student) = jax.jit(of(ALONE))(params, *rest)
    halves = lambda x: x.reshape(2, len(x) // 2, *x.shape[1:])
    shared = jax.pmap(
        of(BatchAxis(BATCH_AXIS)),
        axis_name=BATCH_AXIS,
        in_axes=(None, 0, 0, 0, 0),
        devices=jax.devices()[:2],
    )
    values, (head, student) = shared(params, *jax.tree.map(halves, rest))
    np.testing.assert_allclose(values, [expected] * 2, rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(lambda got, want: close(got.mean(0), want), head, by_head)
    close(student.reshape(by_student.shape) / 2, by_student)


def test_spaced_each_tick_moves_one_of_both_learners_bit_by_bit():
    """In a real run: a zero gradient would still let momentum and decay move it."""
    config = tiny.config_dict(
        {"s": config_lib.student(plan="spaced", space_interval_epochs=1.0)},
        num_epochs=1,
        data__num_train_examples=32,
        student__method="shake",
        student__model="narrow_mlp",
        stages__first=tiny.config_dict(teacher__model="narrow_mlp"),
        teacher__stage="first/teacher",
    )
    config = config_lib.from_config_dict(config)
    parts = experiment.build(config, data.load(config.data))
    # Of the stage only the architecture matters here: its teacher begins untrained.
    engine, states = Engine(parts), experiment.init_states(parts)
    net_of = lambda state: {
        "head": state.params["method"],
        "student": (state.params["net"], state.batch_stats),
    }
    moves, logged = {}, {}
    for tick in (tick for tick in parts.ticks if not isinstance(tick, Evaluate)):
        before = jax.device_get(states[0])
        states, measured = engine.advance(states, tick)
        after = jax.device_get(states[0])
        jax.tree.map(np.testing.assert_array_equal, before["teacher"], after["teacher"])
        moved = jax.tree.map(
            lambda x, y: np.any(x != y), net_of(before["s"]), net_of(after["s"])
        )
        moves[type(tick)] = {k: set(jax.tree.leaves(v)) for k, v in moved.items()}
        logged[type(tick)] = {k for k in measured[0]["s"] if "soft" in k or "sha" in k}
    assert moves == {
        Lockstep: {"head": {True}, "student": {False}},
        Replay: {"head": {False}, "student": {True}},
    }
    of_head = {"shadow_hard_loss", "shadow_teacher_loss", "shadow_student_loss"}
    assert logged == {Lockstep: of_head, Replay: {"soft_loss"}}
