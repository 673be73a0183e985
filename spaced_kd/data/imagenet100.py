"""ImageNet-100: 126,689 + 5,000 images, the 100 classes of ImageNet most often used.

Deviation: the paper names the data set, but not its classes, and none of the released
code reads it. The list here is that of Contrastive Multiview Coding, which most works
mean by the name.
"""

from pathlib import Path

from spaced_kd.config import DataConfig
from spaced_kd.data import imagenet
from spaced_kd.data.imagenet import CompleteCopy
from spaced_kd.types import Dataset


def load(config: DataConfig, complete: CompleteCopy | None = None) -> Dataset:
    """Return the data set, from any copy of ImageNet or of these classes.

    See `imagenet.load_classes` for how it may lie on disk; classes that are not among
    the 100 are passed over.

    Args:
      config: as for `imagenet.load`.
      complete: the size of a complete copy; None: the official one.

    Raises:
      DataError: not there, damaged, or not all of it.
    """
    complete = complete or CompleteCopy(classes(), 126_689, 5_000)
    return imagenet.load_classes("imagenet100", config, complete)


def classes() -> tuple[str, ...]:
    """Return the WordNet ids, sorted; the file says where they come from."""
    lines = Path(__file__).with_suffix(".txt").read_text().splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
