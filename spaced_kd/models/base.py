"""What every architecture has in common."""

import flax.linen as nn

from spaced_kd.parallel import BatchAxis


class Model(nn.Module):
    """A classifier: `__call__(image, *, train, mask=None) -> ModelOutput`.

    image: [b, H, W, C] float32, normalised. train: True uses the batch's BatchNorm
    statistics and moves the running ones. mask: [b] bool, False for padding.

    num_classes: width of the logits.
    axis: the devices that share a batch; only training calls may name one.
    """

    num_classes: int
    axis: BatchAxis = BatchAxis()
