"""How much disk and device memory a run takes, counted from its shapes.

Nothing is allocated here: the figures are known before the run begins.
"""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from spaced_kd import experiment, schedule, snapshots, streamed
from spaced_kd.experiment import Experiment
from spaced_kd.feeds import views_of
from spaced_kd.parallel import SeedGroup
from spaced_kd.schedule import Evaluate, Segment
from spaced_kd.state import SeedState
from spaced_kd.types import Device, Split, shape_of

CHECKPOINT_MARGIN = 1.2
"""What a checkpoint asks for beyond its arrays (spaced_kd/checkpoint.py)."""


class Disk(NamedTuple):
    """Bytes that a run's folder grows to, apart from logs and report.

    checkpoints: those kept and the one being written. best: every network's best
    parameters, of every repetition. snapshots: weights kept along training.
    """

    checkpoints: int
    best: int
    snapshots: int


class Memory(NamedTuple):
    """Bytes on the fullest device.

    data: images and labels that are there at one time. state: parameters, optimisers,
    BatchNorm. best: copies of the best parameters. work: activations and other
    temporaries of the largest training program, as its compiler counts them.
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
    along = sum(_snapshots(parts, state) for state in template)
    return Disk(math.ceil(whole * kept), _variables(template), along)


def disk_growth(needed: Disk, keep: int, folder: Path) -> Disk:
    """Return how much of `needed` the folder does not hold yet.

    Args:
      needed: from `disk`.
      keep: checkpoints that stay, `config.checkpoint.keep`.
      folder: the run's workdir; it need not exist.
    """
    being_written = needed.checkpoints // (keep + 1)
    left = needed.checkpoints - _folder_bytes(folder / "checkpoints")
    best = needed.best - _folder_bytes(folder / "best")
    along = needed.snapshots - _folder_bytes(folder / snapshots.FOLDER)
    return Disk(max(left, being_written), max(best, 0), max(along, 0))


def _snapshots(parts: Experiment, state: SeedState) -> int:
    """Return the bytes of one repetition's snapshots."""
    places = snapshots.places(parts.ticks, parts.config.checkpoint.snapshot_every)
    updates, kept = dict.fromkeys(parts.updates, 0), set()
    for place, tick in enumerate(parts.ticks):
        if isinstance(tick, Segment):
            for name, rate in schedule.rates_of(tick).items():
                updates[name] += rate * (tick.stop - tick.start)
        elif isinstance(tick, Evaluate) and place in places:
            beside = {tick.network, "teacher"} & set(state)
            kept |= {(name, updates[name]) for name in beside}
    size = {name: num_bytes(snapshots.content(net)) for name, net in state.items()}
    return sum(size[name] for name, _ in kept)


def memory(parts: Experiment, template: list[SeedState], work_bytes: int) -> Memory:
    """Return what the fullest device holds.

    Args:
      parts: the run.
      template: `experiment.state_template`.
      work_bytes: of the largest program, see `Memory.work`; 0: not known yet.
    """

    def on(device: Device) -> list[SeedState]:
        return [
            template[s] for g in parts.groups if device in g.devices for s in g.seeds
        ]

    fullest = max(map(on, experiment.devices(parts)), key=num_bytes)
    data = _train_bytes(parts) + _test_bytes(parts)
    return Memory(data, num_bytes(fullest), _variables(fullest), work_bytes)


def _train_bytes(parts: Experiment) -> int:
    train = parts.dataset.train
    if isinstance(train, Split) and not parts.streamed:
        return train.image.nbytes + train.label.nbytes
    # Groups that take turns on devices wait for one another's pieces.
    return streamed.RUNNING * max(_piece_bytes(parts, group) for group in parts.groups)


def _piece_bytes(parts: Experiment, group: SeedGroup) -> int:
    """Return the most bytes of streamed images that a program reads on one device."""
    ticks = (tick for tick in parts.ticks if isinstance(tick, Segment))
    return max(_read_bytes(parts, group, tick) for tick in ticks)


def _read_bytes(parts: Experiment, group: SeedGroup, tick: Segment) -> int:
    length = tick.stop - tick.start if parts.config.compose == "scan" else 1
    batches = len(group.seeds) * len(views_of(parts.config, tick)) * length
    examples = parts.config.data.batch_size // len(group.devices)
    label = parts.dataset.train.label.itemsize
    return batches * examples * (math.prod(shape_of(parts.dataset.train)) + label)


def _test_bytes(parts: Experiment) -> int:
    test = parts.dataset.test
    if isinstance(test, Split):
        return test.image.nbytes
    batch = parts.config.data.eval_batch_size * math.prod(test.shape)
    return streamed.RUNNING * batch


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


def _folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder, 0 if it is not there."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:  # A run may be deleting it.
                continue
    return total


def _variables(states: list[SeedState]) -> int:
    networks = [net.variables for state in states for net in state.values()]
    return num_bytes(networks)
