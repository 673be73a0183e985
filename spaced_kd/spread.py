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

    def rounded(self) -> str:
        """Return the mean to six digits, e.g. `12,500` of updates, `-` if unknown."""
        return "-" if self.mean is None else f"{self.mean:,.6g}"

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
        mean, std = _mean_and_std(values)
        ci95 = t_interval(mean, std, len(values), 0.95)
        return cls(mean, std, tuple(values), len(values), ci95)

    def __str__(self) -> str:
        """Return e.g. `+1.12 ± 0.21 [+0.60, +1.64]`, `-` if unknown."""
        return f"{self:.2f}"

    def __format__(self, spec: str) -> str:
        """Return the same with another format of the numbers, e.g. `.3g`."""
        if self.mean is None:
            return "-"
        spec = spec or ".2f"
        text = format(self.mean, "+" + spec)
        if self.std is not None:
            text += f" ± {format(self.std, spec)}"
        if self.ci95 is not None:
            low, high = (format(end, "+" + spec) for end in self.ci95)
            text += f" [{low}, {high}]"
        return text


def t_interval(
    mean: float | None, std: float | None, n: int, confidence: float
) -> tuple[float, float] | None:
    """Return Student's interval of a mean; None where n < 3, or a value is unknown.

    Args:
      mean: of n values.
      std: their sample standard deviation.
      n: how many.
      confidence: in (0, 1).
    """
    if n < 3 or mean is None or std is None:
        return None
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * std / math.sqrt(n)
    return (mean - half, mean + half)


def _mean_and_std(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None
