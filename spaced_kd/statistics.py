"""What differences paired by seed can and cannot say: intervals, a test, its power.

Everything is a function of the numbers alone: resampling starts from a fixed seed, so
that tables rebuild byte for byte.
"""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special, stats

from spaced_kd.spread import Difference, t_interval

RESAMPLES = 9_999
"""Of the bootstrap and, where 2^n is more, of the permutation test."""

MOST_SEEDS = 100_000
"""Where more would be needed, `seeds_needed` says nothing."""

_SEED = 0
_GRID = 2.0**40
"""Steps that the largest difference is divided into, so that sums are exact."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Differences of n pairs, one a seed, in the unit of the values compared.

    std: sample standard deviation (n - 1); None for one pair.
    t_interval, bca_interval: of the mean, at `confidence`; None where nothing honest
      can be said, why is in bca_note. The bootstrap's is too narrow for a handful of
      seeds; the t interval supposes normal differences.
    p_value: two-sided, of the sign-flip permutation test of mean 0; None below 2 pairs.
    p_exact: all 2^n signs were counted, not a random sample of them.
    p_least: the smallest p-value that n pairs can give, 2 / 2^n.
    effect: |mean| / std; None where it is unknown or infinite.
    seeds_needed: pairs at which the paired t test has `power` at this very effect, and
      the permutation test can reach 1 - confidence at all; None where the effect is 0,
      unknown, or asks for more than MOST_SEEDS. An estimate from n pairs, and as
      uncertain as they are.
    """

    n: int
    mean: float | None
    std: float | None
    confidence: float
    t_interval: tuple[float, float] | None
    bca_interval: tuple[float, float] | None
    bca_note: str | None
    p_value: float | None
    p_exact: bool | None
    p_least: float | None
    effect: float | None
    power: float
    seeds_needed: int | None


def compare(
    differences: Sequence[float | None], *, confidence: float = 0.95, power: float = 0.8
) -> Comparison:
    """Return what paired differences say about their mean.

    Args:
      differences: one a seed; with one that is None or not finite nothing is known.
      confidence: of the intervals, in (0, 1).
      power: wanted of a later experiment, in (1 - confidence, 1).

    Raises:
      ValueError: confidence or power is out of its range (a bug of the caller).
    """
    if not 0.0 < confidence < 1.0 or not 1.0 - confidence < power < 1.0:
        raise ValueError(f"confidence={confidence}, power={power}")
    finite = lambda d: d is not None and math.isfinite(d)
    given = Difference.of([d if finite(d) else None for d in differences])
    n, mean, std = given.n, given.mean, given.std
    interval, note = None, _not_enough(given)
    if note is None:
        interval, note = _bca(given, confidence)
    p_value, p_exact = _sign_flip(given)
    effect = abs(mean) / std if mean is not None and std else None
    return Comparison(
        n=n,
        mean=mean,
        std=std,
        confidence=confidence,
        t_interval=t_interval(mean, std or None, n, confidence),
        bca_interval=interval,
        bca_note=note,
        p_value=p_value,
        p_exact=p_exact,
        p_least=None if mean is None else least_p(n),
        effect=effect,
        power=power,
        seeds_needed=seeds_needed(effect, confidence, power) if effect else None,
    )


def least_p(n: int) -> float:
    """Return the smallest two-sided p-value of n >= 1 pairs: all signs, or none."""
    return 2.0 / 2.0**n


def seeds_needed(effect: float, confidence: float, power: float) -> int | None:
    """Return how many pairs a paired t test needs; see `Comparison.seeds_needed`.

    Args:
      effect: |mean| / standard deviation of the differences, > 0.
      confidence: 1 - level of the two-sided test.
      power: wanted.
    """
    level = 1.0 - confidence
    reachable = lambda n: least_p(n) <= level
    low = next(n for n in itertools.count(2) if reachable(n))
    enough = lambda n: t_test_power(effect, n, level) >= power
    if not enough(MOST_SEEDS):
        return None
    return _first(enough, low, MOST_SEEDS)


def t_test_power(effect: float, n: int, level: float) -> float:
    """Return the power of a two-sided paired t test of n pairs (noncentral t)."""
    bound = float(special.stdtrit(n - 1, 1 - level / 2))
    shift = effect * math.sqrt(n)
    above = stats.nct.sf(bound, n - 1, shift)
    # The far tail underflows, where the noncentral t is not always defined.
    below = np.nan_to_num(stats.nct.cdf(-bound, n - 1, shift))
    # Nor is it where the test cannot miss: the t's mean is far above the bound.
    return 1.0 if np.isnan(above) or shift > bound + 38 else float(above + below)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number (Holm 1979), in the given order.

    Args:
      p_values: of one family of tests; None, a test that was not made, stays None and
        does not count.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = largest
    return adjusted


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the least number in low..high that a rising property holds of."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _not_enough(given: Difference) -> str | None:
    if given.n < 3:
        return f"{given.n} pair{'s' * (given.n != 1)}: a bootstrap needs 3"
    if given.mean is None:
        return "a difference is unknown"
    return None if given.std else "all differences are equal"


def _bca(
    given: Difference, confidence: float
) -> tuple[tuple[float, float] | None, str | None]:
    with warnings.catch_warnings():
        # That it is degenerate is told by the answer.
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (np.array(given.per_seed, np.float64),),
            np.mean,
            confidence_level=confidence,
            n_resamples=RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None, "the bootstrap is degenerate for these differences"
    return (low, high), None


def _sign_flip(given: Difference) -> tuple[float | None, bool | None]:
    """Return the p-value, and whether it is exact."""
    if given.n < 2 or given.mean is None:
        return None, None
    values = np.array(given.per_seed, np.float64)
    largest = np.abs(values).max()
    if largest == 0.0:
        return 1.0, True
    # Sums of whole numbers are exact: rounding must not tell apart what is tied.
    whole = np.rint(values / largest * _GRID)
    found = stats.permutation_test(
        (whole,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(_SEED),
    )
    return float(found.pvalue), 2**given.n <= RESAMPLES
