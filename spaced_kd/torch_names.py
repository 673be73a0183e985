"""How PyTorch's networks call our parameters, and in which order their axes are.

ResNets: torchvision's names, with branches those of the Self-Distillation release, also
for bottlenecks, which have no release; DeiT: those of its release; PiT: timm's.
Networks that PyTorch does not have, and branches of DeiT and PiT, keep our module
names.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spaced_kd.models.base import Model
from spaced_kd.models.branched_resnet import BranchedResNet
from spaced_kd.models.deit import DeiT
from spaced_kd.models.pit import PiT
from spaced_kd.models.resnet import ResNet

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# Axes of our tensor in PyTorch's order, by name and rank; the others are the same.
_AXES = {
    ("kernel", 2): (1, 0),
    ("kernel", 4): (3, 2, 0, 1),
    ("pos_embed", 4): (0, 3, 1, 2),
}


def to_torch(leaf: str, value: Any) -> Any:
    """Return an array, or its shape and dtype, with the axes in PyTorch's order.

    Args:
      leaf: last part of its path, e.g. "kernel".
      value: array or `jax.ShapeDtypeStruct`.
    """
    axes = _AXES.get((leaf, len(value.shape)))
    if axes is None:
        return value
    if isinstance(value, jax.ShapeDtypeStruct):
        return value.update(shape=tuple(value.shape[axis] for axis in axes))
    return value.transpose(axes)


def from_torch(leaf: str, value: np.ndarray) -> jax.Array:
    """Return PyTorch's array as our parameter, float32; inverse of `to_torch`."""
    axes = _AXES.get((leaf, value.ndim))
    if axes is not None:
        value = value.transpose(np.argsort(axes))
    return jnp.asarray(np.ascontiguousarray(value, np.float32))


def name(model: Model, path: tuple[str, ...]) -> str:
    """Return the tensor's name in a `state_dict`.

    Args:
      model: decides whose names are used.
      path: e.g. ("params", "stage1_block1", "conv1", "kernel").
    """
    _, *modules, leaf = path
    rename = next((f for kind, f in _FAMILIES if isinstance(model, kind)), str)
    return ".".join([*map(rename, modules), _LEAVES.get(leaf, leaf)])


def current(model: Model, found: str) -> str:
    """Return timm's present name for one of PiT's own release (pools.0.conv.weight)."""
    if not isinstance(model, PiT):
        return found
    later = lambda match: f"transformers.{int(match[1]) + 1}.pool."
    return re.sub(r"^pools\.(\d+)\.", later, found)


def _resnet(module: str) -> str:
    if match := re.fullmatch(r"stage(\d+)_block(\d+)", module):
        return f"layer{match[1]}.{int(match[2]) - 1}"
    names = {
        "stem_conv": "conv1",
        "stem_norm": "bn1",
        "shortcut_conv": "downsample.0",
        "shortcut_norm": "downsample.1",
        "head": "fc",
    }
    return names.get(module, re.sub(r"^norm(\d)$", r"bn\1", module))


def _branched(module: str) -> str:
    if match := re.fullmatch(r"branch(\d)_bottleneck", module):
        return f"scala{match[1]}"
    if match := re.fullmatch(r"(squeeze|shrink|expand)(_norm)?", module):
        place = ("squeeze", "shrink", "expand").index(match[1])  # ReLU after each two
        return str(3 * place + bool(match[2]))
    if match := re.fullmatch(r"branch(\d)_sep(\d)", module):
        return f"scala{match[1]}.{int(match[2]) - 1}"
    if match := re.fullmatch(r"branch(\d)_(attention|head)", module):
        return f"{'fc' if match[2] == 'head' else 'attention'}{match[1]}"
    if match := re.fullmatch(r"(depthwise|pointwise|sep_norm)(\d)", module):
        kinds = ("depthwise", "pointwise", "sep_norm")  # and a ReLU after each three
        return f"op.{kinds.index(match[1]) + 4 * (int(match[2]) - 1)}"
    names = {"head": "fc4", "sep": "0", "norm": "1"}
    return names.get(module) or _resnet(module)


def _deit(module: str) -> str:
    if match := re.fullmatch(r"block(\d+)", module):
        return f"blocks.{int(match[1]) - 1}"
    return _of_transformer(module, patch_embed="patch_embed.proj")


def _pit(module: str) -> str:
    if match := re.fullmatch(r"stage(\d+)_(?:pool|block(\d+))", module):
        stage, block = match.groups()
        part = "pool" if block is None else f"blocks.{int(block) - 1}"
        return f"transformers.{int(stage) - 1}.{part}"
    return _of_transformer(module, patch_embed="patch_embed.conv")


def _of_transformer(module: str, patch_embed: str) -> str:
    names = {"patch_embed": patch_embed, "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    return names.get(module, module)


_FAMILIES: tuple[tuple[type[Model], Callable[[str], str]], ...] = (
    (BranchedResNet, _branched),
    (ResNet, _resnet),
    (DeiT, _deit),
    (PiT, _pit),
)
