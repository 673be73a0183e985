"""Runs the real compiled programs of a plan for a moment: memory, speed, hours.

The states that it advances are its own; nothing is recorded or kept.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from spaced_kd import experiment, ledger
from spaced_kd.engine import Engine, by_network
from spaced_kd.experiment import Experiment
from spaced_kd.probe_streamed import StreamedTimer, with_head
from spaced_kd.schedule import METHOD, Decide, Evaluate, Member, Replay, Segment, Tick
from spaced_kd.state import NetState, SeedState
from spaced_kd.types import Split

BUDGET_SECONDS = 60.0
"""Time for all measurements together, without compilation."""


class Speed(NamedTuple):
    """How fast one kind of tick runs.

    seconds: of one step, or of one evaluation, of all repetitions. steps: measured
    over, after a warm-up; 0 where it was too slow to measure and `seconds` follows from
    the other kinds. rate: seconds for one unit of `ledger.tick_costs`.
    """

    seconds: float
    steps: int
    rate: float


class Kind(NamedTuple):
    """What ticks have in common that take the same time a step.

    phase: lockstep, replay or evaluation. who: the networks, for a reader.
    """

    phase: str
    who: str


def kind_of(tick: Tick) -> Kind:
    """Return the kind of a tick."""
    match tick:
        case Evaluate():
            return Kind("evaluation", tick.network)
        case Decide():
            # It passes images forward, as an evaluation does.
            return Kind("evaluation", tick.student)
        case Replay():
            return Kind("replay", tick.student)
    teacher = ["teacher"] if tick.teacher else []
    return Kind("lockstep", " + ".join(teacher + [_who(m) for m in tick.members]))


def _who(member: Member) -> str:
    lag = f" {member.lag} behind" if member.lag else ""
    lag += f" held for {member.refresh}" if member.refresh else ""
    kinds = "" if member.updates == (METHOD,) else f" ({', '.join(member.updates)})"
    return f"{member.student}{lag}{kinds}"


def estimate(
    ticks: Iterable[Tick], costs: Iterable[float], rates: Mapping[Kind, float]
) -> dict[str, float]:
    """Return the seconds that the ticks will take, by phase.

    Args:
      ticks: of the plan.
      costs: of each tick, in forward passes (`ledger.tick_costs`).
      rates: seconds for one forward pass, by kind of tick.
    """
    seconds = {"lockstep": 0.0, "replay": 0.0, "evaluation": 0.0}
    for tick, cost in zip(ticks, costs, strict=True):
        kind = kind_of(tick)
        seconds[kind.phase] += cost * rates[kind]
    return seconds


def calls_within(
    step_seconds: float, length: int, steps: int, share_seconds: float, untimed: int = 1
) -> tuple[int, int]:
    """Return how to measure a program: (steps of one call, calls to time).

    The usual length is preferred to single steps; (1, 0) says that not even one single
    step fits besides the untimed ones.

    Args:
      step_seconds: expected of a step.
      length: steps of the usual program.
      steps: to measure over, if they fit.
      share_seconds: for all calls together.
      untimed: calls that come before, to warm up.
    """
    for size in (length, 1):
        affordable = math.floor(share_seconds / (step_seconds * size)) - untimed
        if affordable >= 1:
            return size, min(affordable, math.ceil(steps / size))
    return 1, 0


class Probe:
    """The programs of one experiment, compiled as a run compiles them."""

    def __init__(self, parts: Experiment, clock: Callable[[], float] = time.monotonic):
        """Compile the usual program of every kind of training tick."""
        self._parts, self._clock = with_head(parts), clock
        self._engine = Engine(self._parts)
        self._streamed = StreamedTimer(self._parts, self._engine, clock)
        self._template = experiment.state_template(parts)
        self.compile_seconds = 0.0
        self._usual = {kind_of(tick): tick for tick in self._engine.usual_ticks()}
        self._compiled = {tick: self._compile(tick) for tick in self._usual.values()}
        self._engine.close()  # or it would go on reading ahead
        self._states: list[SeedState] = []

    @property
    def work_bytes(self) -> int:
        """Bytes of the largest program's temporaries and new outputs; 0 if unknown."""
        sizes = [0]
        for compiled in self._compiled.values():
            found = compiled.memory_analysis()
            if found is not None:
                new = found.output_size_in_bytes - found.alias_size_in_bytes
                sizes.append(found.temp_size_in_bytes + new)
        return max(sizes)

    def measure(
        self, steps: int, budget_seconds: float = BUDGET_SECONDS
    ) -> dict[Kind, Speed]:
        """Return the speed of every kind of tick in the plan.

        Each kind runs its usual program once to warm up, then for at least `steps`
        steps. Where that does not fit into its share of the budget, fewer or single
        steps are timed; where not even two fit, the other kinds' mean rate stands in.
        Only the first kind, of which nothing is known yet, takes two steps whatever
        they cost (three where images are streamed).

        Streamed images are read anew for every call, ahead of it as in a run; of a
        streamed test split only as many batches as fit.

        Args:
          steps: training steps to measure over, for each kind.
          budget_seconds: for everything together, without compilation.
        """
        self._states = experiment.init_states(self._parts)
        jax.block_until_ready(self._states)
        deadline = self._clock() + budget_seconds
        costs = {
            tick: cost
            for tick, cost in zip(
                self._parts.ticks, ledger.tick_costs(self._parts), strict=True
            )
            if not isinstance(tick, Decide)
        }
        by_kind = {kind_of(tick): tick for tick in reversed(costs)} | self._usual
        found: dict[Kind, Speed] = {}
        # A run with a finished teacher begins with its evaluation.
        first = next(tick for tick in costs if isinstance(tick, Segment))
        for kind in dict.fromkeys(map(kind_of, (first, *costs))):
            tick = by_kind[kind]
            end = deadline + self._streamed.warm_up_seconds
            share = (end - self._clock()) / (len(by_kind) - len(found))
            rates = [speed.rate for speed in found.values() if speed.steps]
            rate = sum(rates) / len(rates) if rates else None
            if isinstance(tick, Evaluate):
                found[kind] = self._evaluation(tick, steps, costs[tick], share, rate)
            else:
                cost = costs[tick] / (tick.stop - tick.start)
                found[kind] = self._training(tick, steps, cost, share, rate)
        return found

    def close(self) -> None:
        """Stop reading ahead, where input is streamed."""
        self._streamed.close()

    def _training(
        self, tick: Segment, steps: int, cost: float, share: float, rate: float | None
    ) -> Speed:
        """Measure one kind of training tick; `cost` is that of a step."""
        timed = self._time_streamed if self._parts.streamed else self._time
        guess = timed(tick, 1, 1) if rate is None else rate * cost
        length = tick.stop - tick.start
        untimed = 2 if self._parts.streamed else 1
        size, calls = calls_within(guess, length, steps, share, untimed)
        if not calls:
            return Speed(guess, int(rate is None), guess / cost)
        seconds = timed(tick, size, calls) / (size * calls)
        return Speed(seconds, size * calls, seconds / cost)

    def _evaluation(
        self,
        tick: Evaluate,
        steps: int,
        cost: float,
        share: float,
        rate: float | None,
    ) -> Speed:
        assert rate is not None, "training is measured first"
        test, settings = self._parts.dataset.test, self._parts.config
        state = self._states[0][tick.network]
        if isinstance(test, Split):
            least = rate * cost
        else:
            batches = math.ceil(len(test.label) / settings.data.eval_batch_size)
            least = rate * cost / (settings.num_seeds * batches)
        if not calls_within(least, 1, 1, share)[1]:
            return Speed(rate * cost, 0, rate)
        if isinstance(test, Split):
            seconds = self._whole_evaluation(tick.network, state)
        else:
            seconds = self._streamed.evaluation(tick.network, state, steps, share)
        # Repetitions are evaluated one after another.
        seconds *= settings.num_seeds
        return Speed(seconds, 1, seconds / cost)

    def _whole_evaluation(self, network: str, state: NetState) -> float:
        predict = lambda: self._engine.predict(0, network, state)
        jax.block_until_ready(predict())
        started = self._clock()
        jax.block_until_ready(predict())
        return self._clock() - started

    def _compile(self, tick: Segment) -> Any:
        program, arguments = self._engine.first_call(self._template, tick)
        started = self._clock()
        compiled = program.lower(*arguments).compile()
        self.compile_seconds += self._clock() - started
        return compiled

    def _time_streamed(self, tick: Segment, size: int, calls: int) -> float:
        """As `_time`, with the reading of new images for every call."""
        kind = kind_of(tick)
        seconds, self._states = self._streamed.ticks(
            self._states,
            lambda other: kind_of(other) == kind,
            size,
            calls,
            usual=size == tick.stop - tick.start,
        )
        return seconds

    def _time(self, tick: Segment, size: int, calls: int) -> float:
        """Return the seconds of `calls` calls of `size` steps, for all repetitions.

        One more comes before them.
        """
        tick = tick._replace(stop=tick.start + size)
        if tick not in self._compiled:
            self._compiled[tick] = self._compile(tick)
        compiled = self._compiled[tick]
        _, (carry, *rest) = self._engine.first_call(self._states, tick)
        carry, _ = jax.block_until_ready(compiled(carry, *rest))
        started = self._clock()
        for _ in range(calls):
            carry, _ = compiled(carry, *rest)
        jax.block_until_ready(carry)
        seconds = self._clock() - started
        for seed, moved in zip(self._parts.groups[0].seeds, carry, strict=True):
            self._states[seed] = self._states[seed] | by_network(tick, moved)
        return seconds * _turns(self._parts)


def _turns(parts: Experiment) -> int:
    """Return how many groups of repetitions follow one another on a device."""
    groups = parts.groups
    return max(
        sum(device in group.devices for group in groups) for device in groups[0].devices
    )
