"""Real handwritten digits that need no download: scikit-learn's 1797 images of 8x8.

They are the test part of UCI's "Optical Recognition of Handwritten Digits" (E. Alpaydin
and C. Kaynak, 1998). scikit-learn has no split; the one here is ours.
"""

import importlib.util
from pathlib import Path

import numpy as np

from spaced_kd.config import DataConfig
from spaced_kd.data.contents import content_order
from spaced_kd.errors import DataError
from spaced_kd.types import Dataset, Split

NUM_CLASSES = 10
# Few training images leave headroom: with most of the 1797, any network gets close to
# 100 %, and methods could not be told apart.
TRAIN_PER_CLASS = 30
_LARGEST = 16  # pixels are counts 0..16 of a 4x4 block

# Of the training split, scaled to [0, 1]; the tests recompute them.
MEAN = (0.3020,)
STD = (0.3739,)


def load(config: DataConfig) -> Dataset:
    """Return 300 training images, 30 a class, and the other 1497 for testing.

    The file groups images by writer, so neither its head nor its tail stands for the
    whole. We order by a hash of the content instead: as good as a random permutation,
    and the same under every version of NumPy and scikit-learn. The first 30 of a class
    train.

    Raises:
      DataError: scikit-learn is missing, or its file is.
    """
    del config
    rows = np.loadtxt(_file(), delimiter=",", dtype=np.int32)
    pixels, label = rows[:, :-1], rows[:, -1]
    image = np.rint(pixels * (255 / _LARGEST)).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = content_order(Split(image, label))
    train = np.zeros(len(order), bool)
    for c in range(NUM_CLASSES):
        train[np.flatnonzero(label[order] == c)[:TRAIN_PER_CLASS]] = True
    return Dataset(
        "digits",
        Split(image[order[train]], label[order[train]]),
        Split(image[order[~train]], label[order[~train]]),
        NUM_CLASSES,
        MEAN,
        STD,
        fingerprint="",
    )


def _file() -> Path:
    """Return where scikit-learn keeps them; its `load_digits` takes 1.4 s to import."""
    found = importlib.util.find_spec("sklearn")
    home = Path(found.origin).parent if found and found.origin else Path("sklearn")
    path = home / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DataError(
            f"digits: no file {path}; they come with scikit-learn: install "
            "scikit-learn>=1.5,<2"
        )
    return path
