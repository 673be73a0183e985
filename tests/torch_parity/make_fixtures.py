"""Write fixtures.npz: what the PyTorch networks answer. Needs torch, the tests do not.

    PYTHONPATH=tests python -m torch_parity.make_fixtures

Stored by case are names and shapes of the state dict, the parameter count, and the
outputs in eval and in train mode; weights and images are functions of names
(values.py).
"""

import json
import pathlib

import numpy as np
import torch

from torch_parity import networks, values
from torch_parity.cases import CASES, CLASSES, thin

PATH = pathlib.Path(__file__).with_name("fixtures.npz")


def record(name, image_shape, arch):
    """Return the arrays of one case by name."""
    net = networks.build(name, CLASSES, image_shape, arch)
    # PyTorch's own counter of batches; no part of what the network computes.
    shapes = {
        key: tuple(value.shape)
        for key, value in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    tensors = {k: torch.from_numpy(v) for k, v in values.weights(shapes).items()}
    missing, surplus = net.load_state_dict(tensors, strict=False)
    assert not surplus and all(k.endswith("num_batches_tracked") for k in missing)
    image = torch.from_numpy(values.images(image_shape)).permute(0, 3, 1, 2)
    count = sum(p.numel() for p in net.parameters())
    found = {"shapes": json.dumps(shapes), "count": count}
    # Only these compute something else in training, or could leave something out.
    has_modes = any("running" in k or "_dist" in k or "branch" in k for k in shapes)
    with torch.no_grad():
        for mode in ("eval", "train") if has_modes else ("eval",):
            net.train(mode == "train")
            for key, value in net(image.contiguous()).items():
                value = value.numpy()
                whole = not key.endswith("features")
                found[f"{mode}_{key}"] = value if whole else thin(value)
    return found


def main():
    """Compute all cases and write the file."""
    torch.set_num_threads(2)
    arrays = {}
    for case, spec in CASES.items():
        found = record(*spec)
        print(case, found["count"], float(np.abs(found["eval_logits"]).max()))
        arrays |= {f"{case}/{key}": np.asarray(value) for key, value in found.items()}
    for name in ("deit_tiny", "deit_tiny_distilled", "pit_tiny"):
        net = networks.build(name, 1000, (224, 224, 3), {})
        print(name, "at 224:", sum(p.numel() for p in net.parameters()))
    for name in ("deit_tiny_branches", "pit_tiny_branches"):
        net = networks.build(name, 100, (224, 224, 3), {})
        print(name, "at 224:", sum(p.numel() for p in net.parameters()))
    np.savez_compressed(PATH, **arrays)
    print(PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
