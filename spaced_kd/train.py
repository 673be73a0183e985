"""The host loop: advance tick by tick, evaluate, record, save, and resume exactly."""

import contextlib
import dataclasses
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from spaced_kd import (
    agreement,
    backend,
    evaluate,
    experiment,
    intervals,
    ledger,
    progress,
    results,
    schedule,
    stages,
    trained,
    workdir,
)
from spaced_kd import config as config_lib
from spaced_kd.best import BestKeeper
from spaced_kd.checkpoint import Checkpoint, CheckpointLine
from spaced_kd.engine import Engine
from spaced_kd.errors import (
    CheckpointError,
    Interrupted,
    NonFiniteError,
    StorageError,
)
from spaced_kd.experiment import Experiment
from spaced_kd.interrupt import StopRequest
from spaced_kd.intervals import Decision
from spaced_kd.peers import Peers
from spaced_kd.recorder import Offsets, Recorder
from spaced_kd.results import Results
from spaced_kd.schedule import Decide, Evaluate, Replay, Segment, Tick
from spaced_kd.snapshots import SnapshotKeeper
from spaced_kd.state import SeedState
from spaced_kd.types import Dataset, Metrics

_log = logging.getLogger("spaced_kd")

_SAVING_SHARE = 20.0
"""Least time between checkpoints, in durations of the last one."""


def run(
    config: ml_collections.ConfigDict | config_lib.Config,
    workdir_path: str | Path,
    *,
    may_exit: bool = False,
    peers: Peers | None = None,
) -> Results:
    """Train a run's networks in a workdir, or continue what is there.

    The same call again resumes; on CPU, with the same machine and device count, the end
    is bitwise that of an uninterrupted run. A finished run is only reported. Stages
    that the config names are trained first, each in a workdir of its own, unless they
    have been.

    Args:
      config: from `base_config()` with overrides, or already resolved.
      workdir_path: where everything is written; made if missing. With several
        processes all must reach it: process 0 writes, the others read checkpoints.
      may_exit: whether a signal may end the process when a step takes too long to
        wait for. The command line says yes; a notebook keeps its kernel.
      peers: the processes of the run, from `distributed.joined`; None: this one alone.

    Returns:
      The results, also in `results.json`, `report.html` and `figures/`.

    Raises:
      SpacedKDError: one of its kinds, with a one-line message (spaced_kd.errors).
    """
    backend.configure()
    if isinstance(config, ml_collections.ConfigDict):
        config = config_lib.from_config_dict(config)
    path = Path(workdir_path).expanduser().resolve()
    return _Runner(may_exit, peers or Peers(), {}).run(config, path)


@dataclasses.dataclass(frozen=True)
class _Runner:
    """Does a run, and before it the runs that it needs.

    may_exit, peers: as for `run`. datasets: those loaded so far.
    """

    may_exit: bool
    peers: Peers
    datasets: dict[config_lib.DataConfig, Dataset]

    def run(
        self, config: config_lib.Config, path: Path, instead: str = "--workdir"
    ) -> Results:
        """Return the results; `instead`: what to choose where the folder is in use."""
        peers, writes = self.peers, self.peers.index == 0
        hint = f"run the same command to continue from the last checkpoint in {path}"
        stages.load_data(config, self.datasets)
        needs_stages = self._needs_stages(config, path)
        lock = workdir.lock(path, instead) if writes else contextlib.nullcontext()
        with contextlib.ExitStack() as stack:
            # Nobody else may take the folder while its stages train.
            stack.enter_context(lock)
            given, origins = self._taught(config, path) if needs_stages else ({}, {})
            stop = stack.enter_context(StopRequest(may_exit=self.may_exit))
            stop.resume_hint = peers.resume_hint = hint
            dataset = self.datasets[config.data]
            parts = experiment.build(config, dataset)
            if writes:
                workdir.claim(path, config, dataset.fingerprint)
                if origins:
                    workdir.write_sealed(path / stages.FILE, origins)
                workdir.write_env(path, len(experiment.devices(parts)))
                for line in ledger.summary(parts):
                    _log.info("%s", line)
            agreement.same_run(peers, _identity(parts), path)
            loop = Loop(parts, path, peers, given)
            loop.write_plan()
            loop.finish(stop)
            if writes:
                results.load(path).save(path)
                if config.report:
                    # What draws takes longer to import than the rest of the package.
                    from spaced_kd import report

                    report.build(path)
            peers.exchange("the report is written")
            return results.load(path)

    def _needs_stages(self, config: config_lib.Config, path: Path) -> bool:
        """Return whether a run has stages, and is not finished.

        What is amiss with it is found here, and not after hours in its stages.
        """
        if not config.stages:
            return False
        workdir.refuse_other(path, config, self.datasets[config.data].fingerprint)
        if self._is_finished(path):
            return False
        stages.refuse_misfit(config, self.datasets)
        return True

    def _taught(
        self, config: config_lib.Config, path: Path
    ) -> tuple[stages.Given, dict[str, Any]]:
        """Return what `stages.take` does, after training what is missing."""
        root = str(stages.root(config, path))
        for name, folder in stages.folders(config, path, self.datasets).items():
            if self._is_finished(folder):
                _log.info("stage %s: trained already, in %s", name, folder)
                continue
            _log.info("stage %s: comes first, in %s", name, folder)
            stage = dataclasses.replace(config.stages[name], stages_dir=root)
            self.run(stage, folder, "--config.stages_dir")
        return stages.take(config, path, self.datasets)

    def _is_finished(self, path: Path) -> bool:
        # One process looks: a network filesystem may show another one less.
        mine = self.peers.index == 0 and trained.is_finished(path)
        return self.peers.exchange(mine)[0]


