"""`python -m spaced_kd.grid --config=... --workdir=...`: flags, then one call."""

import logging
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from spaced_kd import flags
from spaced_kd.errors import ConfigError

USAGE = """Do the runs of a grid, or continue; a table and a figure.

  python -m spaced_kd.grid --config=configs/digits_grid.py:learning_rate \\
      --workdir=runs/digits_learning_rate

--config=FILE[:VARIANT]  a grid's config file and, after a colon, one of its variants
--config.base.a.b=VALUE  override one field of all runs (spaced_kd/config/)
--workdir=FOLDER         where everything is written: cells/NAME, which is an ordinary
                         run; grid.json, grid.md, figures/grid.png and .svg

--workers=N              how many cells train at once; 1
--engine=local|slurm|ray where the workers run: on this machine (default), or as jobs of
                         a cluster (docs/clusters.md)
--engine_options=A=V,B=V options of the engine, e.g. partition=gpu,timeout_min=240

All cells are checked before the first one trains. A cell that fails is marked so, and
the others still run. The same command does what is left, and tries the failed again.

Exit codes: 0 done, else that of the first cell that failed; 2 config, 3 data,
4 checkpoint or workdir, 5 locked, 6 non-finite, 7 storage, 8 workers that die,
75 interrupted (after this one the same command continues from the last checkpoint).
"""


def cli() -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv))


def main(argv: Sequence[str]) -> int:
    """Parse the flags, do the runs, print the table; return the exit code.

    Args:
      argv: program name and arguments.
    """
    return flags.call(_run, argv, USAGE, told=logging.INFO)


def _run(argv: Sequence[str]) -> int:
    grid, values = flags.parse_config(argv, _define)
    if not values.workdir:
        raise ConfigError("--workdir is missing, e.g. --workdir=runs/digits_grid.")
    # Imported after the flags are known to be good: JAX takes a second.
    from spaced_kd.grid import sweep
    from spaced_kd.sweep import engines

    outcome = sweep.run(
        grid,
        values.workdir,
        engine=values.engine,
        workers=values.workers,
        options=engines.parse_options(values.engine_options),
        may_exit=True,
    )
    print(outcome.table().text())
    print(f"grid: {values.workdir}/grid.md")
    return outcome.code


def _define(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("workdir", None, "where everything is written", values)
    absl_flags.DEFINE_string("engine", "local", "where workers run", values)
    absl_flags.DEFINE_integer("workers", 1, "how many", flag_values=values)
    absl_flags.DEFINE_string("engine_options", "", "NAME=VALUE,...", values)


if __name__ == "__main__":
    cli()
