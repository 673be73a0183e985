"""A comparison with the best of several arms that is not helped by having chosen it.

The best of many on the same seeds is partly the luckiest one: `minus_luckiest` is too
strict. In `minus_best` the arm that each seed is compared with is chosen on all other
seeds. With few seeds that is too mild: among arms that are nearly alike, one looks bad
on the others just where it is good on the seed left out. The truth lies between.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from spaced_kd.spread import Difference

Scores = Mapping[str, Sequence[float]]
"""Arm -> one value a seed, of the same seeds in the same order; more is better."""


def chosen(scores: Scores, among: Sequence[str]) -> tuple[str, ...]:
    """Return for each seed the arm that is best on the others, by their mean.

    Args:
      scores: of at least two seeds.
      among: arms to choose from; of equal ones the first is taken.

    Raises:
      ValueError: fewer than two seeds.
    """
    seeds = len(scores[among[0]])
    if seeds < 2:
        raise ValueError(f"{seeds} seed leaves none to choose on; give at least 2.")

    def best_without(seed: int) -> str:
        def others(name: str) -> float:
            values = scores[name]
            return fmean(v for k, v in enumerate(values) if k != seed)

        return max(among, key=others)

    return tuple(best_without(seed) for seed in range(seeds))


def minus_best(scores: Scores, name: str, among: Sequence[str]) -> Difference:
    """Return an arm minus the best of others, paired by seed and chosen elsewhere.

    The arm itself is no candidate. Choices on nearly the same seeds are nearly the
    same, so that the t interval of the mean is approximate.

    Args:
      scores: as for `chosen`.
      name: the arm.
      among: those to choose from.
    """
    rivals = chosen(scores, [other for other in among if other != name])
    pairs = zip(scores[name], rivals, strict=True)
    return Difference.of([own - scores[r][k] for k, (own, r) in enumerate(pairs)])


def minus_luckiest(scores: Scores, name: str, among: Sequence[str]) -> Difference:
    """Return an arm minus the one that is best on these very seeds: too strict a test.

    Args:
      scores: as for `chosen`.
      name: the arm.
      among: those to choose from, without the arm itself.
    """
    rivals = [other for other in among if other != name]
    best = max(rivals, key=lambda other: fmean(scores[other]))
    pairs = zip(scores[name], scores[best], strict=True)
    return Difference.of([own - other for own, other in pairs])
