"""Weights in and out as safetensors, under the names that PyTorch's networks use.

ResNets: torchvision's names; DeiT: those of its release; PiT: timm's. Networks that
PyTorch does not have keep our module names. Files that hold pickles are refused,
because reading one runs whatever program is inside.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from spaced_kd.config import ArchConfig
from spaced_kd.errors import CheckpointError, NonFiniteError
from spaced_kd.models import make_model
from spaced_kd.models.base import Model
from spaced_kd.models.deit import DeiT
from spaced_kd.models.pit import PiT
from spaced_kd.models.resnet import ResNet
from spaced_kd.types import Variables
from spaced_kd.writers import storage_error, write_whole

FILE_NAME = "student.safetensors"
_DESCRIPTION = "spaced_kd"
_FORMAT = 1
_PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar", ".joblib"}

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


def import_torch(
    source: str | Path | Mapping[str, Any],
    model: Model,
    image_shape: tuple[int, int, int],
) -> Variables:
    """Return `model`'s variables with the weights of a PyTorch network.

    Every tensor must be there with its shape, and no other; only PyTorch's counters
    `num_batches_tracked` are passed over. Weights are converted to float32.

    Args:
      source: a `.safetensors` file, or name -> array (a `state_dict` on the CPU).
      model: the network, e.g. from `spaced_kd.models.make_model`.
      image_shape: (H, W, C) of its images; decides how many positions a transformer
        has.

    Returns:
      {"params": ..., "batch_stats": ...}, what `model.apply` reads.

    Raises:
      CheckpointError: another kind of file, or tensors that are missing, surplus or of
        another shape; one line names them.
      NonFiniteError: NaN or infinity among the weights.
      StorageError: the file cannot be read.
    """
    where = "the weights"
    if isinstance(source, str | Path):
        where = str(source)
        source, _ = read_safetensors(Path(source))
    found = {
        _current_name(model, name): np.asarray(value)
        for name, value in source.items()
        if not name.endswith("num_batches_tracked")
    }
    wanted = _shapes(model, image_shape)
    names = {path: _torch_name(model, path) for path in wanted}
    expected = {
        names[path]: _to_torch(path[-1], leaf).shape for path, leaf in wanted.items()
    }
    _refuse_mismatch(where, type(model).__name__, found, expected)
    variables = {
        path: _from_torch(path[-1], found[name]) for path, name in names.items()
    }
    return flax.traverse_util.unflatten_dict(variables)


def to_torch(variables: Variables, model: Model) -> dict[str, np.ndarray]:
    """Return the tensors of a PyTorch `state_dict`; `import_torch` is the inverse.

    Args:
      variables: of `model`, arrays of any kind.
      model: the network, which decides about the names.
    """
    flat = flax.traverse_util.flatten_dict(dict(variables))
    return {
        _torch_name(model, path): np.ascontiguousarray(
            _to_torch(path[-1], np.asarray(value))
        )
        for path, value in flat.items()
    }


def load_student(folder: str | Path) -> tuple[Model, Variables]:
    """Return the network that `python -m spaced_kd.export` wrote, and its variables.

        model, variables = spaced_kd.load_student("exported")
        logits = model.apply(variables, images, train=False).logits

    Args:
      folder: where the export lies; `images` [b, H, W, C] float32 are normalised as the
        README.md there says.

    Raises:
      SpacedKDError: see `import_torch`.
    """
    path = Path(folder) / FILE_NAME
    _, metadata = read_safetensors(path)
    try:
        about = json.loads(metadata[_DESCRIPTION])
        known, shape = about["format"], tuple(about["image_shape"])
        arch = ArchConfig(**about["arch"])
        name, num_classes = about["model"], about["num_classes"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say which network it holds in a way that this version "
            "reads; make the network with spaced_kd.models.make_model and use "
            "spaced_kd.weights.import_torch."
        ) from error
    if known != _FORMAT:
        raise CheckpointError(
            f"{path} has format {known!r}, this version reads {_FORMAT}; use the "
            "version of spaced_kd that exported it."
        )
    model = make_model(name, num_classes, arch)
    return model, import_torch(path, model, shape)


def save_student(
    folder: Path, variables: Variables, model: Model, about: Mapping[str, Any]
) -> Path:
    """Write the file that `load_student` reads.

    Args:
      folder: an existing folder.
      variables: of `model`.
      model: the network.
      about: JSON-able; "model", "arch", "num_classes" and "image_shape" make the
        network again, the rest is for the reader.

    Raises:
      StorageError: it cannot be written.
    """
    # "pt" is how such files say that their tensors are laid out as PyTorch's.
    text = json.dumps({"format": _FORMAT, **about}, allow_nan=False, sort_keys=True)
    metadata = {"format": "pt", _DESCRIPTION: text}
    content = safetensors.numpy.save(to_torch(variables, model), metadata)
    return write_whole(folder / FILE_NAME, content)


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata of a file; never reads a pickle.

    Raises:
      CheckpointError: it is of another kind, or damaged.
      StorageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        _refuse_other_kinds(path, start)
        with safetensors.safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except OSError as error:
        raise storage_error("read", path, error) from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); fetch or export it again."
        ) from error


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    # A safetensors file starts with the length of its JSON header, in 8 bytes.
    is_safetensors = start[8:9] == b"{"
    pickled = not is_safetensors and start[:1] in (b"\x80", b"P")
    if path.suffix.lower() in _PICKLES or pickled:
        raise CheckpointError(
            f"{path} is a pickle{'' if pickled else ' by its name'}, and reading one "
            "would run the program inside it; where you trust it, convert it with "
            "PyTorch: safetensors.torch.save_file(state_dict, 'weights.safetensors')."
        )
    if not is_safetensors:
        raise CheckpointError(f"{path} is not a safetensors file; give one.")


def _refuse_mismatch(
    where: str,
    network: str,
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    other = {
        name: f"{name} {list(found[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    }
    problems = [
        _some("missing", [name for name in expected if name not in found]),
        _some("surplus", [name for name in found if name not in expected]),
        _some("of another shape", list(other.values())),
    ]
    if any(problems):
        message = f"{where} do{'es' * (where[:3] != 'the')} not fit {network}: "
        message += "; ".join(p for p in problems if p)
        raise CheckpointError(f"{message}; {_advice(other, found, expected)}.")
    wrong = [name for name, value in found.items() if value.dtype.kind not in "fV"]
    if wrong:
        raise CheckpointError(
            f"{where}: {_some('not floating point', wrong)}; give the weights alone."
        )
    bad = [
        name
        for name, value in found.items()
        if not np.isfinite(value.astype(np.float32)).all()
    ]
    if bad:
        raise NonFiniteError(
            f"{where}: {_some('NaN or infinite', bad)}; export the network again."
        )


def _advice(other: Mapping[str, str], found, expected) -> str:
    heads = [n for n in other if n.rpartition(".")[0] in ("fc", "head", "head_dist")]
    if heads and len(heads) == len(other):
        theirs, ours = found[heads[0]].shape[0], expected[heads[0]][0]
        return f"it has {theirs} classes and the network num_classes={ours}"
    if "pos_embed" in other:
        return "give the image_shape and the arch.patch_size that it was trained with"
    return "give the network that it was saved from"


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" (+ {len(names) - 3} more)" if len(names) > 3 else ""
    return f"{what} {', '.join(names[:3])}{more}"


def _shapes(model: Model, image_shape) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = lambda x: model.init(jax.random.key(0), x, train=False)
    return flax.traverse_util.flatten_dict(dict(jax.eval_shape(init, image)))


def _to_torch(leaf: str, value: Any) -> Any:
    axes = _AXES.get((leaf, len(value.shape)))
    if axes is None:
        return value
    if isinstance(value, jax.ShapeDtypeStruct):
        return value.update(shape=tuple(value.shape[axis] for axis in axes))
    return value.transpose(axes)


def _from_torch(leaf: str, value: np.ndarray) -> jax.Array:
    axes = _AXES.get((leaf, value.ndim))
    if axes is not None:
        value = value.transpose(np.argsort(axes))
    return jnp.asarray(np.ascontiguousarray(value, np.float32))


def _torch_name(model: Model, path: tuple[str, ...]) -> str:
    """Return the name for a path such as ("params", "stage1_block1", "conv1", ...)."""
    _, *modules, leaf = path
    rename = next((f for kind, f in _FAMILIES if isinstance(model, kind)), str)
    return ".".join([*map(rename, modules), _LEAVES.get(leaf, leaf)])


def _current_name(model: Model, name: str) -> str:
    """Return timm's present name for one of PiT's own release (pools.0.conv.weight)."""
    if not isinstance(model, PiT):
        return name
    later = lambda match: f"transformers.{int(match[1]) + 1}.pool."
    return re.sub(r"^pools\.(\d+)\.", later, name)


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


_FAMILIES: Iterable[tuple[type[Model], Callable[[str], str]]] = (
    (ResNet, _resnet),
    (DeiT, _deit),
    (PiT, _pit),
)
