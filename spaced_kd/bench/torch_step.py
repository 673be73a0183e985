"""The same training step in PyTorch; the only file that knows it.

Network, batch, loss and optimiser are those of the JAX step without augmentation:
ResNets with 1x1 projections, cross-entropy, SGD with momentum 0.9 and coupled weight
decay 5e-4, in float32 without TensorFloat-32.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

# An optional package, which nothing else of this one needs.
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from spaced_kd.bench.arrangement import NUM_CLASSES, Settings

LAYOUTS = {
    "eager NCHW": (torch.contiguous_format, False),
    "eager channels_last": (torch.channels_last, False),
    "compiled channels_last": (torch.channels_last, True),
}
"""Variant -> memory format, and whether torch.compile is used."""

NETWORKS = {
    "resnet8": ((1, 1, 1), (16, 32, 64)),
    "resnet20": ((3, 3, 3), (16, 32, 64)),
    "resnet18": ((2, 2, 2, 2), (64, 128, 256, 512)),
}
"""Model -> blocks and channels of each stage, as in spaced_kd/models/resnet.py."""


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, inputs: int, channels: int, stride: int):
        """Make the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != channels:
            projection = nn.Conv2d(inputs, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Any) -> Any:
        """Map [b, C_in, H, W] to [b, channels, H / stride, W / stride]."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def network(blocks: Sequence[int], widths: Sequence[int]) -> Any:
    """Return a ResNet with the CIFAR stem, pooling and a linear head."""
    layers: list[Any] = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)]
    layers += [nn.BatchNorm2d(widths[0]), nn.ReLU()]
    inputs = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for place in range(count):
            stride = 2 if stage > 0 and place == 0 else 1
            layers.append(Block(inputs, width, stride))
            inputs = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, NUM_CLASSES)]
    return nn.Sequential(*layers)


class TorchStep:
    """Training steps on one random batch; calling it measures once."""

    def __init__(self, layout: str, settings: Settings):
        """Prepare; the first call compiles, where that is asked for.

        Args:
          layout: a key of LAYOUTS.
          settings: shared by all cases.
        """
        if settings.model not in NETWORKS:
            sys.exit(f"no PyTorch form of {settings.model}, only {', '.join(NETWORKS)}")
        memory, compiled = LAYOUTS[layout]
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        net = network(*NETWORKS[settings.model]).to(self._device, memory_format=memory)
        self._network = torch.compile(net) if compiled else net
        self._optimizer = torch.optim.SGD(
            net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
        )
        shape = (settings.batch_size, 3, settings.image_size, settings.image_size)
        image = torch.randn(shape, device=self._device)
        self._image = image.contiguous(memory_format=memory)
        self._label = torch.arange(shape[0], device=self._device) % NUM_CLASSES
        self._steps = settings.steps

    def __call__(self) -> float:
        """Take the steps of one measurement; return seconds a step."""
        self._wait()
        started = time.perf_counter()
        for _ in range(self._steps):
            self._optimizer.zero_grad()
            loss = functional.cross_entropy(self._network(self._image), self._label)
            loss.backward()
            self._optimizer.step()
        self._wait()
        return (time.perf_counter() - started) / self._steps

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
