"""Networks of a few weights that learn as the paper says, to see Theorem 4.4 at work.

Teacher and student have one output and half squared errors (paper Section 4.2). The
teacher takes SGD steps on mini-batches (Eq. 3); the student learns the same batches in
the same order, step j against the teacher of k = (floor(j / s) + 1) s updates, frozen
(Eq. 5). s = 1 is online KD as in Alg. 1, after the teacher's update; s of the whole
training is offline KD. No teacher depends on a student, so that all intervals of one
seed share teacher, start and batches: every comparison is paired.

The Hessian's trace is taken twice. "Shared" is the theorem's reading: all students at
one theta* with f = y, which is where the student's start leads on labels alone; only
the teacher differs, and with it beta. "Own" is at the weights that each student has.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spaced_kd.analysis import squared_risk
from spaced_kd.analysis.base import Values
from spaced_kd.analysis.squared_risk import Parts

STEPS = 512
INTERVALS = (1, 4, 16, 64, 256, STEPS)
SETTLED = 4 * STEPS
"""Updates after which a network trained on labels stands for phi* or theta*."""

TIMES = np.linspace(STEPS // 2, STEPS - 1, 16).astype(int)
"""Student updates at which is measured: the second half, at all places of intervals."""

BATCH_EXAMPLES = 4


class Case(NamedTuple):
    """A learning problem of 12 examples.

    network: (weights [P], x) -> output, []. inputs, labels: [n]. starts: generator ->
    weights of teacher and student before training, [2, P]. learning_rate: of both.
    """

    network: Callable[[jax.Array, jax.Array], jax.Array]
    inputs: jax.Array
    labels: jax.Array
    starts: Callable[[np.random.Generator], np.ndarray]
    learning_rate: float

    def outputs(self, weights: jax.Array) -> jax.Array:
        """Return the output of every example, [n]."""
        return jax.vmap(self.network, (None, 0))(weights, self.inputs)


class Outcome(NamedTuple):
    """Means over the second half of a training; each [intervals], `slope` [].

    gap: u of the student's teacher (Def. 4.2), and unlinearised_gap: mean |g* - g|.
    shared: trace at theta*; own: at the student's weights. slope: of beta at theta* by
    alpha (phi - phi*)' grad g, which Eq. 7 gives as 1.
    """

    gap: jax.Array
    unlinearised_gap: jax.Array
    shared: Parts
    own: Parts
    slope: jax.Array


def square(weights: jax.Array, x: jax.Array) -> jax.Array:
    """Return w^2 x / 2, whose second derivative is x."""
    return weights[0] ** 2 * x / 2


def two_layers(weights: jax.Array, x: jax.Array) -> jax.Array:
    """Return v' tanh(w x + b) of [v, w, b], [3 h]."""
    out, slope, bias = weights.reshape(3, -1)
    return out @ jnp.tanh(slope * x + bias)


def square_case(teacher_output: float) -> Case:
    """Return f = w^2 x / 2 against y = x / 2; the student starts at w^2 / 2 = 1/8.

    Args:
      teacher_output: w^2 / 2 of the teacher at its start; starts vary by some per cent.
    """
    inputs = jnp.linspace(-1.5, 1.5, 12)

    def starts(generator):
        around = 1 + 0.05 * generator.normal(size=(2, 1))
        return np.sqrt([[2 * teacher_output], [2 * 0.125]]) * around

    return Case(square, inputs, inputs / 2, starts, 0.01)


def tanh_case() -> Case:
    """Return six tanh units against two, from random starts."""
    inputs = jnp.linspace(-2.0, 2.0, 12)
    target = jnp.asarray([1.0, -0.7, 1.5, 1.0, 0.5, -1.0])
    labels = jax.vmap(two_layers, (None, 0))(target, inputs)
    starts = lambda generator: 0.7 * generator.normal(size=(2, 18))
    return Case(two_layers, inputs, labels, starts, 0.1)


CASES: dict[str, Callable[[], Case]] = {
    "square, teacher below": lambda: square_case(0.125),
    "square, teacher above": lambda: square_case(2.0),
    "tanh": tanh_case,
}


