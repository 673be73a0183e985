"""A measured value over the seeds of a run, and differences paired by seed."""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from scipy import special


@dataclasses.dataclass(frozen=True)
class Spread:
    """A value over seeds; no mean where a seed lacks a finite value.

    std: sample standard deviation (n - 1); None for one seed.
    per_seed: in the order of the network's seeds.
    """

    mean: float | None
    std: float | None
    per_seed: tuple[float | None, ...]

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread":
        """Summarise one value a seed."""
        return cls(*_mean_and_std(values), tuple(values))

    def __str__(self) -> str:
        """Return e.g. `75.12 ± 0.30`, `-` if unknown."""
        return f"{self:.2f}"

    def __format__(self, spec: str) -> str:
        """Return the same with another format of the numbers, e.g. `.3f`."""
        if self.mean is None:
            return "-"
        numbers = [self.mean] if self.std is None else [self.mean, self.std]
        return " ± ".join(format(number, spec or ".2f") for number in numbers)


def over_training(
    histories: Sequence[Sequence[float | None]], count: int
) -> tuple[Spread, Spread, Spread]:
    """Return the last value, the mean of the last `count`, and the largest one.

    Args:
      histories: one seed's evaluations in order, each; a value that is not finite
        counts as missing.
      count: evaluations in the mean.
    """
    known = [[_finite(value) for value in history] for history in histories]
    return (
        Spread.of([history[-1] for history in known]),
        Spread.of([Spread.of(history[-count:]).mean for history in known]),
        Spread.of([max((v for v in h if v is not None), default=None) for h in known]),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A `Spread` of n differences, one a seed.

    ci95: Student's 95 % interval of their mean, where n >= 3.
    """

    mean: float | None
    std: float | None
    per_seed: tuple[float | None, ...]
    n: int
    ci95: tuple[float, float] | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Difference":
        """Summarise one difference a seed."""
        n = len(values)
        mean, std = _mean_and_std(values)
        ci95 = None
        if n >= 3 and mean is not None and std is not None:
            half = float(special.stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
            ci95 = (mean - half, mean + half)
        return cls(mean, std, tuple(values), n, ci95)

    def __str__(self) -> str:
        """Return e.g. `+1.12 ± 0.21 [+0.60, +1.64]`, `-` if unknown."""
        if self.mean is None:
            return "-"
        text = f"{self.mean:+.2f}"
        if self.std is not None:
            text += f" ± {self.std:.2f}"
        if self.ci95 is not None:
            low, high = self.ci95
            text += f" [{low:+.2f}, {high:+.2f}]"
        return text


def _mean_and_std(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None
