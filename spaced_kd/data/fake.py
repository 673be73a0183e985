"""Small synthetic images that a network can learn, for tests and dry runs.

Not a benchmark: each class is one fixed random pattern under uniform noise.
"""

import numpy as np

from spaced_kd.config import DataConfig
from spaced_kd.types import Dataset, Split

NUM_CLASSES = 10
NUM_TRAIN, NUM_TEST = 512, 256
SIDE, CHANNELS = 8, 3
# Pattern and noise take 128 levels each: learnable from a few batches, but not from a
# few pixels.
_PATTERN_LEVELS, _NOISE_LEVELS = 128, 128


def load(config: DataConfig) -> Dataset:
    """Return the data set, always the same for a size.

    Args:
      config: `image_size` is the side of the images as stored, pixels; 0: 8. So they
        stand in for data of that size, and need no resizing.
    """
    side = config.image_size or SIDE
    generator = np.random.default_rng(0)
    shape = (NUM_CLASSES, side, side, CHANNELS)
    patterns = generator.integers(0, _PATTERN_LEVELS, shape)
    train = _draw(generator, patterns, NUM_TRAIN)
    test = _draw(generator, patterns, NUM_TEST)
    mean, std = _statistics(train.image)
    return Dataset("fake", train, test, NUM_CLASSES, mean, std, fingerprint="")


def _draw(generator: np.random.Generator, patterns: np.ndarray, count: int) -> Split:
    label = generator.permutation(np.arange(count) % NUM_CLASSES)
    image = np.empty((count, *patterns.shape[1:]), np.uint8)
    # One by one: the numbers are the same, and 64 bits for each pixel of all are many.
    for row, c in enumerate(label):
        noise = generator.integers(0, _NOISE_LEVELS, patterns.shape[1:])
        image[row] = patterns[c] + noise
    return Split(image, label.astype(np.int32))


def _statistics(image: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, scaled to [0, 1]."""
    pixels = (one.reshape(-1, CHANNELS) / 255 for one in image)
    moments = [(one.mean(0), np.square(one).mean(0)) for one in pixels]
    first, second = np.mean(moments, axis=0)
    std = np.sqrt(second - first**2)
    # Few digits, so that no platform's last bit gets into a run.
    return tuple(first.round(4).tolist()), tuple(std.round(4).tolist())
