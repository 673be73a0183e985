"""`python -m spaced_kd.analyze`: measure why, on the networks of a run.

The same command again goes on where it stopped: what was measured of the same weights
with the same options is not measured again.
"""

import contextlib
import dataclasses
import logging
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags as absl_flags
from ml_collections import config_flags

from spaced_kd import backend, fields, flags, registry, report, workdir
from spaced_kd.analysis import ANALYSES
from spaced_kd.analysis.base import Analysis, Found
from spaced_kd.analysis.book import Book
from spaced_kd.analysis.subject import MOMENTS, Run, open_run
from spaced_kd.errors import ConfigError, SpacedKDError
from spaced_kd.report.analyses import table as table_of

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
--imports=A,B           modules of your own that register what the run or an analysis
                        is made of, besides config.imports
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
    if not analyses:
        raise ConfigError(f"--analyses is empty; give some of {', '.join(ANALYSES)}.")
    folder = Path(path).expanduser().resolve()
    workdir.import_modules(folder)
    settings = settings_of(analyses, options or {})
    chosen = {name: ANALYSES[name] for name in settings}
    run = open_run(folder, data_dir, num_devices)
    subjects = run.subjects(networks or run.names, seeds or run.seeds, at)
    # Everything is looked at before the first hour is spent.
    for name, analysis in chosen.items():
        analysis.check(run, settings[name])
    with workdir.lock(folder / "analysis"):
        book = Book(run)
        try:
            for name, analysis in chosen.items():
                book.open(name, analysis, settings[name])
            for subject in subjects:
                for name, analysis in chosen.items():
                    book.measure(name, analysis, settings[name], subject)
        except BaseException:
            # What was measured before somebody stopped it is worth seeing.
            _log.warning("stopping: the report is written, with what was measured")
            with contextlib.suppress(SpacedKDError):
                _report(run)
            raise
        _report(run)
    return {name: book.found(name) for name in chosen}


def _report(run: Run) -> None:
    if run.config.report:
        report.build(run.workdir)


def settings_of(
    analyses: Iterable[str], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return analysis -> its options, checked; arguments as for `analyze`.

    Raises:
      ConfigError: an unknown analysis or option, or a value that is not allowed.
    """
    chosen = {
        name: registry.lookup(ANALYSES, name, "--analyses")
        for name in dict.fromkeys(analyses)
    }
    for name in options:
        registry.lookup(ANALYSES, name, "--options")
    return {n: _options(n, one, options.get(n, {})) for n, one in chosen.items()}


def _options(name: str, analysis: Analysis, given: Mapping[str, Any]) -> Any:
    raw = fields.to_config_dict(analysis.options)
    for option in given:
        registry.lookup(dict.fromkeys(raw), option, f"--options.{name}: option")
    return fields.parse(
        analysis.options, raw.to_dict() | dict(given), f"--options.{name}"
    )


def cli(argv: Sequence[str] | None = None) -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    # By force: a library that the analyses import has set logging up already.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    sys.exit(main(sys.argv if argv is None else list(argv)))


def main(argv: Sequence[str]) -> int:
    """Parse the flags, analyse, print the tables; return the exit code.

    Args:
      argv: program name and arguments.
    """
    return flags.call(_run, argv, _help, told=logging.INFO)


def _run(argv: Sequence[str]) -> int:
    flags.import_modules(argv)
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
    for name, one in found.items():
        table = table_of(name, one)
        print(f"{ANALYSES[name].title}\n")
        print(table.text() if table else "Nothing was measured.\n")
    written = Path(values.workdir) / "report.html"
    if written.exists():  # not with config.report=False
        print(f"report: {written}")
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
        for name in ("networks", "seeds", "data_dir", "imports"):
            absl_flags.DEFINE_string(name, "", "see USAGE", values)
        absl_flags.DEFINE_string("at", MOMENTS[0], "see USAGE", values)
        absl_flags.DEFINE_integer(
            "num_devices", 0, "see USAGE", lower_bound=0, flag_values=values
        )

    _refuse_unknown_options(argv)
    values = flags.parse(argv, define)
    for name in ("workdir", "analyses"):
        if not values[name].value:
            raise ConfigError(f"--{name} is missing; see --help.")
    return values


def _refuse_unknown_options(argv: Sequence[str]) -> None:
    # ml_collections names neither the flag nor what is known.
    for argument in argv[1:]:
        name, *rest = argument.lstrip("-").partition("=")[0].split(".")
        if name == "options" and len(rest) == 2:
            analysis = registry.lookup(ANALYSES, rest[0], "--options")
            known = {field.name: None for field in dataclasses.fields(analysis.options)}
            registry.lookup(known, rest[1], f"--options.{rest[0]}: option")


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
