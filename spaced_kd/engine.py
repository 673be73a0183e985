"""Runs ticks: compiled programs, made once each, and the data on the devices."""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd import losses, schedule, steps, streamed
from spaced_kd.evaluate import balanced_rows, make_predict
from spaced_kd.experiment import Experiment
from spaced_kd.feeds import Feed, Resident
from spaced_kd.parallel import SeedGroup, data_parallel
from spaced_kd.schedule import Replay, Segment
from spaced_kd.state import Frozen, NetState, SeedState
from spaced_kd.types import Device, Predictions, Split

ChunkMetrics = dict[str, dict[str, jax.Array]]
"""Network -> metric -> [steps], on the device."""


class Engine:
    """Advances states through the ticks of one experiment; owns no training state."""

    def __init__(self, experiment: Experiment):
        """Prepare; programs are compiled when first needed."""
        self._experiment = experiment
        axes = {group.axis for group in experiment.groups}
        self._networks = {axis: experiment.networks(axis) for axis in axes}
        self._programs: dict[Any, Any] = {}
        self._whole = _usual_lengths(experiment)
        self._tests: dict[tuple[Device, ...], jax.Array] = {}
        self._gauges: dict[Any, jax.Array] = {}
        self._feed = make_feed(experiment)

    def advance(
        self, states: Sequence[SeedState], segment: Segment
    ) -> tuple[list[SeedState], list[ChunkMetrics]]:
        """Run one training tick for every repetition.

        Args:
          states: by repetition; the networks that the tick updates are donated.
          segment: a Lockstep or Replay of at most `config.chunk_steps` steps.

        Returns:
          The new states and the metrics, both by repetition. The call does not wait for
          the devices.
        """
        states = list(states)
        measured: list[ChunkMetrics] = [{} for _ in states]
        for group in self._experiment.groups:
            carry, frozen = self._networks_of(states, group, segment)
            carry, rows = self._run(group, carry, frozen, segment)
            for seed, moved, row in zip(group.seeds, carry, rows, strict=True):
                states[seed] = states[seed] | by_network(segment, moved)
                measured[seed] = by_network(segment, row)
        return states, measured

    def first_call(
        self, states: Sequence[SeedState], segment: Segment
    ) -> tuple[Callable, tuple]:
        """Return the first program that `advance` calls for a tick, and its arguments.

        For whoever looks at it (memory, compiled text) or times it alone, which leaves
        out reading where input is streamed.

        Args:
          states: by repetition; their shapes are enough (`experiment.state_template`).
          segment: as for `advance`.

        Returns:
          The program of the first group, and (carry, frozen, data, keys, slots) of
          `steps.compose`; carry is donated, and `by_network` names what becomes of it.
        """
        group = self._experiment.groups[0]
        carry, frozen = self._networks_of(states, group, segment)
        program, rest = next(self._calls(group, segment))
        return program, (carry, frozen, *rest)

    def usual_ticks(self) -> list[Segment]:
        """Return one training tick of each kind in the plan, of its usual length."""
        found: dict[Any, Segment] = {}
        for tick in self._experiment.ticks:
            if not isinstance(tick, Segment):
                continue
            if tick.stop - tick.start == self._whole[_kind(tick)]:
                found.setdefault(_kind(tick), tick)
        return list(found.values())

    def predict(self, seed: int, network: str, state: NetState) -> Predictions:
        """Return the network's logits on the test split."""
        group = self._experiment.group_of(seed)
        test = self._experiment.dataset.test
        if isinstance(test, Split):
            program = self._predict_program(group, network, len(test.label))
            return program(state.variables, self._test_images(group, test))
        data = self._experiment.config.data
        program = self._predict_program(group, network, data.eval_batch_size)
        found: list[Predictions] = []
        for images in streamed.eval_batches(test, data):
            # At most two batches are on the devices: one in use, one waiting.
            jax.block_until_ready(found[-2:-1])
            found.append(program(state.variables, group.put(images)))
        count = len(test.label)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:count], *found)

    def gap(self, state: SeedState, student: str) -> float:
        """Return how far a student is from its teacher on images that both train on.

        Mean KL(teacher || student) at temperature 1 in nats, in eval mode, over
        `gap_images` training images without augmentation. Waits for the devices.

        Args:
          state: of the only repetition.
          student: its name.
        """
        settings = self._experiment.config.students[student]
        group, train = self._experiment.group_of(0), self._experiment.dataset.train
        assert isinstance(train, Split), "refused when the run was built"
        rows = balanced_rows(np.asarray(train.label), settings.gap_images)
        cache_key = group.devices, len(rows)
        if cache_key not in self._gauges:
            self._gauges[cache_key] = group.put(train.image[rows])
        images = self._gauges[cache_key]

        def logits_of(network: str, weights: str) -> jax.Array:
            program = self._predict_program(group, network, len(rows))
            return program(state[network].weighing(weights), images).logits

        taught = logits_of("teacher", settings.teacher_weights)
        return float(_mean_kl(logits_of(student, "live"), taught))

    def follow(self, experiment: Experiment) -> None:
        """Go on with another plan of the same run, by the programs of the first one."""
        self._experiment = experiment
        self._feed.follow(experiment)

    def close(self) -> None:
        """Stop reading ahead; what comes next may still be asked for."""
        self._feed.close()

    def _networks_of(
        self, states: Sequence[SeedState], group: SeedGroup, segment: Segment
    ):
        """Return what a tick updates and what it only reads, by repetition."""
        own, weights = [states[seed] for seed in group.seeds], "live"
        carry: tuple[Any, ...]
        if isinstance(segment, Replay):
            student = self._experiment.config.students[segment.student]
            weights = student.teacher_weights
            carry = tuple(state[segment.student] for state in own)
        else:
            moving = schedule.rates_of(segment)
            carry = tuple({name: state[name] for name in moving} for state in own)
        return carry, tuple(_frozen(state, segment, weights) for state in own)

    def _predict_program(self, group: SeedGroup, network: str, num_examples: int):
        config, networks = self._experiment.config, self._networks[group.axis]
        model = networks.model(network).clone(with_maps=False)
        cache_key = ("predict", group.devices, model, num_examples)
        if cache_key not in self._programs:
            self._programs[cache_key] = make_predict(
                model,
                group,
                num_examples,
                config.data.eval_batch_size,
                self._experiment.spec,
            )
        return self._programs[cache_key]

    def _run(self, group: SeedGroup, carry, frozen, segment: Segment):
        rows = []
        for program, rest in self._calls(group, segment):
            carry, measured = program(carry, frozen, *rest)
            self._feed.started(group, measured)
            rows.append(measured)
        if len(rows) == 1:
            return carry, rows[0]
        return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)

    def _calls(
        self, group: SeedGroup, segment: Segment
    ) -> Iterator[tuple[Callable, tuple]]:
        """Yield the programs of a tick, each with its data, keys and slots."""
        # Two programs for a kind of segment, whatever its length: its usual one, and a
        # single step for the rest.
        length = segment.stop - segment.start
        scan = self._experiment.config.compose == "scan"
        size = length if scan and length == self._whole[_kind(segment)] else 1
        keys = tuple(self._experiment.streams[seed].keys for seed in group.seeds)
        for start in range(segment.start, segment.stop, size):
            piece = segment._replace(start=start, stop=start + size)
            data, slots = self._feed.piece(group, piece)
            yield self._program(group, piece, slots), (data, keys, slots)

    def _program(self, group: SeedGroup, segment: Segment, slots):
        what, size = _kind(segment), segment.stop - segment.start
        cache_key = (len(group.seeds), group.devices, what, size)
        if cache_key not in self._programs:
            networks, spec = self._networks[group.axis], self._experiment.spec
            teacher, students = networks.teacher, networks.students
            if isinstance(segment, Replay):
                step = steps.replay(teacher, students[what], group.axis, spec)
            else:
                step = steps.lockstep(teacher, students, what, group.axis, spec)
            self._programs[cache_key] = data_parallel(
                steps.compose(step, self._experiment.config.compose),
                group.devices,
                in_axes=(
                    None,
                    None,
                    self._feed.batch_axis,
                    None,
                    steps.slots_axes(slots),
                ),
                donate=(0,),
            )
        return self._programs[cache_key]

    def _test_images(self, group: SeedGroup, test: Split) -> jax.Array:
        if group.devices not in self._tests:
            self._tests[group.devices] = group.put(test.image)
        return self._tests[group.devices]


