"""What an analysis is: a measurement of trained networks, its table and its figures."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from spaced_kd.analysis.subject import Run, Subject
from spaced_kd.config import reference_names
from spaced_kd.spread import Difference, Spread
from spaced_kd.style import Look
from spaced_kd.tables import Table

Values = dict[str, Any]
"""What was measured: JSON; a number that is not finite is stored as None."""

Drawn = tuple[str, str, Figure | None]
"""File name without ending, caption, figure; None: there is nothing to draw."""


class Row(NamedTuple):
    """What was measured of one network.

    network: "teacher", or a student's name. seed: of its repetition. step: its own
    updates, epoch: the same in epochs.
    """

    network: str
    seed: int
    step: int
    epoch: float
    values: Values


class Column(NamedTuple):
    """A column of a table. value: takes it out of a row's; format: of its numbers."""

    title: str
    value: Callable[[Values], float | None]
    format: str = ""


class Found(NamedTuple):
    """What an analysis has found in a run.

    config: "config" of `config.json`. options: the analysis's own. once: what was
    measured once for the whole run. rows: by network in the order of tables, by seed,
    by step. updates: network -> of its own when the run is complete.
    """

    config: Mapping[str, Any]
    options: Mapping[str, Any]
    once: Values
    rows: Sequence[Row]
    updates: Mapping[str, int] = types.MappingProxyType({})

    @property
    def last(self) -> list[Row]:
        """The row of each network and seed after its last update."""
        return list({(row.network, row.seed): row for row in self.rows}.values())

    @property
    def networks(self) -> list[str]:
        """The networks that were measured, in the order of tables."""
        return list(dict.fromkeys(row.network for row in self.rows))

    @property
    def references(self) -> list[str]:
        """Those of `config.reference` that were measured."""
        wanted = reference_names(self.config["reference"])
        return [name for name in wanted if name in self.networks]

    def spread(self, network: str, value: Callable[[Values], float | None]) -> Spread:
        """Return a value of a network's last weights, over seeds."""
        own = self._by_seed(network)
        return Spread.of([value(values) for values in own.values()])

    def difference(
        self, network: str, other: str, value: Callable[[Values], float | None]
    ) -> Difference:
        """Return network minus other, paired by seed; of the seeds that both have."""
        own, others = self._by_seed(network), self._by_seed(other)
        return Difference.of(
            [
                _minus(value(own[seed]), value(others[seed]))
                for seed in own
                if seed in others
            ]
        )

    def block(self, columns: Sequence[Column], *labels: str) -> list[tuple[str, ...]]:
        """Return table rows: each network, then differences to `references`.

        Two references are compared once, the later with the earlier.

        Args:
          columns: what each row shows, after the labels.
          *labels: the same in every row, between the network's name and the values.
        """
        rows = [
            (
                name,
                *labels,
                *(format(self.spread(name, c.value), c.format) for c in columns),
            )
            for name in self.networks
        ]
        for place, other in enumerate(self.references):
            for name in self.networks:
                if name in ("teacher", *self.references[: place + 1]):
                    continue
                minus = [self.difference(name, other, c.value) for c in columns]
                cells = (
                    format(d, c.format) for d, c in zip(minus, columns, strict=True)
                )
                rows.append((f"{name} - {other}", *labels, *cells))
        return rows

    @property
    def preliminary(self) -> str:
        """Which networks were measured before their training ended; "": none."""
        early = [
            f"{row.network} of seed {row.seed} ({row.step:,} of "
            f"{self.updates[row.network]:,} updates)"
            for row in self.last
            if row.step < self.updates[row.network]
        ]
        return f"Measured in the middle of training: {', '.join(early)}." * bool(early)

    def _by_seed(self, network: str) -> dict[int, Values]:
        return {row.seed: row.values for row in self.last if row.network == network}


def _alone(subject: Subject, options: Any) -> Sequence[Subject]:
    del subject, options
    return ()


def _anything_goes(run: Run, options: Any) -> None:
    del run, options


def _data_alone(run: Run, options: Any) -> None:
    del run, options


class Analysis(NamedTuple):
    """One measurement.

    title: heading in the report. about: what is measured, on which data, in which mode;
      one paragraph, shown below the heading.
    options: a frozen dataclass of `fields.option`s with defaults.
    measure(subject, options) -> values of one network; None: it does not apply to it.
    table(found) -> the table in the report; None: nothing to show.
    figures(found, looks) -> figures; looks: network -> how its line looks.
    once(run, options) -> values that belong to no network, measured first; None: none.
    check(run, options) raises ConfigError where the options do not fit the run; all
      analyses are checked before the first one measures.
    beside(subject, options) -> other networks that the values depend on; where their
      weights change, the network is measured again.
    inputs(run, options) -> JSON that tells the files that are read besides the run's
      data; where they change, everything is measured again. None: no such files.
    """

    title: str
    about: str
    options: type
    measure: Callable[[Subject, Any], Values | None]
    table: Callable[[Found], Table | None]
    figures: Callable[[Found, Mapping[str, Look]], Sequence[Drawn]]
    once: Callable[[Run, Any], Values] | None = None
    check: Callable[[Run, Any], None] = _anything_goes
    beside: Callable[[Subject, Any], Sequence[Subject]] = _alone
    inputs: Callable[[Run, Any], Any] = _data_alone


def taught_by(subject: Subject, options: Any) -> Sequence[Subject]:
    """Return the teacher beside a network, if any: an `Analysis.beside`."""
    del options
    return () if subject.teacher is None else (subject.teacher,)


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
