"""`python -m spaced_kd.reproduce table1 --workdir=...`: flags, then one call."""

import logging
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from spaced_kd import flags
from spaced_kd.errors import ConfigError

USAGE = """Rerun tables and figures of the paper, or continue.

  python -m spaced_kd.reproduce table1 figure2 --budget=small --workdir=runs/paper_small
  python -m spaced_kd.reproduce all --budget=paper --workdir=/mnt/shared/runs/paper \\
      --engine=slurm --workers=16 --engine_options=partition=gpu,gpus_per_node=1

ITEM ...                 table1 to table13, figure2 to figure6, adaptive, or all
--workdir=FOLDER         gets index.html with everything; tables/ITEM.md, .tex and .csv;
                         figures/; reproduce.json; cells/NAME, which are ordinary runs
--budget=smoke|small|paper
                         smoke: every table in minutes on a CPU, numbers that mean
                         nothing; small: digits and small networks, hours on a CPU;
                         paper: the paper's networks, data and lengths (default)
--seeds=N                paired repetitions; smoke 2, small 5, paper 3
--variant=released|paper|recommended
                         whom to follow where paper and released code differ; default:
                         as each table says
--metric=last|mean5|best which accuracy is quoted: the last, the mean of the last five,
                         or, as the paper does, the best on the test set
--equal=updates,flops,seconds
                         make the tables again at equal budgets of these
--override=FIELD=VALUE   a field of all runs, e.g. compute_dtype=bfloat16; may be
                         repeated
--data_dir=FOLDER        where the data sets lie
--configs=FOLDER         the folder `configs` of a checkout, if this is not one
--workers=N              how many runs at once; 1
--engine=local|slurm|ray where they run (docs/clusters.md)
--engine_options=A=V,B=V options of the engine
--plan                   only say which runs that takes
--check                  train nothing: verify all runs, and that the tables are those
                         that their logs give, byte for byte; exit code 4 if not

All runs are checked, with their data, before the first one trains. Runs that several
items need are done once, also by a later call in the same workdir. A run that fails is
marked so, and the others still run; a cell without a finished run never holds a number.
The same command does what is left, and tries the failed again.

Exit codes: 0 done, else that of the first run that failed; 2 flags and configs, 3 data,
4 checkpoint, workdir or check, 5 locked, 6 non-finite, 7 storage, 8 workers that die,
75 interrupted (the same command continues).
"""


def cli() -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv))


def main(argv: Sequence[str]) -> int:
    """Parse the flags and do what they say; return the exit code.

    Args:
      argv: program name and arguments.
    """
    return flags.call(_run, argv, USAGE, told=logging.INFO)


def _run(argv: Sequence[str]) -> int:
    values, names = flags.parse_with_arguments(argv, _define)
    if not values.workdir:
        raise ConfigError("--workdir is missing, e.g. --workdir=runs/paper_small.")
    # Imported after the flags are known to be good: JAX takes a second.
    from spaced_kd.reproduce import command

    return command.run(names, values)


def _define(values: absl_flags.FlagValues) -> None:
    def text(name: str, default: str, about: str) -> None:
        absl_flags.DEFINE_string(name, default, about, flag_values=values)

    text("workdir", "", "where everything is written")
    text("budget", "paper", "smoke, small or paper")
    text("variant", "", "whom to follow")
    text("metric", "last", "which accuracy")
    text("equal", "", "budgets at which tables are made again")
    text("data_dir", "", "where the data lies")
    text("configs", "", "folder of the config files")
    text("engine", "local", "where workers run")
    text("engine_options", "", "NAME=VALUE,...")
    absl_flags.DEFINE_integer("seeds", 0, "repetitions", flag_values=values)
    absl_flags.DEFINE_integer("workers", 1, "how many", flag_values=values)
    absl_flags.DEFINE_multi_string("override", [], "FIELD=VALUE", flag_values=values)
    absl_flags.DEFINE_bool("plan", False, "only list the runs", flag_values=values)
    absl_flags.DEFINE_bool("check", False, "verify", flag_values=values)


if __name__ == "__main__":
    cli()
