"""`python -m spaced_kd.doctor --config=...`: can this run start, and how long it takes.

Says in one screen what a run would use and cost, from the real programs, and writes
nothing into its workdir. Data that is missing is prepared as a run would do it.
"""

import contextlib
import dataclasses
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import ml_collections
from absl import flags as absl_flags

from spaced_kd import (
    backend,
    config,
    data,
    experiment,
    flags,
    footprint,
    ledger,
    stages,
    trained,
    workdir,
)
from spaced_kd.errors import (
    CapacityError,
    LockedError,
    SpacedKDError,
    StorageError,
    one_line,
)
from spaced_kd.experiment import Experiment
from spaced_kd.probe import Kind, Probe, Speed, estimate
from spaced_kd.progress import duration
from spaced_kd.types import Dataset

USAGE = """Look whether a run can start here, what it needs, and how long it takes.

  python -m spaced_kd.doctor --config=configs/digits.py

--config=FILE[:VARIANT]  as for spaced_kd.main, with the same overrides
--workdir=FOLDER         the run's folder, which is only looked at; its disk is judged
--probe_steps=20         training steps to time, for each kind; 0: compile only

The exit code says whether the run can start: 0 yes, 2 config, 3 data, 4 checkpoint or
workdir, 5 locked, 7 not enough disk, 9 not enough memory on a device.
"""

_REMEDY = (
    "take fewer seeds or students, a smaller config.data.batch_size, or "
    "config.remat=True"
)

MOST_STUDENTS, MOST_KINDS = 8, 4
"""What gets lines of its own; beyond, lines are merged to stay within a screen."""


def cli() -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv))


def main(argv: Sequence[str]) -> int:
    """Print the report; return 0 if the run can start, else the problem's exit code.

    Args:
      argv: program name and arguments.
    """
    return flags.call(_run, argv, USAGE)


def _run(argv: Sequence[str]) -> int:
    raw, values = flags.parse_config(argv, _define)
    backend.configure()
    checkup = Checkup()
    try:
        checkup.run(raw, Path(values.workdir or "."), values.probe_steps)
    except SpacedKDError as error:
        checkup.problems.append(error)
    return checkup.verdict()


