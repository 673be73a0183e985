"""`python -m spaced_kd.analyze`: measure why, on the networks of a run.

The same command again goes on where it stopped: what was measured of the same weights
with the same options is not measured again.
"""

import dataclasses
import logging
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags as absl_flags
from ml_collections import config_flags

from spaced_kd import backend, fields, flags, registry, report, workdir
from spaced_kd.analysis import ANALYSES, records
from spaced_kd.analysis.base import Analysis, Found
from spaced_kd.analysis.subject import MOMENTS, Run, Subject, open_run
from spaced_kd.errors import ConfigError, Interrupted, SpacedKDError

USAGE = """Measure the networks of a run, finished or not, and add that to its report.

  python -m spaced_kd.analyze --workdir=runs/digits --analyses=hessian,noise

--workdir=FOLDER        of the run; gets analysis.json, figures/ and a new report.html
--analyses=A,B          which, see below; all: every one
--networks=A,B          which networks; default: the teacher and every student
--seeds=0,1             which repetitions; default: all
--at=last|snapshots     weights saved last (default), or also those kept along training
                        (config.checkpoint.snapshot_every)
--options.NAME.FIELD=V  an option of an analysis
--data_dir=FOLDER       where the run's data lies now
--num_devices=N         devices to share the work; default: all
--help                  this, and the options of every analysis

Exit codes: 0 done, 2 flags, 3 data, 4 checkpoint or workdir, 5 locked, 7 storage, 75
interrupted (the same command continues).
"""

_log = logging.getLogger("spaced_kd")


def analyze(
    path: str | Path,
    analyses: Sequence[str],
    *,
    networks: Sequence[str] = (),
    seeds: Sequence[int] = (),
    at: str = "last",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    data_dir: str = "",
    num_devices: int = 0,
) -> dict[str, Found]:
    """Analyse the networks of a run; writes `analysis.json` after every network.

    Args:
      path: workdir of the run, finished or not.
      analyses: keys of `ANALYSES`.
      networks: "teacher" and students by name; empty: all.
      seeds: of repetitions; empty: all.
      at: "last" or "snapshots".
      options: analysis -> option -> value; what is left out has its default.
      data_dir: where the run's data lies now; empty: as its config says.
      num_devices: that share the work; 0: all.

    Returns:
      What each analysis found, older rows of the same options included.

    Raises:
      ConfigError: an unknown analysis, network, seed or option, or a value that is not
        allowed.
      CheckpointError: nothing is saved yet, damaged, or of another version.
      DataError: the run's data cannot be read.
      LockedError: the run is being analysed.
      StorageError: a file cannot be written.
    """
    chosen = {
        name: registry.lookup(ANALYSES, name, "--analyses")
        for name in dict.fromkeys(analyses)
    }
    given = options or {}
    for name in given:
        registry.lookup(ANALYSES, name, "--options")
    # Every option is looked at before the first hour is spent.
    settings = {n: _options(n, one, given.get(n, {})) for n, one in chosen.items()}
    folder = Path(path).expanduser().resolve()
    run = open_run(folder, data_dir, num_devices)
    subjects = run.subjects(networks or run.names, seeds or run.seeds, at)
    with workdir.lock(folder / "analysis"):
        book = _Book(run)
        for name, analysis in chosen.items():
            book.open(name, analysis, settings[name])
        for subject in subjects:
            for name, analysis in chosen.items():
                book.measure(name, analysis, settings[name], subject)
        report.build(folder)
    return {name: book.found(name) for name in chosen}


class _Book:
    """`analysis.json` of a run while it grows."""

    def __init__(self, run: Run):
        self._run, self._fingerprint = run, run.stored["fingerprint"]
        self._records = records.read(run.workdir, self._fingerprint)

    def open(self, name: str, analysis: Analysis, options: Any) -> None:
        """Go on with what the file has of an analysis, and measure what is once."""
        record = records.continued(
            self._records.get(name), dataclasses.asdict(options), _devices(self._run)
        )
        self._records[name] = record
        if analysis.once and record.once is None:
            begun = time.monotonic()
            record.once = records.finite(analysis.once(self._run, options))
            self._write()
            _log.info("%s: of the run, %.1f s", name, time.monotonic() - begun)

    def measure(
        self, name: str, analysis: Analysis, options: Any, subject: Subject
    ) -> None:
        """Measure a network, if the file does not have it, and write it at once."""
        record = self._records[name]
        row = _described(subject)
        if any(records.key(known) == records.key(row) for known in record.rows):
            return
        begun = time.monotonic()
        row["values"] = records.finite(analysis.measure(subject, options))
        row["seconds"] = round(time.monotonic() - begun, 3)
        other = [r for r in record.rows if records.place(r) != records.place(row)]
        record.rows = [*other, row]
        self._write()
        _log.info(
            "%s: %s, seed %d, %d updates, %.1f s%s",
            name,
            subject.name,
            subject.seed,
            subject.step,
            row["seconds"],
            "; does not apply" if row["values"] is None else "",
        )

    def found(self, name: str) -> Found:
        """Return what the file has of an analysis."""
        run = self._run
        return records.found(self._records[name], run.stored["config"], run.updates)

    def _write(self) -> None:
        records.write(self._run.workdir, self._fingerprint, self._records)


