"""The corrupted test images of a run, the same for all of its networks."""

import dataclasses
import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spaced_kd import corruption, registry
from spaced_kd.analysis.subject import Run
from spaced_kd.corruption import CONSTANTS, CORRUPTIONS, PAPER, frost_photos
from spaced_kd.data import corrupted_files
from spaced_kd.errors import ConfigError, DataError
from spaced_kd.fields import option
from spaced_kd.types import Split

_PATH = "--options.corruptions"
_COUNT = f"{_PATH}.num_examples"
_MIB = 1 << 20
_GROUPS = {"paper": PAPER, "all": tuple(CORRUPTIONS)}

_log = logging.getLogger("spaced_kd")


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
            registry.lookup(known, name, f"{_PATH}.names")
        if len(names) > 1 and set(_GROUPS) & set(names):
            raise ConfigError(
                f"{_PATH}.names={self.names}: 'paper' or 'all' must stand alone."
            )
        for severity in _listed(self.severities, "severities"):
            known = dict.fromkeys(map(str, range(1, corrupted_files.SEVERITIES + 1)))
            registry.lookup(known, severity, f"{_PATH}.severities")

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
        raise ConfigError(f"{_PATH}.{field} is empty; name one or more.")
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class CorruptedImages:
    """Corrupted test images, kept while they fit into memory.

    folder: of the published images; None: our own.
    """

    run: Run
    options: Options
    folder: Path | None
    _kept: dict[tuple[str, int], Split] = dataclasses.field(default_factory=dict)

    @property
    def source(self) -> str:
        """ "official" or "own"."""
        return "official" if self.folder else "own"

    @property
    def clean(self) -> Split:
        """The same images uncorrupted; official CIFAR arrays have another order."""
        return self.run.split("test", self.options.num_examples, _COUNT)

    def check(self) -> None:
        """Find what is missing before anything is measured.

        Raises:
          ConfigError: `num_examples` is too small for the classes.
          DataError: a published file or a photograph of frost is missing or damaged.
        """
        if self.options.num_examples:
            # All images always do, and those of ImageNet take minutes to decode.
            self.run.split("test", self.options.num_examples, _COUNT)
        if self.folder:
            shape, config = self.run.dataset.image_shape, self.run.config.data
            for name in self.options.corruptions:
                for level in self.options.levels:
                    corrupted_files.check(self.folder, config, name, level, shape)
        elif self._frost_dir:
            frost_photos.read(self._frost_dir)

    def identity(self) -> dict[str, Any]:
        """Return JSON that changes with the files that are read.

        Returns:
          "source"; "files", name -> what tells its content (`frost_photos.digests`,
          `corrupted_files.identity`), none where everything is made here.

        Raises:
          DataError: one of them cannot be read.
        """
        files: dict[str, Any] = {}
        if self.folder:
            options, config = self.options, self.run.config.data
            files = corrupted_files.identity(
                self.folder, config, options.corruptions, options.levels
            )
        elif self._frost_dir:
            files = frost_photos.digests(self._frost_dir)
        return {"source": self.source, "files": files}

    @property
    def _frost_dir(self) -> str:
        return self.options.frost_dir * ("frost" in self.options.corruptions)

    def every(self) -> Iterator[tuple[str, int, Split]]:
        """Yield corruption, severity and images, for each network in the same order.

        Raises:
          DataError: a published file is missing or damaged.
        """
        for name in self.options.corruptions:
            for severity in self.options.levels:
                yield name, severity, self._split(name, severity)

    def corrupt(self, image: np.ndarray, name: str, severity: int) -> np.ndarray:
        """Return our own corruption of images, [N, H, W, C] uint8."""
        options = self.options
        return corruption.corrupt_all(
            image, name, severity, options.constants, options.seed, options.frost_dir
        )

    def _split(self, name: str, severity: int) -> Split:
        if (name, severity) in self._kept:
            return self._kept[name, severity]
        begun = time.monotonic()
        split = self._made(name, severity)
        seconds = time.monotonic() - begun
        count = len(split.label)
        _log.info(
            "corruptions: %s %d, %d images, %.1f s", name, severity, count, seconds
        )
        if (len(self._kept) + 1) * split.image.nbytes <= self.options.memory_mib * _MIB:
            self._kept[name, severity] = split
        return split

    def _made(self, name: str, severity: int) -> Split:
        if self.folder is None:
            image = self.corrupt(self.clean.image, name, severity)
            return Split(image, self.clean.label)
        shape = self.run.dataset.image_shape
        config = self.run.config.data
        split = corrupted_files.read(self.folder, config, name, severity, shape)
        if not _same_labels(split.label, self.clean.label):
            raise DataError(
                f"{self.folder}: the {len(split.label)} images of {name}, severity "
                f"{severity}, have other labels than the {len(self.clean.label)} of "
                f"the run's test split; give {_PATH}.source=own."
            )
        return split


@functools.lru_cache(maxsize=1)
def of_run(run: Run, options: Options) -> CorruptedImages:
    """Return the images that all networks of a run are tested on.

    Raises:
      ConfigError: published images that are asked for and not to be had.
    """
    folder = None if options.source == "own" else _official(run, options)
    images = CorruptedImages(run, options, folder)
    _log.info("corruptions: %s images, %s", images.source, folder or options.constants)
    return images


def _official(run: Run, options: Options) -> Path | None:
    """Return where the published images lie; None: to be made by ourselves."""
    config = run.config.data
    folder = corrupted_files.find(config, options.dir)
    whole = len(run.dataset.test.label)
    if folder is None:
        expected = corrupted_files.FOLDERS.get(config.name)
        where = options.dir or "the data folder"
        why = (
            f"there is no {expected} in {where}"
            if expected
            else f"none are published for {config.name}"
        )
    elif 0 < options.num_examples < whole:
        why = f"they are of the whole test split, not of {options.num_examples} images"
    elif config.num_test_examples:
        why = "they are of the whole test split, of which the run has a part"
    else:
        return folder
    if options.source == "official":
        raise ConfigError(f"{_PATH}.source=official: {why}; give own or auto.")
    if options.dir and not folder:
        raise ConfigError(f"{_PATH}.dir={options.dir}: {why}.")
    if folder:
        _log.warning("corruptions: the images in %s are not used: %s.", folder, why)
    return None


def _same_labels(label: np.ndarray, other: np.ndarray) -> bool:
    return len(label) == len(other) and bool((np.sort(label) == np.sort(other)).all())
