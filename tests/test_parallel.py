import jax
import numpy as np
import pytest

from spaced_kd.errors import ConfigError
from spaced_kd.parallel import BatchAxis, SeedGroup, choose_devices, seed_groups


@pytest.mark.parametrize(
    ("count", "size", "words"),
    [
        (3, 128, ["data.batch_size=128", "3 devices", "126 or 129"]),
        (4, 3, ["data.batch_size=3", "nearest valid: 4,"]),
        (5, 128, ["num_devices=5", "at most 4"]),
    ],
)
def test_what_the_devices_cannot_share_is_refused_with_the_nearest_valid(
    count, size, words
):
    with pytest.raises(ConfigError) as error:
        choose_devices(count, {"config.data.batch_size": size})
    for word in words:
        assert word in str(error.value)


def test_zero_means_all_local_devices():
    assert choose_devices(0, {"b": 8}) == tuple(jax.local_devices())


@pytest.mark.parametrize("layout", ["sequential", "unrolled", "devices"])
def test_every_repetition_is_in_one_group(layout):
    groups = seed_groups(layout, 5, jax.local_devices())
    assert sorted(seed for group in groups for seed in group.seeds) == list(range(5))
    if layout == "devices":
        assert len({group.devices for group in groups}) == 4
        assert all(group.axis == BatchAxis() for group in groups)


def test_splitting_a_batch_keeps_the_order_of_its_examples():
    """Device d holds places d*b..d*b+b-1, which is what `positions` says."""
    group = SeedGroup((0,), tuple(jax.local_devices()))
    batch = np.arange(24).reshape(2, 12)
    split = group.split_batch(batch)
    assert split.shape == (2, 4, 3)
    np.testing.assert_array_equal(split.reshape(2, 12), batch)
    places = jax.pmap(lambda _: BatchAxis("d").positions(3), axis_name="d")(np.zeros(4))
    np.testing.assert_array_equal(places.reshape(-1), np.arange(12))
