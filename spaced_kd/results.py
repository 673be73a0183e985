"""The final numbers of a run, from the files of its workdir and nothing else.

What is quoted: the last evaluation and the mean of the last five. The best evaluation
is chosen on the test set and is labelled so. Differences are paired by seed: students
of one seed share the teacher, the batches and their order.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd import exits
from spaced_kd.config import reference_names
from spaced_kd.exits import ExitResult
from spaced_kd.spread import Difference, Spread, over_training
from spaced_kd.tables import Table
from spaced_kd.writers import Row, read_json, read_rows, write_whole

LAST = 5
"""Evaluations in the mean over the end of training."""


@dataclasses.dataclass(frozen=True)
class NetworkResult:
    """One network of a run.

    complete: every seed has been evaluated after its last update.
    seeds: those that the values are over: the finished ones, or, as long as there are
      none, all that have begun.
    evaluated_step: updates behind the last evaluation; the least over `seeds`.
    acc1_*, acc5_last, teacher_agreement_last: percent, on the test set.
    loss_last, teacher_kl_last: nats, on the test set.
    forward_passes, backward_passes: batches.
    quoted: whose the other values are, of a network with several exits. exits: what
      each of these reaches; {} for a network that has one.
    interval_schedule, intervals_steps: what changed the space interval, and all of
      them; None and () where it stayed, and `space_interval_steps` is it.
    acc1_last_minus: by reference; where there is a difference to take.
    """

    complete: bool
    seeds: tuple[int, ...]
    evaluated_step: int
    acc1_last: Spread
    acc1_mean_last5: Spread
    acc1_best: Spread
    acc5_last: Spread
    loss_last: Spread
    teacher_kl_last: Spread
    teacher_agreement_last: Spread
    updates: int
    space_interval_steps: int | None
    space_interval_epochs: float | None
    plan: str | None
    forward_passes: int
    backward_passes: int
    quoted: str | None = None
    exits: dict[str, ExitResult] = dataclasses.field(default_factory=dict)
    interval_schedule: str | None = None
    intervals_steps: tuple[int, ...] = ()
    acc1_last_minus: dict[str, Difference] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return dataclasses.asdict(self)

    def interval(self) -> str:
        """Return the space interval in words, or how it varied; "" without one."""
        if self.interval_schedule:
            least, most = min(self.intervals_steps), max(self.intervals_steps)
            return f"{self.interval_schedule}, {least:,} to {most:,} steps"
        if self.space_interval_steps is None:
            return ""
        epochs, steps = self.space_interval_epochs, self.space_interval_steps
        return f"{epochs:g} epochs = {steps:,} steps"


@dataclasses.dataclass(frozen=True)
class Results:
    """All final numbers of a run; prints as tables, also in a notebook.

    teacher: None in a run without one.
    references: students that differences are taken to, of those the run has.
    timing: seconds spent and images a second; the only values that differ when the same
      run is done twice.
    """

    complete: bool
    num_seeds: int
    references: tuple[str, ...]
    teacher: NetworkResult | None
    students: dict[str, NetworkResult]
    timing: dict[str, float | None]

    @property
    def networks(self) -> dict[str, NetworkResult]:
        """The teacher, if any, then the students in the order of the config."""
        teacher = {"teacher": self.teacher} if self.teacher else {}
        return teacher | self.students

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `results.json`."""
        return {
            "complete": self.complete,
            "num_seeds": self.num_seeds,
            "references": list(self.references),
            "teacher": self.teacher and self.teacher.to_dict(),
            "students": {name: s.to_dict() for name, s in self.students.items()},
            "timing": self.timing,
        }

    def save(self, workdir: Path) -> Path:
        """Write `results.json` in one piece and return its path.

        Raises:
          StorageError: it cannot be written.
        """
        return write_whole(workdir / "results.json", self.text())

    def text(self) -> str:
        """Return the text of `results.json`: a function of the values alone."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def cells(self) -> Table:
        """Return the table's texts; columns only where there is something to say."""
        titles = (
            "network",
            "plan",
            "interval\nepochs / steps",
            "updates",
            "passes\nfwd / bwd",
            "quoted\nexit",
            "acc1 last\n%",
            f"acc1 mean of\nlast {LAST}, %",
            "acc1 best on test,\noptimistic, %",
            *self._difference_titles(),
        )
        left_out = set()
        if not any(net.exits for net in self.networks.values()):
            left_out.add("quoted\nexit")
        if len(self.references) > 1:
            left_out.update(self._difference_titles())
        shown = [place for place, title in enumerate(titles) if title not in left_out]

        def pick(line: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(line[place] for place in shown)

        rows = (pick(self._row(name, net)) for name, net in self.networks.items())
        return Table(pick(titles), tuple(rows), tuple(self._notes()))

    def difference_cells(self) -> Table | None:
        """Return the differences to several students, which `cells` has no room for."""
        if len(self.references) < 2:
            return None
        rows = tuple(
            (name, f"{net.updates:,}", *self._differences(net))
            for name, net in self.students.items()
        )
        return Table(("network", "updates", *self._difference_titles()), rows)

    def _difference_titles(self) -> list[str]:
        return [f"acc1 last minus\n{name}, points" for name in self.references]

    def exit_cells(self) -> Table | None:
        """Return the table of single exits; None where no network has several."""
        return exits.table(self.networks, LAST)

    def table(self) -> str:
        """Return plain-text tables with aligned columns."""
        return "\n\n".join(table.text() for table in self._tables())

    def markdown(self) -> str:
        """Return Markdown tables."""
        return "\n".join(table.markdown() for table in self._tables())

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self._tables())

    def _tables(self) -> list[Table]:
        tables = (self.cells(), self.difference_cells(), self.exit_cells())
        return [table for table in tables if table]

    def __str__(self) -> str:
        """Return `table()`."""
        return self.table()

    def _row(self, name: str, net: NetworkResult) -> tuple[str, ...]:
        interval = net.interval() or "-"
        if net.space_interval_steps is not None and not net.interval_schedule:
            interval = f"{net.space_interval_epochs:g} / {net.space_interval_steps:,}"
        return (
            name + ("" if net.complete else " *"),
            net.plan or "-",
            interval,
            f"{net.updates:,}",
            f"{net.forward_passes:,} / {net.backward_passes:,}",
            net.quoted or "-",
            str(net.acc1_last),
            str(net.acc1_mean_last5),
            str(net.acc1_best),
            *self._differences(net),
        )

    def _differences(self, net: NetworkResult) -> list[str]:
        return [self._difference(net, reference) for reference in self.references]

    def _difference(self, net: NetworkResult, reference: str) -> str:
        if reference not in net.acc1_last_minus:
            return "-"
        mark = ""
        if self._off_budget(net, reference):
            mark = f" † {100 * self._excess(net, reference):+.3g} %"
        return str(net.acc1_last_minus[reference]) + mark

    def _off_budget(self, net: NetworkResult, reference: str) -> bool:
        return abs(self._excess(net, reference)) > 0.01

    def _excess(self, net: NetworkResult, reference: str) -> float:
        return excess(net, self.students[reference]).updates

    def _notes(self) -> Iterable[str]:
        if not self.complete:
            yield "UNFINISHED: the run has not come to its end; see the rows marked *."
            yield from _unfinished(self.networks, self.num_seeds)
        if any(
            self._off_budget(net, reference)
            for net in self.networks.values()
            for reference in net.acc1_last_minus
        ):
            yield (
                "† so much more or less training (updates) than what is subtracted, "
                "where it is over 1 %."
            )
        counts = [len(net.seeds) for net in self.networks.values()]
        least, most = min(counts), max(counts)
        n = f"n={most}" if least == most else f"n={least} to {most}"
        spread = ", mean ± standard deviation over seeds" if most > 1 else ""
        yield f"acc1: top-1 accuracy on the test set{spread} ({n})."
        if self.teacher and self.teacher.updates == 0:
            yield "The teacher was trained before this run and stays as it is."
        if most > 1 and self.references:
            interval = "; in brackets: 95 % t interval of their mean" * (most > 2)
            yield (
                f"Differences to {', '.join(self.references)} are taken within a "
                f"seed (same {'teacher, same ' * bool(self.teacher)}batches){interval}."
            )


