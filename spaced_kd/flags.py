"""What the entry points share: help, parsing flags, one line for every mistake."""

import logging
import re
import sys
from collections.abc import Callable, Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from spaced_kd import registry
from spaced_kd.errors import ConfigError, Interrupted, SpacedKDError

Define = Callable[[flags.FlagValues], None]


def call(
    do: Callable[[Sequence[str]], int],
    argv: Sequence[str],
    usage: str | Callable[[], str],
    *,
    told: int = logging.WARNING,
) -> int:
    """Print the usage text if that is asked for, else do what an entry point does.

    Args:
      do: gets `argv`; returns the exit code.
      argv: program name and arguments.
      usage: the text, or what makes it.
      told: the level from which this package's log is shown.

    Returns:
      The exit code: that of `do`, or of the error that ended it and that was told.
    """
    if any(argument in ("-h", "-help", "--help") for argument in argv[1:]):
        print(usage if isinstance(usage, str) else usage())
        return 0
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log = logging.getLogger("spaced_kd")
    before = log.level
    log.setLevel(told)
    try:
        return do(argv)
    except SpacedKDError as error:
        return report(error)
    except KeyboardInterrupt:
        print("stopped: by Ctrl-C; the same command continues.", file=sys.stderr)
        return Interrupted.code
    finally:
        # A notebook that calls an entry point goes on.
        log.setLevel(before)


def import_modules(argv: Sequence[str]) -> None:
    """Import what `--imports=A,B` names: before the flags, some of which it may add.

    Raises:
      ConfigError: a module cannot be imported.
    """
    for argument in argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        if name == "imports":
            registry.import_modules(value, "--imports")


def parse(argv: Sequence[str], define: Define) -> flags.FlagValues:
    """Return the flags' values.

    Args:
      argv: program name and arguments.
      define: declares an entry point's flags in the `FlagValues` it is given.

    Raises:
      ConfigError: an unknown flag, a value of the wrong type, or a stray argument.
    """
    values, rest = parse_with_arguments(argv, define)
    if rest:
        raise ConfigError(f"unexpected argument '{rest[0]}'; see --help.")
    return values


def parse_with_arguments(
    argv: Sequence[str], define: Define
) -> tuple[flags.FlagValues, list[str]]:
    """Return the flags' values, and the arguments that belong to no flag.

    Raises:
      ConfigError: as for `parse`, but for stray arguments.
    """
    values = flags.FlagValues()
    try:
        # ml_collections looks at overrides as soon as it declares their flags.
        define(values)
        rest = values(list(argv))
        # A file that cannot be loaded shows only when its content is first read.
        if "config" in values and values.config is not None:
            values.config.is_locked  # noqa: B018
    except SpacedKDError:
        raise
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        raise ConfigError(f"{_one_line(e)}; see --help.") from e
    return values, rest[1:]


def parse_config(
    argv: Sequence[str], define: Define
) -> tuple[ml_collections.ConfigDict, flags.FlagValues]:
    """Return what `--config=FILE` and its overrides say, and all flags' values.

    Args:
      argv: program name and arguments.
      define: declares the flags besides --config.

    Raises:
      ConfigError: as for `parse`, or --config is missing or cannot be loaded.
    """

    def define_all(values: flags.FlagValues) -> None:
        config_flags.DEFINE_config_file(
            "config", None, flag_values=values, sys_argv=list(argv)
        )
        define(values)

    values = parse(argv, define_all)
    if values.config is None:
        raise ConfigError("--config is missing, e.g. --config=configs/digits.py.")
    return values.config, values


def report(error: SpacedKDError) -> int:
    """Print an error's one line to standard error; return its exit code."""
    print(f"{error.kind}: {error}", file=sys.stderr)
    return error.code


def _one_line(error: BaseException) -> str:
    # The message of a failing config file is a whole traceback; its last line says it.
    last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
    last = re.sub(r"^[\w.]*(Error|Exception): ", "", last)
    # A KeyError's text is a repr: the unknown field, a line break, a guess.
    if len(last) > 1 and last[0] == last[-1] == "'":
        last = last[1:-1]
    return last.replace("\\'", "'").replace("\\n", ": ").rstrip(".?")
