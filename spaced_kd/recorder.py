"""From metrics on the device to rows on disk, one tick behind, so nothing waits."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spaced_kd import schedule, seals
from spaced_kd.engine import ChunkMetrics
from spaced_kd.errors import NonFiniteError
from spaced_kd.intervals import Decision
from spaced_kd.results import metric_prefix
from spaced_kd.schedule import Lockstep, Segment
from spaced_kd.seals import Seal
from spaced_kd.types import Metrics
from spaced_kd.writers import MetricLog, Row, TensorBoard, read_rows

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
_log = logging.getLogger("spaced_kd")


@dataclasses.dataclass(frozen=True)
class Offsets:
    """Lengths in bytes of the two logs, and their seals by name of the file.

    What a checkpoint stores of them; one of an older version has no seals.
    """

    metrics: int = 0
    timings: int = 0
    seals: Mapping[str, Seal] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "Offsets":
        """Return those in a checkpoint's `info`."""
        return cls(**info["offsets"], seals=seals.of_logs(info))

    def to_info(self) -> dict[str, Any]:
        """Return what goes into a checkpoint's `info`."""
        every = {name: dataclasses.asdict(seal) for name, seal in self.seals.items()}
        offsets = {"metrics": self.metrics, "timings": self.timings}
        return {"offsets": offsets, "seals": every}


@dataclasses.dataclass
class _Pending:
    tick: int
    phase: str
    counts: dict[str, int]
    rates: dict[str, int]
    measured: list[ChunkMetrics] | list[dict[str, Metrics]]
    images: int