class Excess(NamedTuple):
    """How much more a network's training is than another's; 0.05: 5 % more.

    passes: forward, and backward for two; the teacher's that a student asks for are its
      own, those of the teacher's training nobody's.
    """

    updates: float
    passes: float


def excess(network: NetworkResult, reference: NetworkResult) -> Excess:
    """Return how much more one student's training is, over the whole plan."""

    work = [
        net.forward_passes + 2 * net.backward_passes for net in (network, reference)
    ]
    return Excess(
        (network.updates - reference.updates) / reference.updates,
        (work[0] - work[1]) / work[1],
    )


def compute(
    config: Mapping[str, Any],
    plan: Mapping[str, Any],
    rows: Iterable[Row],
    timings: Iterable[Row] = (),
) -> Results:
    """Return the results of a run, finished or not.

    Args:
      config: "config" of `config.json`.
      plan: `plan.json`.
      rows: of `metrics.jsonl`; those of training are passed over.
      timings: of `timings.jsonl`.
    """
    evals: dict[str, dict[int, list[Row]]] = {}
    for row in sorted(_evaluations(rows), key=lambda row: row["step"]):
        evals.setdefault(row["network"], {}).setdefault(row["seed"], []).append(row)
    names = network_order(config, plan)
    networks = {
        name: _network(name, config, plan["networks"][name], evals.get(name, {}))
        for name in names
    }
    wanted = reference_names(config["reference"])
    references = tuple(name for name in wanted if name in config["students"])
    students = {
        name: _against(networks, name, references)
        for name in names
        if name != "teacher"
    }
    return Results(
        complete=all(net.complete for net in networks.values()),
        num_seeds=config["num_seeds"],
        references=references,
        teacher=networks.get("teacher"),
        students=students,
        timing=_timing(timings),
    )


