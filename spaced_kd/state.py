"""The state of one network: what an update reads and writes, and nothing else."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from spaced_kd.types import Params, Variables


class NetState(flax.struct.PyTreeNode):
    """One network in training.

    step: [] int32, completed updates; learning rate and keys are functions of it.
    params: what the optimiser moves, {"net": ..., "method": ...}: the feature adaptor
      belongs to the student (released code, nets.py).
    batch_stats: BatchNorm's running statistics, {} without BatchNorm.
    opt_state: the optimiser's, one for the trunk and one for the side.
    """

    step: jax.Array
    params: Params
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> Variables:
        """What `model.apply` of this network reads."""
        return {"params": self.params["net"], "batch_stats": self.batch_stats}


class Frozen(NamedTuple):
    """A teacher that stands still.

    variables: what `model.apply` reads, {} in a run without a teacher. step: of the
    stream, when it stopped.
    """

    variables: Variables
    step: jax.Array | np.ndarray


SeedState = dict[str, NetState]
"""All networks of one repetition: "teacher", if it has one, and students by name."""

TRUNK, SIDE = "trunk", "side"
"""Parts of a network that have optimiser states of their own: what the deepest exit
needs, and what only the method or the branches need."""


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


def part_of(path: tuple) -> str:
    """Return whether the parameter at a tree path is of the trunk or of the side.

    Of the side are the method's parameters and those of modules called branch*
    (spaced_kd/models/base.py).
    """
    names = [str(getattr(entry, "key", "")) for entry in path]
    side = names[:1] == ["method"] or any(n.startswith("branch") for n in names)
    return SIDE if side else TRUNK


def parts(params: Params) -> Params:
    """Return each parameter's part, as `optax.partition` asks for it."""
    return jax.tree_util.tree_map_with_path(lambda path, _: part_of(path), params)


def keep_side(new: NetState, old: NetState) -> NetState:
    """Return `new` with the side's parameters and optimiser state as in `old`.

    A zero gradient would not do: decay and momentum would still move them, and Adam's
    count would go on.
    """

    def pick(path, fresh, kept):
        return kept if part_of(path) == SIDE else fresh

    fresh, kept = new.opt_state, old.opt_state
    inner = fresh.inner_states | {SIDE: kept.inner_states[SIDE]}
    return new.replace(
        params=jax.tree_util.tree_map_with_path(pick, new.params, old.params),
        opt_state=fresh._replace(inner_states=inner),
    )
