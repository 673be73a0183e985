"""Options of the analysis `attacks`, and what each attack does by them."""

import dataclasses
from collections.abc import Callable

from spaced_kd import registry
from spaced_kd.analysis.attacks import adversary
from spaced_kd.analysis.attacks.adversary import Rule
from spaced_kd.errors import ConfigError
from spaced_kd.fields import option

FIELD = "--options.attacks"


@dataclasses.dataclass(frozen=True)
class Options:
    """Which attacks, how far, on how many images.

    Raises:
      ConfigError: an unknown attack, or eps that cannot be.
    """

    attacks: str = option("bim", "which: bim, fgsm, pgd; separated by commas")
    eps: str = option(
        "0.5,1,2,4,8",
        "radii of the L_inf ball in 1/255 of the pixels' range, > 0, rising, separated "
        "by commas",
    )
    large_eps: float = option(
        64.0,
        "a radius in 1/255 that no network can withstand, for the checks; larger than "
        "all of eps",
        above=0.0,
        high=255.0,
    )
    steps: int = option(10, "gradients in each ascent of bim and pgd", low=1)
    step_rule: str = option(
        "share",
        "length of a step: step_size times eps (share), or step_size / 255 (absolute)",
        choices=("share", "absolute"),
    )
    step_size: float = option(0.25, "see step_rule", above=0.0)
    restarts: int = option(
        1, "random starts of pgd; of each image the worst counts", low=1
    )
    num_examples: int = option(0, "class-balanced test images; 0: all", low=0)
    batch_size: int = option(
        250, "images at once, all devices together; less needs less memory", low=1
    )
    seed: int = option(0, "of random starts and noise", low=0)

    def __post_init__(self):
        """Refuse a list that cannot be before anything is measured."""
        for name in self.names:
            registry.lookup(ATTACKS, name, f"{FIELD}.attacks")
        try:
            rising = [0.0, *map(float, self.eps.split(",")), self.large_eps]
        except ValueError:
            rising = [0.0, 0.0]
        if not all(low < high for low, high in zip(rising, rising[1:], strict=False)):
            raise ConfigError(
                f"{FIELD}.eps={self.eps!r} is not a list of rising numbers between 0 "
                f"and large_eps={self.large_eps:g}; give e.g. {FIELD}.eps=0.5,1,2."
            )

    @property
    def names(self) -> list[str]:
        """The attacks, each once."""
        return list(dict.fromkeys(name.strip() for name in self.attacks.split(",")))

    @property
    def radii(self) -> list[float]:
        """`eps` and `large_eps`."""
        return [*map(float, self.eps.split(",")), self.large_eps]

    def alpha(self, eps: float) -> float:
        """Return the length of a step, of pixels in [0, 1], for eps likewise."""
        if self.step_rule == "share":
            return self.step_size * eps
        return self.step_size / 255


def _fgsm(eps: float, options: Options) -> Rule:
    del options
    return adversary.fgsm(eps)


def _bim(eps: float, options: Options) -> Rule:
    return adversary.bim(eps, options.alpha(eps), options.steps)


def _pgd(eps: float, options: Options) -> Rule:
    return adversary.pgd(eps, options.alpha(eps), options.steps, options.restarts)


def _noise(eps: float, options: Options) -> Rule:
    del options
    return adversary.noise(eps)


RuleOf = Callable[[float, Options], Rule]
"""(eps of pixels in [0, 1], options) -> what to do."""

ATTACKS: dict[str, RuleOf] = {"bim": _bim, "fgsm": _fgsm, "pgd": _pgd}
"""Those to choose from."""

COMPARED: dict[str, RuleOf] = {"noise": _noise, "fgsm": _fgsm}
"""Those that the checks compare the chosen ones with."""