def _identity(parts: Experiment) -> dict[str, str]:
    return {
        "config": config_lib.fingerprint(parts.config),
        "data": parts.dataset.fingerprint,
    }


class Loop:
    """Where a run stands: the states, the tick, and what has been recorded."""

    def __init__(
        self,
        parts: Experiment,
        path: Path,
        peers: Peers | None = None,
        given: stages.Given | None = None,
    ):
        """Start anew, or from the newest checkpoint that verifies.

        Args:
          parts: the run.
          path: its workdir.
          peers: the processes of the run.
          given: trained networks that a new start takes over.

        Raises:
          CheckpointError: it is of another run, or not the same for all processes.
        """
        config = parts.config
        self._peers = peers or Peers()
        self._writes = self._peers.index == 0
        self._parts, self._path, self._given = parts, path, given or {}
        self._engine = Engine(parts)
        self._line = CheckpointLine(path / "checkpoints", config.checkpoint.keep)
        self._saved_at, self._save_seconds = time.monotonic(), 0.0
        # A checkpoint of the same shapes may still be of another run.
        self._identity = _identity(parts)
        self._teacher_logits: dict[int, tuple[int, jax.Array]] = {}
        self._labels = jnp.asarray(parts.dataset.test.label)
        self._decided: dict[str, list[Decision]] = {}
        self._plan_is_written = False
        saved = self._line.latest()
        agreement.same_checkpoint(self._peers, saved, path)
        offsets = Offsets()
        if saved is None:
            self._tick = 0
        else:
            self._refuse_foreign(saved)
            self._tick = saved.tick
            offsets = Offsets.of(saved.info)
            self._decided = _decisions(saved)
            self._follow()
        self._saved = saved
        if self._writes:
            self._recorder = Recorder(
                path,
                offsets,
                [config.seed + k for k in range(config.num_seeds)],
                parts.clock.steps_per_epoch,
            )
            self._best = BestKeeper(path / "best", config, self._recorder.rows)
            self._snapshots = SnapshotKeeper(path, config, self._parts.ticks)

    def write_plan(self) -> None:
        """Write plan.json as far as it is decided, unless that is what it says."""
        if self._writes and not self._plan_is_written:
            plan = ledger.describe_plan(self._parts)
            workdir.write_sealed(self._path / "plan.json", plan)
            self._plan_is_written = True

    def finish(self, stop: StopRequest) -> None:
        """Run the ticks that are left.

        Args:
          stop: asked after every tick; when it is requested, in whichever process, the
            state is saved and all processes stop.

        Raises:
          Interrupted: a signal asked to stop; the state is saved.
          PeerError: the processes do not start from the same state.
        """
        if self._tick == len(self._parts.ticks):
            _log.info("the run in %s is complete", self._path)
            return
        states = self._states()
        agreement.same_state(self._peers, states)
        counts = _updates_after(self._parts, self._tick)
        costs = ledger.tick_costs(self._parts)
        total, left = sum(costs), sum(costs[self._tick :])
        mode = self._parts.config.progress if self._writes else "none"
        bar = progress.make_progress(mode, total)
        begun = set()
        try:
            while self._tick < len(self._parts.ticks):
                place, tick = self._tick, self._parts.ticks[self._tick]
                # For tests, which stop or kill a run at a chosen place.
                sys.audit("spaced_kd.tick", _label(tick), place)
                if _label(tick) not in begun and isinstance(tick, Segment):
                    bar.say(f"compiling: {_label(tick)}")
                begun.add(_label(tick))
                if isinstance(tick, Evaluate):
                    self._evaluate(place, tick.network, states, counts)
                elif isinstance(tick, Decide):
                    self._look(place, tick, states, counts)
                    # There may now be more to decide, or less.
                    costs = ledger.tick_costs(self._parts)
                    left = sum(costs[place:])
                else:
                    states = self._advance(place, tick, states, counts)
                left -= costs[place]
                images = ledger.tick_images(self._parts, tick)
                bar.update(total - left, phase=_label(tick), images=images)
                self._tick = place + 1
                at_end = self._tick == len(self._parts.ticks)
                asked, due = self._decide(stop)
                if asked:
                    stop.acknowledge()
                if asked or due or at_end:
                    self._save(states)
                if asked and not at_end:
                    # Nobody leaves, and no number is promised, before it is on disk.
                    self._peers.exchange("saved")
                    raise Interrupted(
                        f"by {asked} at tick {self._tick} of "
                        f"{len(self._parts.ticks)}; the state is saved: "
                        f"{stop.resume_hint}."
                    )
        finally:
            bar.close()
            self._engine.close()
            # What was worth keeping is flushed; this must not hide why the loop ended.
            if self._writes:
                with contextlib.suppress(StorageError):
                    self._recorder.close()

    def _decide(self, stop: StopRequest) -> tuple[str, bool]:
        """Return who asked to stop, if anybody, and whether to save.

        All processes get the same answer after the same tick.
        """
        # Read once: a signal between two looks would leave without saving.
        asked = stop.requested
        if asked and not self._writes:
            # It now waits for process 0, which saves, and has a deadline of its own.
            stop.acknowledge()
        votes = self._peers.exchange(
            {"asked": asked, "signal": stop.signal, "due": self._is_due()}
        )
        due = votes[0]["due"]
        for name, vote in zip(self._peers.names, votes, strict=True):
            if vote["asked"]:
                to = f" to {name}" if self._peers.count > 1 else ""
                return f"{vote['signal'] or 'a signal'}{to}", due
        return "", due

    def _refuse_foreign(self, saved: Checkpoint) -> None:
        for what, value in self._identity.items():
            if saved.info.get(what) != value:
                raise CheckpointError(
                    f"{saved.path} was saved by a run of another {what} (fingerprint "
                    f"{str(saved.info.get(what))[:12]}, not {value[:12]}); choose "
                    "another --workdir, or put this run's own checkpoints there."
                )

    def _states(self) -> list[SeedState]:
        if self._saved is None:
            assert set(self._given) == set(stages.sources(self._parts.config))
            return experiment.init_states(self._parts, self._given)
        _log.info(
            "continuing from tick %d of %d", self._saved.tick, len(self._parts.ticks)
        )
        if self._saved.tick > len(self._parts.ticks):
            raise CheckpointError(
                f"{self._saved.path} is at tick {self._saved.tick}, but this plan has "
                f"{len(self._parts.ticks)}; it belongs to another run: choose another "
                "--workdir."
            )
        template = experiment.state_template(self._parts)
        return self._line.restore(self._saved, template)

    def _advance(
        self,
        place: int,
        segment: Segment,
        states: list[SeedState],
        counts: dict[str, int],
    ) -> list[SeedState]:
        states, measured = self._engine.advance(states, segment)
        for name, rate in schedule.rates_of(segment).items():
            counts[name] += rate * (segment.stop - segment.start)
        if self._writes:
            images = ledger.tick_images(self._parts, segment)
            self._recorder.train(place, segment, counts, measured, images)
        return states

    def _evaluate(
        self, place: int, network: str, states: list[SeedState], counts: dict[str, int]
    ) -> None:
        measured: list[Metrics] = []
        for seed, state in enumerate(states):
            found = self._engine.predict(seed, network, state[network])
            teacher, quote = None, "deepest"
            if network == "teacher":
                self._teacher_logits[seed] = (counts["teacher"], found.logits)
            else:
                quote = self._parts.config.students[network].quote
                if "teacher" in state:
                    teacher = self._teacher(seed, state, counts["teacher"])
            measured.append(evaluate.measure(found, self._labels, teacher, quote))
        if self._writes:
            self._recorder.evaluation(place, network, counts, measured)
            self._best.offer(
                network, states, [m["acc1"] for m in measured], counts[network]
            )
            self._snapshots.offer(place, network, states, counts)

    def _look(
        self,
        place: int,
        tick: Decide,
        states: list[SeedState],
        counts: dict[str, int],
    ) -> None:
        """Decide what a student does next, and go on with the plan that follows.

        Raises:
          NonFiniteError: what is measured, or was in the last tick.
        """
        name, settings = tick.student, self._parts.config.students[tick.student]
        if self._writes:
            self._recorder.write_pending()
        earlier = self._decided.setdefault(name, [])
        if settings.interval_schedule == "gap":
            # Every process takes part, and process 0's number counts.
            mine = self._engine.gap(states[0], name)
            measured = self._peers.exchange(mine)[0]
            _refuse_non_finite(name, measured, place)
            decision = intervals.judge_gap(settings, tick.look, measured, earlier)
        else:
            replays = _replays_before(self._parts, tick)
            losses = self._peers.exchange(self._losses(name, replays))[0]
            last = replays[-1].stop - replays[-1].start
            quantum = schedule.interval_steps(name, settings, self._parts.clock)
            decision = intervals.judge_plateau(
                settings, tick.look, losses, last, quantum
            )
        earlier.append(decision)
        if self._writes:
            self._recorder.decision(place, name, counts, decision)
        self._follow()
        if self._writes:
            self._snapshots.follow(self._parts.ticks)

    def _losses(self, name: str, replays: list[Replay]) -> list[float]:
        """Return the mean loss of the last two replays; only process 0 knows."""
        if not self._writes:
            return []
        points = self._recorder.replay_losses(name)
        return [intervals.mean_loss(points, r.start, r.stop) for r in replays[-2:]]

    def _follow(self) -> None:
        """Take up the plan that follows from what is decided."""
        if self._decided:
            self._parts = experiment.decided(self._parts, self._decided)
            self._engine.follow(self._parts)
            self._plan_is_written = False

    def _teacher(self, seed: int, state: SeedState, step: int) -> jax.Array:
        # The teacher stands still during replays: its logits are computed once.
        if self._teacher_logits.get(seed, (-1,))[0] != step:
            found = self._engine.predict(seed, "teacher", state["teacher"])
            self._teacher_logits[seed] = (step, found.logits)
        return self._teacher_logits[seed][1]

    def _is_due(self) -> bool:
        # Large networks are saved less often, so that saving stays a small part.
        every = self._parts.config.checkpoint.every_seconds
        every = max(every, _SAVING_SHARE * self._save_seconds) if every else 0.0
        return time.monotonic() - self._saved_at >= every

    def _save(self, states: list[SeedState]) -> None:
        if not self._writes:
            return
        started = time.monotonic()
        offsets = self._recorder.flush()
        self._best.write()
        info = self._identity | offsets.to_info()
        if self._decided:
            info["decisions"] = {
                name: [list(decision) for decision in own]
                for name, own in self._decided.items()
            }
        self._line.save(self._tick, states, info)
        self.write_plan()
        self._save_seconds = time.monotonic() - started
        self._saved_at = time.monotonic()


