"""The only file that knows how devices share work: pmap, the axis name, placement.

A batch is split over `devices`; the state is replicated without a leading device axis,
so it looks the same for any number of devices. The devices may belong to several
processes: then each process holds its own copy of the state and passes in the rows of
its own devices, in the order of the batch. Rule for everything that runs under the
axis: losses, BatchNorm sums and metrics are reduced by `BatchAxis.sum`, so that each
device holds the value of the whole batch, and gradients are averaged once, in
`update._make_pass`. The gradient of such a reduced loss is then exact: `psum` is
its own transpose, which makes each device's gradient D times its share.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from spaced_kd.errors import ConfigError
from spaced_kd.types import Device

BATCH_AXIS = "batch"


@dataclasses.dataclass(frozen=True)
class BatchAxis:
    """How to reduce over the devices that share a batch; name None: one device."""

    name: str | None = None

    def sum(self, tree: Any) -> Any:
        """Return the sum over devices of every leaf."""
        return tree if self.name is None else lax.psum(tree, self.name)

    def mean(self, tree: Any) -> Any:
        """Return the mean over devices of every leaf."""
        return tree if self.name is None else lax.pmean(tree, self.name)

    def gather(self, values: jax.Array) -> jax.Array:
        """Return [steps, devices * b, ...] on each device, from [steps, b, ...]."""
        if self.name is None:
            return values
        return lax.all_gather(values, self.name, axis=1, tiled=True)

    def whole(self, values: jax.Array) -> jax.Array:
        """Return [devices * b, ...], of the global batch, from [b, ...] of each."""
        return self.gather(values[None])[0]

    def positions(self, per_device: int) -> jax.Array:
        """Return [per_device] int32, places of this device's examples in the batch."""
        own = jnp.arange(per_device, dtype=jnp.int32)
        if self.name is None:
            return own
        return own + per_device * lax.axis_index(self.name)


@dataclasses.dataclass(frozen=True)
class SeedGroup:
    """Repetitions that one compiled program advances together, and where it runs.

    devices: of all processes, those of process 0 first.
    """

    seeds: tuple[int, ...]
    devices: tuple[Device, ...]

    @property
    def axis(self) -> BatchAxis:
        """The axis that this group's programs reduce over."""
        return BatchAxis(BATCH_AXIS if len(self.devices) > 1 else None)

    @property
    def sharding(self) -> jax.sharding.Sharding:
        """Where this group's state and data lie: replicated over this process's own."""
        if len(self.devices) == 1:
            return jax.sharding.SingleDeviceSharding(self.devices[0])
        # pmap takes donated state only from there, where there are several processes.
        mesh = jax.sharding.Mesh(np.array(self._own_devices), (BATCH_AXIS,))
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def put(self, tree: Any) -> Any:
        """Return `tree` on this group's devices, logical shapes unchanged."""
        return jax.device_put(tree, self.sharding)

    def split_batch(self, array: np.ndarray) -> np.ndarray:
        """Return what `data_parallel` maps of [steps, B]: [steps, own devices, b].

        Own are the devices of this process.
        """
        if len(self.devices) == 1:
            return array
        own = self._own_devices
        first = self.devices.index(own[0])
        rows = array.reshape(array.shape[0], len(self.devices), -1)
        return rows[:, first : first + len(own)]

    @property
    def _own_devices(self) -> tuple[Device, ...]:
        return tuple(d for d in self.devices if d.process_index == jax.process_index())


def choose_devices(
    num_devices: int, batch_sizes: dict[str, int], field: str = "config.num_devices"
) -> tuple[Device, ...]:
    """Return the devices of all processes that share every batch.

    Args:
      num_devices: how many; 0 means all. With several processes only all will do.
      batch_sizes: config field -> global batch, each of which they must divide.
      field: that `num_devices` comes from, for messages.

    Raises:
      ConfigError: more devices than there are, a batch they do not divide, or processes
        that do not have equally many.
    """
    present = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    processes = jax.process_count()
    if num_devices > len(present):
        machine = (
            "machine has" if processes == 1 else f"run's {processes} processes have"
        )
        raise ConfigError(
            f"{field}={num_devices}, but this {machine} {len(present)} "
            f"{present[0].platform} device(s); give at most {len(present)}, or 0 for "
            "all."
        )
    count = num_devices or len(present)
    if processes > 1:
        _refuse_uneven(present, count, processes)
    for field, size in batch_sizes.items():
        if size % count:
            lower, upper = size - size % count, size - size % count + count
            near = f"{lower} or {upper}" if lower else f"{upper}"
            raise ConfigError(
                f"{field}={size} is not divisible by {count} devices; "
                f"nearest valid: {near}, or set config.num_devices."
            )
    return tuple(present[:count])


def _refuse_uneven(present: Sequence[Device], count: int, processes: int) -> None:
    own = [sum(d.process_index == k for d in present) for k in range(processes)]
    if len(set(own)) > 1:
        raise ConfigError(
            f"the processes have {', '.join(map(str, own))} devices; give each equally "
            "many (CUDA_VISIBLE_DEVICES, JAX_NUM_CPU_DEVICES)."
        )
    if count < len(present):
        raise ConfigError(
            f"config.num_devices={count} leaves devices of {processes} processes "
            f"without work; give {len(present)}, or 0 for all."
        )


def seed_groups(
    layout: str, num_seeds: int, devices: Sequence[Device]
) -> tuple[SeedGroup, ...]:
    """Lay repetitions out over devices.

    Args:
      layout: "sequential" (one program a seed, all devices share its batch), "unrolled"
        (all seeds in one program), or "devices" (whole seeds dealt out to devices).
      num_seeds: repetitions.
      devices: what `choose_devices` returned.

    Raises:
      ConfigError: "devices" with several processes, which then would not all know all
        seeds.
    """
    devices = tuple(devices)
    if layout == "unrolled":
        return (SeedGroup(tuple(range(num_seeds)), devices),)
    if layout == "devices":
        if jax.process_count() > 1:
            raise ConfigError(
                f"config.seed_layout='devices' cannot deal seeds out to "
                f"{jax.process_count()} processes; give sequential or unrolled, or "
                "start a run of a single process for each seed."
            )
        return tuple(
            SeedGroup((k,), (devices[k % len(devices)],)) for k in range(num_seeds)
        )
    return tuple(SeedGroup((k,), devices) for k in range(num_seeds))


def data_parallel(
    fn: Callable,
    devices: Sequence[Device],
    *,
    in_axes: tuple[int | None, ...],
    donate: tuple[int, ...] = (),
) -> Callable:
    """Compile `fn` for one device (jit) or for several that share the batch (pmap).

    Args:
      fn: pure function of positional arguments; reduces whatever it returns by the
        group's `BatchAxis`, which pmap does not check.
      devices: the group's devices.
      in_axes: for each argument the axis that is split over this process's devices,
        None if replicated. With one device the arguments have no such axis.
      donate: arguments whose buffers may be reused.
    """
    if len(devices) == 1:
        return jax.jit(fn, donate_argnums=donate)
    return pmapped(fn, devices, in_axes, donate)


def pmapped(
    fn: Callable,
    devices: Sequence[Device],
    in_axes: tuple[int | None, ...],
    donate: tuple[int, ...],
) -> Callable:
    """Compile `fn` for several devices, or for one as if it were several.

    Arguments as for `data_parallel`.
    """
    return jax.pmap(
        fn,
        axis_name=BATCH_AXIS,
        in_axes=in_axes,
        out_axes=None,
        donate_argnums=donate,
        devices=devices,
    )
