"""Calibration scores against hand-made cases, scikit-learn and PyTorch's arithmetic."""

import numpy as np
import pytest
import sklearn.metrics
from scipy import special
from sklearn.calibration import calibration_curve

from spaced_kd.analysis import reliability

rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(600, 5)) * 2
LABELS = np.where(rng.random(600) < 0.6, LOGITS.argmax(-1), rng.integers(0, 5, 600))
CONFIDENCE = special.softmax(LOGITS, -1).max(-1)
CORRECT = LOGITS.argmax(-1) == LABELS


def test_error_is_the_gap_weighted_by_the_bins_examples():
    """By hand: 2 of 5 at (0.52 + 0.6) / 2 = 0.56, half right; 3 at 0.9, all wrong."""
    confidence = np.array([0.52, 0.9, 0.6, 0.9, 0.9])
    correct = np.array([True, False, False, False, False])
    found = reliability.equal_width(confidence, correct, 4)
    assert found.error() == pytest.approx((2 * 0.06 + 3 * 0.9) / 5)
    np.testing.assert_array_equal(found.count, [0, 0, 2, 3])


def test_error_is_the_papers_sum_over_bins():
    """In a loop over the bins, as the paper writes it."""
    total = 0.0
    for m in range(15):
        low, high = m / 15, (m + 1) / 15
        inside = (low < CONFIDENCE) & (high >= CONFIDENCE)
        if inside.any():
            gap = CORRECT[inside].mean() - CONFIDENCE[inside].mean()
            total += inside.mean() * abs(gap)
    found = reliability.equal_width(CONFIDENCE, CORRECT, 15)
    assert found.error() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_bins_are_scikit_learns(strategy):
    """Which leaves empty ones out; 600 examples fall into 15 bins of 40."""
    group = {"uniform": reliability.equal_width, "quantile": reliability.equal_mass}
    found = group[strategy](CONFIDENCE, CORRECT, 15)
    accuracy, confidence = calibration_curve(
        CORRECT, CONFIDENCE, n_bins=15, strategy=strategy
    )
    full = found.count > 0
    np.testing.assert_allclose(found.correct[full] / found.count[full], accuracy)
    np.testing.assert_allclose(found.confidence[full] / found.count[full], confidence)


def test_whole_certainty_belongs_to_the_last_bin():
    found = reliability.equal_width(np.array([1.0, 1 / 15, 1e-9]), np.ones(3, bool), 15)
    np.testing.assert_array_equal(np.flatnonzero(found.count), [0, 14])
    assert found.count[0] == 2


@pytest.mark.parametrize("count", [100, 7])
def test_equal_mass_is_equal_to_one_example(count):
    """Also with ties, all of one confidence, and with fewer examples than bins."""
    found = reliability.equal_mass(np.full(count, 0.5), np.ones(count, bool), 15)
    assert found.count.sum() == count
    assert np.ptp(found.count) <= 1


def test_a_network_that_means_what_it_says_has_hardly_any_error():
    """Labels drawn from the network's own probabilities, 200,000 of them."""
    logits = rng.normal(size=(200_000, 3)) * 1.5
    gumbel = rng.gumbel(size=logits.shape)
    labels = (logits + gumbel).argmax(-1)
    confidence = special.softmax(logits, -1).max(-1)
    correct = logits.argmax(-1) == labels
    for group in (reliability.equal_width, reliability.equal_mass):
        assert group(confidence, correct, 15).error() < 0.005
    # The best temperature is 1; of the same logits times 2.5 it is 2.5.
    assert reliability.best_temperature(logits, labels) == pytest.approx(1.0, abs=0.02)
    sharp = reliability.best_temperature(2.5 * logits, labels)
    assert sharp == pytest.approx(2.5, abs=0.05)


def test_likelihood_and_brier_are_scikit_learns():
    probs = special.softmax(LOGITS, -1)
    expected = sklearn.metrics.log_loss(LABELS, probs)
    found = reliability.negative_log_likelihood(LOGITS, LABELS)
    assert found == pytest.approx(expected, rel=1e-10)
    one_hot = np.eye(5)[LABELS]
    expected = sum(np.mean((probs[:, c] - one_hot[:, c]) ** 2) for c in range(5))
    assert reliability.brier(LOGITS, LABELS) == pytest.approx(expected, rel=1e-12)


def test_brier_of_known_answers():
    certain = np.array([[100.0, 0.0], [0.0, 100.0]])
    assert reliability.brier(certain, np.array([0, 1])) == pytest.approx(0)
    assert reliability.brier(certain, np.array([1, 0])) == pytest.approx(2)
    assert reliability.brier(0 * certain, np.array([1, 0])) == pytest.approx(0.5)


def test_float32_logits_are_scored_in_float64():
    """-log p of 100 nats underflows as a float32 probability."""
    logits = np.array([[0.0, 110.0]], np.float32)
    found = reliability.negative_log_likelihood(logits, np.array([0]))
    assert found == pytest.approx(110.0)


def test_the_temperature_is_that_of_a_fine_grid():
    grid = np.geomspace(0.5, 5, 4001)
    scores = [
        sklearn.metrics.log_loss(LABELS, special.softmax(LOGITS / t, -1))
        for t in grid[::40]
    ]
    place = 40 * int(np.argmin(scores))
    fine = grid[place - 40 : place + 41]
    scores = [reliability.negative_log_likelihood(LOGITS / t, LABELS) for t in fine]
    best = reliability.best_temperature(LOGITS, LABELS)
    assert best == pytest.approx(fine[int(np.argmin(scores))], rel=1e-3)


def test_a_network_without_errors_takes_the_lowest_temperature():
    best = reliability.best_temperature(LOGITS, LOGITS.argmax(-1))
    assert best == pytest.approx(reliability.LOWEST_TEMPERATURE, rel=0.01)
