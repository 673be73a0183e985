import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd.config import OptimConfig
from spaced_kd.errors import ConfigError
from spaced_kd.optim import decays, descend, learning_rate_schedule, make_optimizer

SGD = OptimConfig(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)
# The released transformers' recipe (method C.2).
ADAMW = OptimConfig(
    name="adamw",
    learning_rate=5e-4,
    weight_decay=0.05,
    decay_on="matrices",
    schedule="cosine",
    schedule_unit="epoch",
    warmup_epochs=20.0,
    warmup_learning_rate=5e-7,
    final_learning_rate=5e-6,
)


def _fifty_steps(config, start, gradients, rate):
    tx = make_optimizer(config)
    params = jax.tree.map(jnp.asarray, start)
    state = tx.init(params)
    for gradient in gradients:
        direction, state = tx.update(gradient, state, params)
        params = descend(params, direction, jnp.float32(rate))
    return params


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_pytorchs_update_rule_for_fifty_steps(nesterov):
    """torch.optim.SGD: g += wd w; v = m v + g; w -= lr (g + m v if nesterov else v)."""
    config = dataclasses.replace(SGD, nesterov=nesterov)
    rng = np.random.default_rng(0)
    weights, velocity = rng.normal(size=5), np.zeros(5)
    gradients = rng.normal(size=(50, 5))
    got = _fifty_steps(
        config,
        np.asarray(weights, np.float32),
        jnp.asarray(gradients, jnp.float32),
        0.1,
    )
    for gradient in gradients:
        gradient = gradient + 5e-4 * weights
        velocity = 0.9 * velocity + gradient
        weights = weights - 0.1 * (gradient + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(got, weights, rtol=1e-5)


@pytest.mark.parametrize("decay_on", ["all", "matrices"])
def test_adamw_follows_pytorchs_update_rule_for_fifty_steps(decay_on):
    """torch.optim.AdamW, in float64: p *= 1 - lr wd; p -= lr m^ / (sqrt(v^) + eps)."""
    config = dataclasses.replace(ADAMW, decay_on=decay_on)
    rng, rate = np.random.default_rng(0), 1e-2
    shapes = {"kernel": (3, 2), "bias": (2,), "cls_token": (1, 1, 4)}
    start = {n: rng.normal(size=s) for n, s in shapes.items()}
    gradients = [{n: rng.normal(size=s) for n, s in shapes.items()} for _ in range(50)]
    to32 = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
    got = _fifty_steps(config, to32(start), [to32(g) for g in gradients], rate)
    for name, weights in start.items():
        decay = 0.05 if decay_on == "all" or name == "kernel" else 0.0
        first, second = np.zeros_like(weights), np.zeros_like(weights)
        for t, gradient in enumerate((g[name] for g in gradients), 1):
            weights = weights * (1 - rate * decay)
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            unbiased = first / (1 - 0.9**t), second / (1 - 0.999**t)
            weights = weights - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        np.testing.assert_allclose(got[name], weights, rtol=1e-5, atol=1e-6)


def test_matrices_decay_and_vectors_tokens_and_position_embeddings_do_not():
    """Released vit/pycls/core/optimizer.py: no decay on 1-D, tokens, pos_embed."""
    zeros = {
        "net": {
            "block": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)},
            "cls_token": jnp.zeros((1, 1, 2)),
            "dist_token": jnp.zeros((1, 1, 2)),
            "pos_embed": jnp.zeros((1, 3, 2)),
            "patch": {"kernel": jnp.zeros((4, 4, 3, 2))},
        }
    }
    assert decays(zeros) == {
        "net": {
            "block": {"kernel": True, "bias": False},
            "cls_token": False,
            "dist_token": False,
            "pos_embed": False,
            "patch": {"kernel": True},
        }
    }


def test_the_default_rate_is_constant():
    schedule = learning_rate_schedule(OptimConfig(), 391, 31280)
    assert [float(schedule(t)) for t in (0, 391, 31279)] == [pytest.approx(0.01)] * 3


def test_cosine_with_warmup_against_the_closed_form():
    """The cosine counts from the first update; warm-up replaces its beginning."""
    config = dataclasses.replace(
        SGD, schedule="cosine", warmup_epochs=0.5, final_learning_rate=0.01
    )
    schedule = learning_rate_schedule(config, 10, 45)
    for step in range(46):
        if step < 5:
            expected = 0.1 * step / 5
        else:
            expected = 0.01 + 0.045 * (1 + np.cos(np.pi * step / 45))
        np.testing.assert_allclose(schedule(step), expected, atol=1e-7)
        np.testing.assert_allclose(jax.jit(schedule)(step), expected, atol=1e-7)


def test_the_released_transformers_rate_epoch_by_epoch():
    """timm's cosine as the released vit/ sets it (method C.2), constant in an epoch."""
    schedule = learning_rate_schedule(ADAMW, 390, 300 * 390)
    for epoch in range(300):
        if epoch < 20:
            expected = 5e-7 + epoch * (5e-4 - 5e-7) / 20
        else:
            turn = np.pi * epoch / 300
            expected = 5e-6 + 0.5 * (5e-4 - 5e-6) * (1 + np.cos(turn))
        for step in (390 * epoch, 390 * epoch + 389):
            np.testing.assert_allclose(schedule(step), expected, rtol=2e-5)


def test_an_unknown_optimiser_is_named():
    config = dataclasses.replace(SGD, name="sdg")
    with pytest.raises(ConfigError, match="did you mean 'sgd'"):
        make_optimizer(config)
