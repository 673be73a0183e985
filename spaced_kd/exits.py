"""What is reported of the single exits of networks that have several (self KD)."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spaced_kd.spread import Spread, over_training
from spaced_kd.tables import Table
from spaced_kd.types import ENSEMBLE, exit_number
from spaced_kd.writers import Row


@dataclasses.dataclass(frozen=True)
class ExitResult:
    """One exit of a network, or its ensemble, over the seeds of a `NetworkResult`.

    acc1_*: percent, on the test set. deepest_kl_last: nats, deepest_agreement_last:
    percent, against the deepest exit; of branches alone.
    """

    acc1_last: Spread
    acc1_mean_last5: Spread
    acc1_best: Spread
    deepest_kl_last: Spread
    deepest_agreement_last: Spread


def exit_keys(rows: Iterable[Row], prefix: str) -> tuple[str, ...]:
    """Return the exits that evaluation rows tell of: deepest first, then the ensemble.

    Args:
      rows: of one network.
      prefix: of its metric keys, e.g. `eval/student/spaced/`.
    """
    own = (k.removeprefix(prefix) for row in rows for k in row if k.startswith(prefix))
    found = {key.removesuffix("/acc1") for key in own if key.endswith("/acc1")}
    names = sorted(found - {ENSEMBLE}, key=exit_number, reverse=True)
    return (*names, *([ENSEMBLE] if ENSEMBLE in found else []))


def by_exit(
    histories: Sequence[Sequence[Row]], prefix: str, last: int
) -> dict[str, ExitResult]:
    """Return the exits' results, {} for a network that has one.

    Args:
      histories: a seed's evaluation rows, by rising step.
      prefix: as for `exit_keys`.
      last: evaluations that the mean over the end of training takes.
    """
    every = (row for history in histories for row in history)
    return {
        name: _exit(histories, f"{prefix}{name}/", last)
        for name in exit_keys(every, prefix)
    }


def _exit(histories: Sequence[Sequence[Row]], prefix: str, last: int) -> ExitResult:
    def over(metric: str) -> tuple[Spread, Spread, Spread]:
        values = [[row.get(f"{prefix}{metric}") for row in h] for h in histories]
        return over_training(values, last)

    return ExitResult(
        *over("acc1"), over("deepest_kl")[0], over("deepest_agreement")[0]
    )


def quoted(config: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return which exit a network's accuracy is that of; None where it has one alone.

    Args:
      config: of the student; {} for the teacher.
      names: of its exits, the deepest first; none where it has one alone.
    """
    deepest = next(iter(names), None)
    return ENSEMBLE if deepest and config.get("quote") == ENSEMBLE else deepest


def table(networks: Mapping[str, Any], last: int) -> Table | None:
    """Return the table of all exits; None where no network has several.

    Args:
      networks: name -> NetworkResult.
      last: as for `by_exit`.
    """
    rows = [
        (
            name,
            exit_name + (" (quoted)" if exit_name == net.quoted else ""),
            str(found.acc1_last),
            str(found.acc1_mean_last5),
            str(found.acc1_best),
            _or_dash(found.deepest_kl_last),
            _or_dash(found.deepest_agreement_last),
        )
        for name, net in networks.items()
        for exit_name, found in net.exits.items()
    ]
    if not rows:
        return None
    titles = (
        "network",
        "exit",
        "acc1 last\n%",
        f"acc1 mean of\nlast {last}, %",
        "acc1 best on test,\noptimistic, %",
        "KL(deepest || exit)\nlast, nats",
        "same answer as deepest\nlast, %",
    )
    notes = (
        "Exits are numbered from the shallowest; in self KD the deepest is the teacher "
        "of the others. Two networks that teach one another (dml) stand as two exits: "
        "exit2 is the student, exit1 its peer. ensemble: the mean of all exits' "
        "logits.",
    )
    return Table(titles, tuple(rows), notes)


def _or_dash(values: Spread) -> str:
    return "-" if values.mean is None else str(values)
