"""Methods with a teacher, each against its published formula in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny
from jax.test_util import check_grads

from spaced_kd.config import StudentConfig
from spaced_kd.methods import make_method
from spaced_kd.methods.base import Now
from spaced_kd.methods.pld import plackett_luce
from spaced_kd.methods.sinkd import sinkhorn_distance
from spaced_kd.parallel import BATCH_AXIS, BatchAxis
from spaced_kd.types import Batch, ModelOutput

rng = np.random.default_rng(0)
B, C = 6, 5
STUDENT, TEACHER = (2 * rng.normal(size=(B, C)) for _ in range(2))
LABELS = np.array([0, 4, 2, 2, 1, 3], np.int32)
ALONE = BatchAxis()


def _outputs(logits):
    logits = jnp.asarray(logits, jnp.float32)
    return ModelOutput(logits, jnp.zeros((len(logits), 3)))


def _batch(padding=0):
    labels = jnp.asarray(np.pad(LABELS, (0, padding)))
    mask = jnp.arange(B + padding) < B if padding else None
    return Batch(jnp.zeros((B + padding, 1, 1, 1)), labels, mask)


def _loss(name, padding=0, axis=ALONE, step=0, student=STUDENT, **fields):
    """The loss and its parts; padding brings outputs that must not matter."""
    defaults = {"soft_loss": "kl", "temperature_squared": "no"}
    method = make_method(
        StudentConfig(method=name, **defaults | fields), axis, tiny.SIZES
    )
    junk = np.full((padding, C), 9.0)
    pair = [_outputs(np.concatenate([x, junk])) for x in (student, TEACHER)]
    return method.loss({}, *pair, _batch(padding), Now(jnp.int32(step)))


def _ce(logits=STUDENT):
    return -scipy.special.log_softmax(logits, axis=1)[np.arange(B), LABELS]


def _order(teacher, label):
    others = [c for c in np.argsort(-teacher) if c != label]
    return [label, *others]


def _ranking_by_hand(temperature):
    """Choice by choice, the classes still to be chosen in a list."""
    weights = scipy.special.softmax(TEACHER / temperature, axis=1)
    total = np.zeros(B)
    for i in range(B):
        left = _order(TEACHER[i], LABELS[i])
        while left:
            odds = scipy.special.softmax(STUDENT[i, left])
            total[i] -= weights[i, left[0]] * np.log(odds[0])
            left = left[1:]
    return total


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_pld_equals_the_choices_one_by_one(temperature):
    """Temperature softens the teacher's weights, and the student not at all."""
    got = plackett_luce(STUDENT, TEACHER, LABELS, temperature)
    np.testing.assert_allclose(got, _ranking_by_hand(temperature), rtol=1e-6)


def test_pld_of_equal_weights_is_the_likelihood_among_all_orders():
    """A flat teacher: C times the loss is -log of a probability that sums to 1."""
    scores, flat = STUDENT[0], np.zeros(C)
    likelihood = 0.0
    for order in itertools.permutations(range(C)):
        # Almost flat: only who comes first is told, not how sure the teacher is.
        teacher = flat.copy()
        teacher[list(order)] = -1e-6 * np.arange(C)
        with jax.enable_x64(True):
            value = plackett_luce(
                jnp.asarray(scores)[None],
                jnp.asarray(teacher)[None],
                jnp.asarray(order[:1]),
                1.0,
            )
        likelihood += np.exp(-C * float(value[0]))
    np.testing.assert_allclose(likelihood, 1.0, rtol=1e-5)


