"""Weights kept along training, for analyses: each network's, and its teacher's.

They lie in `snapshots/seed_<n>/<network>/<updates>`. A snapshot that an interrupted run
made after its last checkpoint is written again by the run that continues.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import trained
from spaced_kd.checkpoint import Checkpoint, CheckpointLine
from spaced_kd.config import Config
from spaced_kd.errors import CheckpointError
from spaced_kd.schedule import Evaluate, Tick
from spaced_kd.state import NetState, SeedState
from spaced_kd.types import Params, Variables

FOLDER = "snapshots"


def places(ticks: Sequence[Tick], every: int) -> set[int]:
    """Return where in the plan weights are kept."""
    if not every:
        return set()
    by_network: dict[str, list[int]] = {}
    for place, tick in enumerate(ticks):
        if isinstance(tick, Evaluate):
            by_network.setdefault(tick.network, []).append(place)
    return {
        place
        for own in by_network.values()
        for place in (*own[every - 1 :: every], own[-1])
    }


def content(state: NetState) -> dict[str, Any]:
    """Return what is kept of a network: its variables and its method's parameters."""
    return dict(state.variables) | {"method": state.params["method"]}


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
        self._places = places(ticks, config.checkpoint.snapshot_every)
        self._taught: set[tuple[int, int]] = set()

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


def read(workdir: Path, seed: int, network: str) -> Iterator[Snapshot]:
    """Yield what was kept of a network, by updates.

    For a network that teaches, also where its students were looked at.

    Raises:
      CheckpointError: one is damaged.
      StorageError: the folder cannot be read.
    """
    line, taught = _line(workdir, seed, network), _line(workdir, seed, "teacher")
    teachers = taught.stored()
    for saved in line.stored().values():
        step = saved.info.get("teacher")
        teacher = None
        if step is not None:
            teacher = step, _variables(taught.read(_found(teachers, step, saved.path)))
        arrays = line.read(saved)
        method = trained.below(arrays, "method/")
        yield Snapshot(saved.tick, _variables(arrays), method, teacher)


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