def _updates_after(parts: Experiment, tick: int) -> dict[str, int]:
    return dict.fromkeys(parts.updates, 0) | schedule.updates(parts.ticks[:tick])


def _decisions(saved: Checkpoint) -> dict[str, list[Decision]]:
    found = saved.info.get("decisions", {})
    return {name: [Decision(*own) for own in rows] for name, rows in found.items()}


def _replays_before(parts: Experiment, tick: Decide) -> list[Replay]:
    return [
        segment
        for segment in parts.plan
        if isinstance(segment, Replay)
        and segment.student == tick.student
        and segment.teacher_step < tick.look.step
    ]


def _refuse_non_finite(name: str, gap: float, place: int) -> None:
    if not math.isfinite(gap):
        raise NonFiniteError(
            f"the gap of {name} to its teacher became {gap} at tick {place}; the last "
            "checkpoint is kept; lower its learning_rate or check the data, and train "
            "in a new workdir."
        )


def _label(tick: Tick) -> str:
    match tick:
        case Replay():
            return f"replay {tick.student}"
        case Evaluate():
            return f"evaluate {tick.network}"
        case Decide():
            return f"decide {tick.student}"
    if not tick.teacher:
        return f"train {', '.join(m.student for m in tick.members)}"
    return "teacher and lockstep" if tick.members else "teacher"
