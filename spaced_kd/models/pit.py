"""PiT-Tiny (Heo et al. 2021): a vision transformer that pools its tokens twice.

As in the released transformer experiments (tiny-transformers, pit.py): patches overlap
by half, positions are a map of the patch grid, and everything but tokens and positions
starts as PyTorch starts it. It has no distillation token there.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from spaced_kd.errors import ConfigError
from spaced_kd.layers import Dense
from spaced_kd.models.base import Model, join_exits
from spaced_kd.transformer import (
    TOKEN_INIT,
    Block,
    DepthwisePool,
    PatchEmbed,
    layer_norm,
    scaled_depth,
    token_branches,
)
from spaced_kd.types import ModelOutput


class Pool(nn.Module):
    """Between two stages: halve the grid, double the channels, also of the token."""

    @nn.compact
    def __call__(
        self, token: jax.Array, grid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Map [b, 1, C], [b, H, W, C] to [b, 1, 2 C], [b, H / 2, W / 2, 2 C], up."""
        token = Dense(2 * token.shape[-1], dtype=token.dtype, name="fc")(token)
        return token, DepthwisePool(name="conv")(grid)


class PiT(Model):
    """Patches, class token, three stages of pre-norm blocks with pooling between.

    dim: width of a token in the first stage, doubled from stage to stage. depths,
    heads: blocks and attention heads of each stage. branches: with an exit after every
    block. patch_size, drop_path, depth_multiple: spaced_kd.config.ArchConfig; block i
    of the whole network, from 0, has the DropPath rate drop_path * i / blocks.
    """

    dim: int = 64
    depths: Sequence[int] = (2, 6, 4)
    heads: Sequence[int] = (2, 4, 8)
    branches: bool = False
    patch_size: int = 16
    drop_path: float = 0.1
    depth_multiple: float = 1.0

    @nn.compact
    def __call__(
        self, image: jax.Array, *, train: bool, mask: jax.Array | None = None
    ) -> ModelOutput:
        """Classify [b, H, W, C], H and W multiples of half a patch; needs no `mask`.

        features are the normalised class token [b, last width]. Branches follow the
        last block but one, ..., the first: [b, blocks - 1, num_classes] and
        [b, blocks - 1, last width]. maps are the grids of the stages.

        Raises:
          ConfigError: the patches do not fit the image, or cannot overlap by half.
        """
        del mask
        (*shallow, last), grids = self._tokens(image, train)
        features = layer_norm(dtype=jnp.float32, name="norm")(last)
        logits = Dense(self.num_classes, name="head")(features)
        if not self.branches:
            return ModelOutput(logits, features, maps=self.kept(grids))
        branches = token_branches(
            shallow,
            features.shape[-1],
            self.num_classes,
            align_init="torch",
            head_init="torch",
        )
        outputs = join_exits([(logits, features), *branches])
        return outputs._replace(maps=self.kept(grids))

    def _tokens(
        self, image: jax.Array, train: bool
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Return the class token [b, width] after each block, each stage's grid."""
        token, grid = self._embed(image.astype(self.dtype))
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        tokens, grids = [], []
        depths = [scaled_depth(depth, self.depth_multiple) for depth in self.depths]
        for stage, (depth, heads) in enumerate(zip(depths, self.heads, strict=True)):
            if stage > 0:
                token, grid = Pool(name=f"stage{stage + 1}_pool")(token, grid)
            b, rows, columns, width = grid.shape
            x = jnp.concatenate([token, grid.reshape(b, -1, width)], 1)
            for place in range(depth):
                rate = self.drop_path * len(tokens) / sum(depths)
                name = f"stage{stage + 1}_block{place + 1}"
                x = block(heads, rate, self.axis, "torch", name=name)(x, train)
                tokens.append(x[:, 0])
            token, grid = x[:, :1], x[:, 1:].reshape(b, rows, columns, width)
            grids.append(grid)
        return tokens, grids

    def _embed(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.patch_size % 2:
            raise ConfigError(
                f"arch.patch_size={self.patch_size} is odd; PiT's patches overlap by "
                "half: give an even one."
            )
        stride = self.patch_size // 2
        x = PatchEmbed(self.dim, self.patch_size, stride, name="patch_embed")(image)
        positions = self.param("pos_embed", TOKEN_INIT, (1, *x.shape[1:]))
        token = self.param("cls_token", TOKEN_INIT, (1, 1, self.dim)).astype(x.dtype)
        token = jnp.broadcast_to(token, (x.shape[0], 1, self.dim))
        return token, x + positions.astype(x.dtype)


pit_tiny = PiT
pit_tiny_branches = functools.partial(PiT, branches=True)
