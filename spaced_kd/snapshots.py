"""Weights kept along training, for analyses: each network's, and its teacher's.

A student that ends before its teacher does is kept at its end in every run: nothing
else tells later which teacher it learned from last.

They lie in `snapshots/seed_<n>/<network>/<updates>`. A snapshot that an interrupted run
made after its last checkpoint is written again by the run that continues.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import trained
from spaced_kd.checkpoint import Checkpoint, CheckpointLine
from spaced_kd.config import Config
from spaced_kd.errors import CheckpointError
from spaced_kd.schedule import Evaluate, Lockstep, Tick
from spaced_kd.state import NetState, SeedState
from spaced_kd.types import Params, Variables

FOLDER = "snapshots"


def places(ticks: Sequence[Tick], every: int) -> set[int]:
    """Return where in the plan weights are kept.

    Args:
      ticks: of the run.
      every: `config.checkpoint.snapshot_every`.
    """
    by_network: dict[str, list[int]] = {}
    for place, tick in enumerate(ticks):
        if isinstance(tick, Evaluate):
            by_network.setdefault(tick.network, []).append(place)
    teaching = [k for k, t in enumerate(ticks) if isinstance(t, Lockstep) and t.teacher]
    kept = set()
    for network, own in by_network.items():
        if every:
            kept |= {*own[every - 1 :: every], own[-1]}
        elif network != "teacher" and own[-1] < max(teaching, default=0):
            kept.add(own[-1])
    return kept


def content(state: NetState) -> dict[str, Any]:
    """Return what is kept of a network: variables, their average, method parameters."""
    method = {"method": state.params["method"], "average": state.average}
    return dict(state.variables) | method


class Snapshot(NamedTuple):
    """A network as it was; teacher: updates and variables, as it stood beside it."""

    step: int
    variables: Variables
    method: Params
    teacher: tuple[int, Variables] | None


class SnapshotKeeper:
    """Keeps weights at every n-th evaluation of a network, and at its last."""

    def __init__(self, workdir: Path, config: Config, ticks: Sequence[Tick]):
        """Name the folder and the ticks; nothing is written yet."""
        self._root = workdir / FOLDER
        self._seeds = [config.seed + k for k in range(config.num_seeds)]
        self._every = config.checkpoint.snapshot_every
        self.follow(ticks)
        self._taught: set[tuple[int, int]] = set()

    def follow(self, ticks: Sequence[Tick]) -> None:
        """Go on with another plan of the same run."""
        self._places = places(ticks, self._every)

    def offer(
        self,
        place: int,
        network: str,
        states: Sequence[SeedState],
        counts: Mapping[str, int],
    ) -> None:
        """Keep a network's weights if this is one of its evaluations to keep.

        Args:
          place: of the evaluation among the ticks.
          network: which was evaluated.
          states: by repetition.
          counts: updates of every network so far.

        Raises:
          NonFiniteError, StorageError: as for `CheckpointLine.save`.
        """
        if place not in self._places:
            return
        for seed, state in zip(self._seeds, states, strict=True):
            info = {}
            if network != "teacher" and "teacher" in state:
                info["teacher"] = at = counts["teacher"]
                # Students that are looked at together have one teacher.
                if (seed, at) not in self._taught:
                    self._save(seed, "teacher", at, state["teacher"], {})
                    self._taught.add((seed, at))
            self._save(seed, network, counts[network], state[network], info)

    def _save(
        self, seed: int, network: str, step: int, state: NetState, info: dict[str, Any]
    ) -> None:
        _line(self._root.parent, seed, network).save(step, content(state), info)


def steps(workdir: Path, seed: int, network: str) -> list[int]:
    """Return after which updates a network was kept, rising.

    A network that teaches was also kept where its students were.

    Raises:
      CheckpointError: the description of one is damaged.
      StorageError: the folder cannot be read.
    """
    return list(_line(workdir, seed, network).stored())


def load(workdir: Path, seed: int, network: str, step: int, weights: str) -> Snapshot:
    """Return a network as it was after `step` updates, one of `steps`.

    Args:
      workdir: of the run.
      seed: of the repetition.
      network: which.
      step: its updates.
      weights: those of its teacher that it learns from, "live" or "ema".

    Raises:
      CheckpointError: it, or its teacher's, is damaged or missing.
      StorageError: the folder cannot be read.
    """
    line, taught = _line(workdir, seed, network), _line(workdir, seed, "teacher")
    saved = line.stored()[step]
    at = saved.info.get("teacher")
    teacher = None
    if at is not None:
        beside = taught.read(_found(taught.stored(), at, saved.path))
        variables = _variables(beside)
        if weights == "ema":
            variables = trained.averaged(beside, "", variables)
        teacher = at, variables
    arrays = line.read(saved)
    return Snapshot(step, _variables(arrays), trained.below(arrays, "method/"), teacher)


def _found(teachers: Mapping[int, Checkpoint], step: int, path: Path) -> Checkpoint:
    if step not in teachers:
        raise CheckpointError(
            f"{path} was taken beside a teacher of {step} updates, of which there is "
            "no snapshot; restore it, or leave the snapshots out (--at=last)."
        )
    return teachers[step]


def _variables(arrays: Mapping[str, Any]) -> Variables:
    kinds = ("params", "batch_stats")
    return trained.alone({k: trained.below(arrays, f"{k}/") for k in kinds})


def _line(workdir: Path, seed: int, network: str) -> CheckpointLine:
    return CheckpointLine(workdir / FOLDER / f"seed_{seed}" / network, keep=None)