def _options(name: str, analysis: Analysis, given: Mapping[str, Any]) -> Any:
    raw = fields.to_config_dict(analysis.options)
    for option in given:
        registry.lookup(dict.fromkeys(raw), option, f"--options.{name}: option")
    return fields.parse(
        analysis.options, raw.to_dict() | dict(given), f"--options.{name}"
    )


def _described(subject: Subject) -> dict[str, Any]:
    """Return the beginning of a row: which network, and what its values depend on."""
    teacher = [subject.teacher.digest] if subject.teacher else []
    return {
        "network": subject.name,
        "seed": subject.seed,
        "step": subject.step,
        "epoch": subject.epoch,
        "weights": [subject.digest, *teacher],
    }


def _devices(run: Run) -> str:
    devices = run.group.devices
    return f"{len(devices)} {devices[0].device_kind}"


def cli(argv: Sequence[str] | None = None) -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv if argv is None else list(argv)))


def main(argv: Sequence[str]) -> int:
    """Parse the flags, analyse, print the tables; return the exit code.

    Args:
      argv: program name and arguments.
    """
    if flags.wants_help(argv):
        print(_help())
        return 0
    # A library that the analyses import has set logging up already.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    _log.setLevel(logging.INFO)
    try:
        values = _parse(argv)
        backend.configure()
        found = analyze(
            values.workdir,
            _named(values.analyses),
            networks=_names(values.networks),
            seeds=_numbers(values.seeds),
            at=values.at,
            options=values.options.to_dict(),
            data_dir=values.data_dir,
            num_devices=values.num_devices,
        )
    except SpacedKDError as error:
        return flags.report(error)
    except KeyboardInterrupt:
        print("stopped: by Ctrl-C; the same command continues.", file=sys.stderr)
        return Interrupted.code
    for name, one in found.items():
        table = ANALYSES[name].table(one) if one.rows or one.once else None
        print(f"{ANALYSES[name].title}\n")
        print(table.text() if table else "Nothing was measured.\n")
    print(f"report: {values.workdir}/report.html")
    return 0


def _help() -> str:
    lines = [USAGE, "Analyses and their options:"]
    for name, analysis in ANALYSES.items():
        lines.append(f"\n{name}: {analysis.title}")
        lines += [
            textwrap.fill(
                f"{field.name}={field.default!r}: {field.metadata['doc']}",
                width=88,
                initial_indent="  ",
                subsequent_indent="      ",
            )
            for field in dataclasses.fields(analysis.options)
        ]
    return "\n".join(lines)


def _parse(argv: Sequence[str]) -> absl_flags.FlagValues:
    defaults = ml_collections.ConfigDict(
        {
            name: fields.to_config_dict(analysis.options)
            for name, analysis in ANALYSES.items()
        }
    )

    def define(values: absl_flags.FlagValues) -> None:
        config_flags.DEFINE_config_dict(
            "options", defaults, flag_values=values, sys_argv=list(argv)
        )
        for name in ("workdir", "analyses"):
            absl_flags.DEFINE_string(name, None, "see USAGE", values)
        for name in ("networks", "seeds", "data_dir"):
            absl_flags.DEFINE_string(name, "", "see USAGE", values)
        absl_flags.DEFINE_string("at", MOMENTS[0], "see USAGE", values)
        absl_flags.DEFINE_integer("num_devices", 0, "see USAGE", flag_values=values)

    values = flags.parse(argv, define)
    for name in ("workdir", "analyses"):
        if not values[name].value:
            raise ConfigError(f"--{name} is missing; see --help.")
    return values


def _named(text: str) -> list[str]:
    return list(ANALYSES) if text == "all" else _names(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(name) for name in _names(text)]
    except ValueError:
        raise ConfigError(f"--seeds={text} is not a list of integers.") from None


if __name__ == "__main__":
    cli()
