"""What a network's training had cost when it was evaluated, from a run's files.

One seed's: its updates, the operations of its passes, or a share of the time. The
teacher's forward passes that a student asks for are the student's; the teacher's
training is its own, whoever looks at it (`steps.passes_per_step`).
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spaced_kd.errors import CheckpointError
from spaced_kd.results import read_log
from spaced_kd.writers import Row

Cost = Callable[[Row], float]
"""What the network of an evaluation row had spent by then."""

Segment = Mapping[str, Any]
"""Of `plan.json`."""


class Way(NamedTuple):
    """A network's way through the plan.

    ends: its updates after each segment that trains it, rising; of `segments`.
    """

    ends: list[int]
    segments: list[Segment]

    def segment_of(self, update: int) -> Segment:
        """Return the segment that made an update, counted from 1."""
        return self.segments[bisect.bisect_left(self.ends, update)]


def way(plan: Mapping[str, Any], name: str) -> Way:
    """Return a network's way through `plan.json`."""
    own = [segment for segment in plan["segments"] if _rate(segment, name)]
    made = (_rate(s, name) * (s["stop"] - s["start"]) for s in own)
    return Way(list(itertools.accumulate(made)), own)


def _rate(segment: Segment, name: str) -> int:
    """Return how often a step of a segment updates a network."""
    if segment["kind"] == "replay":
        return int(segment["student"] == name)
    if name == "teacher":
        return int(segment["teacher"])
    return len(segment["student_updates"].get(name, ()))


def updates(workdir: Path, plan: Mapping[str, Any], rows: Iterable[Row]) -> Cost:
    """Count updates."""
    del workdir, plan, rows
    return lambda row: row["step"]


def flops(workdir: Path, plan: Mapping[str, Any], rows: Iterable[Row]) -> Cost:
    """Count operations: those of each pass's network, twice for a backward pass.

    What feedback looks at is part of it: half of a look's passes are the teacher's.

    Raises:
      CheckpointError: `plan.json` lacks a count; from the returned function.
    """
    looks = _looks(rows)

    def known(count: int | None, name: str) -> int:
        if count is None:
            raise _of_older_version(workdir, f"how many operations {name} takes")
        return count

    def along(name: str) -> tuple[list[int], list[float]]:
        networks = plan["networks"]
        own = networks[name].get("forward_flops")
        taught_by = networks.get("teacher", {}).get("forward_flops")
        if name == "teacher":
            taught_by = plan.get("tutor_forward_flops")
        ends, segments = way(plan, name)
        costs = [0.0]
        for segment in segments:
            forward, backward = _passes(workdir, segment)[name]
            price = 3 * backward * known(own, name)
            # What is more than the way of its own updates is the teacher's.
            if forward > backward:
                price += (forward - backward) * known(taught_by, f"{name}'s teacher")
            costs.append(costs[-1] + price * (segment["stop"] - segment["start"]))
        return [0, *ends], costs

    def per_look(name: str) -> float:
        network = plan["networks"][name]
        if not network.get("decision_forward_passes"):
            return 0.0
        own, teacher = network["forward_flops"], plan["networks"]["teacher"]
        both = known(own, name) + known(teacher["forward_flops"], "the teacher")
        return network["decision_forward_passes"] / network["decisions"] * both / 2

    priced: dict[str, tuple[list[int], list[float]]] = {}

    def cost(row: Row) -> float:
        name = row["network"]
        if name not in priced:
            priced[name] = along(name)
        looked = bisect.bisect_left(looks.get(name, []), row["tick"])
        return float(np.interp(row["step"], *priced[name])) + looked * per_look(name)

    return cost


def _looks(rows: Iterable[Row]) -> dict[str, list[int]]:
    """Return the ticks at which feedback looked, by network, rising."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if row["phase"] == "decide":
            found.setdefault(row["network"], []).append(row["tick"])
    return found


def seconds(workdir: Path, plan: Mapping[str, Any], rows: Iterable[Row]) -> Cost:
    """Attribute the time of every tick of training: an estimate, not a measurement.

    Networks that train in one program share its time by their passes, backward ones for
    two, and seeds share it equally. A look of feedback is its student's. Compilation is
    in it, evaluations are not.

    Raises:
      CheckpointError: `plan.json` does not tell the passes of a step.
    """
    trained: dict[int, list[Row]] = {}
    for row in rows:
        if row["phase"] != "eval":
            trained.setdefault(row["tick"], []).append(row)
    ways = {name: way(plan, name) for name in plan["networks"]}
    ticks: dict[str, list[int]] = {name: [] for name in ways}
    shares: dict[str, list[float]] = {name: [] for name in ways}
    for timing in read_log(workdir / "timings.jsonl"):
        tick = timing["tick"]
        if tick not in trained:
            continue
        first, seeds = trained[tick][0], {row["seed"] for row in trained[tick]}
        if first["phase"] == "decide":
            ticks[first["network"]].append(tick)
            shares[first["network"]].append(timing["seconds"])
            continue
        segment = ways[first["network"]].segment_of(first["step"])
        work = {n: f + 2 * b for n, (f, b) in _passes(workdir, segment).items()}
        for name, own in work.items():
            share = timing["seconds"] * own / sum(work.values()) / len(seeds)
            ticks[name].append(tick)
            shares[name].append(share)
    spent = {name: [0.0, *itertools.accumulate(shares[name])] for name in shares}

    def cost(row: Row) -> float:
        name = row["network"]
        return spent[name][bisect.bisect_left(ticks[name], row["tick"])]

    return cost


def _passes(workdir: Path, segment: Segment) -> Mapping[str, tuple[int, int]]:
    if "passes" not in segment:
        raise _of_older_version(workdir, "the passes of a step")
    return segment["passes"]


def _of_older_version(workdir: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{workdir / 'plan.json'} does not say {what}; run the training command once "
        "more, which completes it, or compare at equal updates."
    )
