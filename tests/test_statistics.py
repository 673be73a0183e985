"""Statistics of paired differences, against enumeration, closed forms and tables."""

import dataclasses
import itertools
import json
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from spaced_kd import statistics
from spaced_kd.spread import Difference
from spaced_kd.statistics import compare, holm

FIVE = [0.31, -0.12, 0.55, 0.2, 0.43]
TIED = [-8.7, 8.8, -45.3, 19.3, 26.0]  # SciPy alone finds 30 of the 32 as far from 0


@pytest.fixture(autouse=True)
def no_warnings():
    """Degenerate input must give None, and not a warning of NumPy or SciPy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _by_all_signs(values):
    """Return the share of sign vectors whose sum is as far from 0, in hundredths."""
    whole = [round(100 * value) for value in values]
    sums = [
        abs(sum(s * v for s, v in zip(signs, whole, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(whole))
    ]
    return sum(s >= abs(sum(whole)) for s in sums) / len(sums)


@pytest.mark.parametrize("values", [FIVE, TIED, [1.0, -1.0], [0.0, 0.0, 1.0]])
def test_the_p_value_is_the_share_of_all_signs(values):
    """Breaks if the test is one-sided, sampled, or if rounding tells ties apart."""
    found = compare(values)
    assert found.p_value == _by_all_signs(values)
    assert found.p_exact is True


def test_many_pairs_are_tested_by_random_signs():
    """Breaks if sampled signs pass for exact, or miss the exact share by chance."""
    values = np.round(np.random.default_rng(3).normal(0.4, 1.0, 16), 2).tolist()
    found = compare(values)
    exact = _by_all_signs(values)
    assert found.p_exact is False
    # Four standard errors of twice a share of half that size.
    error = 2 * math.sqrt(exact / 2 * (1 - exact / 2) / statistics.RESAMPLES)
    assert found.p_value == pytest.approx(exact, abs=4 * error)


def test_five_seeds_cannot_reach_five_percent():
    """Breaks if the least p is not 2 / 2^n, or is not what equal signs give."""
    found = compare([0.1, 0.2, 0.3, 0.4, 0.5])
    assert found.p_least == found.p_value == 0.0625
    assert compare([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).p_value == 0.03125


def test_the_t_interval_is_that_of_scipys_paired_test():
    """Breaks if degrees of freedom, level or standard error are another's."""
    for confidence in (0.9, 0.95):
        found = compare(FIVE, confidence=confidence)
        wanted = stats.ttest_1samp(FIVE, 0.0).confidence_interval(confidence)
        assert found.t_interval == pytest.approx(tuple(wanted), rel=1e-12)
    assert compare(FIVE).t_interval == Difference.of(FIVE).ci95
    assert found.std == pytest.approx(np.std(FIVE, ddof=1))


