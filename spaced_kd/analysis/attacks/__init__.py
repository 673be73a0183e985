"""Accuracy under FGSM, BIM and PGD (paper Table 13), with checks of the attack itself.

The paper attacks with BIM and gives neither eps nor step nor their number, so this is a
whole curve. What an attack does: `adversary`; whether to believe it: `masking`.
"""

import jax

from spaced_kd.analysis.attacks import adversary, attacked, masking, report
from spaced_kd.analysis.attacks.adversary import Rule
from spaced_kd.analysis.attacks.masking import Curve, Measured
from spaced_kd.analysis.attacks.options import (
    ATTACKS,
    COMPARED,
    FIELD,
    Options,
    RuleOf,
)
from spaced_kd.analysis.base import Analysis, Values
from spaced_kd.analysis.subject import Run, Subject


def measure(subject: Subject, options: Options) -> Values:
    """Return what every attack leaves of a network; see `ANALYSIS`.

    Returns:
      num_examples, num_classes; eps: `Options.radii`, in 1/255; clean: acc1 (percent),
      loss (nats) and has_gradient (percent of images); curves: the attacks of
      `options` and `COMPARED` -> acc1, loss and loss_rose (percent of images) -> one
      an eps; checks: attack -> check of `masking` -> passed, found, bar, eps.
    """
    run = subject.run
    split = run.split("test", options.num_examples, f"{FIELD}.num_examples")
    key = jax.random.key(options.seed)

    def means(per_example: attacked.PerExample, rule: Rule) -> dict[str, float]:
        size = options.batch_size
        return attacked.means(per_example, subject, split, rule, key, size)

    def curve(rule: RuleOf) -> dict[str, list[float]]:
        found = [
            means(attacked.under, rule(eps / 255, options)) for eps in options.radii
        ]
        return {name: [one[name] for one in found] for name in found[0]}

    asked = {name: ATTACKS[name] for name in options.names}
    values = {
        "num_examples": len(split.label),
        "num_classes": run.dataset.num_classes,
        "eps": options.radii,
        "clean": means(attacked.clean, adversary.noise(0.0)),
        "curves": {name: curve(rule) for name, rule in (COMPARED | asked).items()},
    }
    return values | {"checks": {name: _checks(name, values) for name in asked}}


def check(run: Run, options: Options) -> None:
    """Refuse fewer images than classes before anything is measured.

    Raises:
      ConfigError: they are.
    """
    if options.num_examples:
        run.split("test", options.num_examples, f"{FIELD}.num_examples")


def _checks(attack: str, values: Values) -> Values:
    curves = {
        name: Curve(one["acc1"], one["loss_rose"])
        for name, one in values["curves"].items()
    }
    measured = Measured(
        values["num_examples"],
        values["num_classes"],
        values["eps"],
        values["clean"]["acc1"],
        values["clean"]["has_gradient"],
        curves["noise"],
        curves["fgsm"],
    )
    found = masking.checks(curves[attack], measured, iterative=attack != "fgsm")
    return {name: check._asdict() for name, check in found.items()}


ANALYSIS = Analysis(
    title="Adversarial attacks (paper Table 13)",
    about=(
        "Accuracy on un-augmented test images, each moved within an L_inf ball of "
        "radius eps around it so that the network's own cross-entropy grows "
        "(untargeted, white box, BatchNorm's averages standing still). Pixels are in "
        "[0, 1], at the size that the network sees; normalisation is part of the "
        "network. FGSM: one step of eps along the gradient's sign (Goodfellow et al. "
        "2015). BIM: steps of a given length from the image, kept in the ball and in "
        "[0, 1] (Kurakin et al. 2017). PGD: the same from random points of the ball "
        "(Madry et al. 2018). The paper uses BIM and gives neither eps nor steps. "
        "Gradients can mislead an attack, which then looks like robustness; so every "
        "attack is checked: are there gradients, does the loss rise, does it hurt more "
        "than random signs of the same size, do many steps hurt more than one, a "
        "larger eps more than a smaller one, and does a huge eps leave next to nothing?"
    ),
    options=Options,
    measure=measure,
    table=report.table,
    figures=report.figures,
    check=check,
)
