"""Does an attack fail because the network is robust, or because its gradients lie?

Signs of gradient masking (Athalye et al., "Obfuscated Gradients Give a False Sense of
Security", ICML 2018, Section 3.1; Carlini et al., "On Evaluating Adversarial
Robustness", 2019, Section 5), as comparisons of shares of the same n examples. Of two
shares p and q, noise explains a difference of twice the standard error of independent
samples, sqrt((p (1 - p) + q (1 - q)) / n): generous, as the same examples vary
together.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

BAR_ZERO = 0.5
"""Share of chance: a network that cannot see the image is at chance, one that is led
astray by its own gradient far below it."""

BAR_SHARE = 95.0
"""Percent of examples that must have a gradient, and whose loss must rise. Where the
softmax saturates in float32, some have and do neither in a sound network."""


class Curve(NamedTuple):
    """What an attack leaves, at every eps, rising.

    accuracy: percent. loss_rose: percent of the examples whose loss lies above that of
    their clean image.
    """

    accuracy: Sequence[float]
    loss_rose: Sequence[float]


class Measured(NamedTuple):
    """What the checks of a network compare.

    eps: in 1/255, rising; the last is large enough to change every image beyond
    recognition. clean: accuracy in percent. has_gradient: percent of the clean images
    with a gradient other than zero. noise, fgsm: under random signs of size eps, and
    under FGSM.
    """

    num_examples: int
    num_classes: int
    eps: Sequence[float]
    clean: float
    has_gradient: float
    noise: Curve
    fgsm: Curve


class Check(NamedTuple):
    """One comparison. found, bar: percent or percentage points; eps: in 1/255."""

    passed: bool
    found: float
    bar: float
    eps: float

    def sentence(self, name: str) -> str:
        """Return what the check `name` found, in words."""
        text = SENTENCES[name].format(**self._asdict())
        return f"{name}: {text}"


SENTENCES = {
    "has_gradient": "{found:.1f} % of clean images have a gradient, bar {bar:g} %",
    "loss_rises": "the loss of {found:.1f} % of images rises at {eps:g}/255, bar "
    "{bar:g} %",
    "beats_noise": "{found:+.2f} points against random signs at {eps:g}/255, noise "
    "{bar:.2f}",
    "beats_fgsm": "{found:+.2f} points against FGSM at {eps:g}/255, noise {bar:.2f}",
    "falls_with_eps": "{found:+.2f} points from the next smaller eps to {eps:g}/255, "
    "noise {bar:.2f}",
    "reaches_zero": "{found:.2f} % still right at {eps:g}/255, bar {bar:.2f} %, half "
    "of chance",
}
"""Check -> what it found, in words; points are of accuracy, less is a better attack."""


def checks(curve: Curve, measured: Measured, iterative: bool) -> dict[str, Check]:
    """Return every check of one attack on one network.

    Args:
      curve: under this attack, at `measured.eps`.
      measured: what it is compared with.
      iterative: whether it takes many steps. FGSM takes one, which may well overshoot:
        it need not reach zero, nor get better with eps, in a sound network.
    """
    eps = measured.eps
    # The largest eps but one: the last breaks images even without a gradient.
    last = max(len(eps) - 2, 0)
    rose = curve.loss_rose[last]
    found = {
        "has_gradient": _at_least(measured.has_gradient, 0.0),
        "loss_rises": _at_least(rose, eps[last]),
        "beats_noise": _not_above(curve.accuracy, measured.noise.accuracy, measured),
    }
    if iterative:
        before = [measured.clean, *curve.accuracy[:-1]]
        bar = BAR_ZERO * 100 / measured.num_classes
        zero = Check(curve.accuracy[-1] <= bar, curve.accuracy[-1], bar, eps[-1])
        found |= {
            "beats_fgsm": _not_above(curve.accuracy, measured.fgsm.accuracy, measured),
            "falls_with_eps": _not_above(curve.accuracy, before, measured),
            "reaches_zero": zero,
        }
    return found


def _at_least(share: float, eps: float) -> Check:
    return Check(share >= BAR_SHARE, share, BAR_SHARE, eps)


def _not_above(
    values: Sequence[float], others: Sequence[float], measured: Measured
) -> Check:
    """Compare at every eps; return the one where values exceed others most."""
    count = measured.num_examples
    compared = [
        Check(value - other <= _noise(value, other, count), value - other, bar, eps)
        for value, other, eps in zip(values, others, measured.eps, strict=True)
        for bar in [_noise(value, other, count)]
    ]
    return max(compared, key=lambda check: check.found - check.bar)


def _noise(value: float, other: float, count: int) -> float:
    """Return what noise explains of the difference of two percentages, in points."""
    shares = value / 100, other / 100
    return 200 * math.sqrt(sum(share * (1 - share) for share in shares) / count)
