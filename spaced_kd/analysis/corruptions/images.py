"""The corrupted test images of a run, the same for all of its networks."""

import dataclasses
import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spaced_kd import corruption
from spaced_kd.analysis.corruptions.options import FIELD, Options
from spaced_kd.analysis.subject import Run
from spaced_kd.corruption import frost_photos
from spaced_kd.data import corrupted_files
from spaced_kd.errors import ConfigError, DataError
from spaced_kd.types import Split

_COUNT = f"{FIELD}.num_examples"
_MIB = 1 << 20

_log = logging.getLogger("spaced_kd")


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
                f"the run's test split; give {FIELD}.source=own."
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
        raise ConfigError(f"{FIELD}.source=official: {why}; give own or auto.")
    if options.dir and not folder:
        raise ConfigError(f"{FIELD}.dir={options.dir}: {why}.")
    if folder:
        _log.warning("corruptions: the images in %s are not used: %s.", folder, why)
    return None


def _same_labels(label: np.ndarray, other: np.ndarray) -> bool:
    return len(label) == len(other) and bool((np.sort(label) == np.sort(other)).all())