def frozen_at(interval: int, num_steps: int) -> np.ndarray:
    """Return the updates of the teacher that each student step learns from, [steps].

    Args:
      interval: s.
      num_steps: a multiple of s; steps count from 0, before the update.
    """
    return (np.arange(num_steps) // interval + 1) * interval


def learn(
    case: Case, start: jax.Array, index: jax.Array, targets: jax.Array
) -> jax.Array:
    """Return the weights before and after every SGD step, [steps + 1, P].

    Args:
      case: the problem.
      start: weights, [P].
      index: [steps, batch] which examples.
      targets: [steps, n] what the network is fitted to; of a student
        (1 - alpha) y + alpha g, which has the gradient of its risk.
    """

    def step(weights, batch):
        places, goal = batch

        def loss(w):
            return jnp.mean((case.outputs(w)[places] - goal[places]) ** 2) / 2

        weights = weights - case.learning_rate * jax.grad(loss)(weights)
        return weights, weights

    _, after = lax.scan(step, start, (index, targets))
    return jnp.concatenate([start[None], after])


def drawn(case: Case, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which examples each step learns, [SETTLED, batch], and `Case.starts`."""
    generator = np.random.default_rng(seed)
    every = np.tile(np.arange(len(case.labels)), (SETTLED, 1))
    index = generator.permuted(every, axis=1)[:, :BATCH_EXAMPLES]
    return index, case.starts(generator)


def outcome(case: Case, alpha: float, index: jax.Array, begins: jax.Array) -> Outcome:
    """Return what one seed gives; arguments from `drawn`."""
    labels = jnp.broadcast_to(case.labels, (SETTLED, len(case.labels)))
    on_labels = jax.vmap(lambda start: learn(case, start, index, labels))(begins)
    teacher, settled = on_labels[0, : STEPS + 1], on_labels[:, -1]

    given = jax.vmap(case.outputs)(teacher)
    taught_by = jnp.asarray([frozen_at(s, STEPS) for s in INTERVALS])
    targets = (1 - alpha) * case.labels + alpha * given[taught_by]
    fit = lambda goal: learn(case, begins[1], index[:STEPS], goal)
    students = jax.vmap(fit)(targets)[:, TIMES]

    # The teacher that the student's latest update saw; k(t) = ceil(t / s) s.
    beside = taught_by[:, TIMES - 1]
    gap = jax.vmap(lambda w: squared_risk.linear_gap(case.outputs, settled[0], w))(
        teacher
    )[beside]
    final = jnp.abs(case.outputs(settled[0]) - given)[beside]
    at_star = jnp.broadcast_to(settled[1], students.shape)
    betas = _betas(case, at_star, given[beside], alpha)
    return Outcome(
        jnp.abs(gap).mean((1, 2)),
        final.mean((1, 2)),
        _parts(case, at_star, betas),
        _parts(case, students, _betas(case, students, given[beside], alpha)),
        jnp.sum(betas * gap) / (alpha * jnp.sum(gap**2)),
    )


def _betas(case: Case, weights: jax.Array, given: jax.Array, alpha: float) -> jax.Array:
    outputs = jax.vmap(jax.vmap(case.outputs))(weights)
    return squared_risk.beta(outputs, case.labels, given, alpha)


def _parts(case: Case, weights: jax.Array, betas: jax.Array) -> Parts:
    """Average over times; weights [intervals, times, P]."""
    one = lambda w, b: squared_risk.exact_parts(case.network, w, case.inputs, b)
    return jax.tree.map(lambda x: x.mean(1), jax.vmap(jax.vmap(one))(weights, betas))


def measured(name: str, alpha: float, num_seeds: int) -> Values:
    """Return a case's mean and standard error over seeds, by interval.

    Args:
      name: a key of `CASES`.
      alpha: weight of the teacher, > 0.
      num_seeds: at least 2.

    Returns:
      "slope", and lists by interval of [mean, standard error]: "gap",
      "unlinearised_gap", "shared" and "own" (Tr H minus that of s = 1), of the latter
      "own_gauss_newton" and "own_residual"; "holds": share of seeds in which the
      shared trace is at most that of s = 1, as the theorem says.
    """
    case = CASES[name]()
    seeds = [drawn(case, seed) for seed in range(num_seeds)]
    index, begins = (np.stack(arrays) for arrays in zip(*seeds, strict=True))
    program = jax.jit(jax.vmap(functools.partial(outcome, case, alpha)))
    found = program(index, begins.astype(np.float32))
    found = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
    minus_online = lambda x: x - x[:, :1]
    shared = minus_online(found.shared.residual)
    return {
        "intervals": list(INTERVALS),
        "gap": _summary(found.gap),
        "unlinearised_gap": _summary(found.unlinearised_gap),
        "shared": _summary(shared),
        "own": _summary(minus_online(found.own.gauss_newton + found.own.residual)),
        "own_gauss_newton": _summary(minus_online(found.own.gauss_newton)),
        "own_residual": _summary(minus_online(found.own.residual)),
        "holds": (shared <= 0).mean(0).tolist(),
        "slope": float(found.slope.mean()),
    }


def _summary(values: np.ndarray) -> list[list[float]]:
    error = values.std(0, ddof=1) / len(values) ** 0.5
    return np.stack([values.mean(0), error], -1).tolist()