def test_pld_of_a_certain_teacher_is_the_cross_entropy():
    sure = np.where(np.arange(C) == LABELS[:, None], 100.0, TEACHER)
    got = plackett_luce(STUDENT, sure, LABELS, 1.0)
    np.testing.assert_allclose(got, _ce(), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pld_gradients():
    """The published closed form (its Appendix A), and finite differences."""
    expected = np.zeros((B, C))
    weights = scipy.special.softmax(TEACHER / 4, axis=1)
    for i in range(B):
        left = _order(TEACHER[i], LABELS[i])
        while left:
            expected[i, left] += weights[i, left[0]] * scipy.special.softmax(
                STUDENT[i, left]
            )
            expected[i, left[0]] -= weights[i, left[0]]
            left = left[1:]
    fn = jax.jit(lambda s: plackett_luce(s, jnp.asarray(TEACHER), LABELS, 4.0).sum())
    np.testing.assert_allclose(jax.grad(fn)(STUDENT), expected, atol=1e-6)
    with jax.enable_x64(True):
        check_grads(fn, (jnp.asarray(STUDENT),), order=1, modes=("rev",), rtol=1e-4)


def test_pld_is_finite_at_extreme_logits():
    extreme = jnp.array([[1e4, -1e4, 0.0]])
    loss = lambda s: plackett_luce(s, -extreme, jnp.array([1]), 1.0).sum()
    value, grad = jax.jit(jax.value_and_grad(loss))(extreme)
    assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_pld_has_no_other_term():
    """The source's point: neither a cross-entropy beside it nor a weight between."""
    expected = _ranking_by_hand(4.0).mean()
    for fields in ({}, {"kd_weight": 0.9, "temperature_squared": "yes"}):
        total, parts = _loss("pld", temperature=4.0, **fields)
        np.testing.assert_allclose(total, expected, rtol=1e-6)
        np.testing.assert_allclose(parts["hard_loss"], _ce().mean(), rtol=1e-6)


def test_pld_trains_both_heads_of_a_distilled_transformer():
    """Evaluation reads the mean of both; a head without a gradient would spoil it."""
    method = make_method(StudentConfig(method="pld"), ALONE, tiny.SIZES)

    def loss(logits, soft_logits):
        student = _outputs(logits)._replace(soft_logits=jnp.asarray(soft_logits))
        return method.loss({}, student, _outputs(TEACHER), _batch(), Now(0))[0]

    middle = _loss("pld")[0]
    np.testing.assert_allclose(loss(STUDENT + 1.5, STUDENT - 1.5), middle, rtol=1e-6)
    grads = jax.jit(jax.grad(loss, (0, 1)))(STUDENT, STUDENT)
    assert all(np.abs(grad).max() > 1e-3 for grad in grads)


SOFTENED = [scipy.special.softmax(x / 3, axis=1) for x in (STUDENT, TEACHER)]


def _costs(student, teacher):
    return np.abs(student[:, None] - teacher[None]).sum(-1)


def _transport_by_hand(student, teacher, regularization, iterations):
    """The kernel itself, scaled row by row and column by column."""
    costs = _costs(student, teacher)
    plan = np.exp(-costs / regularization)
    for _ in range(iterations):
        for row in plan:
            row /= row.sum()
        for column in plan.T:
            column /= column.sum()
    return (plan * costs).sum() / len(costs), plan


@pytest.mark.parametrize(
    ("regularization", "iterations"), [(0.1, 20), (0.1, 1), (1, 5)]
)
def test_sinkhorn_equals_scaling_the_kernel(regularization, iterations):
    expected, _ = _transport_by_hand(*SOFTENED, regularization, iterations)
    got = sinkhorn_distance(*map(jnp.asarray, SOFTENED), regularization, iterations)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_sinkhorn_with_many_iterations_is_a_plan_of_transport():
    """All rows and columns sum to 1, and no small change of the plan is better."""
    expected, plan = _transport_by_hand(*SOFTENED, 0.1, 5000)
    np.testing.assert_allclose([plan.sum(0), plan.sum(1)], np.ones((2, B)), rtol=1e-9)
    got = sinkhorn_distance(*map(jnp.asarray, SOFTENED), 0.1, 5000)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # Optimal: log P + D / lambda is a row vector plus a column vector.
    rest = np.log(plan) + _costs(*SOFTENED) / 0.1
    rest = rest - rest.mean(0) - rest.mean(1)[:, None] + rest.mean()
    np.testing.assert_allclose(rest, 0, atol=1e-6)


def test_sinkhorn_tends_to_the_cheapest_pairing():
    """Among three: the best of all six pairings, from above, as lambda goes to 0."""
    student, teacher = (x[:3] for x in SOFTENED)
    costs = _costs(student, teacher)
    pairings = itertools.permutations(range(3))
    best = min(costs[range(3), list(pairing)].mean() for pairing in pairings)
    gaps = [
        float(sinkhorn_distance(jnp.asarray(student), jnp.asarray(teacher), x, 3000))
        - best
        for x in (1.0, 0.1, 0.001)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert abs(gaps[2]) < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sinkhorn_gradients_match_finite_differences():
    """Through the iterations too, and with padding, which gets none."""
    student, teacher = (jnp.asarray(x) for x in SOFTENED)
    mask = jnp.arange(B) < B - 2
    fn = jax.jit(lambda s: sinkhorn_distance(s, jnp.asarray(teacher), 0.1, 3, mask))
    np.testing.assert_array_equal(jax.grad(fn)(student)[-2:], 0)
    student, teacher = SOFTENED
    with jax.enable_x64(True):
        check_grads(fn, (jnp.asarray(student),), 1, modes=("rev",), rtol=1e-4)


def test_sinkd_is_the_mixture_plus_the_distance():
    """(1 - alpha) CE + alpha KL + w <P, D> / B, at the same temperature."""
    p, q = SOFTENED[1], SOFTENED[0]
    divergence = (p * np.log(p / q)).sum(1).mean()
    distance, _ = _transport_by_hand(*SOFTENED, 0.2, 7)
    total, parts = _loss(
        "sinkd",
        kd_weight=0.3,
        temperature=3.0,
        sinkd_weight=0.5,
        sinkd_regularization=0.2,
        sinkd_iterations=7,
    )
    np.testing.assert_allclose(parts["sinkhorn_loss"], distance, rtol=1e-5)
    expected = 0.7 * _ce().mean() + 0.3 * divergence + 0.5 * distance
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def _mixed(logits, share):
    return (1 - share) * logits + share * TEACHER


def _soft(temperature, share, student=STUDENT):
    """KL from the interpolated target, whose own part is always of STUDENT."""
    p = scipy.special.softmax(_mixed(STUDENT, share) / temperature, axis=1)
    log_q = scipy.special.log_softmax(student / temperature, axis=1)
    return (p * (np.log(p) - log_q)).sum(1).mean()


@pytest.mark.parametrize("step", [0, 25, 99])
def test_taid_meets_a_target_that_moves_to_the_teacher(step):
    """Of 100 updates: from 40 % of the teacher, by equal steps, almost to all of it."""
    share = 0.4 + 0.6 * step / 100
    total, parts = _loss("taid", step=step, kd_weight=0.3, temperature=3.0)
    np.testing.assert_allclose(parts["target_share"], share, rtol=1e-6)
    expected = 0.7 * _ce().mean() + 0.3 * _soft(3.0, share)
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_taid_ends_and_starts_where_it_is_told():
    """All of the teacher is plain kd; nothing of it teaches nothing."""
    fields = {"kd_weight": 1.0, "temperature": 2.0}
    whole = _loss("taid", taid_start=1.0, **fields)[0]
    plain = _loss("kd", feature_weight=0.0, **fields)[0]
    np.testing.assert_allclose(whole, plain, rtol=1e-6)
    alone = _loss("taid", taid_start=0.0, **fields)[0]
    np.testing.assert_allclose(alone, 0, atol=1e-6)


def test_no_gradient_flows_through_taids_target():
    """d KL / d z_s = (p_s - target) / (B T): the target stands still."""
    method = make_method(
        StudentConfig(
            method="taid",
            soft_loss="kl",
            temperature_squared="no",
            temperature=2.0,
            kd_weight=1.0,
        ),
        ALONE,
        tiny.SIZES,
    )

    @jax.jit
    def loss(logits):
        pair = _outputs(logits), _outputs(TEACHER)
        return method.loss({}, *pair, _batch(), Now(jnp.int32(50)))[0]

    softened = lambda logits: scipy.special.softmax(logits / 2, axis=1)
    expected = (softened(STUDENT) - softened(_mixed(STUDENT, 0.7))) / (2 * B)
    got = jax.grad(loss)(jnp.asarray(STUDENT, jnp.float32))
    np.testing.assert_allclose(got, expected, atol=1e-7)
    # And it is the numerical slope of the loss with its target held.
    nudge = np.zeros((B, C))
    nudge[1, 2] = 1e-6
    slope = (_soft(2, 0.7, STUDENT + nudge) - _soft(2, 0.7, STUDENT - nudge)) / 2e-6
    np.testing.assert_allclose(expected[1, 2], slope, rtol=1e-6)


@pytest.mark.parametrize("name", ["hard", "kd", "sinkd", "taid"])
def test_labels_are_smoothed_in_every_method_with_a_hard_loss(name):
    target = 0.8 * np.eye(C)[LABELS] + 0.2 / C
    expected = -(target * scipy.special.log_softmax(STUDENT, axis=1)).sum(1).mean()
    fields = {"feature_weight": 0.0, "kd_weight": 0.3}
    plain = _loss(name, **fields)
    smoothed = _loss(name, label_smoothing=0.2, **fields)
    np.testing.assert_allclose(smoothed[1]["hard_loss"], expected, rtol=1e-6)
    weight = 1.0 if name == "hard" else 0.7
    change = weight * (expected - _ce().mean())
    np.testing.assert_allclose(smoothed[0] - plain[0], change, rtol=1e-5)


COUPLED = ["pld", "sinkd", "taid"]


@pytest.mark.parametrize("name", COUPLED)
def test_padding_changes_nothing(name):
    np.testing.assert_allclose(_loss(name, 3)[0], _loss(name)[0], rtol=1e-6)


@pytest.mark.parametrize("name", COUPLED)
def test_the_number_of_devices_changes_nothing(name, padding=2):
    """Values, and gradients by the rule that each device's is D times its share."""
    size = B + padding
    junk = np.full((padding, C), 9.0)
    student, teacher = (
        jnp.asarray(np.concatenate([x, junk]), jnp.float32) for x in (STUDENT, TEACHER)
    )
    config = StudentConfig(method=name, soft_loss="kl", temperature_squared="no")

    def loss(axis, student, teacher, batch):
        method = make_method(config, axis, tiny.SIZES)
        pair = _outputs(student), _outputs(teacher)
        return method.loss({}, *pair, batch, Now(jnp.int32(3)))[0]

    alone = jax.jit(jax.value_and_grad(functools.partial(loss, ALONE)))
    expected = alone(student, teacher, _batch(padding))
    halves = lambda x: x.reshape(2, size // 2, *x.shape[1:])
    shared = jax.pmap(
        jax.value_and_grad(functools.partial(loss, BatchAxis(BATCH_AXIS))),
        axis_name=BATCH_AXIS,
        devices=jax.devices()[:2],
    )
    values, grads = shared(*jax.tree.map(halves, (student, teacher, _batch(padding))))
    np.testing.assert_allclose(values, [expected[0]] * 2, rtol=1e-6)
    np.testing.assert_allclose(grads.reshape(size, C) / 2, expected[1], atol=1e-7)
