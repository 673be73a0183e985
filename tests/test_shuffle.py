"""The shuffled teacher: everyone's outputs, on somebody else's image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd.parallel import BATCH_AXIS, BatchAxis
from spaced_kd.shuffle import shuffle_examples
from spaced_kd.types import ModelOutput

B = 12
ROWS = jnp.arange(B, dtype=jnp.float32)
OUTPUTS = ModelOutput(jnp.stack([ROWS, -ROWS], 1), 10 * ROWS[:, None])
# Padding between real examples: the last rows of each of several devices.
MASK = np.arange(B) % 6 < 4


def _order(seed, mask=None):
    shuffled = shuffle_examples(OUTPUTS, mask, jax.random.key(seed), BatchAxis())
    order = np.asarray(shuffled.logits[:, 0]).astype(int)
    np.testing.assert_array_equal(shuffled.logits[:, 1], -order)
    np.testing.assert_array_equal(shuffled.features[:, 0], 10 * order)
    return order


def test_everything_of_an_example_moves_and_nothing_is_lost():
    """Logits and features together; a resampled teacher would repeat some."""
    assert sorted(_order(0)) == list(range(B))
    assert list(_order(0)) == list(_order(0)) != list(_order(1))


def test_padding_keeps_to_itself():
    """A real student must not learn from a padded image's outputs."""
    for seed in range(20):
        order = _order(seed, jnp.asarray(MASK))
        assert sorted(order[MASK]) == list(np.flatnonzero(MASK))


def test_all_permutations_of_three_are_equally_likely():
    """A roll, or a sort by something that is not random, would leave some out."""
    real = jnp.arange(B) < 3
    draw = jax.jit(
        jax.vmap(
            lambda key: shuffle_examples(OUTPUTS, real, key, BatchAxis()).logits[:3, 0]
        )
    )
    orders = np.asarray(draw(jax.random.split(jax.random.key(0), 6000)))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    # Five standard deviations of a binomial count around 1000.
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(6000 / 6 * 5 / 6)


@pytest.mark.parametrize("mask", [None, MASK])
def test_the_number_of_devices_changes_nothing(mask):
    """Shuffled within each device's share, it would be another control."""
    key = jax.random.key(3)
    halves = lambda x: x.reshape(2, B // 2, *x.shape[1:])
    shared = jax.pmap(
        lambda out, m: shuffle_examples(out, m, key, BatchAxis(BATCH_AXIS)).logits,
        axis_name=BATCH_AXIS,
        devices=jax.devices()[:2],
    )
    mask = None if mask is None else jnp.asarray(mask)
    split = jax.tree.map(halves, (OUTPUTS, mask))
    got = np.asarray(shared(*split)).reshape(B, 2)
    real = slice(None) if mask is None else np.asarray(mask)
    np.testing.assert_array_equal(got[real, 0], _order(3, mask)[real])
