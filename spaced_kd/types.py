"""Names of the things that pass between the parts; no behaviour."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from PIL import Image

Metrics = dict[str, jax.Array]
"""Flat name -> scalar, already reduced over the global batch."""

Device = Any
"""A `jax.Device`, which type checkers take for a variable."""

Dtype = Any
"""What `jnp.dtype` takes; flax modules hold the scalar type itself."""

Params = Any
"""A pytree of arrays; which one is the model's own business."""

Variables = Mapping[str, Any]
"""What `model.apply` reads: {"params": ..., "batch_stats": ...}."""


ENSEMBLE = "ensemble"
"""The mean of all exits' logits, in tables beside the exits."""


def exit_name(number: int) -> str:
    """Return how an exit is called; they are numbered from 1, the shallowest."""
    return f"exit{number}"


def exit_number(name: str) -> int:
    """Return the number of an exit that `exit_name` named."""
    return int(name.removeprefix("exit"))


class ModelOutput(NamedTuple):
    """What every network returns for a batch.

    logits: [B, num_classes] float32, before any softmax.
    features: [B, D] float32, the vector the last linear layer reads.
    soft_logits: [B, num_classes] float32, what the teacher's soft targets train where
      a network has a head of its own for them (DeiT's distillation token; a second
      head); None: the logits. In eval mode such a network's logits come of both heads,
      and soft_logits is None.
    branch_logits: [B, K, num_classes] float32, of the K shallower exits ("branches") of
      a network that distils itself, from the deepest branch to the shallowest (ResNet:
      after stage 3, 2, 1), in train and in eval mode; logits and features are then
      those of the deepest exit. None: no branches.
    branch_features: [B, K, D] float32, what the branches' heads read, in this order.
    maps: [B, H, W, D] each, what the network's stages give, the shallowest first, in
      its own dtype; None unless the model has `with_maps`.
    """

    logits: jax.Array
    features: jax.Array
    soft_logits: jax.Array | None = None
    branch_logits: jax.Array | None = None
    branch_features: jax.Array | None = None
    maps: tuple[jax.Array, ...] | None = None


class Predictions(NamedTuple):
    """Logits of a whole split, in the order of its examples.

    logits: [N, C], of the deepest exit. branch_logits: [N, K, C] as in `ModelOutput`;
    None: the network has no branches.
    """

    logits: jax.Array
    branch_logits: jax.Array | None = None


class Batch(NamedTuple):
    """A training batch on one device, ready for `model.apply`.

    image: [b, H, W, C] float32, augmented and normalised.
    label: [b] int32.
    mask: [b] bool, False where the last batch of an epoch was padded; None when
      no batch of this run is ever padded (saves the masked arithmetic).
    raw: [b, H, W, C] uint8, the same images before augmentation; padding shows any.
    example: [b] int32, rows of the training split; -1 is padding.
    """

    image: jax.Array
    label: jax.Array
    mask: jax.Array | None = None
    raw: jax.Array | None = None
    example: jax.Array | None = None


class Split(NamedTuple):
    """One split, in memory. image: [N, H, W, C] uint8; label: [N] int32."""

    image: np.ndarray
    label: np.ndarray


class Source(Protocol):
    """One split too large for memory: an image is read whenever it is needed.

    label: [N] int32, in memory.
    shape: (S, S, 3), what the networks see of every image once the host has cropped and
      resized it; the images themselves have any size.
    """

    @property
    def label(self) -> np.ndarray: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, int, int]: ...  # noqa: D102

    def open(self, row: int) -> Image.Image:
        """Return image `row` as RGB, whole; may be called from many threads.

        Raises:
          DataError: damaged or not an image; names the file.
        """
        ...

    def identities(self) -> list[bytes]:
        """Return what tells each image from others without reading its pixels."""
        ...

    def take(self, rows: np.ndarray) -> "Source":
        """Return the split of these rows alone, in this order."""
        ...


class Dataset(NamedTuple):
    """A data set; each split lies in memory or is read on demand.

    mean, std: per channel, of pixels scaled to [0, 1]; used to normalise.
    fingerprint: hex SHA-256 of both splits as used: labels and pixels, or of a `Source`
      its labels and identities.
    """

    name: str
    train: Split | Source
    test: Split | Source
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return shape_of(self.train)


def shape_of(split: Split | Source) -> tuple[int, int, int]:
    """Return (height, width, channels) of what a split gives to the device."""
    if not isinstance(split, Split):
        return split.shape
    height, width, channels = split.image.shape[1:]
    return height, width, channels
