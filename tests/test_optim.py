import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from spaced_kd.config import OptimConfig
from spaced_kd.errors import ConfigError
from spaced_kd.optim import learning_rate_schedule, make_optimizer

CONFIG = OptimConfig(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_pytorchs_update_rule_for_fifty_steps(nesterov):
    """torch.optim.SGD: g += wd w; v = m v + g; w -= lr (g + m v if nesterov else v)."""
    config = dataclasses.replace(CONFIG, nesterov=nesterov)
    tx = make_optimizer(config, learning_rate_schedule(config, 10, 100))
    rng = np.random.default_rng(0)
    start = rng.normal(size=5)
    weights, velocity = start.astype(np.float64).copy(), np.zeros(5)
    params = jnp.asarray(start, jnp.float32)
    state = tx.init(params)
    for _ in range(50):
        gradient = rng.normal(size=5)
        updates, state = tx.update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        gradient = gradient + 5e-4 * weights
        velocity = 0.9 * velocity + gradient
        weights -= 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(params, weights, rtol=1e-5)


def test_the_default_rate_is_constant():
    schedule = learning_rate_schedule(OptimConfig(), 391, 31280)
    assert [float(schedule(t)) for t in (0, 391, 31279)] == [pytest.approx(0.01)] * 3


def test_cosine_with_warmup_against_the_closed_form():
    """Warm-up counts from 0 and the cosine ends at 0 with the last update."""
    config = dataclasses.replace(CONFIG, schedule="cosine", warmup_epochs=0.5)
    schedule = learning_rate_schedule(config, 10, 45)
    for step in range(46):
        if step < 5:
            expected = 0.1 * step / 5
        else:
            expected = 0.05 * (1 + np.cos(np.pi * (step - 5) / 40))
        np.testing.assert_allclose(schedule(step), expected, atol=1e-7)


def test_an_unknown_optimiser_is_named():
    config = dataclasses.replace(CONFIG, name="sdg")
    with pytest.raises(ConfigError, match="did you mean 'sgd'"):
        make_optimizer(config, optax.constant_schedule(0.1))
