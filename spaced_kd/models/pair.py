"""Two networks that learn from one another, as one with two exits.

The network itself is the deepest exit, and its parameters have the names they have
alone; the peer is the only branch, below `peer`.
"""

import flax.linen as nn
import jax

from spaced_kd.models.base import Model
from spaced_kd.types import ModelOutput


class Pair(Model):
    """A network and its peer, which see the same images and share nothing.

    own: the network. peer: the other. Both know the axis themselves, of which they make
    no use in eval mode.
    """

    own: Model | None = None
    peer: Model | None = None

    def setup(self):
        """Give the network's parameters the names they have without a peer."""
        assert self.own is not None
        nn.share_scope(self, self.own)

    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C] with both; `branch_logits` [b, 1, C] are the peer's."""
        assert self.own is not None and self.peer is not None
        outputs = self.own(image, train=train, mask=mask)
        peer = self.peer(image, train=train, mask=mask)
        return outputs._replace(
            branch_logits=peer.logits[:, None], branch_features=peer.features[:, None]
        )


def make_pair(own: Model, peer: Model) -> Pair:
    """Return both as one network."""
    return Pair(own.num_classes, own.axis, own.dtype, own.remat, own=own, peer=peer)
