"""From a config and a data set to a run's parts: plan, streams, networks, state."""

import dataclasses

import jax
import jax.numpy as jnp

from spaced_kd import schedule
from spaced_kd.config import AUTO, Config, OptimConfig
from spaced_kd.data.augment import AugmentSpec, spec_of
from spaced_kd.data.stream import Stream
from spaced_kd.errors import ConfigError
from spaced_kd.keys import SeedKeys, seed_keys
from spaced_kd.methods import make_method
from spaced_kd.models import make_model
from spaced_kd.optim import learning_rate_schedule, make_optimizer
from spaced_kd.parallel import BatchAxis, SeedGroup, choose_devices, seed_groups
from spaced_kd.schedule import Clock, Segment, Tick
from spaced_kd.state import SeedState, init_state
from spaced_kd.steps import Network, Student
from spaced_kd.types import Dataset, Device


@dataclasses.dataclass(frozen=True)
class Streams:
    """One repetition's randomness: its keys, the teacher's stream, and a second one.

    reshuffled: what replays read that draw a fresh order.
    """

    keys: SeedKeys
    teacher: Stream
    reshuffled: Stream


@dataclasses.dataclass(frozen=True)
class Networks:
    """The architectures of one repetition, bound to the devices that share a batch."""

    teacher: Network
    students: dict[str, Student]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run, assembled and checked; holds no training state.

    groups: which repetitions run together, and where. streams: by repetition.
    plan: uncut segments. ticks: the plan cut up, with evaluations; an index into it is
    the run's position. updates: network -> updates in the whole run. spec:
    augmentation.
    """

    config: Config
    dataset: Dataset
    groups: tuple[SeedGroup, ...]
    streams: tuple[Streams, ...]
    clock: Clock
    plan: tuple[Segment, ...]
    ticks: tuple[Tick, ...]
    updates: dict[str, int]
    spec: AugmentSpec

    def group_of(self, seed: int) -> SeedGroup:
        """Return the group that advances a repetition."""
        return next(group for group in self.groups if seed in group.seeds)

    def networks(self, axis: BatchAxis) -> Networks:
        """Return the networks whose losses and BatchNorm reduce over `axis`."""
        teacher = self.config.teacher
        students = {
            name: Student(
                self._network(name, student.model, student.optim, axis),
                make_method(student, axis),
                student.teacher_bn,
                student.online_teacher,
                student.replay,
            )
            for name, student in self.config.students.items()
        }
        return Networks(
            self._network("teacher", teacher.model, teacher.optim, axis), students
        )

    def _network(
        self, name: str, model: str, optim: OptimConfig, axis: BatchAxis
    ) -> Network:
        rate = learning_rate_schedule(
            optim, self.clock.steps_per_epoch, self.updates[name]
        )
        net = make_model(model, self.dataset.num_classes).clone(axis=axis)
        return Network(net, make_optimizer(optim, rate), rate)


def build(config: Config, dataset: Dataset) -> Experiment:
    """Assemble a run.

    Raises:
      ConfigError: anything in the config that cannot work with this data set or on this
        machine.
    """
    data = config.data
    streams = tuple(_streams(config, dataset, k) for k in range(config.num_seeds))
    stream = streams[0].teacher
    clock = Clock(stream.steps_per_epoch, config.num_epochs)
    plan = schedule.make_plan(config.students, clock)
    evaluate_every_steps = config.eval_every_epochs * clock.steps_per_epoch
    experiment = Experiment(
        config=config,
        dataset=dataset,
        groups=_groups(config),
        streams=streams,
        clock=clock,
        plan=plan,
        ticks=schedule.cut(plan, config.chunk_steps, evaluate_every_steps),
        updates=schedule.updates(plan),
        spec=spec_of(data, dataset, padded=stream.has_padding),
    )
    _check_inits(config)
    experiment.networks(BatchAxis())
    return experiment


def devices(experiment: Experiment) -> set[Device]:
    """Return the devices, of all processes, that the run uses."""
    return {device for group in experiment.groups for device in group.devices}


def init_states(experiment: Experiment) -> list[SeedState]:
    """Return every repetition's networks before the first update, on their devices."""
    networks = experiment.networks(BatchAxis())
    init = jax.jit(lambda keys: _init_seed(experiment, networks, keys))
    return [
        experiment.group_of(seed).put(init(streams.keys))
        for seed, streams in enumerate(experiment.streams)
    ]


def state_template(experiment: Experiment) -> list[SeedState]:
    """Return shapes, dtypes and places of `init_states`, computing nothing."""
    networks = experiment.networks(BatchAxis())
    templates = []
    for seed, streams in enumerate(experiment.streams):
        sharding = experiment.group_of(seed).sharding
        shapes = jax.eval_shape(
            lambda keys: _init_seed(experiment, networks, keys), streams.keys
        )
        place = lambda x, s=sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
        templates.append(jax.tree.map(place, shapes))
    return templates


def _init_seed(experiment: Experiment, networks: Networks, keys: SeedKeys) -> SeedState:
    image = jnp.zeros((1, *experiment.dataset.image_shape))
    teacher = networks.teacher
    outputs, variables = _init_network(teacher, keys.teacher_init, image)
    state = {"teacher": init_state(variables, {}, teacher.tx)}
    teacher_dim = outputs.features.shape[-1]
    for name, student in networks.students.items():
        # Students of one architecture start from the same weights: arms are paired.
        same = experiment.config.students[name].init == "same"
        key = keys.teacher_init if same else keys.student_init
        outputs, variables = _init_network(student.network, key, image)
        method_params = student.method.init(
            keys.method_init, outputs.features.shape[-1], teacher_dim
        )
        state[name] = init_state(variables, method_params, student.network.tx)
    return state


def _init_network(network: Network, key: jax.Array, image: jax.Array):
    return network.model.init_with_output(key, image, train=False)


def _streams(config: Config, dataset: Dataset, repetition: int) -> Streams:
    data, keys = config.data, seed_keys(config.seed + repetition)
    size = len(dataset.train.label)
    return Streams(
        keys,
        Stream(keys.data, size, data.batch_size, data.last_batch),
        Stream(keys.replay_data, size, data.batch_size, data.last_batch),
    )


def _groups(config: Config) -> tuple[SeedGroup, ...]:
    # Measured on CPU, taken over elsewhere: docs/performance.md.
    layout = "sequential" if config.seed_layout == AUTO else config.seed_layout
    shared = {"config.data.batch_size": config.data.batch_size}
    devices = choose_devices(config.num_devices, {} if layout == "devices" else shared)
    return seed_groups(layout, config.num_seeds, devices)


def _check_inits(config: Config) -> None:
    for name, student in config.students.items():
        if student.init == "same" and student.model != config.teacher.model:
            raise ConfigError(
                f"config.students.{name}.init='same' needs the teacher's architecture, "
                f"but model='{student.model}' and the teacher's is "
                f"'{config.teacher.model}'; set init='different'."
            )
