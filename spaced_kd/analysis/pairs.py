"""Which two networks of a run are looked at together."""

from spaced_kd import registry
from spaced_kd.analysis.subject import Run
from spaced_kd.config import reference_names
from spaced_kd.errors import ConfigError


def named(text: str, field: str) -> list[tuple[str, str]]:
    """Return the pairs, e.g. of "online-spaced_1_5,online-offline".

    Args:
      text: a-b, separated by commas; may be empty.
      field: the option, for messages.

    Raises:
      ConfigError: not that.
    """
    pairs = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, _, second = part.partition("-")
        if not (first and second) or first == second:
            raise ConfigError(
                f"{field}='{text}': '{part}' is not two networks; give e.g. "
                f"{field}=online-spaced_1_5."
            )
        pairs.append((first, second))
    return pairs


def check(run: Run, text: str, field: str) -> None:
    """Refuse pairs that a run does not have.

    Args:
      run: whose networks they are to be.
      text: as for `named`.
      field: the option, for messages.

    Raises:
      ConfigError: no pairs, an unknown network, or two of different architecture.
    """
    for pair in named(text, field):
        for network in pair:
            registry.lookup(dict.fromkeys(run.names), network, field)
        first, second = pair
        if run.model(first) != run.model(second):
            raise ConfigError(
                f"{field}='{text}': {first} and {second} are not of one architecture; "
                "give two that are."
            )


def others(run: Run, name: str, text: str, field: str) -> list[str]:
    """Return the networks with which a network makes a pair, of which it is the first.

    Args:
      run: whose networks they are.
      name: of the network.
      text: `check`ed; empty: every student with the first of `config.reference` that
        the run has, or else with its first student, if both are of one architecture.
      field: the option, for messages.
    """
    pairs = named(text, field)
    if pairs:
        return [second for first, second in pairs if first == name]
    students = list(run.config.students)
    known = [n for n in reference_names(run.config.reference) if n in students]
    end = (known or students)[0]
    fits = name in students and name != end and run.model(name) == run.model(end)
    return [end] * fits
