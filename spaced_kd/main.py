"""`python -m spaced_kd.main --config=... --workdir=...`: flags, then one call."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from spaced_kd import flags
from spaced_kd.errors import ConfigError

USAGE = """Train a teacher and its students, or self-taught networks, or continue.

  python -m spaced_kd.main --config=configs/digits.py --workdir=runs/digits

--config=FILE[:VARIANT]  a config file and, after a colon, one of its variants
--config.a.b=VALUE       override one field (spaced_kd/config/ lists them all)
--workdir=FOLDER         where everything is written; the same command again resumes

Several processes (one for each machine or GPU) run one command, and share the workdir:

--coordinator=HOST:PORT  of process 0, or $SPACED_KD_COORDINATOR
--num_processes=N        or $SPACED_KD_NUM_PROCESSES
--process_id=K           0 to N-1, or $SPACED_KD_PROCESS_ID
--distributed=auto       instead of these three: as Slurm, Open MPI or a TPU pod says

The others must reach PORT and PORT + 1 of process 0. Where PORT + 1 is taken, and with
--distributed=auto, any free port takes its place.

Exit codes: 0 done, 2 config, 3 data, 4 checkpoint or workdir, 5 locked, 6 non-finite,
7 storage, 8 another process is gone, 75 interrupted (after both, the same command
continues from the last checkpoint).
"""


def cli(argv: Sequence[str] | None = None) -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    try:
        code = main(sys.argv if argv is None else list(argv))
    except Exception:
        if not _several_processes():
            raise
        traceback.print_exc()
        code = 1
    if code and _several_processes():
        # At an ordinary exit JAX would wait for the others, who may never come.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _several_processes() -> bool:
    jax = sys.modules.get("jax")  # not imported where the flags were wrong
    return jax is not None and jax.distributed.is_initialized()


def main(argv: Sequence[str]) -> int:
    """Parse the flags, train, print the table; return the exit code.

    Args:
      argv: program name and arguments.
    """
    return flags.call(_run, argv, USAGE, told=logging.INFO)


def _run(argv: Sequence[str]) -> int:
    config, workdir, place = _parse(argv)
    # Imported after the flags are known to be good: JAX takes a second.
    from spaced_kd import distributed, train

    with distributed.joined(distributed.place(*place)) as peers:
        if peers.index:  # process 0 says it for all
            logging.getLogger("spaced_kd").setLevel(logging.ERROR)
        results = train.run(config, workdir, may_exit=True, peers=peers)
    if peers.index:
        return 0
    print(results.table())
    report = Path(workdir) / "report.html"
    if report.exists():  # not with config.report=False
        print(f"report: {report}")
    return 0


def _parse(argv: Sequence[str]):
    config, values = flags.parse_config(argv, _define)
    if not values.workdir:
        raise ConfigError("--workdir is missing, e.g. --workdir=runs/digits.")
    place = (
        values.coordinator,
        values.num_processes,
        values.process_id,
        values.distributed,
    )
    return config, values.workdir, place


def _define(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_string("workdir", None, "where everything is written", values)
    absl_flags.DEFINE_string("coordinator", None, "host:port of process 0", values)
    for name, what in (
        ("num_processes", "processes of the run"),
        ("process_id", "which one this is"),
    ):
        absl_flags.DEFINE_integer(name, None, what, flag_values=values)
    absl_flags.DEFINE_enum("distributed", "", ["", "auto"], "who tells these", values)


if __name__ == "__main__":
    cli()