class Checkup:
    """Prints section after section, and remembers what would stop the run."""

    def __init__(self):
        """Begin without problems."""
        self.problems: list[SpacedKDError] = []

    def run(
        self, raw: ml_collections.ConfigDict, folder: Path, probe_steps: int
    ) -> None:
        """Print everything but the verdict.

        Args:
          raw: the configuration as given.
          folder: the run's workdir, or any folder on its disk.
          probe_steps: steps to time.

        Raises:
          SpacedKDError: what makes all further questions pointless.
        """
        self._machine()
        resolved = config.from_config_dict(raw)
        datasets = {resolved.data: data.load(resolved.data)}
        self._say("data", describe_data(datasets[resolved.data]))
        parts = experiment.build(resolved, datasets[resolved.data])
        self._plan(parts)
        self._disk(parts, folder)
        self._try(parts, probe_steps)
        if resolved.stages:
            stages.load_data(resolved, datasets)
            stages.refuse_misfit(resolved, datasets)
            self._stages(resolved, folder.absolute(), datasets, probe_steps)

    def _stages(
        self,
        settings: config.Config,
        folder: Path,
        datasets: Mapping[config.DataConfig, Dataset],
        probe_steps: int,
    ) -> None:
        """Print which stages are there, and what the others need; theirs first."""
        for name, own in stages.folders(settings, folder, datasets).items():
            stage = settings.stages[name]
            if trained.is_finished(own):
                self._say("stage", f"{name}: trained already, in {own}")
                continue
            if stage.stages:
                stages.refuse_misfit(stage, datasets)
                above = dataclasses.replace(stage, stages_dir=str(own.parent))
                self._stages(above, own, datasets, probe_steps)
            self._say("stage", f"{name}: to be trained before, in {own}; on top:")
            parts = experiment.build(stage, datasets[stage.data])
            self._disk(parts, own)
            self._try(parts, probe_steps)

    def _try(self, parts: Experiment, probe_steps: int) -> None:
        """Print memory, and if it is enough how long compilation and steps take."""
        limit = footprint.memory_limit(parts.groups[0].devices[0])
        # First from shapes alone: to compile, the data are brought to the device.
        if not self._memory(parts, limit, None):
            return
        with _capacity_errors(), contextlib.closing(Probe(parts)) as probe:
            fits = self._memory(parts, limit, probe.work_bytes)
            self._compiled(probe)
            if fits and probe_steps:
                self._time(parts, probe.measure(probe_steps))

    def verdict(self) -> int:
        """Print whether the run can start; return the exit code."""
        for problem in self.problems:
            self._say("problem", str(problem))
        if not self.problems:
            self._say("verdict", "the run can start")
            return 0
        code = self.problems[0].code
        self._say("verdict", f"the run cannot start (exit code {code})")
        return code

    def _say(self, title: str, text: str) -> None:
        lines = textwrap.wrap(text, 96, break_on_hyphens=False) or [""]
        for line in lines:
            print(f"{title:<10} {line}".rstrip(), flush=True)
            title = ""

    def _machine(self) -> None:
        devices = jax.local_devices()
        found = workdir.versions()
        self._say("versions", ", ".join(f"{name} {found[name]}" for name in found))
        limit = footprint.memory_limit(devices[0])
        memory = "memory unknown" if limit is None else f"{_size(limit)} of memory free"
        kind = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
        self._say("devices", f"{kind}, {memory}, {os.cpu_count()} CPU cores")
        self._say("XLA_FLAGS", os.environ.get("XLA_FLAGS") or "none")
        self._say(
            "cache",
            describe_cache(getattr(jax.config, "jax_compilation_cache_dir", None)),
        )

    def _plan(self, parts: Experiment) -> None:
        settings = parts.config
        devices = experiment.devices(parts)
        self._say(
            "config",
            f"compat {settings.compat}, batch {settings.data.batch_size} on "
            f"{len(devices)} device(s), {settings.compute_dtype}, chunks of "
            f"{settings.chunk_steps} steps ({settings.compose})",
        )
        lines = ledger.summary(parts)
        for line in lines[: 1 + MOST_STUDENTS]:
            self._say("", line)
        if len(lines) > 1 + MOST_STUDENTS:
            self._say("", f"and {len(lines) - 1 - MOST_STUDENTS} more students")
        images = sum(ledger.tick_images(parts, tick) for tick in parts.ticks)
        passes = sum(ledger.tick_costs(parts))
        self._say(
            "cost",
            f"{passes:,.0f} forward passes over a batch (a backward pass "
            f"counts 2), {images:,} images learned",
        )

    def _disk(self, parts: Experiment, folder: Path) -> None:
        try:
            workdir.refuse_locked(folder)
        except LockedError as error:
            self.problems.append(error)
        if workdir.refuse_other(folder, parts.config, parts.dataset.fingerprint):
            self._say("workdir", f"{folder} holds this very run; it would continue")
        kept = parts.config.checkpoint.keep
        whole = footprint.disk(parts, experiment.state_template(parts))
        needed = footprint.disk_growth(whole, kept, folder)
        existing = next(p for p in (folder.absolute() / "x").parents if p.is_dir())
        free = shutil.disk_usage(existing).free
        along = f", snapshots {_size(whole.snapshots)}" if whole.snapshots else ""
        there = f", of which {_size(sum(whole) - sum(needed))} are there"
        self._say(
            "disk",
            f"{_size(free)} free in {existing}; needed {_size(sum(whole))}: {kept} "
            f"checkpoints and one being written {_size(whole.checkpoints)}, best "
            f"parameters {_size(whole.best)}{along}{there if needed != whole else ''}",
        )
        if free < sum(needed):
            self.problems.append(
                StorageError(
                    f"the run needs {_size(sum(needed))} more in {existing}, but "
                    f"{_size(free)} are free; free some space, or choose a --workdir "
                    "on another disk."
                )
            )
        elif not os.access(existing, os.W_OK):
            self.problems.append(
                StorageError(f"{existing} cannot be written; choose another --workdir.")
            )

    def _memory(
        self, parts: Experiment, limit: int | None, work_bytes: int | None
    ) -> bool:
        """Return whether a device can hold the run; print what it must hold.

        Args:
          parts: the run.
          limit: bytes of a device, None: unknown.
          work_bytes: of the programs; None: not known yet, and nothing is printed
            where the rest fits.
        """
        template = experiment.state_template(parts)
        needed = footprint.memory(parts, template, work_bytes or 0)
        fits = limit is None or sum(needed) <= limit
        if fits and work_bytes is None:
            return True
        split = ", ".join(f"{n} {_size(v)}" for n, v in needed._asdict().items())
        self._say("memory", f"{_size(sum(needed))} on the fullest device: {split}")
        if limit is not None and not fits:
            more = "" if work_bytes is not None else "at least "
            kind = parts.groups[0].devices[0].device_kind
            self.problems.append(
                CapacityError(
                    f"the run needs {more}{_size(sum(needed))} on {kind}, which has "
                    f"{_size(limit)}; {_REMEDY}."
                )
            )
        return fits

    def _compiled(self, probe: Probe) -> None:
        self._say(
            "compile",
            f"{duration(probe.compile_seconds)} for the training "
            "programs (less the next time: they are cached)",
        )

    def _time(self, parts: Experiment, speeds: dict[Kind, Speed]) -> None:
        for line in describe_speeds(speeds, parts.config.num_seeds):
            self._say("speed", line)
        rates = {kind: speed.rate for kind, speed in speeds.items()}
        seconds = estimate(parts.ticks, ledger.tick_costs(parts), rates)
        split = ", ".join(f"{name} {duration(s)}" for name, s in seconds.items())
        self._say(
            "time",
            f"about {duration(sum(seconds.values()))} ({split}), if the machine stays "
            "as busy as now",
        )