class Recorder:
    """Writes metrics.jsonl, timings.jsonl and TensorBoard events of one workdir.

    Rows of a tick are fetched from the device when the next tick has been started. They
    are functions of the training alone; what depends on the clock on the wall goes to
    timings.jsonl.
    """

    def __init__(
        self,
        workdir: Path,
        offsets: Offsets,
        seeds: list[int],
        steps_per_epoch: int,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Cut the logs back to `offsets` and continue them.

        Args:
          workdir: where the logs lie.
          offsets: of the checkpoint that training continues from; 0 for a new run.
          seeds: the seed of each repetition.
          steps_per_epoch: turns updates into epochs.
          clock: seconds; a test may bring its own.

        Raises:
          CheckpointError: a log is not the one that the offsets are of.
          StorageError: a log cannot be read or written.
        """
        self._log = MetricLog(workdir / METRICS)
        self._timings = MetricLog(workdir / TIMINGS)
        if offsets.metrics and not offsets.seals:
            _log.warning(
                "the logs in %s are not sealed: an older version wrote the checkpoint; "
                "they are taken as they are, and sealed from now on.",
                workdir,
            )
        self._log.truncate(offsets.metrics, offsets.seals.get(METRICS))
        self._timings.truncate(offsets.timings, offsets.seals.get(TIMINGS))
        rows = read_rows(workdir / METRICS)
        self.rows: list[Row] = []
        self._replayed: dict[str, list[tuple[int, float]]] = {}
        for row in rows:
            self._remember(row)
        self._board = TensorBoard(workdir / "tensorboard", rows)
        self._seeds = seeds
        self._steps_per_epoch = steps_per_epoch
        self._pending: _Pending | None = None
        self._clock, self._since = clock, clock()

    def train(
        self,
        tick: int,
        segment: Segment,
        counts: dict[str, int],
        measured: list[ChunkMetrics],
        images: int,
    ) -> None:
        """Take a training tick's metrics, [steps] each, and the updates after it."""
        phase = "lockstep" if isinstance(segment, Lockstep) else "replay"
        rates = schedule.rates_of(segment)
        moved = {n: counts[n] for n in (*rates, "teacher") if n in counts}
        self._exchange(_Pending(tick, phase, moved, rates, measured, images))

    def evaluation(
        self, tick: int, network: str, counts: dict[str, int], measured: list[Metrics]
    ) -> None:
        """Take what an evaluation measured, by repetition."""
        moved = {n: counts[n] for n in (network, "teacher") if n in counts}
        by_network = [{network: values} for values in measured]
        self._exchange(_Pending(tick, "eval", moved, {}, by_network, 0))

    def replay_losses(self, student: str) -> list[tuple[int, float]]:
        """Return (updates so far, mean loss) of every replay tick, in order.

        Of a run with one repetition; the last tick must have been written.
        """
        return self._replayed.get(student, [])

    def decision(
        self, tick: int, student: str, counts: dict[str, int], decision: Decision
    ) -> None:
        """Take what a look of feedback found; what came before has been written."""
        step, start = counts[student], f"decide/{metric_prefix(student)}"
        row = {
            "tick": tick,
            "seed": self._seeds[0],
            "network": student,
            "phase": "decide",
            "step": step,
            "epoch": step / self._steps_per_epoch,
            "teacher_step": decision.step,
            f"{start}measured": decision.measured,
            f"{start}waited_steps": decision.waited,
        }
        if decision.threshold is not None:
            row[f"{start}threshold"] = decision.threshold
        if decision.replay is not None:
            row[f"{start}replay"] = int(decision.replay)
        self._board.write(self._log.append(row))
        self._took(tick, "decide", 0)

    def write_pending(self) -> None:
        """Fetch and write the rows of the last tick.

        Raises:
          NonFiniteError: a metric is NaN or infinite; none of the tick's rows is kept.
        """
        self._exchange(None)

    def flush(self) -> Offsets:
        """Write everything and wait for the disk; return the logs' lengths, sealed."""
        self.write_pending()
        self._board.flush()
        lengths = self._log.flush(), self._timings.flush()
        every = {METRICS: self._log.seal(), TIMINGS: self._timings.seal()}
        return Offsets(*lengths, every)

    def close(self) -> None:
        """Close the event files; rows not yet flushed are dropped on purpose."""
        self._board.close()

    def _exchange(self, new: _Pending | None) -> None:
        old, self._pending = self._pending, new
        if old is None:
            return
        fetched = jax.device_get(old.measured)
        rows = [
            self._row(old, seed, network, values)
            for seed, networks in zip(self._seeds, fetched, strict=True)
            # The teacher first: what goes wrong there shows in every student.
            for network, values in sorted(networks.items(), key=_teacher_first)
        ]
        for row in rows:
            clean = self._log.append(row)
            self._board.write(clean)
            self._remember(clean)
        self._took(old.tick, old.phase, old.images)

    def _remember(self, row: Row) -> None:
        """Keep what the run itself looks back at."""
        name = row["network"]
        loss = row.get(f"{metric_prefix(name)}loss")
        if row["phase"] == "eval":
            self.rows.append(row)
        elif row["phase"] == "replay" and loss is not None:
            self._replayed.setdefault(name, []).append((row["step"], loss))

    def _took(self, tick: int, phase: str, images: int) -> None:
        now = self._clock()
        self._timings.append(
            {
                "tick": tick,
                "phase": phase,
                "seconds": now - self._since,
                "images": images,
            }
        )
        self._since = now

    def _row(self, tick: _Pending, seed: int, network: str, values: dict) -> Row:
        step = tick.counts[network]
        start = f"{'eval/' if tick.phase == 'eval' else ''}{metric_prefix(network)}"
        row = {
            "tick": tick.tick,
            "seed": seed,
            "network": network,
            "phase": tick.phase,
            "step": step,
            "epoch": step / self._steps_per_epoch,
        }
        if "teacher" in tick.counts:
            row["teacher_step"] = tick.counts["teacher"]
        for name, value in sorted(values.items()):
            series = np.asarray(value, np.float64)
            if not np.isfinite(series).all():
                raise NonFiniteError(_non_finite(tick, seed, network, name, series))
            row[f"{start}{name}"] = float(series.mean())
        return row


def _teacher_first(entry: tuple[str, Any]) -> tuple[bool, str]:
    return entry[0] != "teacher", entry[0]


def _non_finite(
    tick: _Pending, seed: int, network: str, name: str, series: np.ndarray
) -> str:
    bad = int(np.argmax(~np.isfinite(np.atleast_1d(series))))
    step = tick.counts[network]
    if series.ndim:
        step += (bad + 1 - len(series)) * tick.rates[network]
    value = np.atleast_1d(series)[bad]
    what = "NaN" if math.isnan(value) else "infinite"
    return (
        f"{metric_prefix(network)}{name} became {what} at update {step} (seed {seed}, "
        f"tick {tick.tick}, {tick.phase}); the last checkpoint is kept; lower its "
        "learning_rate or check the data, and train in a new workdir."
    )
