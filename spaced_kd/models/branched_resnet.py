"""Self-distillation ResNets: a branch with a head after each stage but the last.

The trunk is a four-stage ResNet; branches.py has the branches and says where they are
from. The linear maps between the features of the branches and of the deepest head
belong to the method that compares them, not to the network.
"""

import functools

import flax.linen as nn
import jax

from spaced_kd.errors import ConfigError
from spaced_kd.layers import Dense, SepConv, pooled
from spaced_kd.models.base import join_exits
from spaced_kd.models.branches import Attention, BottleneckBranch
from spaced_kd.models.resnet import Bottleneck, ResNet
from spaced_kd.types import ModelOutput


class BranchedResNet(ResNet):
    """A ResNet of four stages with a branch after each of the first three.

    A branch shrinks the stage's output to the size and the channels of the last stage
    and ends in pooling and a head of its own. The trunk goes on with what no branch has
    touched.

    branch: "separable": the stage's output times its attention, halved by SepConvs, or
      "bottleneck": shrunk in one step, without attention.
    """

    branch: str = "separable"

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C] four times; logits and features are the deepest's.

        features are [b, 512 e] at the default width, e = 1 with basic blocks, 4 with
        bottlenecks; branch_logits [b, 3, num_classes] and branch_features [b, 3, 512 e]
        belong to stage 3, 2 and 1 in this order, in train and in eval mode.

        Raises:
          ConfigError: the branches cannot divide the image evenly.
        """
        *stages, last = self.stages(image, train, mask)
        _check_sizes(image, stages, self.stem)
        kinds = {"separable": self._separable, "bottleneck": self._bottleneck}
        branch = kinds[self.branch]
        exits = [self._exit("head", last)]
        for number in (3, 2, 1):
            x = branch(number, stages[number - 1], last.shape[-1], train, mask)
            exits.append(self._exit(f"branch{number}_head", x))
        outputs = join_exits(exits)._replace(maps=self.kept([*stages, last]))
        return self.with_second_head(outputs, train)

    def _exit(self, name: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = pooled(x)
        return Dense(self.num_classes, name=name)(features), features

    def _separable(self, number: int, x, width: int, train: bool, mask):
        sep, attention = self._checkpointed(SepConv), self._checkpointed(Attention)
        name = f"branch{number}_attention"
        x = x * attention(self.axis, self.weight_init, name=name)(x, train, mask)
        for place in range(1, 5 - number):
            name = f"branch{number}_sep{place}"
            channels = width // 2 ** (4 - number - place)
            x = sep(channels, self.axis, self.weight_init, name=name)(x, train, mask)
        return x

    def _bottleneck(self, number: int, x, width: int, train: bool, mask):
        branch = self._checkpointed(BottleneckBranch)
        size, name = 2 ** (4 - number), f"branch{number}_bottleneck"
        return branch(width, size, self.axis, self.weight_init, name=name)(
            x, train, mask
        )

    def _checkpointed(self, module):
        return nn.remat(module, static_argnums=(2,)) if self.remat else module


def _check_sizes(image: jax.Array, stages: list[jax.Array], stem: str) -> None:
    # Either kind of branch needs as much: a third stage that can be halved, a second
    # that can be divided by 4, a first by 8.
    if all(side % 2 == 0 for x in stages for side in x.shape[1:3]):
        return
    height, width = image.shape[1:3]
    raise ConfigError(
        f"an image of {height}x{width} pixels cannot be halved evenly by the branches "
        f"of this network (arch.stem={stem!r}); set data.image_size to a multiple of "
        f"{32 if stem == 'imagenet' else 8}, or choose the network without branches."
    )


resnet18_branches = functools.partial(BranchedResNet, blocks=(2, 2, 2, 2))
resnet50_branches = functools.partial(
    BranchedResNet, block=Bottleneck, blocks=(3, 4, 6, 3)
)
resnet101_branches = functools.partial(
    BranchedResNet, block=Bottleneck, blocks=(3, 4, 23, 3)
)
