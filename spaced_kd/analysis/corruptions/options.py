"""Options of the analysis `corruptions`."""

import dataclasses

from spaced_kd import registry
from spaced_kd.corruption import CONSTANTS, CORRUPTIONS, PAPER
from spaced_kd.data import corrupted_files
from spaced_kd.errors import ConfigError
from spaced_kd.fields import option

FIELD = "--options.corruptions"

_GROUPS = {"paper": PAPER, "all": tuple(CORRUPTIONS)}


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured, and on which images.

    Raises:
      ConfigError: an unknown corruption or severity, or none.
    """

    names: str = option(
        "paper",
        "corruptions: paper, the six of Tables 5 and 12; all, the fifteen of "
        "ImageNet-C; or names joined by commas",
    )
    severities: str = option("1,3,5", "severities, 1 to 5, joined by commas")
    constants: str = option(
        "imagenet_c",
        "how strong our own corruptions are: imagenet_c, as in the paper "
        "(imagecorruptions 1.1.2), or cifar_c, as CIFAR-10-C and CIFAR-100-C, milder",
        choices=tuple(CONSTANTS),
    )
    source: str = option(
        "auto",
        "whose images: own, corrupted here; official, the published ones, which have "
        "constants of their own (CIFAR-C's are not the paper's); auto: official where "
        "they lie in `dir`",
        choices=("auto", "own", "official"),
    )
    dir: str = option(
        "",
        "folder CIFAR-10-C, CIFAR-100-C, Tiny-ImageNet-C or ImageNet-C, or what holds "
        "it; empty: the data folder",
    )
    frost_dir: str = option(
        "",
        "folder of ImageNet-C's photographs frost1.png to frost5.jpg; empty: pictures "
        "of our own",
    )
    num_examples: int = option(
        0, "class-balanced test images, our own corruptions only; 0: all", low=0
    )
    seed: int = option(0, "of our own corruptions", low=0)
    memory_mib: int = option(
        8192,
        "MiB that corrupted images may take in the host's memory; what does not fit is "
        "made again for each network, which changes no result",
        low=1,
    )

    def __post_init__(self):
        """Refuse lists that cannot be before anything is measured."""
        names = _listed(self.names, "names")
        for name in names:
            known = CORRUPTIONS | dict.fromkeys(_GROUPS)
            registry.lookup(known, name, f"{FIELD}.names")
        if len(names) > 1 and set(_GROUPS) & set(names):
            raise ConfigError(
                f"{FIELD}.names={self.names}: 'paper' or 'all' must stand alone."
            )
        for severity in _listed(self.severities, "severities"):
            known = dict.fromkeys(map(str, range(1, corrupted_files.SEVERITIES + 1)))
            registry.lookup(known, severity, f"{FIELD}.severities")

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The corruptions that `names` means, in its order."""
        names = _listed(self.names, "names")
        return _GROUPS.get(names[0], names)

    @property
    def levels(self) -> tuple[int, ...]:
        """The severities, ascending."""
        return tuple(sorted(map(int, _listed(self.severities, "severities"))))


def _listed(text: str, field: str) -> tuple[str, ...]:
    found = tuple(
        dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    )
    if not found:
        raise ConfigError(f"{FIELD}.{field} is empty; name one or more.")
    return found