def load(workdir: Path) -> Results:
    """Compute the results of a workdir, finished or not.

    Raises:
      CheckpointError: a file is damaged.
      StorageError: a file cannot be read.
    """
    return compute(
        read_json(workdir / "config.json")["config"],
        read_json(workdir / "plan.json"),
        read_log(workdir / "metrics.jsonl"),
        read_log(workdir / "timings.jsonl"),
    )


def read_log(path: Path) -> list[Row]:
    """Read the log of a run that may be going on; no rows if it has none yet."""
    return read_rows(path, partial_tail=True) if path.exists() else []


def _evaluations(rows: Iterable[Row]) -> Iterable[Row]:
    return (row for row in rows if row["phase"] == "eval")


def network_order(config: Mapping[str, Any], plan: Mapping[str, Any]) -> list[str]:
    """Return the teacher, then the students as the config file gave them.

    `plan.json` keeps that order as a list, because JSON objects are saved sorted.
    """
    return list(plan.get("order", ("teacher", *config["students"])))


def metric_prefix(network: str) -> str:
    """Return how a network's metric keys begin, e.g. `student/spaced_1_5/`."""
    return "teacher/" if network == "teacher" else f"student/{network}/"


def _network(
    name: str,
    config: Mapping[str, Any],
    ledger: Mapping[str, Any],
    by_seed: Mapping[int, Sequence[Row]],
) -> NetworkResult:
    finished = [s for s in by_seed if by_seed[s][-1]["step"] >= ledger["updates"]]
    seeds = tuple(sorted(finished or by_seed))
    histories = [by_seed[seed] for seed in seeds]
    prefix = f"eval/{metric_prefix(name)}"

    def over(metric: str) -> tuple[Spread, Spread, Spread]:
        values = [[row.get(prefix + metric) for row in h] for h in histories]
        return over_training(values, LAST)

    acc1_last, acc1_mean_last5, acc1_best = over("acc1")
    interval = ledger["space_interval_steps"]
    epochs = config["students"][name]["space_interval_epochs"] if interval else None
    found = exits.by_exit(histories, prefix, LAST)
    student = config["students"].get(name, {})
    return NetworkResult(
        complete=len(finished) == config["num_seeds"],
        seeds=seeds,
        evaluated_step=min((h[-1]["step"] for h in histories), default=0),
        acc1_last=acc1_last,
        acc1_mean_last5=acc1_mean_last5,
        acc1_best=acc1_best,
        acc5_last=over("acc5")[0],
        loss_last=over("loss")[0],
        teacher_kl_last=over("teacher_kl")[0],
        teacher_agreement_last=over("teacher_agreement")[0],
        updates=ledger["updates"],
        space_interval_steps=interval,
        space_interval_epochs=epochs,
        plan=ledger["plan"],
        forward_passes=ledger["forward_passes"],
        backward_passes=ledger["backward_passes"],
        quoted=exits.quoted(student, found),
        exits=found,
        interval_schedule=ledger.get("interval_schedule"),
        intervals_steps=tuple(ledger.get("intervals_steps", ())),
    )


def _against(
    networks: Mapping[str, NetworkResult], name: str, references: Iterable[str]
) -> NetworkResult:
    found = {
        reference: _minus(networks[name], networks[reference])
        for reference in references
        if reference != name
    }
    known = {reference: d for reference, d in found.items() if d is not None}
    return dataclasses.replace(networks[name], acc1_last_minus=known)


def _minus(net: NetworkResult, base: NetworkResult) -> Difference | None:
    """Return the paired difference of the seeds that both have; None without any."""
    if not (_has_finished(net) and _has_finished(base)):
        return None
    own = dict(zip(net.seeds, net.acc1_last.per_seed, strict=True))
    other = dict(zip(base.seeds, base.acc1_last.per_seed, strict=True))
    pairs = [(own[seed], other[seed]) for seed in net.seeds if seed in other]
    if not pairs:
        return None
    return Difference.of([None if a is None or b is None else a - b for a, b in pairs])


def _has_finished(net: NetworkResult) -> bool:
    return bool(net.seeds) and net.evaluated_step >= net.updates


def _timing(timings: Iterable[Row]) -> dict[str, float | None]:
    rows = list(timings)
    seconds = math.fsum(row["seconds"] for row in rows)
    images = sum(row["images"] for row in rows)
    return {
        "seconds": seconds if rows else None,
        "images_per_second": images / seconds if seconds > 0 else None,
    }


def _unfinished(networks: Mapping[str, NetworkResult], num_seeds: int) -> Iterable[str]:
    partly, latest, absent = [], [], []
    for name, net in networks.items():
        if net.complete:
            continue
        if not net.seeds:
            absent.append(name)
        elif _has_finished(net):
            partly.append(f"{name} {len(net.seeds)} of {num_seeds}")
        else:
            latest.append(f"{name} {net.evaluated_step:,} of {net.updates:,}")
    if partly:
        yield f"* only the seeds that are through: {', '.join(partly)}."
    if latest:
        yield f"* no seed is through; latest values, at update: {', '.join(latest)}."
    if absent:
        yield f"* not evaluated yet: {', '.join(absent)}."
