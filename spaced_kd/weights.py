"""Weights in and out as safetensors, under the names that PyTorch's networks use.

Files that hold pickles are refused, because reading one runs whatever program is
inside.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from spaced_kd import torch_names
from spaced_kd.config import ArchConfig
from spaced_kd.errors import CheckpointError, NonFiniteError
from spaced_kd.models import make_model
from spaced_kd.models.base import Model
from spaced_kd.types import Variables
from spaced_kd.writers import storage_error, write_whole

FILE_NAME = "student.safetensors"
_DESCRIPTION = "spaced_kd"
_FORMAT = 1
# What NumPy has, besides bfloat16; there are also 8-bit floats and smaller ones.
_TYPES = {"BF16", "F16", "F32", "F64", "C64", "BOOL"}
_TYPES |= {f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)}
_PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar", ".joblib"}


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
    where = "state_dict"
    if isinstance(source, str | Path):
        where = str(source)
        source, _ = read_safetensors(Path(source))
    found = {
        torch_names.current(model, name): np.asarray(value)
        for name, value in source.items()
        if not name.endswith("num_batches_tracked")
    }
    wanted = _shapes(model, image_shape)
    names = {path: torch_names.name(model, path) for path in wanted}
    expected = {
        names[path]: torch_names.to_torch(path[-1], leaf).shape
        for path, leaf in wanted.items()
    }
    _refuse_mismatch(where, type(model).__name__, found, expected)
    variables = {
        path: torch_names.from_torch(path[-1], found[name])
        for path, name in names.items()
    }
    return traverse_util.unflatten_dict(variables)


def to_torch(variables: Variables, model: Model) -> dict[str, np.ndarray]:
    """Return the tensors of a PyTorch `state_dict`; `import_torch` is the inverse.

    Args:
      variables: of `model`, arrays of any kind.
      model: the network, which decides about the names.
    """
    flat = traverse_util.flatten_dict(dict(variables))
    return {
        torch_names.name(model, path): np.ascontiguousarray(
            torch_names.to_torch(path[-1], np.asarray(value))
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
      CheckpointError: it is of another kind, or damaged, or holds numbers of a type
        that NumPy does not have.
      StorageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        _refuse_other_kinds(path, start)
        with safetensors.safe_open(path, framework="np") as file:
            names = list(file.keys())
            _refuse_other_types(path, {n: file.get_slice(n).get_dtype() for n in names})
            return {n: file.get_tensor(n) for n in names}, file.metadata() or {}
    except OSError as error:
        raise storage_error("read", path, error) from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); fetch or export it again."
        ) from error


def _refuse_other_types(path: Path, types: Mapping[str, str]) -> None:
    other = [f"{name} ({kind})" for name, kind in types.items() if kind not in _TYPES]
    if other:
        raise CheckpointError(
            f"{path}: {_some('of a type that cannot be read:', other)}; convert the "
            "weights to float32, float16 or bfloat16."
        )


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
        raise CheckpointError(
            f"{where}: not the weights of this {network}: "
            f"{'; '.join(p for p in problems if p)}; "
            f"{_advice(other, found, expected)}."
        )
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
    is_head = re.compile(r"(fc\d?|head|head_dist|branch\d+_head)\.\w+").fullmatch
    heads = [n for n in other if is_head(n)]
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


def _shapes(
    model: Model, image_shape: tuple[int, ...]
) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    init = lambda x: model.init(jax.random.key(0), x, train=False)
    flat: Any = traverse_util.flatten_dict(dict(jax.eval_shape(init, image)))
    return flat
