"""From a config and a data set to a run's parts: plan, streams, networks, state."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from spaced_kd import registry, schedule, stream_memory
from spaced_kd.config import (
    AUTO,
    NO_TEACHER,
    WITHOUT_TEACHER,
    Config,
    DataConfig,
    StudentConfig,
    TeacherConfig,
)
from spaced_kd.data.augment_spec import AugmentSpec, spec_of
from spaced_kd.data.stream import Stream
from spaced_kd.errors import ConfigError
from spaced_kd.keys import SeedKeys, seed_keys
from spaced_kd.methods import METHODS, make_method
from spaced_kd.models import MODELS, make_model
from spaced_kd.models.base import Model
from spaced_kd.optim import learning_rate_schedule, make_optimizer
from spaced_kd.parallel import BatchAxis, SeedGroup, choose_devices, seed_groups
from spaced_kd.schedule import Clock, Segment, Tick
from spaced_kd.state import BRANCHES, SeedState, init_state
from spaced_kd.steps import Network, Student
from spaced_kd.types import ENSEMBLE, Dataset, Device, ModelOutput, Split
from spaced_kd.views import Streams


@dataclasses.dataclass(frozen=True)
class Networks:
    """The architectures of one repetition, bound to the devices that share a batch."""

    teacher: Network | None
    students: dict[str, Student]

    def model(self, name: str) -> Model:
        """Return the architecture of a network of the run."""
        if name in self.students:
            return self.students[name].network.model
        assert name == "teacher" and self.teacher, f"no network is called {name}"
        return self.teacher.model


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run, assembled and checked; holds no training state.

    clock: the stream's, up to the teacher's end; a student's own may end elsewhere.
    groups: which repetitions run together, and where. streams: by repetition.
    plan: uncut segments. ticks: the plan cut up, with evaluations; an index into it is
    the run's position. updates: network -> updates in the whole run. spec: what is
    done to images. streamed: whether training images are read for every use.
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
        teacher = None
        if self.config.teacher.model != NO_TEACHER:
            total = self.clock.total_steps
            teacher = self._network("teacher", self.config.teacher, total, axis)
        # Only what has DropPath can be without it.
        drops = teacher and getattr(teacher.model, "drop_path", 0.0) > 0.0
        students = {
            name: Student(
                self._network(
                    name,
                    student,
                    schedule.student_clock(student, self.clock).total_steps,
                    axis,
                ),
                make_method(student, axis, self.updates[name]),
                student.teacher_bn,
                student.teacher_drop_path == "on" or not drops,
                student.online_teacher,
                student.replay,
                student.label_smoothing,
                student.shuffle_teacher,
            )
            for name, student in self.config.students.items()
        }
        return Networks(teacher, students)

    def _network(
        self,
        name: str,
        config: TeacherConfig | StudentConfig,
        stream_steps: int,
        axis: BatchAxis,
    ) -> Network:
        optim = config.optim
        own = optim.schedule_clock == "own"
        total = self.updates[name] if own else stream_steps
        rate = learning_rate_schedule(optim, self.clock.steps_per_epoch, total)
        net = make_model(
            config.model,
            self.dataset.num_classes,
            config.arch,
            compute_dtype=self.config.compute_dtype,
            remat=self.config.remat,
        ).clone(axis=axis)
        return Network(
            net,
            make_optimizer(optim),
            rate,
            optim.schedule_clock,
            self.config.micro_batches,
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
    _check_teacher(config)
    has_teacher = config.teacher.model != NO_TEACHER
    streamed = _is_streamed(data, dataset)
    # Reading images again costs more than compiling more programs.
    plan = schedule.make_plan(
        config.students, clock, teacher=has_teacher, together=streamed
    )
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
        spec=spec_of(
            data,
            dataset,
            padded=stream.has_padding,
            cropped_on_host=not isinstance(dataset.train, Split),
        ),
        streamed=streamed,
    )
    _check_inits(config)
    _check_clocks(config)
    _check_micro_batches(config, experiment.groups)
    _check_memory(experiment)
    _check_networks(experiment)
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
    image = jnp.zeros((1, *experiment.image_shape))

    started: dict[Any, Any] = {}

    def start(model, own):
        # Students of one architecture start from the same weights: arms are paired.
        if (model, own) not in started:
            key = keys.student_init if own else keys.teacher_init
            started[model, own] = model.init_with_output(key, image, train=False)
        return started[model, own]

    state, taught = {}, None
    if networks.teacher:
        taught, variables = start(networks.teacher.model, False)
        state["teacher"] = init_state(variables, {}, networks.teacher.tx)
    for name, student in networks.students.items():
        own = experiment.config.students[name].init == "different"
        outputs, variables = start(student.network.model, own)
        method_params = student.method.init(keys.method_init, outputs, taught)
        state[name] = init_state(variables, method_params, student.network.tx)
    return state


def _streams(config: Config, dataset: Dataset, repetition: int) -> Streams:
    data, keys = config.data, seed_keys(config.seed + repetition)
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


def _check_teacher(config: Config) -> None:
    if config.teacher.model != NO_TEACHER:
        return
    for name, student in config.students.items():
        registry.lookup(METHODS, student.method, f"config.students.{name}.method")
        if student.method not in WITHOUT_TEACHER:
            raise ConfigError(
                f"config.students.{name}.method='{student.method}' needs a teacher, "
                "but config.teacher.model='none'; name a model there, or set "
                "method='self_kd' or plan='none'."
            )


def _check_inits(config: Config) -> None:
    for name, student in config.students.items():
        if student.init == "same" and config.teacher.model == NO_TEACHER:
            raise ConfigError(
                f"config.students.{name}.init='same' asks for the teacher's weights, "
                "but config.teacher.model='none'; set init='different'."
            )
        teacher = config.teacher
        alike = (student.model, student.arch) == (teacher.model, teacher.arch)
        if student.init == "same" and not alike:
            raise ConfigError(
                f"config.students.{name}.init='same' needs the teacher's architecture, "
                f"but model='{student.model}' and the teacher's '{teacher.model}', or "
                "their fields of arch, differ; set init='different'."
            )


def _check_clocks(config: Config) -> None:
    if config.teacher.optim.schedule_clock != "own":
        raise ConfigError(
            "config.teacher.optim.schedule_clock='teacher' says nothing; set 'own'."
        )
    for name, student in config.students.items():
        if student.plan == "offline" and student.optim.schedule_clock == "teacher":
            raise ConfigError(
                f"config.students.{name}.optim.schedule_clock='teacher' stands still "
                "in plan 'offline', where the teacher has stopped; set 'own'."
            )


def _check_micro_batches(config: Config, groups: tuple[SeedGroup, ...]) -> None:
    for group in groups:
        share = config.data.batch_size // len(group.devices)
        if share % config.micro_batches:
            raise ConfigError(
                f"config.micro_batches={config.micro_batches} does not divide the "
                f"{share} examples of a batch that a device sees; give a divisor."
            )


def _check_memory(experiment: Experiment) -> None:
    config, dataset = experiment.config, experiment.dataset
    if experiment.streamed:
        groups, ticks = experiment.groups, experiment.ticks
        stream_memory.steps_ahead(config, dataset, groups, ticks)
    if not isinstance(dataset.test, Split):
        stream_memory.tests_ahead(config.data, dataset.test)


def _check_networks(experiment: Experiment) -> None:
    """Pass one image through each network, in shapes alone.

    Raises:
      ConfigError: the image does not fit; a network that no teacher teaches has a head
        that only soft targets would train; a student lacks a teacher or branches.
    """
    networks = experiment.networks(BatchAxis())
    config, found = experiment.config, {}

    def outputs_of(model: Any) -> ModelOutput:
        if model not in found:
            image = jnp.zeros((1, *experiment.image_shape))
            make = functools.partial(model.init_with_output, train=True)
            found[model], _ = jax.eval_shape(make, jax.random.key(0), image)
        return found[model]

    if networks.teacher:
        outputs = outputs_of(networks.teacher.model)
        _refuse_soft_head(outputs, "config.teacher.model")
    for name, student in networks.students.items():
        outputs = outputs_of(student.network.model)
        field = f"config.students.{name}"
        if not student.method.needs_teacher:
            _refuse_soft_head(outputs, f"{field}.model")
        if student.method.needs_soft_head:
            _refuse_one_head(config.students[name], outputs, field)
        _refuse_branches_amiss(config.students[name], student, outputs, field)
        _refuse_shuffling_nothing(config.students[name], student, field)


def _refuse_soft_head(outputs: ModelOutput, field: str) -> None:
    if outputs.soft_logits is not None:
        raise ConfigError(
            f"{field} has a head that only soft targets train, and this "
            "network has no teacher; choose the model without it, or set its "
            "arch.second_head=False."
        )


def _refuse_one_head(config: StudentConfig, outputs: ModelOutput, field: str) -> None:
    if outputs.soft_logits is None:
        raise ConfigError(
            f"{field}.method='{config.method}' needs a network with two heads, but "
            f"model='{config.model}' has one; set {field}.arch.second_head=True "
            "(ResNets, small_cnn, mlp), or take 'deit_tiny_distilled'."
        )


def _with_branches(model: str) -> str:
    known = [name for name in MODELS if name.endswith("_branches")]
    own = f"{model}_branches"
    return own if own in known else "' or '".join(known)


def _refuse_shuffling_nothing(
    config: StudentConfig, student: Student, field: str
) -> None:
    # The baseline inherits the field from `config.student` and may ignore it.
    if student.method.needs_teacher or config.plan == "none":
        return
    if config.shuffle_teacher:
        raise ConfigError(
            f"{field}.shuffle_teacher=True would do nothing, because method="
            f"'{config.method}' sees no teacher's outputs; set it to False."
        )


def _refuse_branches_amiss(
    config: StudentConfig, student: Student, outputs: ModelOutput, field: str
) -> None:
    trains = BRANCHES in student.method.trains
    if trains and outputs.branch_logits is None:
        raise ConfigError(
            f"{field}.method='{config.method}' needs a network with several exits, but "
            f"model='{config.model}' has one; take '{_with_branches(config.model)}'."
        )
    if config.quote == ENSEMBLE and not trains:
        raise ConfigError(
            f"{field}.quote='ensemble' quotes branches that method='{config.method}' "
            "does not train; set quote='deepest', or method='self_kd'."
        )
