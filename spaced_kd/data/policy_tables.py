"""The operations of AutoAugment and RandAugment as tables, made on the host.

A row is an operation at one strength and sign, with the arguments that the device
needs, so that the device never computes one.
"""

import functools
import statistics
from typing import Any, NamedTuple

import jax
import numpy as np

from spaced_kd.data.pixel_ops import ENHANCERS, KINDS
from spaced_kd.data.warp import Affine, affine

STRENGTHS = 1024
"""Equally likely strengths that stand for RandAugment's normal distribution."""

# Operation, probability, level 0 to 9; twice a sub-policy. Source: AutoAugment (Cubuk
# et al. 2019), CIFAR-10 policy, as in the released self-KD code.
AUTOAUGMENT = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)

# Source: timm's list of increasing transforms, each applied with probability 1/2.
RANDAUGMENT = (
    "autocontrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


class Ops(NamedTuple):
    """One operation an image, or a table of them (NumPy).

    kind: [...] int32, place in `pixel_ops.KINDS`.
    argument: [...] int32, of `pixel_ops.look_up`.
    factor: [...] float32, of `pixel_ops.enhance`.
    where: [...] each.
    """

    kind: Any
    argument: Any
    factor: Any
    where: Affine


@functools.cache
def autoaugment_table(height: int, width: int) -> Ops:
    """Return rows [sub-policy, first or second, sign], and last the identity.

    Shears are bicubic, translations and rotations take the nearest pixel.

    Args:
      height: of the images, pixels.
      width: likewise.
    """
    rows = []
    for name, _, level in (op for pair in AUTOAUGMENT for op in pair):
        value = autoaugment_values(name, level)
        rows.append(_ops(name, value, height, width, not name.startswith("shear")))
    return _with_identity(rows, height, width)


@functools.cache
def randaugment_table(magnitude: float, std: float, height: int, width: int) -> Ops:
    """Return rows [operation, strength, sign], and last the identity.

    Args:
      magnitude: mean strength, 0 to 10.
      std: standard deviation of the strength; strengths are clipped to [0, 10].
      height: of the images, pixels.
      width: likewise.
    """
    normal = statistics.NormalDist()
    middles = (np.arange(STRENGTHS) + 0.5) / STRENGTHS
    deviation = np.array([normal.inv_cdf(share) for share in middles])
    levels = np.clip(magnitude + std * deviation, 0.0, 10.0)
    rows = [
        _ops(name, randaugment_values(name, levels).ravel(), height, width, False)
        for name in RANDAUGMENT
    ]
    return _with_identity(rows, height, width)


def autoaugment_values(name: str, level: int) -> np.ndarray:
    """Return the argument [2] float64 of an operation, for sign + and -.

    Source: AutoAugment's ranges in ten levels, as in the released self-KD code, where
    rotations are counter-clockwise only.

    Args:
      name: of the operation.
      level: 0 to 9.
    """
    share = level / 9
    values = {
        "shear_x": (0.3 * share, -0.3 * share),
        "shear_y": (0.3 * share, -0.3 * share),
        "translate_x": (150 / 331 * share, -150 / 331 * share),
        "translate_y": (150 / 331 * share, -150 / 331 * share),
        "rotate": (30 * share,) * 2,
        "posterize": (round(8 - 4 * share),) * 2,
        "solarize": (256 - 256 * share,) * 2,
    }
    enhancer = (1 + 0.9 * share, 1 - 0.9 * share)
    return np.array(values.get(name, enhancer), np.float64)


def randaugment_values(name: str, levels: np.ndarray) -> np.ndarray:
    """Return the arguments [n, 2] float64 of an operation, for sign + and -.

    Source: timm's "increasing" arguments (inc1).

    Args:
      name: of the operation.
      levels: [n] float64, 0 to 10.
    """
    share = levels / 10
    signed = lambda x: np.stack([x, -x], axis=-1)
    if name == "rotate":
        return signed(30 * share)
    if name.startswith("shear"):
        return signed(0.3 * share)
    if name.startswith("translate"):
        return signed(0.45 * share)
    if name in ENHANCERS:
        return np.maximum(1 + signed(0.9 * share), 0.1)
    whole = {
        "posterize": 4 - np.trunc(4 * share),
        "solarize": 256 - np.trunc(256 * share),
        "solarize_add": np.trunc(110 * share),
    }
    value = whole.get(name, np.zeros_like(share))
    return np.stack([value, value], axis=-1)


def _ops(name: str, value: np.ndarray, height: int, width: int, nearest: bool) -> Ops:
    shape, enhances = value.shape, name in ENHANCERS
    kind = KINDS.index(name) if name in KINDS else 0
    # A level is solarised from the threshold on, which need not be whole.
    argument = np.ceil(value) if kind and not enhances else np.zeros(shape)
    factor = value if enhances else np.ones(shape)
    return Ops(
        np.full(shape, kind, np.int32),
        argument.astype(np.int32),
        factor.astype(np.float32),
        affine(name, value, height, width, nearest),
    )


def _with_identity(rows: list[Ops], height: int, width: int) -> Ops:
    nothing = _ops("identity", np.zeros(1), height, width, False)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *rows, nothing)
