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


class OfProcess:
    """A device of some process, as far as placement looks at it."""

    platform = "cpu"

    def __init__(self, process_index, id):
        self.process_index, self.id = process_index, id

    def __repr__(self):
        return f"{self.process_index}/{self.id}"


@pytest.fixture
def two_processes(monkeypatch):
    """Two devices each, reported in an order that mixes the processes."""
    devices = [OfProcess(k % 2, k) for k in range(4)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    return devices


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_feeds_the_rows_of_its_own_devices(
    process, two_processes, monkeypatch
):
    """Rows of others, or of a device's neighbour, would be learned twice or never."""
    monkeypatch.setattr(jax, "process_index", lambda: process)
    group = SeedGroup((0,), choose_devices(0, {"b": 12}))
    assert [d.process_index for d in group.devices] == [0, 0, 1, 1]
    batch = np.arange(24).reshape(2, 12)
    expected = batch.reshape(2, 4, 3)[:, 2 * process : 2 * process + 2]
    np.testing.assert_array_equal(group.split_batch(batch), expected)


def test_what_several_processes_cannot_share_is_refused(two_processes, monkeypatch):
    for count, words in ((2, "leaves devices of 2 processes without"), (5, "2 proc")):
        with pytest.raises(ConfigError, match=words) as error:
            choose_devices(count, {})
        assert "\n" not in str(error.value)
    assert len(choose_devices(4, {})) == 4
    with pytest.raises(ConfigError, match="'devices' cannot deal seeds out to 2"):
        seed_groups("devices", 2, two_processes)
    two_processes.append(OfProcess(1, 4))
    with pytest.raises(ConfigError, match="have 2, 3 devices"):
        choose_devices(0, {})


def test_gathered_values_are_in_the_order_of_the_batch():
    """Logits would be compared with the labels of other examples."""
    values = np.arange(24.0).reshape(2, 4, 3)
    gather = jax.pmap(BatchAxis("d").gather, axis_name="d", in_axes=1, out_axes=None)
    np.testing.assert_array_equal(gather(values), values.reshape(2, 12))
    np.testing.assert_array_equal(BatchAxis().gather(values), values)