def by_network(segment: Segment, moved: Any) -> dict[str, Any]:
    """Return by network what a tick's program gave: a replay's is of its student."""
    return {segment.student: moved} if isinstance(segment, Replay) else moved


@jax.jit
def _mean_kl(logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    return losses.kl_divergence(logits, teacher_logits, 1.0).mean()


def _frozen(state: SeedState, segment: Segment, weights: str) -> Frozen:
    """Return who stands still in a segment: a replay's teacher, or the tutor.

    Outside replays the teacher does if it learns nothing at all; it is then the one
    that a segment without its steps shows.
    """
    if isinstance(segment, Replay):
        name, step = "teacher", segment.teacher_step
    else:
        name, step = "tutor" if segment.teacher else "teacher", segment.start
    variables = state[name].weighing(weights) if name in state else {}
    return Frozen(variables, np.asarray(step, np.int32))


def _kind(segment: Segment) -> Any:
    """What the programs of a segment depend on, apart from its length."""
    if isinstance(segment, Replay):
        return segment.student
    return segment._replace(start=0, stop=0)


def make_feed(experiment: Experiment) -> Feed:
    """Return what brings this experiment's training data to the devices."""
    train = experiment.dataset.train
    if isinstance(train, Split) and not experiment.streamed:
        return Resident(experiment, train)
    return streamed.Streamed(experiment)


def _usual_lengths(experiment: Experiment) -> dict[Any, int]:
    """Return for each kind of tick the length that covers most of its steps."""
    covered: dict[Any, collections.Counter[int]] = {}
    for tick in experiment.ticks:
        if isinstance(tick, Segment):
            length = tick.stop - tick.start
            covered.setdefault(_kind(tick), collections.Counter())[length] += length
    return {kind: lengths.most_common(1)[0][0] for kind, lengths in covered.items()}
