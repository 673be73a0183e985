"""Write attacks.npz: Foolbox's adversaries. Needs torch and foolbox, the tests do not.

    PYTHONPATH=tests python -m torch_parity.make_attacks

Foolbox 3.3.4 made the stored ones. Weights and images are functions of names, the
labels are the network's answers.
"""

import pathlib

import foolbox
import numpy as np
import torch

from torch_parity import attack_cases, networks, values

PATH = pathlib.Path(__file__).with_name("attacks.npz")

ATTACKS = {
    "fgsm": lambda step, steps: foolbox.attacks.LinfFastGradientAttack(),
    "bim": lambda step, steps: foolbox.attacks.LinfBasicIterativeAttack(
        abs_stepsize=step, steps=steps, random_start=False
    ),
    "pgd": lambda step, steps: foolbox.attacks.LinfProjectedGradientDescentAttack(
        abs_stepsize=step, steps=steps, random_start=False
    ),
}


class Logits(torch.nn.Module):
    """The network, giving its logits alone."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image):
        """Map [B, C, H, W] to [B, classes]."""
        return self.net(image)["logits"]


def network():
    """Return the network in eval mode, normalisation included, as Foolbox sees it."""
    case = attack_cases
    net = networks.build(case.MODEL, case.CLASSES, case.IMAGE_SHAPE, {})
    shapes = {
        key: tuple(value.shape)
        for key, value in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    tensors = {k: torch.from_numpy(v) for k, v in values.weights(shapes).items()}
    net.load_state_dict(tensors, strict=False)
    seen = {"mean": case.MEAN, "std": case.STD, "axis": -3}
    return foolbox.PyTorchModel(
        Logits(net).eval(), bounds=(0, 1), preprocessing=seen, device="cpu"
    )


def main():
    """Attack and write the file."""
    model = network()
    image = torch.from_numpy(attack_cases.images()).permute(0, 3, 1, 2).contiguous()
    label = model(image).argmax(-1)
    found = {"label": label.numpy().astype(np.int32)}
    for name, (kind, eps, step, steps) in attack_cases.CASES.items():
        attack = ATTACKS[kind](step, steps)
        adversary, _, fooled = attack(model, image, label, epsilons=eps)
        print(name, f"{int(fooled.sum())} of {len(label)} fooled")
        found[name] = adversary.permute(0, 2, 3, 1).numpy()
    np.savez_compressed(PATH, **found)
    print(PATH.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
