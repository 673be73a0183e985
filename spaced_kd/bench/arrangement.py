"""Programs of the engine on random images, built to be timed."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd import config, experiment, parallel, steps
from spaced_kd.data.augment import fetch
from spaced_kd.engine import Engine
from spaced_kd.experiment import Experiment
from spaced_kd.schedule import Lockstep, Replay, Segment
from spaced_kd.types import Dataset, Split

NUM_CLASSES = 100
EPOCHS = 64
"""Epochs of a plan, each of which is one measurement; then it begins again."""

MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)

SPACED = {"plan": "spaced", "space_interval_epochs": 1.0}
ONLINE = {"plan": "online"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every case shares.

    model: a key of MODELS, for teacher and students. batch_size: examples. steps: of
    one compiled chunk, and of one measurement. rounds: measurements. students: that
    share one teacher. image_size: pixels. quiet_seconds: most that a measurement waits
    for a quiet machine.
    """

    model: str
    batch_size: int
    steps: int
    rounds: int
    students: int = 3
    image_size: int = 32
    quiet_seconds: float = 0.0


def random_images(settings: Settings) -> Dataset:
    """Return random images, an epoch of which is `settings.steps` whole batches."""
    generator = np.random.default_rng(0)
    size = settings.image_size

    def split(count: int) -> Split:
        image = generator.integers(0, 256, (count, size, size, 3), np.uint8)
        return Split(image, (np.arange(count) % NUM_CLASSES).astype(np.int32))

    train, test = split(settings.steps * settings.batch_size), split(1)
    return Dataset("random", train, test, NUM_CLASSES, MEAN, STD, fingerprint="")


def build(
    settings: Settings, students: Mapping[str, Mapping[str, Any]], **fields: Any
) -> Experiment:
    """Assemble a run on random images.

    Args:
      settings: shared by all cases.
      students: name -> fields that differ from the defaults.
      **fields: of the config, dots written as two underscores.
    """
    raw = config.base_config()
    own = {
        "num_seeds": 1,
        "num_devices": 1,
        "num_epochs": EPOCHS,
        "chunk_steps": settings.steps,
        "data.batch_size": settings.batch_size,
        "data.name": "random",
        "teacher.model": settings.model,
        "student.model": settings.model,
    }
    dotted = {path.replace("__", "."): value for path, value in fields.items()}
    raw.update_from_flattened_dict(own | dotted)
    members = {name: config.student(**given) for name, given in students.items()}
    raw.update({"students": members})
    return experiment.build(config.from_config_dict(raw), random_images(settings))


class Arrangement:
    """A run whose epochs are measured one after another, in the order of its plan."""

    def __init__(self, parts: Experiment, kinds: tuple[type, ...] = (Lockstep, Replay)):
        """Prepare an engine; the first call compiles.

        Args:
          parts: from `build`.
          kinds: which training ticks to run; the others are left out.
        """
        self.parts, self._engine = parts, Engine(parts)
        self._states = experiment.init_states(parts)
        training = [t for t in parts.ticks if isinstance(t, Segment)]
        per_epoch = len(training) // EPOCHS
        self._epochs = [
            [t for t in training[start : start + per_epoch] if isinstance(t, kinds)]
            for start in range(0, len(training), per_epoch)
        ]
        self._next = 0

    def __call__(self) -> float:
        """Run the next epoch; return seconds a step of one repetition."""
        ticks = self._epochs[self._next % EPOCHS]
        self._next += 1
        started = time.perf_counter()
        for tick in ticks:
            self._states, _ = self._engine.advance(self._states, tick)
        jax.block_until_ready(self._states)
        seconds = time.perf_counter() - started
        repeated = self.parts.clock.steps_per_epoch * self.parts.config.num_seeds
        return seconds / repeated

    def close(self) -> None:
        """Stop reading ahead, where input is streamed."""
        self._engine.close()

    def call(self, kind: type[Segment]) -> tuple[Callable, tuple]:
        """Return the program of the first epoch's tick of a kind, and its arguments."""
        tick = next(t for t in self._epochs[0] if isinstance(t, kind))
        return self._engine.first_call(self._states, tick)


