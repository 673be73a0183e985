"""`analysis.json` of a run while analyses go on: what is measured, and what is not."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

from spaced_kd.analysis import records
from spaced_kd.analysis.base import Analysis, Found
from spaced_kd.analysis.subject import Run, Subject

_log = logging.getLogger("spaced_kd")


class Book:
    """`analysis.json` of a run while it grows.

    A record of other options stays in the file until there is something to replace it.
    """

    def __init__(self, run: Run):
        """Read what the file has.

        Raises:
          CheckpointError: it is damaged or of another run.
        """
        self._run, self._fingerprint = run, run.stored["fingerprint"]
        self._written = records.read(run.workdir, self._fingerprint)
        self._open: dict[str, records.Record] = {}

    def open(self, name: str, analysis: Analysis, options: Any) -> None:
        """Go on with what the file has of an analysis, and measure what is once."""
        run = self._run
        record = records.continued(
            self._written.get(name),
            dataclasses.asdict(options),
            _devices(run),
            analysis.inputs(run, options),
        )
        # A run that began anew in its folder is not as far as it was.
        record.rows = [
            row
            for row in record.rows
            if row["step"] <= run.last_step(row["network"], row["seed"])
        ]
        self._open[name] = record
        if analysis.once and record.once is None:
            begun = time.monotonic()
            record.once = records.finite(analysis.once(run, options))
            if name not in self._written:
                self._write(name)
            _log.info("%s: of the run, %.1f s", name, time.monotonic() - begun)

    def measure(
        self, name: str, analysis: Analysis, options: Any, subject: Subject
    ) -> None:
        """Measure a network, if the file does not have it, and write it at once."""
        record = self._open[name]
        row = _described(subject, analysis.beside(subject, options))
        if any(records.key(known) == records.key(row) for known in record.rows):
            return
        begun = time.monotonic()
        row["values"] = records.finite(analysis.measure(subject, options))
        row["seconds"] = round(time.monotonic() - begun, 3)
        other = [r for r in record.rows if records.place(r) != records.place(row)]
        record.rows = [*other, row]
        self._write(name)
        if row["values"] is not None:
            _log.info(
                "%s: %s, seed %d, %d updates, %.1f s",
                name,
                subject.name,
                subject.seed,
                subject.step,
                row["seconds"],
            )

    def found(self, name: str) -> Found:
        """Return what the file has of an analysis."""
        run = self._run
        return records.found(self._open[name], run.stored["config"], run.updates)

    def _write(self, name: str) -> None:
        self._written[name] = self._open[name]
        records.write(self._run.workdir, self._fingerprint, self._written)


def _described(subject: Subject, beside: Sequence[Subject]) -> dict[str, Any]:
    """Return the beginning of a row: which network, and what its values depend on."""
    return {
        "network": subject.name,
        "seed": subject.seed,
        "step": subject.step,
        "epoch": subject.epoch,
        "weights": [subject.digest, *(other.digest for other in beside)],
    }


def _devices(run: Run) -> str:
    devices = run.group.devices
    return f"{len(devices)} {devices[0].device_kind}"
