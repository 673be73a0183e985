"""The networks of two runs, paired by name and by seed."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

from spaced_kd import statistics
from spaced_kd.compare.runs import Run
from spaced_kd.results import NetworkResult, excess
from spaced_kd.spread import Difference
from spaced_kd.statistics import Comparison
from spaced_kd.tables import Table

CONFIDENCE, POWER = 0.95, 0.8


class Pair(NamedTuple):
    """A network of both runs, or of one.

    seeds: that both have finished. difference, comparison: of the last accuracy in
      points, B minus A, by these seeds; None where why_not says why.
    p_holm: the p-value adjusted for all networks that are compared.
    """

    name: str
    a: NetworkResult | None
    b: NetworkResult | None
    seeds: tuple[int, ...] = ()
    difference: Difference | None = None
    comparison: Comparison | None = None
    why_not: str | None = None
    p_holm: float | None = None


def pair_networks(a: Run, b: Run) -> list[Pair]:
    """Return all networks: those of A in its order, then what B has beyond them."""
    of_a, of_b = a.results.networks, b.results.networks
    same_data = a.data_fingerprint == b.data_fingerprint
    pairs = [
        _pair(name, of_a.get(name), of_b.get(name), same_data)
        for name in dict.fromkeys((*of_a, *of_b))
    ]
    adjusted = statistics.holm(
        [pair.comparison and pair.comparison.p_value for pair in pairs]
    )
    return [pair._replace(p_holm=p) for pair, p in zip(pairs, adjusted, strict=True)]


def _pair(
    name: str, a: NetworkResult | None, b: NetworkResult | None, same_data: bool
) -> Pair:
    why_not, seeds = _why_not(a, b, same_data), ()
    if a is not None and b is not None:
        seeds = tuple(seed for seed in a.seeds if seed in b.seeds)
        if not why_not and not seeds:
            why_not = f"no seed in common (A: {_seeds(a)}; B: {_seeds(b)})"
    if why_not or a is None or b is None:
        return Pair(name, a, b, why_not=why_not)
    values = [_minus(_of_seed(b, seed), _of_seed(a, seed)) for seed in seeds]
    found = statistics.compare(values, confidence=CONFIDENCE, power=POWER)
    # Of equal differences there is no interval.
    difference = dataclasses.replace(Difference.of(values), ci95=found.t_interval)
    return Pair(name, a, b, seeds, difference, found)


def _minus(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base


def _why_not(
    a: NetworkResult | None, b: NetworkResult | None, same_data: bool
) -> str | None:
    if a is None or b is None:
        return f"in {'A' if b is None else 'B'} alone"
    if not same_data:
        return "the runs saw other data"
    for letter, net in (("A", a), ("B", b)):
        if not net.seeds:
            return f"not evaluated yet in {letter}"
        if net.evaluated_step < net.updates:
            return (
                f"not finished in {letter}: update {net.evaluated_step:,} of "
                f"{net.updates:,}"
            )
    return None


def _seeds(net: NetworkResult) -> str:
    return ", ".join(map(str, net.seeds))


def _of_seed(net: NetworkResult, seed: int) -> float | None:
    return net.acc1_last.per_seed[net.seeds.index(seed)]


def table(pairs: Iterable[Pair], a: Run, b: Run) -> Table:
    """Return a row for each network, and notes on what the numbers are."""
    pairs = list(pairs)
    titles = (
        "network",
        "A: acc1 last\n%",
        "B: acc1 last\n%",
        "seeds\nA / B / paired",
        "B minus A, points\n± s.d. [95 % t]",
        "95 % BCa\nof the mean",
        "p, permutation\n(least possible)",
        "p, Holm\n",
        f"seeds for\n{100 * POWER:g} % power",
    )
    rows = tuple(map(_row, pairs))
    return Table(titles, rows, tuple(_notes(pairs, a, b)))


def _row(pair: Pair) -> tuple[str, ...]:
    found = pair.comparison
    shown = [
        pair.name,
        *(_accuracy(net) for net in (pair.a, pair.b)),
        _seed_counts(pair),
    ]
    if found is None or pair.difference is None:
        return (*shown, "-", "-", "-", "-", "-")
    mark = " †" if _off_budget(pair) else ""
    p_value = "-"
    if found.p_value is not None:
        about = "" if found.p_exact else "≈ "
        p_value = f"{about}{found.p_value:.3g} ({found.p_least:.3g})"
    return (
        *shown,
        f"{pair.difference}{mark}",
        "-"
        if found.bca_interval is None
        else "[{:+.2f}, {:+.2f}]".format(*found.bca_interval),
        p_value,
        "-" if pair.p_holm is None else f"{pair.p_holm:.3g}",
        "-" if found.seeds_needed is None else f"{found.seeds_needed:,}",
    )


def _accuracy(net: NetworkResult | None) -> str:
    if net is None:
        return "-"
    return f"{net.acc1_last}{'' if net.complete else ' *'}"


def _seed_counts(pair: Pair) -> str:
    counts = ["-" if net is None else str(len(net.seeds)) for net in (pair.a, pair.b)]
    paired = str(len(pair.seeds)) if pair.comparison else "-"
    return " / ".join([*counts, paired])


def _off_budget(pair: Pair) -> bool:
    assert pair.a and pair.b
    # A teacher that was trained before the run has no updates here.
    if not (pair.a.updates and pair.b.updates):
        return pair.a.updates != pair.b.updates
    return any(abs(share) > 0.01 for share in excess(pair.b, pair.a))


def _notes(pairs: list[Pair], a: Run, b: Run) -> Iterable[str]:
    for letter, run in (("A", a), ("B", b)):
        if not run.results.complete:
            yield (
                f"UNFINISHED: {letter} has not come to its end; what is marked * is "
                "its latest value, or that of the seeds that are through."
            )
    for pair in pairs:
        if pair.why_not:
            yield f"{pair.name}: not paired: {pair.why_not}."
    compared = [pair for pair in pairs if pair.comparison]
    if not compared:
        return
    yield (
        "Differences are taken seed by seed, last accuracy on the test set. p: two-"
        "sided sign-flip test; in brackets the least that so many seeds can give, "
        "below which no effect can bring it. Holm: adjusted for all networks here."
    )
    if any(pair.comparison and not pair.comparison.p_exact for pair in compared):
        yield "≈: signs drawn at random, always the same; else all 2^n were counted."
    yield (
        "Seeds for power: of a paired t test at 5 %, if the effect were the one seen "
        "here; as uncertain as that. The BCa interval is too narrow for few seeds."
    )
    differing = _batches_differ(a, b)
    if differing:
        yield (
            f"The runs differ in {', '.join(differing)}: pairs share the seed, and "
            "not the very batches."
        )
    if any(map(_off_budget, compared)):
        yield "† updates or passes differ by over 1 %: not at equal compute."


def _batches_differ(a: Run, b: Run) -> list[str]:
    """Return the fields that differ and decide which pixels are in a batch."""
    one, other = a.described["science"], b.described["science"]
    return sorted(
        path
        for path in one | other
        if path.startswith("data.") and one.get(path) != other.get(path)
    )


def to_dict(pair: Pair) -> dict[str, Any]:
    """Return JSON-able values; accuracies in percent, differences in points."""
    nets = {"a": pair.a, "b": pair.b}
    return {
        **{key: net and _numbers(net) for key, net in nets.items()},
        "seeds_paired": list(pair.seeds),
        "differences": list(pair.difference.per_seed) if pair.difference else None,
        "b_minus_a": pair.comparison and dataclasses.asdict(pair.comparison),
        "p_holm": pair.p_holm,
        "why_not": pair.why_not,
    }


def _numbers(net: NetworkResult) -> dict[str, Any]:
    return {
        "complete": net.complete,
        "seeds": list(net.seeds),
        "updates": net.updates,
        "evaluated_step": net.evaluated_step,
        "acc1_last": dataclasses.asdict(net.acc1_last),
    }
