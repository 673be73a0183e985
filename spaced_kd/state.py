"""The state of one network: what an update reads and writes, and nothing else."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from spaced_kd.types import Params, Variables


class NetState(flax.struct.PyTreeNode):
    """One network in training.

    step: [] int32, completed updates; learning rate and keys are functions of it.
    params: what the optimiser moves, {"net": ..., "method": ...}: the feature adaptor
      belongs to the student (released code, nets.py).
    batch_stats: BatchNorm's running statistics, {} without BatchNorm.
    opt_state: the optimiser's.
    """

    step: jax.Array
    params: Params
    batch_stats: Any
    opt_state: optax.OptState

    @property
    def variables(self) -> Variables:
        """What `model.apply` of this network reads."""
        return {"params": self.params["net"], "batch_stats": self.batch_stats}

    @property
    def frozen(self) -> "Frozen":
        """This network as a teacher that stays as it is."""
        return Frozen(self.variables, self.step)


class Frozen(NamedTuple):
    """A teacher that stands still: what `model.apply` reads, and when it stopped."""

    variables: Variables
    step: jax.Array


SeedState = dict[str, NetState]
"""All networks of one repetition: "teacher" and every student by name."""


def init_state(
    variables: Variables, method_params: Params, tx: optax.GradientTransformation
) -> NetState:
    """Return the state before the first update.

    Args:
      variables: result of `model.init`.
      method_params: parameters of the distillation loss, {} if it has none.
      tx: the optimiser that will be applied to both.
    """
    params = {"net": variables["params"], "method": method_params}
    return NetState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(params),
    )


def keep_subtree(new: NetState, old: NetState, name: str) -> NetState:
    """Return `new` with everything under the key `name` as it was in `old`.

    Covers the parameters and whatever the optimiser keeps for them, which optax stores
    in trees of the same shape. A zero gradient would not do: decay and momentum would
    still move them.
    """

    def pick(path, fresh, kept):
        keys = {getattr(entry, "key", None) for entry in path}
        return kept if name in keys else fresh

    return new.replace(
        params=jax.tree_util.tree_map_with_path(pick, new.params, old.params),
        opt_state=jax.tree_util.tree_map_with_path(pick, new.opt_state, old.opt_state),
    )