@contextlib.contextmanager
def _capacity_errors() -> Iterator[None]:
    """Turn what a device says when its memory is full into one line.

    Raises:
      CapacityError: instead of JAX's error; all its other errors stay.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise CapacityError(
            f"a device's memory ran out while the run's programs were tried "
            f"({one_line(error)}); {_REMEDY}."
        ) from error


def describe_data(dataset: Dataset) -> str:
    """Return name, counts, shape and fingerprint of a verified data set."""
    height, width, channels = dataset.image_shape
    return (
        f"{dataset.name}: {len(dataset.train.label):,} training and "
        f"{len(dataset.test.label):,} test images of {height}x{width}x{channels}, "
        f"{dataset.num_classes} classes; verified, SHA-256 {dataset.fingerprint[:16]}"
    )


def describe_cache(folder: str | None) -> str:
    """Return where compiled programs are kept, and how much is there."""
    if not folder:
        return "compiled programs are not kept"
    path = Path(folder).expanduser()
    sizes = [p.stat().st_size for p in path.glob("*-cache")] if path.is_dir() else []
    return f"{path}: {len(sizes)} compiled programs, {_size(sum(sizes))}"


def describe_speeds(speeds: Mapping[Kind, Speed], num_seeds: int) -> list[str]:
    """Return the time of a step of each kind, and how it is known, by phase.

    A phase of many kinds is one line with the fastest and the slowest.
    """
    lines = []
    seeds = f" of all {num_seeds} seeds" if num_seeds > 1 else ""
    for phase in dict.fromkeys(kind.phase for kind in speeds):
        rows = [(kind.who, s) for kind, s in speeds.items() if kind.phase == phase]
        unit = ("an evaluation" if phase == "evaluation" else "a step") + seeds
        if len(rows) > MOST_KINDS:
            times = [speed.seconds for _, speed in rows]
            timed = sum(speed.steps > 0 for _, speed in rows)
            lines.append(
                f"{phase}, {len(rows)} kinds: {_time(min(times))} to "
                f"{_time(max(times))} {unit} ({timed} kinds timed)"
            )
            continue
        for who, speed in rows:
            known = f"{speed.steps} timed" if speed.steps else "too slow to time"
            lines.append(f"{phase} {who}: {_time(speed.seconds)} {unit} ({known})")
    return lines


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _define(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("workdir", None, "the run's folder", values)
    absl_flags.DEFINE_integer(
        "probe_steps", 20, "training steps to time", lower_bound=0, flag_values=values
    )


if __name__ == "__main__":
    cli()
