"""Take the number that a place means out of what a run has written."""

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spaced_kd.analysis.base import Found, Values
from spaced_kd.errors import ConfigError
from spaced_kd.reproduce.items.base import Measure
from spaced_kd.results import metric_prefix, read_log
from spaced_kd.writers import Row


def number_of(values: Values, measure: Measure) -> float | None:
    """Return a number of a row's values.

    None where it was measured and is not finite, or where the place on the axis was
    not measured (a run of other options).

    Args:
      values: `analysis.base.Row.values` of one network and seed.
      measure: which of them.

    Raises:
      ConfigError: no such path in what the analysis writes.
    """
    found = _at(values, measure.path)
    if not measure.along:
        return found
    places = _at(values, measure.along)
    return found[places.index(measure.at)] if measure.at in places else None


def by_seed(found: Found, network: str, measure: Measure) -> dict[int, float | None]:
    """Return a number of a network's last weights in every seed that has them.

    Args:
      found: what an analysis has found in a run.
      network: "teacher", or a student's name.
      measure: which number.

    Raises:
      ConfigError: no such path in what the analysis writes.
    """
    rows = [row for row in found.last if row.network == network]
    return {row.seed: number_of(row.values, measure) for row in rows}


def picture_of(found: Found, measure: Measure) -> bytes | None:
    """Return a PNG that an analysis made of its run; None where it made it not.

    Args:
      found: what the analysis has found.
      measure: of `Found.once`.
    """
    *above, name = measure.path
    encoded = _at(found.once, above).get(name) if found.once else None
    return None if encoded is None else base64.b64decode(encoded)


def evaluations(workdir: Path) -> list[Row]:
    """Return the evaluations that a run has logged so far; none before the first.

    Raises:
      CheckpointError: the log is damaged.
      StorageError: it cannot be read.
    """
    rows = read_log(workdir / "metrics.jsonl")
    return [row for row in rows if row["phase"] == "eval"]


def accuracy_at(
    rows: Iterable[Row], network: str, updates: int, share: float, exit_name: str = ""
) -> dict[int, float | None]:
    """Return a network's test accuracy when a share of its updates is done, by seed.

    That of the evaluation nearest to it, of two as near the later one; at 1 the last
    one. A seed that has not come so far is left out.

    Args:
      rows: of `metrics.jsonl`.
      network: "teacher", or a student's name.
      updates: of the network when its run is complete.
      share: above 0, at most 1.
      exit_name: an exit, or "ensemble"; "": what is quoted.

    Returns:
      Percent; None where the accuracy is not finite or the exit does not exist.
    """
    prefix = f"eval/{metric_prefix(network)}"
    key = f"{prefix}{exit_name}/acc1" if exit_name else f"{prefix}acc1"
    evaluations: dict[int, dict[int, float | None]] = {}
    for row in rows:
        if row["phase"] == "eval" and row["network"] == network:
            evaluations.setdefault(row["seed"], {})[row["step"]] = row.get(key)
    wanted = share * updates
    return {
        seed: of[min(of, key=lambda step: (abs(step - wanted), -step))]
        for seed, of in evaluations.items()
        if max(of) >= wanted
    }


def _at(values: Mapping[str, Any], path: Iterable[str]) -> Any:
    found: Any = values
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            raise ConfigError(
                f"'{'/'.join(path)}' is not in what the analysis found: no '{name}' "
                f"among {', '.join(found) if isinstance(found, Mapping) else found}."
            )
        found = found[name]
    return found
