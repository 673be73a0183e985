"""How much disk and device memory a run takes, counted from its shapes.

Nothing is allocated here: the figures are known before the run begins.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax

from spaced_kd.experiment import Experiment
from spaced_kd.state import SeedState
from spaced_kd.types import Device, Split

CHECKPOINT_MARGIN = 1.2
"""What a checkpoint asks for beyond its arrays (spaced_kd/checkpoint.py)."""


class Disk(NamedTuple):
    """Bytes that a run's folder grows to, apart from logs and report.

    checkpoints: those kept and the one being written. best: every network's best
    parameters, of every repetition.
    """

    checkpoints: int
    best: int


class Memory(NamedTuple):
    """Bytes on the fullest device.

    data: images and labels that stay there. state: parameters, optimisers, BatchNorm.
    best: copies of the best parameters. work: activations and other temporaries of the
    largest training program, as its compiler counts them.
    """

    data: int
    state: int
    best: int
    work: int


def disk(parts: Experiment, template: list[SeedState]) -> Disk:
    """Return what the folder needs.

    Args:
      parts: the run.
      template: `experiment.state_template`.
    """
    whole = CHECKPOINT_MARGIN * num_bytes(template)
    kept = parts.config.checkpoint.keep + 1
    return Disk(math.ceil(whole * kept), _variables(template))


def memory(
    parts: Experiment, template: list[SeedState], data_bytes: int, work_bytes: int
) -> Memory:
    """Return what the fullest device holds.

    Args:
      parts: the run.
      template: `experiment.state_template`.
      data_bytes: of the arrays that a training program reads its images from.
      work_bytes: of the largest program, see `Memory.work`.
    """

    def on(device: Device) -> list[SeedState]:
        return [
            template[s] for g in parts.groups if device in g.devices for s in g.seeds
        ]

    devices = {device for group in parts.groups for device in group.devices}
    fullest = max(map(on, devices), key=num_bytes)
    test = parts.dataset.test
    # Those that are read from files pass through in batches.
    tests = test.image.nbytes if isinstance(test, Split) else 0
    return Memory(
        data_bytes + tests, num_bytes(fullest), _variables(fullest), work_bytes
    )


def memory_limit(device: Device) -> int | None:
    """Return the bytes that a run may use on a device, None where nobody says.

    For a CPU: an equal share for each virtual device of what the system calls
    available.
    """
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    free = available_memory() if device.platform == "cpu" else None
    return free // jax.local_device_count("cpu") if free else None


def available_memory() -> int | None:
    """Return the host's available memory in bytes, None where the system hides it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def num_bytes(tree: Any) -> int:
    """Return the bytes of all arrays, or shapes of arrays, in a pytree."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _variables(states: list[SeedState]) -> int:
    networks = [net.variables for state in states for net in state.values()]
    return num_bytes(networks)
