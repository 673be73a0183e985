"""Weights and images that nobody has to store: functions of a name and a shape.

Drawn from the raw bits of PCG64, which NumPy promises to keep; its distributions may
change from release to release.
"""

import hashlib

import numpy as np


def uniform(name, shape):
    """Return [-1, 1) float32, the same for this name and shape for ever."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    bits = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return (bits.reshape(shape) / 2.0**63 - 1).astype(np.float32)


def images(shape):
    """Return two images [2, H, W, C] of about unit variance."""
    return 1.7 * uniform(f"images {shape}", (2, *shape))


def weights(shapes):
    """Return a value for every tensor of a state dict, by name and shape.

    The scales keep activations near 1 through a hundred layers: He's for linear maps,
    small factors for BatchNorm (residual branches add up), factors around 1 for
    LayerNorm, and running statistics that are neither 0 nor 1.
    """
    return {
        name: _weight(name, tuple(shape), shapes).astype(np.float32)
        for name, shape in shapes.items()
    }


def _weight(name, shape, shapes):
    value = uniform(name, shape)
    module, _, leaf = name.rpartition(".")
    if leaf == "running_var":
        return 1 + 0.5 * value
    if leaf == "weight" and len(shape) == 1:
        return (
            0.3 + 0.1 * value if f"{module}.running_var" in shapes else 1 + 0.5 * value
        )
    if leaf == "weight":
        return (6 / np.prod(shape[1:])) ** 0.5 * value
    return 0.3 * value
