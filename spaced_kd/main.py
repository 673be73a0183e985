"""`python -m spaced_kd.main --config=... --workdir=...`: flags, then one call."""

import logging
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from spaced_kd import flags
from spaced_kd.errors import ConfigError, Interrupted, SpacedKDError

USAGE = """Train one teacher and its students, or continue a run.

  python -m spaced_kd.main --config=configs/digits.py --workdir=runs/digits

--config=FILE[:VARIANT]  a config file and, after a colon, one of its variants
--config.a.b=VALUE       override one field (spaced_kd/config.py lists them all)
--workdir=FOLDER         where everything is written; the same command again resumes

Exit codes: 0 done, 2 config, 3 data, 4 checkpoint or workdir, 5 locked, 6 non-finite,
7 storage, 75 interrupted (the same command continues from the last checkpoint).
"""


def cli(argv: Sequence[str] | None = None) -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv if argv is None else list(argv)))


def main(argv: Sequence[str]) -> int:
    """Parse the flags, train, print the table; return the exit code.

    Args:
      argv: program name and arguments.
    """
    if flags.wants_help(argv):
        print(USAGE)
        return 0
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("spaced_kd").setLevel(logging.INFO)
    try:
        config, workdir = _parse(argv)
        # Imported after the flags are known to be good: JAX takes a second.
        from spaced_kd import train

        results = train.run(config, workdir, may_exit=True)
    except SpacedKDError as error:
        return flags.report(error)
    except KeyboardInterrupt:
        print("stopped: by Ctrl-C; the same command continues.", file=sys.stderr)
        return Interrupted.code
    print(results.table())
    print(f"report: {workdir}/report.html")
    return 0


def _parse(argv: Sequence[str]):
    config, values = flags.parse_config(argv, _define)
    if not values.workdir:
        raise ConfigError("--workdir is missing, e.g. --workdir=runs/digits.")
    return config, values.workdir


def _define(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("workdir", None, "where everything is written", values)


if __name__ == "__main__":
    cli()
