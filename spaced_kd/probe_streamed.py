"""Times ticks and evaluations whose images are read for every use, with the reading.

A run reads ahead while its devices compute, so the slower of the two sets its pace.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from spaced_kd import schedule
from spaced_kd.engine import Engine
from spaced_kd.experiment import Experiment
from spaced_kd.schedule import Segment
from spaced_kd.state import NetState, SeedState
from spaced_kd.types import Source, Split


class Head:
    """The first examples of a `Source`, which evaluations take for the whole."""

    def __init__(self, source: Source):
        """Begin with all of them; `size` says how many are left."""
        self._source, self.size = source, len(source.label)

    @property
    def label(self) -> np.ndarray:
        """See `Source`."""
        return self._source.label[: self.size]

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `Source`."""
        return self._source.shape

    def open(self, row: int) -> Image.Image:
        """See `Source`."""
        return self._source.open(row)


def with_head(parts: Experiment) -> Experiment:
    """Return the experiment with a `Head` for its test images, if those are read."""
    test: Any = parts.dataset.test
    if isinstance(test, Split):
        return parts
    return dataclasses.replace(parts, dataset=parts.dataset._replace(test=Head(test)))


class StreamedTimer:
    """Runs ticks of the plan one after another, through the engine's own reading."""

    def __init__(self, parts: Experiment, engine: Engine, clock: Callable[[], float]):
        """Prepare.

        Args:
          parts: from `with_head`.
          engine: of these parts.
          clock: seconds.
        """
        self._parts, self._engine, self._clock = parts, engine, clock
        self._single: tuple[Experiment, Engine] | None = None
        self.warm_up_seconds = 0.0  # of all first calls, which compile

    def ticks(
        self,
        states: Sequence[SeedState],
        is_kind: Callable[[Segment], bool],
        size: int,
        calls: int,
        *,
        usual: bool,
    ) -> tuple[float, list[SeedState]]:
        """Return the seconds of ticks, for all repetitions, and the states after them.

        Two more ticks come first: one compiles, and one is read with nothing to hide
        behind, as hardly any is in a run.

        Args:
          states: by repetition; donated.
          is_kind: which ticks; those that follow one another are taken.
          size: steps of each.
          calls: ticks to time.
          usual: whether the plan's own ticks have this size; else it is 1.
        """
        parts, engine = (self._parts, self._engine) if usual else self._single_steps()
        right = lambda t: is_kind(t) and t.stop - t.start == size
        training = (t for t in parts.ticks if isinstance(t, Segment))
        rows = [list(row) for yes, row in itertools.groupby(training, right) if yes]
        row = itertools.cycle(max(rows, key=len))
        started = self._clock()
        now, _ = jax.block_until_ready(engine.advance(states, next(row)))
        self.warm_up_seconds += self._clock() - started
        engine.close()  # with what was read while the program was compiled
        now, running = engine.advance(now, next(row))
        started = self._clock()
        for _ in range(calls):
            now, measured = engine.advance(now, next(row))
            jax.block_until_ready(running)
            running = measured
        seconds = self._clock() - started
        engine.close()
        return seconds, jax.block_until_ready(now)

    def evaluation(
        self, network: str, state: NetState, most_batches: int, share_seconds: float
    ) -> float:
        """Return the seconds of one network's evaluation, from a part of its images.

        One batch warms up and one is timed, whatever they cost, then as many as fit.

        Args:
          network: its name.
          state: of the first repetition.
          most_batches: to time.
          share_seconds: for everything, without compilation.
        """
        head: Any = self._parts.dataset.test
        whole, size = head.size, self._parts.config.data.eval_batch_size
        num_batches = math.ceil(whole / size)

        def batch_seconds(count: int) -> float:
            head.size = min(count * size, whole)
            started = self._clock()
            jax.block_until_ready(self._engine.predict(0, network, state))
            return (self._clock() - started) / count

        try:
            self.warm_up_seconds += batch_seconds(1)
            seconds = batch_seconds(1)
            count = math.floor(share_seconds / max(seconds, 1e-9)) - 1
            count = min(count, most_batches, num_batches)
            if count > 1:
                seconds = batch_seconds(count)
        finally:
            head.size = whole
        return seconds * num_batches

    def close(self) -> None:
        """Stop reading ahead."""
        self._engine.close()
        if self._single is not None:
            self._single[1].close()

    def _single_steps(self) -> tuple[Experiment, Engine]:
        """Return the experiment with its plan cut up into single steps."""
        if self._single is None:
            every = self._parts.config.eval_every_epochs
            every *= self._parts.clock.steps_per_epoch
            ticks = schedule.cut(self._parts.plan, 1, every)
            parts = dataclasses.replace(self._parts, ticks=ticks)
            self._single = parts, Engine(parts)
        return self._single
