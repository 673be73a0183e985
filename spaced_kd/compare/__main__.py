"""`python -m spaced_kd.compare RUN_A RUN_B`: flags, then one call."""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from spaced_kd import flags
from spaced_kd.errors import ConfigError

USAGE = """Compare two runs: config, networks paired by name and seed, curves.

  python -m spaced_kd.compare runs/digits runs/digits_longer

RUN_A, RUN_B             workdirs of two runs, finished or not; they are only read
--out=FOLDER             where compare.html, .md, .json and the curves are written;
                         compare_A_B in the current folder by default

Differences are B minus A. Exit codes: 0 done, 2 wrong arguments, 4 a folder holds no
run or a damaged one, 7 storage.
"""


def cli() -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv))


def main(argv: Sequence[str]) -> int:
    """Parse the flags, compare, print the tables; return the exit code.

    Args:
      argv: program name and arguments.
    """
    return flags.call(_run, argv, USAGE)


def _run(argv: Sequence[str]) -> int:
    values, given = flags.parse_with_arguments(argv, _define)
    if len(given) != 2:
        raise ConfigError(
            f"{len(given)} folder{'s' * (len(given) != 1)} given; give the "
            "workdirs of two runs, e.g. runs/digits runs/digits_longer."
        )
    a, b = (Path(folder) for folder in given)
    out = Path(values.out or f"compare_{_name(a)}_{_name(b)}")
    # Imported after the flags are known to be good: JAX takes a second.
    from spaced_kd.compare import page

    compared = page.compare(a, b)
    path = page.write(compared, out)
    print(compared.text())
    print(f"compare: {path}")
    return 0


def _name(folder: Path) -> str:
    return folder.resolve().name


def _define(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("out", "", "where everything is written", values)


if __name__ == "__main__":
    cli()