def _bca_by_hand(values, confidence, means):
    """Efron (1987): bias from the resamples, acceleration from the jackknife."""
    values = np.asarray(values)
    share = np.mean(np.concatenate([means < values.mean(), means <= values.mean()]))
    bias = stats.norm.ppf(share)
    left_out = np.array([np.delete(values, k).mean() for k in range(len(values))])
    apart = left_out.mean() - left_out
    acceleration = np.sum(apart**3) / (6 * np.sum(apart**2) ** 1.5)
    ends = []
    for side in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + stats.norm.ppf(side)
        ends.append(stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return np.quantile(means, ends)


def test_the_bca_interval_is_efrons_on_all_resamples():
    """Breaks if it is the percentile interval, or one of too few resamples.

    All 7^7 equally likely resamples take the place of the random ones.
    """
    values = [0.05, 0.1, 0.12, 0.3, 0.9, 1.9, 2.7]
    picked = np.array(list(itertools.product(values, repeat=7)), np.float32)
    means = picked.mean(axis=1, dtype=np.float64)
    wanted = _bca_by_hand(values, 0.9, means)
    got = compare(values, confidence=0.9).bca_interval
    assert got == pytest.approx(wanted, abs=0.02)
    assert np.abs(np.quantile(means, [0.05, 0.95]) - wanted).min() > 0.05


def test_the_same_numbers_give_the_same_bytes():
    """Breaks if resampling starts from the clock or from a state that is shared."""
    values = np.random.default_rng(5).normal(size=20).tolist()
    first = json.dumps(dataclasses.asdict(compare(values)), allow_nan=False)
    np.random.default_rng().normal(size=3)
    assert json.dumps(dataclasses.asdict(compare(values))) == first


# Two-sided paired t test, level 0.05: Cohen (1988) and G*Power 3.1 tell these.
@pytest.mark.parametrize(
    ("effect", "power", "seeds"),
    [(0.2, 0.8, 199), (0.5, 0.8, 34), (0.5, 0.95, 54), (0.8, 0.8, 15), (1.0, 0.8, 10)],
)
def test_seeds_needed_are_those_of_published_tables(effect, power, seeds):
    """Breaks if the effect, the noncentrality or the degrees of freedom are off."""
    assert statistics.seeds_needed(effect, 0.95, power) == seeds


def test_power_is_the_integral_over_the_sample_deviation():
    """Given the sample's deviation, the mean is normal: integrate over chi-square."""
    effect, n, level = 0.9, 7, 0.05
    bound = stats.t.ppf(1 - level / 2, n - 1)
    s = np.sqrt(stats.chi2.ppf((np.arange(200_000) + 0.5) / 200_000, n - 1) / (n - 1))
    shift = effect * math.sqrt(n)
    either = stats.norm.sf(bound * s - shift) + stats.norm.cdf(-bound * s - shift)
    got = statistics.t_test_power(effect, n, level)
    assert got == pytest.approx(either.mean(), abs=1e-6)


def test_seeds_needed_are_never_fewer_than_the_permutation_test_asks_for():
    """Breaks if a huge effect promises p <= 0.05 from five pairs, whose least is more.

    At 90 % five suffice: 2 / 2^5 = 0.0625.
    """
    huge = [1.0, 1.01, 0.99, 1.0]
    assert compare(huge).seeds_needed == 6
    assert compare(huge, confidence=0.9).seeds_needed == 5
    assert statistics.seeds_needed(1e9, 0.95, 0.8) == 6
    # 2 / 2^5 is the very level: reached.
    assert statistics.seeds_needed(1e9, 1 - 0.0625, 0.8) == 5


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ([], {}),
        ([0.3], {"mean": 0.3, "p_least": 1.0}),
        ([0.3, None, 0.1], {}),
        ([0.3, math.nan, 0.1], {}),
        ([0.0] * 4, {"mean": 0.0, "std": 0.0, "p_value": 1.0, "p_least": 0.125}),
        ([0.3] * 4, {"mean": 0.3, "std": 0.0, "p_value": 0.125, "p_least": 0.125}),
    ],
)
def test_what_says_nothing_is_none(values, known):
    """Breaks if too few, unknown or equal differences give an interval or an effect."""
    found = dataclasses.asdict(compare(values))
    assert found["n"] == len(values)
    assert found["bca_note"]
    asked = ("mean", "std", "t_interval", "bca_interval", "p_value", "p_least")
    for name in (*asked, "effect", "seeds_needed"):
        assert found[name] == (pytest.approx(known[name]) if name in known else None)


def test_no_effect_and_a_vanishing_one_need_no_number_of_seeds():
    """Breaks if a mean of zero, or of nearly zero, is given a sample size."""
    assert compare([1.0, -1.0, 2.0, -2.0]).seeds_needed is None
    assert statistics.seeds_needed(1e-4, 0.95, 0.8) is None
    assert statistics.seeds_needed(0.01, 0.95, 0.8) == 78_491  # 2.8016^2 / 0.01^2 + 2


def test_confidence_and_power_that_cannot_be_are_refused():
    """Breaks if 95 is taken for 0.95."""
    for wrong in ({"confidence": 95.0}, {"power": 0.05}, {"power": 1.0}):
        with pytest.raises(ValueError, match="confidence="):
            compare(FIVE, **wrong)


def _step_down(p_values):
    """Return the least level at which Holm's procedure rejects each, by its steps."""
    levels = sorted({k * p for p in p_values for k in range(1, len(p_values) + 1)})
    found = [1.0] * len(p_values)
    for level in reversed([level for level in levels if level < 1]):
        for rank, place in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            found[place] = level
    return found


def test_holm_adjusts_as_worked_by_hand_and_as_its_steps_decide():
    """Breaks if ranks, monotony or the cap at 1 are wrong, or None counts as a test."""
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == [0.03, 0.06, None, 0.06, 0.02]
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]
    random = np.random.default_rng(0)
    for _ in range(20):
        p_values = np.round(random.uniform(0, 0.3, 6) ** 2, 3).tolist()
        assert holm(p_values) == pytest.approx(_step_down(p_values))
