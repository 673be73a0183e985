"""The analytic cases against plain loops, closed forms, and what they are to show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd.analysis import squared_risk, theorem_toy

ALPHA = 0.3


@pytest.mark.parametrize(
    "interval, updates",
    [(1, [1, 2, 3, 4, 5, 6]), (2, [2, 2, 4, 4, 6, 6]), (6, [6] * 6)],
)
def test_a_window_learns_from_the_teacher_at_its_end(interval, updates):
    np.testing.assert_array_equal(theorem_toy.frozen_at(interval, 6), updates)


def spaced_by_hand(case, teacher, student, index, interval):
    """Alg. 2 with a buffer, in float64, with f = w^2 x / 2 differentiated by hand."""
    x, y = np.asarray(case.inputs, np.float64), np.asarray(case.labels, np.float64)
    output = lambda w, i: w**2 * x[i] / 2
    buffer, path = [], [student]
    for batch in index:
        error = output(teacher, batch) - y[batch]
        teacher -= case.learning_rate * np.mean(error * teacher * x[batch])
        buffer.append(batch)
        if len(buffer) == interval:
            for seen in buffer:
                own = output(student, seen)
                beta = (1 - ALPHA) * (own - y[seen]) + ALPHA * (
                    own - output(teacher, seen)
                )
                student -= case.learning_rate * np.mean(beta * student * x[seen])
                path.append(student)
            buffer = []
    return path


@pytest.mark.parametrize("interval", [1, 3, 12])
def test_students_replay_the_teachers_batches_against_it_frozen(interval):
    """The gathered teachers are those that a loop with a buffer meets."""
    case = theorem_toy.square_case(2.0)
    index, (teacher, student) = theorem_toy.drawn(case, seed=1)
    index = jnp.asarray(index[:12])
    labels = jnp.broadcast_to(case.labels, (12, 12))
    ahead = theorem_toy.learn(case, jnp.asarray(teacher, jnp.float32), index, labels)
    given = jax.vmap(case.outputs)(ahead)[theorem_toy.frozen_at(interval, 12)]
    targets = (1 - ALPHA) * case.labels + ALPHA * given
    found = theorem_toy.learn(case, jnp.asarray(student, jnp.float32), index, targets)
    expected = spaced_by_hand(case, teacher[0], student[0], np.asarray(index), interval)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    assert abs(expected[-1] - expected[0]) > 0.01


def test_small_steps_follow_the_gradient_flow_in_closed_form():
    """A frozen teacher at 0.8, target 1/2; the student from 1/8."""
    case = theorem_toy.square_case(2.0)._replace(learning_rate=1e-3)
    every = jnp.tile(jnp.arange(12), (3000, 1))
    target = (1 - ALPHA) * 0.5 + ALPHA * 0.8
    targets = jnp.broadcast_to(target * case.inputs, (3000, 12))
    found = theorem_toy.learn(case, jnp.asarray([0.5]), every, targets)
    time = 3.0 * float(np.mean(np.asarray(case.inputs) ** 2))
    expected = _square_flow(0.125, target, time)
    assert 0.3 < expected < target
    np.testing.assert_allclose(found[-1, 0] ** 2 / 2, expected, rtol=1e-3)


def test_the_squares_trace_is_known_in_closed_form():
    """Gauss-Newton 2 q r; residual q ((1 - alpha) (r - m) + alpha (r - p))."""
    case, r, p = theorem_toy.square_case(2.0), 0.45, 0.3
    given = p * case.inputs
    weights = jnp.asarray([(2 * r) ** 0.5])
    betas = squared_risk.beta(case.outputs(weights), case.labels, given, ALPHA)
    exact_parts = jax.jit(squared_risk.exact_parts, static_argnums=0)
    found = exact_parts(case.network, weights, case.inputs, betas)
    q = np.mean(np.linspace(-1.5, 1.5, 12) ** 2)
    np.testing.assert_allclose(found.gauss_newton, 2 * q * r, rtol=1e-5)
    residual = q * ((1 - ALPHA) * (r - 0.5) + ALPHA * (r - p))
    np.testing.assert_allclose(found.residual, residual, rtol=1e-4)


@pytest.fixture(scope="module")
def measured():
    return {name: theorem_toy.measured(name, ALPHA, 16) for name in theorem_toy.CASES}


def falls(pairs):
    return bool(np.all(np.diff([mean for mean, _ in pairs]) < 0))


def rises(pairs):
    return bool(np.all(np.diff([mean for mean, _ in pairs]) > 0))


def test_the_lemma_holds_in_every_case(measured):
    """The longer the interval, the nearer the teacher is to its end: u falls."""
    for case in measured.values():
        assert falls(case["gap"]) and falls(case["unlinearised_gap"])


def test_the_theorem_holds_or_fails_with_the_side_that_the_teacher_comes_from(measured):
    """The lemma is the same in both; the sign that the proof drops is not."""
    below, above = (measured[f"square, teacher {side}"] for side in ("below", "above"))
    assert falls(below["shared"]) and below["holds"] == [1.0] * 6
    assert rises(above["shared"]) and above["holds"] == [1.0] + [0.0] * 5


def test_the_students_own_weights_turn_the_effect_round(measured):
    """q (2 r + ...) at r = m - alpha (m - p): Gauss-Newton outweighs the residual."""
    assert rises(measured["square, teacher below"]["own"])
    assert falls(measured["square, teacher above"]["own"])


def test_a_network_in_which_nothing_ties_the_signs_breaks_the_theorem(measured):
    """Tr H at theta* rises with the interval, in the mean over seeds."""
    mean, error = measured["tanh"]["shared"][-1]
    assert mean > 3 * error > 0


def test_beta_has_the_sign_opposite_to_equation_7(measured):
    for name, case in measured.items():
        assert -1.3 < case["slope"] < -0.7, name


def _square_flow(output: float, target: float, time: float) -> float:
    """Return r = w^2 / 2 of `square` after gradient flow towards a fixed target.

    dr/dt = -2 q r (r - target), q = mean x^2, a logistic curve. Between two changes of
    its teacher a student's target is (1 - alpha) m + alpha r_teacher.

    Args:
      output: r at the start, > 0.
      target: that r is fitted to.
      time: q t; t is learning rate times steps.
    """
    return target / (1 + (target / output - 1) * np.exp(-2 * target * time))
