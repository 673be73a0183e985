"""DeiT-Tiny (Touvron et al. 2021), also with a distillation token or with branches.

Sizes and initialisation as in the released transformer experiments (tiny-transformers,
deit.py): linear layers and tokens N(0, 0.02^2), the heads at zero, the patch embedding
as PyTorch starts a convolution. There the student of a distillation run has the extra
token and head; the network without knowledge distillation has not.
"""

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from spaced_kd.layers import Dense
from spaced_kd.models.base import Model, join_exits
from spaced_kd.transformer import (
    TOKEN_INIT,
    Block,
    PatchEmbed,
    layer_norm,
    scaled_depth,
    token_branches,
)
from spaced_kd.types import ModelOutput


class DeiT(Model):
    """Patches, class token, learned positions, pre-norm blocks, linear head.

    dim, depth, heads: width of a token, number of blocks, attention heads. distilled:
    with a second token and head for the soft targets. branches: with an exit after
    every block, not together with `distilled`. patch_size, drop_path, depth_multiple:
    spaced_kd.config.ArchConfig; block i of n, from 0, has the DropPath rate
    drop_path * i / (n - 1).
    """

    dim: int = 192
    depth: int = 12
    heads: int = 3
    distilled: bool = False
    branches: bool = False
    patch_size: int = 16
    drop_path: float = 0.1
    depth_multiple: float = 1.0

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C], H and W multiples of the patch; `mask` is not needed.

        features are the normalised class token [b, dim]. A distilled network returns
        both heads in training, and in eval mode their mean as logits. Branches follow
        block n - 1, ..., 1 of n: [b, n - 1, num_classes] and [b, n - 1, dim].
        maps are the patches after every quarter of the blocks.

        Raises:
          ConfigError: the patches do not fit the image.
        """
        del mask
        *shallow, last = states = self._states(image, train)
        maps = self.kept(self._maps(image, states))
        tokens = layer_norm(dtype=jnp.float32, name="norm")(
            last[:, : 1 + self.distilled]
        )
        features = tokens[:, 0]
        logits = Dense(self.num_classes, "zeros", name="head")(features)
        if self.branches:
            branches = token_branches(
                [x[:, 0] for x in shallow],
                self.dim,
                self.num_classes,
                align_init="normal",
                head_init="zeros",
            )
            return join_exits([(logits, features), *branches])._replace(maps=maps)
        if not self.distilled:
            return ModelOutput(logits, features, maps=maps)
        soft = Dense(self.num_classes, "zeros", name="head_dist")(tokens[:, 1])
        if train:
            return ModelOutput(logits, features, soft, maps=maps)
        return ModelOutput((logits + soft) / 2, features, maps=maps)

    def _maps(self, image: jax.Array, states: list[jax.Array]) -> Iterator[jax.Array]:
        b, rows, columns = (
            image.shape[0],
            *(s // self.patch_size for s in image.shape[1:3]),
        )
        for quarter in range(1, 5):
            tokens = states[-(-len(states) * quarter // 4) - 1]
            patches = tokens[:, 1 + self.distilled :]
            yield patches.reshape(b, rows, columns, self.dim)

    def _states(self, image: jax.Array, train: bool) -> list[jax.Array]:
        """Return the tokens [b, n, dim] after each block."""
        x = PatchEmbed(self.dim, self.patch_size, self.patch_size, name="patch_embed")(
            image.astype(self.dtype)
        )
        x = self._with_tokens(x.reshape(x.shape[0], -1, self.dim))
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        states = []
        depth = scaled_depth(self.depth, self.depth_multiple)
        for place in range(depth):
            rate = self.drop_path * place / max(depth - 1, 1)
            layer = block(
                self.heads, rate, self.axis, "normal", name=f"block{place + 1}"
            )
            x = layer(x, train)
            states.append(x)
        return states

    def _with_tokens(self, x: jax.Array) -> jax.Array:
        names = ["cls_token", "dist_token"] if self.distilled else ["cls_token"]
        tokens = [self.param(name, TOKEN_INIT, (1, 1, self.dim)) for name in names]
        shape = (1, len(tokens) + x.shape[1], self.dim)
        positions = self.param("pos_embed", TOKEN_INIT, shape)
        tokens = jnp.concatenate(tokens, 1).astype(x.dtype)
        tokens = jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape[1:]))
        return jnp.concatenate([tokens, x], 1) + positions.astype(x.dtype)


deit_tiny = DeiT
deit_tiny_distilled = functools.partial(DeiT, distilled=True)
deit_tiny_branches = functools.partial(DeiT, branches=True)