class Chunk:
    """A compiled chunk that is called with the same batches every time."""

    def __init__(self, program: Callable, arguments: tuple, num_steps: int):
        """Prepare; the first call compiles.

        Args:
          program: of `steps.compose`; donates its first argument.
          arguments: of the first call.
          num_steps: of the chunk.
        """
        self._program, self._steps = program, num_steps
        self._carry, *self._rest = arguments

    def __call__(self) -> float:
        """Run the chunk once; return seconds a step."""
        started = time.perf_counter()
        self._carry, _ = self._program(self._carry, *self._rest)
        jax.block_until_ready(self._carry)
        return (time.perf_counter() - started) / self._steps


def jitted(parts: Experiment) -> Chunk:
    """Return the lockstep chunk of a one-device run as the engine compiles it: jit."""
    tick = _first_lockstep(parts)
    program, arguments = Engine(parts).first_call(experiment.init_states(parts), tick)
    return Chunk(program, arguments, tick.stop - tick.start)


def pmapped(parts: Experiment) -> Chunk:
    """Return the same chunk, compiled by pmap."""
    axis = parallel.BatchAxis(parallel.BATCH_AXIS)
    networks, tick = parts.networks(axis), _first_lockstep(parts)
    chunk = steps.compose(
        steps.lockstep(networks.teacher, networks.students, tick, axis, parts.spec),
        "scan",
    )
    _, arguments = Engine(parts).first_call(experiment.init_states(parts), tick)
    *others, slots = arguments
    # One more axis, which pmap splits over its one device.
    slots = jax.tree.map(
        lambda s: s._replace(index=s.index[:, None]), slots, is_leaf=_is_slots
    )
    in_axes: Any = (None, None, None, None, steps.slots_axes(slots))
    program = parallel.pmapped(chunk, parts.groups[0].devices, in_axes, (0,))
    return Chunk(program, (*others, slots), tick.stop - tick.start)


def _first_lockstep(parts: Experiment) -> Lockstep:
    return next(t for t in parts.ticks if isinstance(t, Lockstep))


class Augmentation:
    """Fetching and augmenting the batches of a chunk, without any network."""

    def __init__(self, arrangement: Arrangement):
        """Prepare; the first call compiles."""
        spec = arrangement.parts.spec
        _, (_, _, data, keys, slots) = arrangement.call(Lockstep)
        slots = slots[0]["stream"]

        def chunk(data, key, slots):
            def body(carry, slot):
                position = jnp.arange(slot.index.shape[0], dtype=jnp.int32)
                step_key = jax.random.fold_in(key, slot.step)
                batch = fetch(
                    data.image, data.label, slot.index, position, step_key, spec
                )
                return carry, batch

            return jax.lax.scan(body, None, slots)[1]

        self._program = jax.jit(chunk)
        self._arguments = (data, keys[0].augment, slots)
        self._steps = len(slots.step)

    def __call__(self) -> float:
        """Run the chunk once; return seconds a batch."""
        started = time.perf_counter()
        jax.block_until_ready(self._program(*self._arguments))
        return (time.perf_counter() - started) / self._steps


def replay_bytes(settings: Settings) -> float:
    """Return what a replay needs besides data and networks, in bytes an example.

    Counted from the arguments of the compiled replay program: places in the stream,
    rows of the data set, and keys.
    """
    parts = build(settings, {"spaced": SPACED})
    tick = next(t for t in parts.ticks if isinstance(t, Replay))
    call = Engine(parts).first_call(experiment.state_template(parts), tick)
    _, (_, _, _, keys, slots) = call
    leaves = [np.asarray(x) for x in jax.tree.leaves((_raw(keys), slots))]
    return sum(x.nbytes for x in leaves) / (settings.steps * settings.batch_size)


def _raw(keys: Any) -> Any:
    return jax.tree.map(jax.random.key_data, keys)


def _is_slots(x: Any) -> bool:
    return isinstance(x, steps.Slots)
