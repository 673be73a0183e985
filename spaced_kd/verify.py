"""`python -m spaced_kd.verify WORKDIR...`: do a run's files say what was written?"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from spaced_kd import flags, provenance, workdir
from spaced_kd.errors import CheckpointError, ConfigError
from spaced_kd.provenance import Problem, Provenance

USAGE = """Check that the files of runs still say what was written, and agree.

  python -m spaced_kd.verify runs/digits runs/other

WORKDIR...  of runs, finished or not, that nobody is writing to

Prints a line for every run that is as it should be: finished or not, sealed or not, the
number of starts; and one for every problem. Nothing is written, no data is read. What
this can find, and what not: docs/provenance.md.

Exit codes: 0 no problem, 2 flags, 4 a problem or no run, 5 locked, 7 storage.
"""


def cli(argv: Sequence[str] | None = None) -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv if argv is None else list(argv)))


def main(argv: Sequence[str]) -> int:
    """Verify every workdir, print what was found; return the exit code.

    Args:
      argv: program name and workdirs.
    """
    # What is skipped elsewhere with a warning is a problem here, and told as such.
    return flags.call(_run, argv, USAGE, told=logging.ERROR)


def _run(argv: Sequence[str]) -> int:
    code = 0
    for folder in _folders(argv):
        workdir.refuse_locked(folder)
        problems = provenance.verify(folder)
        for line in _lines(folder, problems):
            print(line)
        code = CheckpointError.code if problems else code
    return code


def _folders(argv: Sequence[str]) -> list[Path]:
    for argument in argv[1:]:
        if argument.startswith("-"):
            raise ConfigError(f"unknown flag '{argument}'; see --help.")
    if len(argv) < 2:
        raise ConfigError("WORKDIR is missing, e.g. runs/digits; see --help.")
    return [Path(argument).expanduser() for argument in argv[1:]]


def _lines(folder: Path, problems: Sequence[Problem]) -> list[str]:
    if problems:
        return [f"{folder}: {problem}" for problem in problems]
    return [f"{folder}: OK, {_summary(provenance.of(folder))}"]


def _summary(found: Provenance) -> str:
    state = "finished" if found.finished else "unfinished"
    missing = ", ".join(found.unsealed)
    seal = f"not sealed: {missing}" if missing else "sealed"
    starts = f"{found.starts} start{'' if found.starts == 1 else 's'}"
    return f"{state}, {seal}, {starts}"


if __name__ == "__main__":
    cli()
