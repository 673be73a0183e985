"""Whether a classifier's confidence is its accuracy: scores and bins, in float64."""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
"""Between which a temperature is looked for; a network without errors has none."""


class Bins(NamedTuple):
    """Examples grouped by confidence; sums, so that those of several seeds add up.

    count: [M] examples. confidence: [M] sum of theirs. correct: [M] how many of their
    answers are right.
    """

    count: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    def error(self) -> float:
        """Return the calibration error in [0, 1].

        The mean over the examples of |accuracy - mean confidence| of their bin (Guo et
        al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3).
        """
        return float(np.abs(self.correct - self.confidence).sum() / self.count.sum())


def equal_width(confidence: np.ndarray, correct: np.ndarray, num_bins: int) -> Bins:
    """Group by intervals ((m - 1) / M, m / M] of the confidence (Guo et al. 2017).

    Args:
      confidence: [N] of the answer given, in (0, 1].
      correct: [N] bool, is that answer the label?
      num_bins: M.
    """
    inner = np.linspace(0.0, 1.0, num_bins + 1)[1:-1]
    return _group(confidence, correct, np.searchsorted(inner, confidence), num_bins)


def equal_mass(confidence: np.ndarray, correct: np.ndarray, num_bins: int) -> Bins:
    """Group into bins of equally many examples by rank (to one), the least sure first.

    The calibration error of these is the "adaptive" one, which no nearly empty bin can
    sway (Nguyen and O'Connor, "Posterior Calibration and Exploratory Analysis for
    Natural Language Processing Models", EMNLP 2015). Arguments as for `equal_width`.
    """
    rank = np.empty(len(confidence), np.int64)
    rank[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
    return _group(confidence, correct, rank * num_bins // len(rank), num_bins)


def _group(
    confidence: np.ndarray, correct: np.ndarray, place: np.ndarray, num_bins: int
) -> Bins:
    weights = np.ones_like(confidence), confidence, correct
    return Bins(*(np.bincount(place, w, minlength=num_bins) for w in weights))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -log softmax(logits)[label] in nats; [N, C] and [N]."""
    log_probs = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    return float(-np.take_along_axis(log_probs, labels[:, None], -1).mean())


def brier(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of sum_c (p_c - [c is the label])^2, in [0, 2].

    Source: Brier, "Verification of Forecasts Expressed in Terms of Probability",
    Monthly Weather Review 78 (1950), with all classes, not one.

    Args:
      logits: [N, C].
      labels: [N] integers in [0, C).
    """
    probs = special.softmax(np.asarray(logits, np.float64), axis=-1)
    probs[np.arange(len(labels)), labels] -= 1.0
    return float(np.square(probs).sum(-1).mean())


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T at which softmax(logits / T) has the least negative log-likelihood.

    Temperature scaling of Guo et al. 2017, Section 4.2. Looked for between
    `LOWEST_TEMPERATURE` and `HIGHEST_TEMPERATURE`: there is a single minimum, as the
    function is convex in 1 / T, and where no example is wrong it lies at T = 0.

    Args:
      logits: [N, C].
      labels: [N] integers in [0, C).
    """
    logits = np.asarray(logits, np.float64)
    found = optimize.minimize_scalar(
        lambda log_t: negative_log_likelihood(logits / math.exp(log_t), labels),
        bounds=(math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)),
        method="bounded",
    )
    return math.exp(found.x)
