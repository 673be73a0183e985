"""Which attacks are compared with Foolbox's, on which network and images."""

import numpy as np

from torch_parity import values

MODEL, CLASSES, IMAGE_SHAPE = "small_cnn", 7, (8, 8, 3)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

CASES = {
    "fgsm": ("fgsm", 8 / 255, 8 / 255, 1),
    "bim": ("bim", 8 / 255, 2 / 255, 10),
    "bim_large": ("bim", 64 / 255, 16 / 255, 10),
    "pgd": ("pgd", 4 / 255, 1.5 / 255, 7),
}
"""Name -> kind, eps, length of a step, steps; PGD from the image, not at random."""


def images():
    """Return [8, H, W, C] in [0, 1], some pixels at either end."""
    drawn = values.uniform("attacked images", (8, *IMAGE_SHAPE))
    return np.clip(0.6 * drawn + 0.5, 0, 1).astype(np.float32)
