"""`python -m spaced_kd.main --config=... --workdir=...`: flags, then one call."""

import logging
import re
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

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
    if any(argument in ("-h", "-help", "--help") for argument in argv[1:]):
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
        kind = "stopped" if isinstance(error, Interrupted) else "error"
        print(f"{kind}: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("stopped: by Ctrl-C; the same command continues.", file=sys.stderr)
        return Interrupted.code
    print(results.table())
    print(f"report: {workdir}/report.html")
    return 0


def _parse(argv: Sequence[str]):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "where everything is written", values)
    try:
        rest = values(list(argv))
        config = values.config
        # A file that cannot be loaded shows only when its content is first read.
        if config is not None:
            config.is_locked  # noqa: B018
    except SpacedKDError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        raise ConfigError(f"{_one_line(e)}; see --help.") from e
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument '{rest[1]}'; see --help.")
    if config is None:
        raise ConfigError("--config is missing, e.g. --config=configs/digits.py.")
    if not values.workdir:
        raise ConfigError("--workdir is missing, e.g. --workdir=runs/digits.")
    return config, values.workdir


def _one_line(error: BaseException) -> str:
    # The message of a failing config file is a whole traceback; its last line says it.
    last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
    return re.sub(r"^[\w.]*(Error|Exception): ", "", last).rstrip(".")


if __name__ == "__main__":
    cli()
