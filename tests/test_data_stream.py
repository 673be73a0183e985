import collections

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaced_kd.data import stream as stream_module
from spaced_kd.data.stream import Stream
from spaced_kd.errors import ConfigError

KEY = jax.random.key(3)
# Few different sizes: each compiles its own permutation.
SIZES = st.tuples(
    st.sampled_from([1, 7, 12]), st.integers(1, 15), st.sampled_from(["keep", "drop"])
).filter(lambda s: s[2] == "keep" or s[1] <= s[0])


def by_hand(key, size, batch, last_batch, step):
    """Row `step`, with plain lists and one epoch at a time."""
    steps = size // batch if last_batch == "drop" else (size + batch - 1) // batch
    epoch, place = step // steps, step % steps
    order = jax.random.permutation(jax.random.fold_in(key, epoch), size).tolist()
    row = order[place * batch : (place + 1) * batch]
    return row + [-1] * (batch - len(row))


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 60), st.integers(0, 12))
def test_rows_equal_a_plain_list_oracle(sizes, start, length):
    """A wrong epoch border, padding place or offset changes a row."""
    got = Stream(KEY, *sizes).indices(start, start + length)
    assert got.dtype == np.int32 and got.shape == (length, sizes[1])
    expected = [by_hand(KEY, *sizes, start + t) for t in range(length)]
    assert got.tolist() == expected


@settings(deadline=None, max_examples=40)
@given(SIZES, st.integers(0, 3))
def test_every_epoch_visits_each_example_at_most_once_and_keep_exactly_once(
    sizes, epoch
):
    """An epoch that repeats or forgets examples is not an epoch."""
    size, batch, last_batch = sizes
    s = Stream(KEY, *sizes)
    rows = s.indices(epoch * s.steps_per_epoch, (epoch + 1) * s.steps_per_epoch)
    counts = collections.Counter(rows[rows >= 0].tolist())
    assert set(counts.values()) <= {1} and set(counts) <= set(range(size))
    expected = size if last_batch == "keep" else size - size % batch
    assert counts.total() == expected
    assert s.has_padding == bool((rows < 0).any())


@settings(deadline=None, max_examples=40)
@given(SIZES, st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_any_slicing_in_any_order_gives_the_same_rows(sizes, jumps):
    """A replay jumps back; a stream that remembers where it was would differ."""
    whole = Stream(KEY, *sizes).indices(0, 45)
    s = Stream(KEY, *sizes)
    for start in jumps:
        np.testing.assert_array_equal(
            s.indices(start, start + 5), whole[start : start + 5]
        )


def test_kept_epochs_do_not_change_the_rows(monkeypatch):
    """Rows from the cache and rows made again must be the same, also when few fit."""
    expected = Stream(KEY, 12, 5, "keep").indices(0, 30)
    monkeypatch.setattr(stream_module, "_EPOCHS_KEPT", 1)
    s = Stream(KEY, 12, 5, "keep")
    for start in (25, 0, 24, 3):
        np.testing.assert_array_equal(s.indices(start, 30), expected[start:])


def test_callers_may_write_into_the_rows():
    """Rows that alias the cache would let one caller change another's batches."""
    s = Stream(KEY, 12, 4, "keep")
    expected = s.indices(0, 3)
    s.indices(0, 3)[:] = -7
    np.testing.assert_array_equal(s.indices(0, 3), expected)


def test_an_epoch_is_made_once_for_a_window_that_crosses_its_border(monkeypatch):
    """Permuting 50,000 examples for every chunk would cost more than the chunk."""
    calls = []
    permutation = jax.random.permutation
    monkeypatch.setattr(
        jax.random, "permutation", lambda *a: calls.append(1) or permutation(*a)
    )
    s = Stream(KEY, 12, 4, "keep")
    for start in range(6):
        s.indices(start, start + 2)
    assert len(calls) == 3  # epochs 0, 1 and, in the last call, 2


def test_keys_and_epochs_give_different_orders():
    """Two repetitions, or two epochs, with one order are not independent draws."""
    one = Stream(KEY, 100, 100, "keep").indices(0, 3)
    two = Stream(jax.random.key(4), 100, 100, "keep").indices(0, 3)
    rows = [tuple(r) for r in np.concatenate([one, two])]
    assert len(set(rows)) == 6


@pytest.mark.parametrize("device", [1, 3])
def test_the_order_does_not_depend_on_the_default_device(device):
    """The same seed on another set of devices must be the same run."""
    expected = Stream(KEY, 1000, 128, "keep").indices(0, 20)
    with jax.default_device(jax.devices()[device]):
        got = Stream(jax.random.key(3), 1000, 128, "keep").indices(0, 20)
    np.testing.assert_array_equal(got, expected)


def test_the_order_of_seed_0_is_pinned():
    """Published results name seeds: another order under the same seed breaks them."""
    got = Stream(jax.random.key(0), 10, 5, "keep").indices(0, 3)
    assert got.tolist() == [[0, 8, 2, 4, 1], [7, 9, 5, 3, 6], [0, 3, 9, 5, 1]]


@pytest.mark.parametrize(
    ("size", "batch", "last_batch", "steps", "padding"),
    [
        (50_000, 128, "keep", 391, True),
        (50_000, 128, "drop", 390, False),
        (50_000, 125, "keep", 400, False),
        (5, 8, "keep", 1, True),
        (100_000, 128, "keep", 782, True),
    ],
)
def test_steps_per_epoch_are_those_of_the_paper(
    size, batch, last_batch, steps, padding
):
    """391 of CIFAR-100 and 782 of Tiny-ImageNet fix the paper's 1.5 epochs in steps."""
    s = Stream(KEY, size, batch, last_batch)
    assert (s.steps_per_epoch, s.has_padding) == (steps, padding)
    assert s.epoch_of(3 * steps) == 3.0
    assert s.epoch_of(steps // 2) == (steps // 2) / steps


@pytest.mark.parametrize(("size", "batch"), [(5, 8), (0, 8)])
def test_an_epoch_without_a_batch_is_refused_with_the_numbers(size, batch):
    """Zero steps per epoch would divide by zero, or train nothing, later."""
    with pytest.raises(ConfigError, match=rf"{batch}.* {size} .*drop") as error:
        Stream(KEY, size, batch, "drop")
    assert "\n" not in str(error.value)


def test_a_negative_step_is_refused():
    """Floor division would quietly take it from an epoch before the first."""
    with pytest.raises(ValueError, match="-1"):
        Stream(KEY, 12, 4, "keep").indices(-1, 2)
