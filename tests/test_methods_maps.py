"""Methods on features and feature maps, each against its formula in float64 loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads

from spaced_kd.config import StudentConfig
from spaced_kd.methods import make_method
from spaced_kd.methods.base import Now, Sizes
from spaced_kd.methods.diswot import relation_gap, semantic_gap
from spaced_kd.methods.nd import follow_means, norm_and_direction
from spaced_kd.parallel import BATCH_AXIS, BatchAxis
from spaced_kd.types import Batch, ModelOutput

B, C, WIDE, NARROW = 6, 5, 4, 3
LABELS = np.array([0, 4, 2, 2, 1, 2], np.int32)
SIZES = Sizes(100, 10, B, 50, C, (1, 1, 1))
ALONE = BatchAxis()
NAMES = ["diswot", "nd"]
# Of features: some students are shorter than their teachers, some longer.
LENGTHS = np.array([0.1, 3.0, 0.5, 2.0, 1.0, 5.0])[:, None]


def _network(seed, width, side, size=B):
    """Logits, features and two maps, of which methods read the deepest."""
    rng = np.random.default_rng(seed)
    return ModelOutput(
        2 * rng.normal(size=(size, C)),
        LENGTHS[:size] * np.maximum(rng.normal(size=(size, width)) + 0.5, 0),
        maps=(
            rng.normal(size=(size, 2 * side, 2 * side, 2)),
            np.maximum(rng.normal(size=(size, side, side, width)), 0),
        ),
    )


STUDENT, TEACHER = _network(0, NARROW, 2), _network(1, WIDE, 3)
VALUES = STUDENT.logits, STUDENT.maps[-1]


def _padded(net, padding, junk=9.0):
    pad = lambda x: jnp.asarray(
        np.concatenate([x, np.full((padding, *x.shape[1:]), junk)]), jnp.float32
    )
    return jax.tree.map(pad, net)


def _batch(padding=0, labels=LABELS):
    size = len(labels) + padding
    mask = jnp.arange(size) < len(labels) if padding else None
    label = jnp.asarray(np.pad(labels, (0, padding)))
    return Batch(jnp.zeros((size, 1, 1, 1)), label, mask)


def _method(name, axis=ALONE, **fields):
    defaults = {"soft_loss": "kl", "temperature_squared": "no"}
    return make_method(StudentConfig(method=name, **defaults | fields), axis, SIZES)


def _one(net):
    return jax.tree.map(lambda x: jnp.asarray(x[:1], jnp.float32), net)


def _begin(method):
    """Its parameters and its memory before the first update."""
    pair = _one(STUDENT), _one(TEACHER)
    params = method.init(jax.random.key(0), *pair)
    return params, method.memory.start(*pair) if method.memory else ()


def _mixture(alpha, temperature):
    """(1 - alpha) CE + alpha KL, the means over the batch."""
    soft = scipy.special.log_softmax
    ce = -soft(STUDENT.logits, axis=1)[np.arange(B), LABELS].mean()
    own, other = (soft(net.logits / temperature, axis=1) for net in (STUDENT, TEACHER))
    kl = (np.exp(other) * (other - own)).sum(1).mean()
    return (1 - alpha) * ce + alpha * kl


def _nd_by_hand(student, teacher, means):
    total = 0.0
    for s, t, label in zip(student, teacher, LABELS, strict=True):
        e = means[label] / np.sqrt(sum(means[label] ** 2))
        total += 1 - sum(s * e) / max(np.sqrt(sum(s**2)), np.sqrt(sum(t**2)))
    return total / B


def _class_means(*networks):
    features = np.concatenate([net.features for net in networks])
    labels = np.tile(LABELS, len(networks))
    return {c: features[labels == c].mean(0) for c in set(labels.tolist())}


def test_nd_equals_its_formula_with_the_means_of_all_that_was_seen():
    """Three batches of another teacher each, the last one's own among the means."""
    fields = {"kd_weight": 0.4, "temperature": 2.0, "nd_weight": 1.5}
    method = _method("nd", **fields)
    params, memory = _begin(method)
    earlier = [_network(seed, WIDE, 3) for seed in (2, 3)]
    student = _padded(STUDENT, 0)
    remember = jax.jit(lambda *seen: method.memory.remember(*seen, _batch(), {}))
    for teacher in earlier:
        memory = remember(memory, student, _padded(teacher, 0))
    now = Now(jnp.int32(2), memory)
    pair = student, _padded(TEACHER, 0)
    total, parts = jax.jit(method.loss)(params, *pair, _batch(), now)
    kernel, bias = (np.asarray(params[name], np.float64) for name in ("kernel", "bias"))
    mapped = STUDENT.features @ kernel + bias
    expected = _nd_by_hand(mapped, TEACHER.features, _class_means(*earlier, TEACHER))
    np.testing.assert_allclose(parts["nd_loss"], expected, rtol=1e-5)
    whole = _mixture(0.4, 2.0) + 1.5 * expected
    np.testing.assert_allclose(total, whole, rtol=1e-5)


