"""Small synthetic images that a network can learn, for tests and dry runs.

Not a benchmark: each class is one fixed random pattern under uniform noise.
"""

import numpy as np

from spaced_kd.config import DataConfig
from spaced_kd.types import Dataset, Split

NUM_CLASSES = 10
NUM_TRAIN, NUM_TEST = 512, 256
SHAPE = (8, 8, 3)
# Pattern and noise take 128 levels each: learnable from a few batches, but not from a
# few pixels.
_PATTERN_LEVELS, _NOISE_LEVELS = 128, 128

# Of the training split, scaled to [0, 1]; the tests recompute them.
MEAN = (0.5055, 0.5044, 0.5040)
STD = (0.2013, 0.2044, 0.2053)


def load(config: DataConfig) -> Dataset:
    """Return the data set, always the same; takes nothing from the config."""
    del config
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, _PATTERN_LEVELS, (NUM_CLASSES, *SHAPE))
    train = _draw(generator, patterns, NUM_TRAIN)
    test = _draw(generator, patterns, NUM_TEST)
    return Dataset("fake", train, test, NUM_CLASSES, MEAN, STD, fingerprint="")


def _draw(generator: np.random.Generator, patterns: np.ndarray, count: int) -> Split:
    label = generator.permutation(np.arange(count) % NUM_CLASSES)
    noise = generator.integers(0, _NOISE_LEVELS, (count, *SHAPE))
    image = patterns[label] + noise
    return Split(image.astype(np.uint8), label.astype(np.int32))
