"""A run opened to be analysed: its networks as they were saved, and its images."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spaced_kd import config as config_lib
from spaced_kd import data, evaluate, experiment, registry, snapshots, streamed, trained
from spaced_kd.config import (
    NO_TEACHER,
    WITHOUT_TEACHER,
    Config,
    StudentConfig,
    TeacherConfig,
)
from spaced_kd.data import contents
from spaced_kd.data.augment import prepare_eval
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.errors import CheckpointError, ConfigError
from spaced_kd.experiment import Experiment
from spaced_kd.models.base import Model
from spaced_kd.models.pair import Pair
from spaced_kd.parallel import BatchAxis, SeedGroup, choose_devices
from spaced_kd.types import (
    Dataset,
    ModelOutput,
    Params,
    Predictions,
    Source,
    Split,
    Variables,
)
from spaced_kd.writers import read_json

MOMENTS = ("last", "snapshots")
"""Weights to look at: those saved last, or also all that were kept along training."""


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run's config, data and architectures; in float32, whatever it trained in.

    stored: `config.json`. group: the devices that analyses use.
    """

    workdir: Path
    stored: Mapping[str, Any]
    parts: Experiment
    group: SeedGroup

    @property
    def config(self) -> Config:
        """The run's config, in float32 and for one device."""
        return self.parts.config

    @property
    def dataset(self) -> Dataset:
        """The data set as the run uses it."""
        return self.parts.dataset

    @property
    def spec(self) -> AugmentSpec:
        """What is done to images."""
        return self.parts.spec

    @property
    def seeds(self) -> range:
        """Of the repetitions."""
        return range(self.config.seed, self.config.seed + self.config.num_seeds)

    @functools.cached_property
    def names(self) -> list[str]:
        """All networks, in the order of tables."""
        has_teacher = self.config.teacher.model != NO_TEACHER
        return ["teacher"] * has_teacher + list(self.config.students)

    @property
    def updates(self) -> dict[str, int]:
        """Of each network when the run is complete, in the order of tables."""
        return {name: self.parts.updates.get(name, 0) for name in self.names}

    def settings(self, name: str) -> TeacherConfig | StudentConfig:
        """Return a network's part of the config."""
        return self.config.teacher if name == "teacher" else self.config.students[name]

    @functools.cached_property
    def _networks(self):
        return self.parts.networks(BatchAxis())

    def model(self, name: str) -> Model:
        """Return a network's architecture, without a peer."""
        model = self._networks.model(name).clone(with_maps=False)
        if isinstance(model, Pair):
            assert model.own is not None
            return model.own
        return model

    def split(self, which: str, count: int, field: str) -> Split:
        """Return training or test images, un-augmented, in memory.

        Args:
          which: "train" or "test".
          count: class-balanced examples, the same for every caller; 0, or more than
            there are: all.
          field: the option that `count` comes from, for messages.

        Raises:
          ConfigError: neither of the two, or too few for the classes.
          DataError: an image that cannot be read.
        """
        registry.lookup(dict.fromkeys(("train", "test")), which, "split")
        return self._split(which, count, field)

    @functools.cache  # noqa: B019 - a run lives as long as the program
    def _split(self, which: str, count: int, field: str) -> Split:
        split: Split | Source = getattr(self.dataset, which)
        if 0 < count < len(split.label):
            generator = np.random.default_rng((0, int(which == "test")))
            split = contents.class_balanced(
                split, self.dataset.num_classes, count, generator, field
            )
        if isinstance(split, Split):
            return split
        batches = list(streamed.eval_batches(split, self.config.data))
        image = np.concatenate(batches)[: len(split.label)]
        return Split(image, split.label)

    def prepare(self, image: Any) -> jax.Array:
        """Return what networks see of stored images.

        Args:
          image: [b, H, W, C] uint8.

        Returns:
          [b, h, w, C] float32, resized and normalised.
        """
        return prepare_eval(image, self.spec)

    @functools.cache  # noqa: B019
    def predict_program(self, model: Any, num_examples: int) -> Any:
        """Return `evaluate.make_predict` of an architecture (`Model`)."""
        return evaluate.make_predict(
            model, self.group, num_examples, self.config.data.eval_batch_size, self.spec
        )

    def subjects(
        self, names: Sequence[str], seeds: Sequence[int], at: str
    ) -> Iterator["Subject"]:
        """Return networks as they were saved: by name, by seed, by updates.

        Args:
          names: of networks.
          seeds: of repetitions.
          at: one of `MOMENTS`.

        Raises:
          ConfigError: unknown name, seed or moment.
          CheckpointError: nothing is saved yet, or it is damaged.
        """
        registry.lookup(dict.fromkeys(MOMENTS), at, "--at")
        for name in names:
            registry.lookup(dict.fromkeys(self.names), name, "--networks")
        for seed in seeds:
            if seed not in self.seeds:
                raise ConfigError(
                    f"--seeds: {seed} is not one of the run's; it has "
                    f"{self.seeds[0]} to {self.seeds[-1]}."
                )
        # Read one after another: all snapshots of a run may not fit into memory.
        return (
            subject
            for name in names
            for seed in seeds
            for subject in self._moments(name, seed, at)
        )

    def _moments(self, name: str, seed: int, at: str) -> Iterator["Subject"]:
        last = self.subject(name, seed)
        if at == "snapshots":
            for step in snapshots.steps(self.workdir, seed, name):
                if step < last.step:
                    yield self._snapshot(name, seed, step)
        yield last

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return trained.read(self.workdir, self.stored["fingerprint"])

    def last_step(self, name: str, seed: int) -> int:
        """Return the updates of a network as it was saved last."""
        return int(self._arrays[f"{seed - self.seeds[0]}/{name}/step"])

    def subject(self, name: str, seed: int) -> "Subject":
        """Return a network as it was saved last.

        Raises:
          CheckpointError: nothing is saved yet, or it is damaged.
        """
        repetition = seed - self.seeds[0]
        variables, step = trained.network(self._arrays, repetition, name)
        method = trained.below(self._arrays, f"{repetition}/{name}/params/method/")
        last = Subject(self, name, seed, step, variables, method, None)
        if name == "teacher" or "teacher" not in self.names:
            return last
        # The teacher may have gone on after this student's end.
        if step in snapshots.steps(self.workdir, seed, name):
            return dataclasses.replace(
                last, teacher=self._snapshot(name, seed, step).teacher
            )
        teacher = self.subject("teacher", seed)
        if self._weights(name) == "ema":
            path = f"{repetition}/teacher/"
            average = trained.averaged(self._arrays, path, teacher.variables)
            teacher = dataclasses.replace(teacher, variables=average)
        return dataclasses.replace(last, teacher=teacher)

    def _weights(self, name: str) -> str:
        """Return whose outputs a student sees, the teacher's "live" or its "ema"."""
        return getattr(self.settings(name), "teacher_weights", "live")

    def _snapshot(self, name: str, seed: int, step: int) -> "Subject":
        weights = self._weights(name)
        kept = snapshots.load(self.workdir, seed, name, step, weights)
        teacher = None
        if kept.teacher is not None:
            at, variables = kept.teacher
            teacher = Subject(self, "teacher", seed, at, variables, {}, None)
        return Subject(self, name, seed, step, kept.variables, kept.method, teacher)


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One network of one repetition, as it was after `step` updates of its own.

    variables: {"params", "batch_stats"}, without a peer's. method_params: of its
    distillation loss. teacher: as it stood beside these weights, with its averaged
    weights where the student learns from those; None without one, and for the teacher
    itself.
    """

    run: Run
    name: str
    seed: int
    step: int
    variables: Variables
    method_params: Params
    teacher: "Subject | None"

    @property
    def model(self) -> Model:
        """The architecture."""
        return self.run.model(self.name)

    @property
    def settings(self) -> TeacherConfig | StudentConfig:
        """This network's part of the config."""
        return self.run.settings(self.name)

    @property
    def guide(self) -> "Subject | None":
        """The teacher where this network learns from it; a baseline has none."""
        return None if self.settings.method in WITHOUT_TEACHER else self.teacher

    @property
    def quote(self) -> str:
        """Which exit the run's own tables quote: "deepest" or "ensemble"."""
        settings = self.settings
        return settings.quote if isinstance(settings, StudentConfig) else "deepest"

    @property
    def epoch(self) -> float:
        """Updates in epochs."""
        return self.step / self.run.parts.clock.steps_per_epoch

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the weights, hex."""
        return trained.digest(self.variables)

    def predict(self, variables: Variables, split: Split) -> Predictions:
        """Return logits of a whole split, compiled once for each architecture and size.

        Args:
          variables: of this architecture, in place of its own.
          split: in memory.
        """
        model: Any = self.model
        program = self.run.predict_program(model, len(split.label))
        return program(variables, split.image)


def outputs_of(model: Model, variables: Variables, image: jax.Array) -> ModelOutput:
    """Return what a network says, in eval mode: BatchNorm's averages stand still.

    Args:
      model: the architecture.
      variables: {"params", "batch_stats"} of it; may be differentiated by.
      image: [b, h, w, C] float32, from `Run.prepare`.
    """
    outputs: Any = model.apply(variables, image, train=False)
    return outputs


def open_run(workdir: Path, data_dir: str = "", num_devices: int = 0) -> Run:
    """Open a run, finished or not; writes nothing.

    Args:
      workdir: of the run.
      data_dir: where its data lies now; empty: as its config says.
      num_devices: that analyses share; 0: all.

    Raises:
      CheckpointError: no run there, of another version, or its data has changed.
      DataError: its data cannot be read.
      ConfigError: more devices than there are.
    """
    if not (workdir / "config.json").exists():
        raise CheckpointError(
            f"{workdir} holds no run (no config.json); see --workdir."
        )
    stored = read_json(workdir / "config.json")
    config = _parsed(workdir, stored)
    if data_dir:
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, dir=data_dir)
        )
    dataset = data.load(config.data)
    if dataset.fingerprint != stored["data_fingerprint"]:
        raise CheckpointError(
            f"{dataset.name} is not what the run in {workdir} was trained on "
            f"(fingerprint {dataset.fingerprint[:12]}, not "
            f"{stored['data_fingerprint'][:12]}); give that data by --data_dir."
        )
    devices = choose_devices(num_devices, {}, "--num_devices")
    alone = dataclasses.replace(
        config, compute_dtype="float32", remat=False, num_devices=1, micro_batches=1
    )
    parts = experiment.build(alone, dataset)
    return Run(workdir, stored, parts, SeedGroup((0,), devices))


def _parsed(workdir: Path, stored: Mapping[str, Any]) -> Config:
    try:
        config = config_lib.from_dict(stored["config"])
    except ConfigError as error:
        raise _of_another_version(workdir) from error
    if config_lib.fingerprint(config) != stored["fingerprint"]:
        raise _of_another_version(workdir)
    return config


def _of_another_version(workdir: Path) -> CheckpointError:
    return CheckpointError(
        f"{workdir} is a run of another version of spaced_kd; analyse it with that, or "
        "run it again."
    )