def test_nd_counts_length_only_up_to_the_teachers():
    """Along the class mean: half the length costs a half, twice the length nothing."""
    teacher = jnp.asarray(TEACHER.features[1:2], jnp.float32)
    length = jnp.linalg.norm(teacher)
    direction = teacher / length
    for factor, cost in [(0.5, 0.5), (1.0, 0.0), (2.0, 0.0), (-2.0, 2.0)]:
        got = norm_and_direction(factor * teacher, teacher, direction)
        np.testing.assert_allclose(got, [cost], atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_nd_gradients():
    """Finite differences on both sides of the teacher's length; none at zero."""
    rng = np.random.default_rng(5)
    student, teacher = LENGTHS * rng.normal(size=(B, WIDE)), TEACHER.features
    norms = np.linalg.norm(student, axis=1) > np.linalg.norm(teacher, axis=1)
    assert 0 < norms.sum() < B
    unit = rng.normal(size=(B, WIDE))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    with jax.enable_x64(True):
        fn = jax.jit(lambda s: norm_and_direction(s, teacher, unit).sum())
        check_grads(fn, (jnp.asarray(student),), order=1, modes=("rev",), rtol=1e-5)
    nothing = jnp.zeros((1, WIDE))
    fn = lambda s: norm_and_direction(s, nothing, nothing).sum()
    np.testing.assert_array_equal(jax.grad(fn)(nothing), 0)


def test_nd_forgets_a_teacher_at_the_rate_of_the_window():
    """A window full of one teacher, then k examples of another, one a batch."""
    window, later = 4, 7
    old, new = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    means = {"mean": jnp.zeros((C, 2)), "weight": jnp.zeros(C)}
    batch = _batch(labels=np.array([3], np.int32))
    follow = jax.jit(lambda m, f: follow_means(m, f, batch, window, ALONE))
    for features in [old] * window + [new] * later:
        means = follow(means, jnp.asarray(features[None], jnp.float32))
    left = (window / (window + 1)) ** later
    np.testing.assert_allclose(means["mean"][3], left * old + (1 - left) * new, 1e-5)
    np.testing.assert_array_equal(means["weight"], [0, 0, 0, window, 0])
    np.testing.assert_array_equal(means["mean"][:3], 0)


def test_nd_maps_the_student_only_where_the_widths_differ():
    method = _method("nd")
    assert method.init(jax.random.key(0), _one(STUDENT), _one(STUDENT)) == {}
    params, _ = _begin(method)
    assert params["kernel"].shape == (NARROW, WIDE)


def _normalised(gram):
    return [[x / np.sqrt(sum(y**2 for y in row)) for x in row] for row in gram]


def _gap_by_hand(student, teacher):
    """Rows of vectors: all pairs' inner products, row by row, squared differences."""
    pair = []
    for vectors in (student, teacher):
        pair.append(_normalised([[sum(a * b) for b in vectors] for a in vectors]))
    count = len(student)
    return (
        sum(
            (pair[0][i][j] - pair[1][i][j]) ** 2
            for i in range(count)
            for j in range(count)
        )
        / count
    )


def _parts_by_hand(logits, maps):
    """Relation and semantic term of a student against TEACHER."""
    return (
        _gap_by_hand(maps.reshape(B, -1), TEACHER.maps[-1].reshape(B, -1)),
        _gap_by_hand(logits.T, TEACHER.logits.T),
    )


def test_diswot_equals_its_formula():
    """The deepest maps, of unlike size and width, and the logits of each class."""
    fields = {"kd_weight": 0.4, "temperature": 2.0}
    method = _method("diswot", diswot_relation=30.0, diswot_semantic=7.0, **fields)
    pair = _padded(STUDENT, 0), _padded(TEACHER, 0)
    total, parts = jax.jit(method.loss)({}, *pair, _batch(), Now(jnp.int32(0)))
    relation, semantic = _parts_by_hand(*VALUES)
    np.testing.assert_allclose(parts["relation_loss"], relation, rtol=1e-5)
    np.testing.assert_allclose(parts["semantic_loss"], semantic, rtol=1e-5)
    whole = _mixture(0.4, 2.0) + 30 * relation + 7 * semantic
    np.testing.assert_allclose(total, whole, rtol=1e-5)


def test_diswot_is_blind_to_channels_and_scale():
    """Rotated channels and another length leave every similarity as it was."""
    rotation = np.linalg.qr(np.random.default_rng(8).normal(size=(WIDE, WIDE)))[0]
    maps, logits = (
        jnp.asarray(x, jnp.float32) for x in (TEACHER.maps[-1], TEACHER.logits)
    )
    turned = jnp.asarray(3 * TEACHER.maps[-1] @ rotation, jnp.float32)
    assert float(relation_gap(turned, maps, None, ALONE)) < 1e-11
    assert float(semantic_gap(3 * logits, logits, None, ALONE)) < 1e-11


def _gaps(logits, maps):
    teacher = _padded(TEACHER, 0)
    relation = relation_gap(maps, teacher.maps[-1], None, ALONE)
    return relation + semantic_gap(logits, teacher.logits, None, ALONE)


def test_diswot_gradients_are_the_slopes_of_its_formula():
    """Along random directions, by central differences of the loops in float64."""
    start = [jnp.asarray(x, jnp.float32) for x in VALUES]
    grads = jax.jit(jax.grad(_gaps, (0, 1)))(*start)
    rng = np.random.default_rng(9)
    for k, grad in enumerate(grads):
        direction = rng.normal(size=grad.shape)
        ends = []
        for step in (1e-5, -1e-5):
            moved = list(VALUES)
            moved[k] = VALUES[k] + step * direction
            ends.append(sum(_parts_by_hand(*moved)))
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose((grad * direction).sum(), slope, rtol=1e-4)


def test_diswot_gradients_of_a_dead_network_are_finite():
    dead = [jnp.zeros(x.shape) for x in VALUES]
    grads = jax.jit(jax.grad(_gaps, (0, 1)))(*dead)
    assert all(np.isfinite(grad).all() for grad in grads)


def test_diswot_aligns_the_head_that_soft_targets_train():
    """A distillation head learns both terms of the logits, the other head none."""
    method = _method("diswot", kd_weight=1.0)
    student, teacher = _padded(STUDENT, 0), _padded(TEACHER, 0)
    student = student._replace(soft_logits=student.logits[::-1])
    loss = lambda net: method.loss({}, net, teacher, _batch(), Now(jnp.int32(0)))[0]
    grads = jax.jit(jax.grad(loss))(student)
    np.testing.assert_array_equal(grads.logits, 0)
    assert jnp.abs(grads.soft_logits).max() > 0


def _value(name, padding, junk=9.0):
    method = _method(name)
    params, memory = _begin(method)
    pair = _padded(STUDENT, padding, junk), _padded(TEACHER, padding, junk)

    @jax.jit
    def both(memory, student, teacher, batch):
        now = Now(jnp.int32(0), memory)
        total, _ = method.loss(params, student, teacher, batch, now)
        if method.memory:
            memory = method.memory.remember(memory, student, teacher, batch, {})
        return total, memory

    return both(memory, *pair, _batch(padding))


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_neither_loss_nor_memory(name):
    expected, remembered = _value(name, 0)
    got, memory = _value(name, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, memory, remembered)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_devices_changes_nothing(name, padding=2):
    """Loss, memory and gradients, each device's being D times its share."""
    params, memory = _begin(_method(name))
    student, teacher = _padded(STUDENT, padding), _padded(TEACHER, padding)

    def loss(axis, learned, teacher, batch):
        method = _method(name, axis)
        params, student = learned
        total, _ = method.loss(params, student, teacher, batch, Now(0, memory))
        after = memory
        if method.memory:
            after = method.memory.remember(memory, student, teacher, batch, {})
        return total, after

    step = lambda axis: jax.value_and_grad(functools.partial(loss, axis), has_aux=True)
    batch = _batch(padding)
    (expected, remembered), slopes = jax.jit(step(ALONE))(
        (params, student), teacher, batch
    )
    halves = lambda x: x.reshape(2, -1, *x.shape[1:])
    shared = jax.pmap(
        step(BatchAxis(BATCH_AXIS)),
        axis_name=BATCH_AXIS,
        in_axes=((None, 0), 0, 0),
        devices=jax.devices()[:2],
    )
    learned = params, jax.tree.map(halves, student)
    (values, memories), grads = shared(learned, *jax.tree.map(halves, (teacher, batch)))
    np.testing.assert_allclose(values, [expected] * 2, rtol=1e-6)
    for half in range(2):
        jax.tree.map(
            lambda x, y, half=half: np.testing.assert_allclose(x[half], y, atol=1e-6),
            memories,
            remembered,
        )
    own = jax.tree.map(lambda x: x.mean(0), grads[0])
    joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]) / 2, grads[1])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, (own, joined), slopes)
