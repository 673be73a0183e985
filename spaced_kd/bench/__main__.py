"""`python -m spaced_kd.bench`: flags, the chosen cases, a table, a file of figures."""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags as absl_flags

from spaced_kd import backend, flags, registry, tables, workdir
from spaced_kd.bench.arrangement import EPOCHS, Settings
from spaced_kd.bench.ratios import Row, Times
from spaced_kd.errors import ConfigError
from spaced_kd.models import MODELS

USAGE = """Measure what the library costs on this machine, as ratios in one run.

  python -m spaced_kd.bench

--only=a,c         cases: {cases}
--model=NAME       of teacher and students; resnet8, on a GPU resnet18
--batch_size=N     examples; 32, on a GPU 128
--steps=N          of a chunk, and of one measurement; 4, on a GPU 32
--rounds=3         measurements of each variant, of which the median counts
--students=3       that share one teacher in case b
--quiet_seconds=0  most that a measurement waits for other programs to pause
--out=FILE         all figures as JSON

The exit code is 0 whatever the ratios are: noise decides about small differences.
"""


def cli() -> None:
    """Run `main` on the command line's arguments and leave with its exit code."""
    sys.exit(main(sys.argv))


def main(argv: Sequence[str]) -> int:
    """Measure, print the table; return the exit code.

    Args:
      argv: program name and arguments.
    """
    # Or this process would take most of a GPU's memory away from its workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    backend.configure()
    return flags.call(_run, argv, _usage)


def _usage() -> str:
    from spaced_kd.bench.cases import CASES

    titles = (f"{letter} {title}" for letter, (title, _) in CASES.items())
    return USAGE.format(cases=", ".join(titles))


def _run(argv: Sequence[str]) -> int:
    from spaced_kd.bench.cases import Bench

    values = flags.parse(argv, _define)
    settings, letters = settings_of(values), letters_of(values.only)
    rows, times = _measure(Bench(settings), letters)
    if values.out:
        found = describe(list(argv), settings, rows, times)
        workdir.write_json(Path(values.out).expanduser(), found)
    print(table(rows, settings).text())
    return 0


def letters_of(only: Sequence[str]) -> list[str]:
    """Return the chosen cases; all without a choice.

    Raises:
      ConfigError: an unknown letter.
    """
    from spaced_kd.bench.cases import CASES

    for letter in only:
        registry.lookup(CASES, letter, "--only")
    return [letter for letter in CASES if not only or letter in only]


def settings_of(values: absl_flags.FlagValues) -> Settings:
    """Return the settings that the flags ask for, chosen by the device where open.

    Raises:
      ConfigError: an unknown model, or a batch too small for BatchNorm.
    """
    on_gpu = jax.default_backend() == "gpu"
    model = values.model or ("resnet18" if on_gpu else "resnet8")
    registry.lookup(MODELS, model, "--model")
    batch_size = values.batch_size or (128 if on_gpu else 32)
    if batch_size < 2:
        raise ConfigError(f"--batch_size={batch_size} is too small; give at least 2.")
    return Settings(
        model=model,
        batch_size=batch_size,
        steps=values.steps or (32 if on_gpu else 4),
        rounds=values.rounds,
        students=values.students,
        quiet_seconds=values.quiet_seconds,
    )


def describe(
    command: list[str], settings: Settings, rows: list[Row], times: dict[str, Times]
) -> dict:
    """Return everything that was measured, and where, as plain JSON values."""
    devices = jax.local_devices()
    return {
        "command": command,
        "versions": workdir.versions(),
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "devices": [device.device_kind for device in devices],
            "backend": jax.default_backend(),
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
        },
        "settings": vars(settings),
        "rows": [row._asdict() | {"verdict": row.verdict} for row in rows],
        "seconds": times,
    }


def table(rows: Sequence[Row], settings: Settings) -> tables.Table:
    """Return the rows as a table, with what they were measured on."""
    shown = tuple(
        (
            row.case,
            row.name,
            "" if row.value is None else _number(row.value),
            "" if row.low is None else f"{_number(row.low)} to {_number(row.high)}",
            "" if row.limit is None else _number(row.limit),
            row.verdict or row.note,
        )
        for row in rows
    )
    devices = jax.local_devices()
    versions = workdir.versions()
    notes = (
        f"{settings.model}, {settings.image_size} px, batch {settings.batch_size}, "
        f"chunks of {settings.steps} steps; medians of {settings.rounds} rounds in "
        "turns, with the range",
        f"{len(devices)} x {devices[0].device_kind}, {os.cpu_count()} cores, jax "
        f"{versions['jax']}, jaxlib {versions['jaxlib']}, python {versions['python']}",
    )
    titles = ("", "what", "ratio", "range", "limit", "")
    return tables.Table(titles, shown, notes)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _measure(bench, letters: Sequence[str]) -> tuple[list[Row], dict[str, Times]]:
    rows, times = [], {}
    for letter in letters:
        print(f"measuring {letter} ...", file=sys.stderr, flush=True)
        found, times[letter] = bench.run(letter)
        rows += found
    return rows, times


def _define(values: absl_flags.FlagValues) -> None:
    absl_flags.DEFINE_list("only", [], "cases", values)
    absl_flags.DEFINE_string("model", "", "network", values)
    absl_flags.DEFINE_string("out", "", "file for all figures", values)
    for name, default, low, high in (
        ("batch_size", 0, 0, None),
        ("steps", 0, 0, None),
        ("rounds", 3, 1, EPOCHS - 2),
        ("students", 3, 1, None),
    ):
        absl_flags.DEFINE_integer(name, default, name, low, high, flag_values=values)
    absl_flags.DEFINE_float(
        "quiet_seconds", 0.0, "most to wait", lower_bound=0.0, flag_values=values
    )


if __name__ == "__main__":
    cli()
