"""From a config and a data set to a run's parts: plan, streams, networks, state."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spaced_kd import checks, intervals, schedule, stream_memory
from spaced_kd import config as config_lib
from spaced_kd.config import (
    AUTO,
    NO_TEACHER,
    WITH_PEER,
    ArchConfig,
    Config,
    DataConfig,
    StudentConfig,
    TeacherConfig,
    TutorConfig,
)
from spaced_kd.data.augment_spec import AugmentSpec, spec_of
from spaced_kd.data.stream import Stream
from spaced_kd.errors import ConfigError
from spaced_kd.intervals import Decision
from spaced_kd.keys import SeedKeys, seed_keys
from spaced_kd.methods import make_method
from spaced_kd.methods.base import Method, Sizes
from spaced_kd.models import arch_for, make_model
from spaced_kd.models.base import Model
from spaced_kd.models.pair import Pair, make_pair
from spaced_kd.optim import learning_rate_schedule, make_optimizer
from spaced_kd.parallel import BatchAxis, SeedGroup, choose_devices, seed_groups
from spaced_kd.schedule import Clock, Evaluate, Plan, Tick
from spaced_kd.state import SeedState, fixed_state, init_state
from spaced_kd.steps import Student, Teacher
from spaced_kd.types import Dataset, Device, ModelOutput, Split, Variables, shape_of
from spaced_kd.update import Network
from spaced_kd.views import Streams


@dataclasses.dataclass(frozen=True)
class Networks:
    """The architectures of one repetition, bound to the devices that share a batch."""

    teacher: Teacher | None
    students: dict[str, Student]

    def model(self, name: str) -> Model:
        """Return the architecture of a network of the run."""
        if name in self.students:
            return self.students[name].network.model
        assert name == "teacher" and self.teacher, f"no network is called {name}"
        return self.teacher.network.model


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run, assembled and checked; holds no training state.

    clock: the stream's, up to the teacher's end; a student's own may end elsewhere.
    groups: which repetitions run together, and where. streams: by repetition.
    plan: uncut. ticks: the plan cut up, with evaluations; an index into it is
    the run's position. updates: network -> updates in the whole run. spec: what is
    done to images. streamed: whether training images are read for every use.
    """

    config: Config
    dataset: Dataset
    groups: tuple[SeedGroup, ...]
    streams: tuple[Streams, ...]
    clock: Clock
    plan: Plan
    ticks: tuple[Tick, ...]
    updates: dict[str, int]
    spec: AugmentSpec
    streamed: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the networks see."""
        height, width, channels = self.dataset.image_shape
        return *self.spec.output_size(height, width), channels

    def group_of(self, seed: int) -> SeedGroup:
        """Return the group that advances a repetition."""
        return next(group for group in self.groups if seed in group.seeds)

    def networks(self, axis: BatchAxis) -> Networks:
        """Return the networks whose losses and BatchNorm reduce over `axis`."""
        config, methods = self.config, self._methods(axis)
        teacher = None
        # A method that compares feature maps needs those of both networks.
        maps = {name: method.needs_maps for name, method in methods.items()}
        if config.teacher.model != NO_TEACHER:
            total = self.clock.total_steps
            network = self._network(
                "teacher", config.teacher, total, axis, any(maps.values())
            )
            tutor = None
            if config.tutor.stage:
                tutor = self._model(config.tutor, BatchAxis(), maps["teacher"])
            fixed = bool(config.teacher.stage)
            decay = config.teacher.ema_decay
            teacher = Teacher(network, methods["teacher"], tutor, fixed, decay)
        # Only what has DropPath can be without it.
        drops = teacher and getattr(teacher.network.model, "drop_path", 0.0) > 0.0
        students = {
            name: Student(
                self._network(
                    name,
                    student,
                    schedule.student_clock(student, self.clock).total_steps,
                    axis,
                    maps[name],
                ),
                methods[name],
                student.teacher_bn,
                student.teacher_drop_path == "on" or not drops,
                student.online_teacher,
                student.replay,
                student.label_smoothing,
                student.shuffle_teacher,
                student.teacher_weights,
            )
            for name, student in self.config.students.items()
        }
        return Networks(teacher, students)

    def _methods(self, axis: BatchAxis) -> dict[str, Method]:
        learners: dict[str, TeacherConfig | StudentConfig] = {**self.config.students}
        if self.config.teacher.model != NO_TEACHER:
            learners["teacher"] = self.config.teacher
        return {
            name: make_method(learner, axis, self._sizes(name))
            for name, learner in learners.items()
        }

    def _sizes(self, name: str) -> Sizes:
        train = self.dataset.train
        return Sizes(
            self.updates[name],
            self.clock.steps_per_epoch,
            self.config.data.batch_size,
            len(train.label),
            self.dataset.num_classes,
            shape_of(train),
        )

    def _model(
        self,
        config: TeacherConfig | StudentConfig | TutorConfig,
        axis: BatchAxis,
        maps: bool,
    ) -> Model:
        def make(name: str, arch: ArchConfig) -> Model:
            net = make_model(
                name,
                self.dataset.num_classes,
                arch,
                compute_dtype=self.config.compute_dtype,
                remat=self.config.remat,
            )
            return net.clone(axis=axis, with_maps=maps)

        own = make(config.model, config.arch)
        if not isinstance(config, StudentConfig) or config.method not in WITH_PEER:
            return own
        peer = config.dml_peer or config.model
        return make_pair(own, make(peer, arch_for(peer, config.arch, "dml_peer")))

    def _network(
        self,
        name: str,
        config: TeacherConfig | StudentConfig,
        stream_steps: int,
        axis: BatchAxis,
        maps: bool,
    ) -> Network:
        optim = config.optim
        own = optim.schedule_clock == "own"
        total = self.updates[name] if own else stream_steps
        rate = learning_rate_schedule(optim, self.clock.steps_per_epoch, total)
        return Network(
            self._model(config, axis, maps),
            make_optimizer(optim),
            rate,
            optim.schedule_clock,
            self.config.micro_batches,
            optim.sam_rho,
        )


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
    checks.networks_named(config)
    streamed = _is_streamed(data, dataset)
    fixed = bool(config.teacher.stage)
    checks.feedback(config, dataset)
    plan, ticks = _planned(config, clock, streamed, {})
    updates = schedule.updates(plan)
    if fixed:
        updates, ticks = {"teacher": 0} | updates, (Evaluate("teacher"), *ticks)
    experiment = Experiment(
        config=config,
        dataset=dataset,
        groups=_groups(config),
        streams=streams,
        clock=clock,
        plan=plan,
        ticks=ticks,
        updates=updates,
        spec=spec_of(
            data,
            dataset,
            padded=stream.has_padding,
            cropped_on_host=not isinstance(dataset.train, Split),
        ),
        streamed=streamed,
    )
    checks.training(config)
    checks.micro_batches(config, experiment.groups)
    _check_memory(experiment)
    _check_networks(experiment)
    return experiment


def decided(
    experiment: Experiment, decisions: Mapping[str, Sequence[Decision]]
) -> Experiment:
    """Return the run with the plan that follows from what was decided so far.

    Args:
      experiment: the run.
      decisions: of every student with feedback, in order.
    """
    chosen = {name: intervals.choices(own) for name, own in decisions.items()}
    config, clock = experiment.config, experiment.clock
    plan, ticks = _planned(config, clock, experiment.streamed, chosen)
    return dataclasses.replace(experiment, plan=plan, ticks=ticks)


def _planned(
    config: Config,
    clock: Clock,
    streamed: bool,
    chosen: Mapping[str, Sequence[bool]],
) -> tuple[Plan, tuple[Tick, ...]]:
    """Return the plan and its ticks, after what feedback has chosen so far."""
    trains = config.teacher.model != NO_TEACHER and not config.teacher.stage
    # Reading images again costs more than compiling more programs: together.
    plan = schedule.make_plan(
        config.students, clock, teacher=trains, together=streamed, decisions=chosen
    )
    # Whatever is decided, replays are made of whole quanta.
    quanta = {
        name: schedule.interval_steps(name, student, clock)
        for name, student in config.students.items()
        if schedule.is_fed_back(student)
    }
    every = config.eval_every_epochs * clock.steps_per_epoch
    return plan, schedule.cut(plan, config.chunk_steps, every, quanta)


def devices(experiment: Experiment) -> set[Device]:
    """Return the devices, of all processes, that the run uses."""
    return {device for group in experiment.groups for device in group.devices}


def init_states(
    experiment: Experiment, given: Mapping[str, Sequence[Variables]] | None = None
) -> list[SeedState]:
    """Return every repetition's networks before the first update, on their devices.

    Args:
      experiment: the run.
      given: role ("teacher", "tutor") -> variables by repetition, of networks that were
        trained before. One that is missing here begins untrained.
    """
    networks = experiment.networks(BatchAxis())
    init = jax.jit(lambda keys: _init_seed(experiment, networks, keys))
    states = []
    for seed, streams in enumerate(experiment.streams):
        state = init(streams.keys)
        for role, variables in (given or {}).items():
            state[role] = fixed_state(variables[seed])
        states.append(experiment.group_of(seed).put(state))
    return states


def state_template(experiment: Experiment) -> list[SeedState]:
    """Return shapes, dtypes and places of `init_states`, computing nothing."""
    networks = experiment.networks(BatchAxis())
    # Shapes are the same for every seed.
    shapes = jax.eval_shape(
        lambda keys: _init_seed(experiment, networks, keys), experiment.streams[0].keys
    )
    templates = []
    for seed in range(len(experiment.streams)):
        sharding = experiment.group_of(seed).sharding
        place = lambda x, s=sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
        templates.append(jax.tree.map(place, shapes))
    return templates


def _init_seed(experiment: Experiment, networks: Networks, keys: SeedKeys) -> SeedState:
    image = jnp.zeros((1, *experiment.image_shape))

    started: dict[Any, Any] = {}

    def start(model, own):
        # Students of one architecture start from the same weights: arms are paired.
        if (model, own) not in started:
            key = keys.student_init if own else keys.teacher_init
            started[model, own] = model.init_with_output(key, image, train=False)
        return started[model, own]

    def begin(network, method, outputs, variables, taught):
        params = method.init(keys.method_init, outputs, taught)
        memory = method.memory.start(outputs, taught) if method.memory else ()
        return init_state(variables, params, network.tx, memory)

    state, taught, teacher = {}, None, networks.teacher
    if teacher:
        taught, variables = start(teacher.network.model, False)
        tutored = None
        if teacher.tutor:
            tutored, tutor_variables = start(teacher.tutor, False)
            state["tutor"] = fixed_state(tutor_variables)
        if teacher.fixed:
            state["teacher"] = fixed_state(variables)
        else:
            state["teacher"] = begin(
                teacher.network, teacher.method, taught, variables, tutored
            )
        if teacher.ema_decay:
            state["teacher"] = state["teacher"].replace(average=variables["params"])
    for name, student in networks.students.items():
        own = experiment.config.students[name].init == "different"
        outputs, variables = start(student.network.model, own)
        state[name] = begin(student.network, student.method, outputs, variables, taught)
        if experiment.config.students[name].plan == "lagged":
            state[name] = state[name].replace(held=state["teacher"].variables)
    return state


def _streams(config: Config, dataset: Dataset, repetition: int) -> Streams:
    generation = config_lib.generation(config)
    data, keys = config.data, seed_keys(config.seed + repetition, generation)
    size = len(dataset.train.label)
    return Streams(
        keys,
        Stream(keys.data, size, data.batch_size, data.last_batch),
        Stream(keys.replay_data, size, data.batch_size, data.last_batch),
    )


def _is_streamed(config: DataConfig, dataset: Dataset) -> bool:
    train = dataset.train
    if isinstance(train, Split):
        return config.input == "stream"
    if config.input == "device":
        height, width, channels = train.shape
        size = len(train.label) * height * width * channels / 2**30
        raise ConfigError(
            f"config.data.input='device' would hold all {len(train.label):,} training "
            f"images of {dataset.name}, {size:.4g} GiB of {height}x{width} pixels, but "
            "they come as files; set input='stream' or 'auto'."
        )
    return True


def _groups(config: Config) -> tuple[SeedGroup, ...]:
    # Measured on CPU, taken over elsewhere: docs/performance.md.
    layout = "sequential" if config.seed_layout == AUTO else config.seed_layout
    shared = {"config.data.batch_size": config.data.batch_size}
    devices = choose_devices(config.num_devices, {} if layout == "devices" else shared)
    return seed_groups(layout, config.num_seeds, devices)


def _check_memory(experiment: Experiment) -> None:
    config, dataset = experiment.config, experiment.dataset
    if experiment.streamed:
        groups, ticks = experiment.groups, experiment.ticks
        stream_memory.steps_ahead(config, dataset, groups, ticks)
    if not isinstance(dataset.test, Split):
        stream_memory.tests_ahead(config.data, dataset.test)


def _outputs_of(model: Any, image_shape: tuple[int, ...]) -> ModelOutput:
    image = jnp.zeros((1, *image_shape))
    make = functools.partial(model.init_with_output, train=True)
    return jax.eval_shape(make, jax.random.key(0), image)[0]


_outputs_once: Callable[[Any, tuple[int, ...]], ModelOutput] = functools.cache(
    _outputs_of
)


def _check_networks(experiment: Experiment) -> None:
    """Pass one image through each network, in shapes alone.

    Raises:
      ConfigError: the image does not fit, or `checks` finds what is amiss.
    """
    networks, config = experiment.networks(BatchAxis()), experiment.config
    outputs_of = lambda model: _outputs_once(model, experiment.image_shape)
    teacher, taught = networks.teacher, None
    if teacher:
        taught = outputs_of(teacher.network.model)
        tutored = outputs_of(teacher.tutor) if teacher.tutor else None
        if not teacher.fixed:
            checks.teacher_outputs(config.teacher, taught)
            jax.eval_shape(teacher.method.init, jax.random.key(0), taught, tutored)
    for name, student in networks.students.items():
        settings, model = config.students[name], student.network.model
        if isinstance(model, Pair):
            for network in (model.own, model.peer):
                checks.one_of_two_outputs(name, settings, outputs_of(network))
        outputs = outputs_of(model)
        checks.student_outputs(name, settings, student.method, outputs)
        jax.eval_shape(student.method.init, jax.random.key(0), outputs, taught)
