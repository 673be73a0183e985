"""The state of one network: what an update reads and writes, and nothing else."""

from collections.abc import Iterable
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
    opt_state: the optimiser's, one for each of `PARTS`.
    memory: what the method remembers, () if nothing.
    held: variables of the teacher that a student of plan "lagged" learns from, else ().
    average: moving average of params["net"] of a teacher that keeps one, else ().
    """

    step: jax.Array
    params: Params
    batch_stats: Any
    opt_state: Any
    memory: Any = ()
    held: Any = ()
    average: Any = ()

    @property
    def variables(self) -> Variables:
        """What `model.apply` of this network reads."""
        return self.weighing("live")

    def weighing(self, weights: str) -> Variables:
        """Return `variables` with the weights as they are, "live", or averaged, "ema".

        BatchNorm's averages are the same: they are averages already.
        """
        params = self.average if weights == "ema" else self.params["net"]
        return {"params": params, "batch_stats": self.batch_stats}


class Frozen(NamedTuple):
    """A teacher that stands still.

    variables: what `model.apply` reads, {} in a run without a teacher. step: of the
    stream, when it stopped.
    """

    variables: Variables
    step: jax.Array | np.ndarray


SeedState = dict[str, NetState]
"""All networks of one repetition: "teacher" and its "tutor", if there are any, and
students by name."""

PARTS = "trunk", "method", "branches", "soft_head", "peer"
TRUNK, METHOD, BRANCHES, SOFT_HEAD, PEER = PARTS
"""Parts of the parameters that have optimiser states of their own, so that each can
rest: what the deepest exit's logits need, the method's, those of branches alone, the
head that only soft targets train (DeiT's distillation token), a second network."""


def init_state(
    variables: Variables,
    method_params: Params,
    tx: optax.GradientTransformation,
    memory: Any = (),
) -> NetState:
    """Return the state before the first update.

    Args:
      variables: result of `model.init`.
      method_params: parameters of the distillation loss, {} if it has none.
      tx: the optimiser that will be applied to both.
      memory: what the method remembers at first.
    """
    params = {"net": variables["params"], "method": method_params}
    return NetState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(params),
        memory=memory,
    )


def fixed_state(variables: Variables) -> NetState:
    """Return the state of a network that was trained before and never moves."""
    return init_state(variables, {}, optax.set_to_zero())


def part_of(path: tuple) -> str:
    """Return which of `PARTS` the parameter at a tree path belongs to.

    Told by names (spaced_kd/models/base.py).
    """
    names = [str(getattr(entry, "key", "")) for entry in path]
    if names[:1] == ["method"]:
        return METHOD
    if "peer" in names[:2]:
        return PEER
    if any(name.startswith("branch") for name in names):
        return BRANCHES
    return SOFT_HEAD if "head_dist" in names else TRUNK


def part_labels(params: Params) -> Params:
    """Return each parameter's part, as `optax.partition` asks for it."""
    return jax.tree_util.tree_map_with_path(lambda path, _: part_of(path), params)


def rest(new: NetState, old: NetState, resting: Iterable[str]) -> NetState:
    """Return `new` with parameters and optimiser state of some parts as in `old`.

    A zero gradient would not do: decay and momentum would still move them, and Adam's
    count would go on. BatchNorm's averages rest with the trunk and the peer; those of
    branches follow the trunk that feeds them.

    Args:
      new: after an update.
      old: before it.
      resting: of `PARTS`.
    """
    kept = frozenset(resting)

    def pick(path, fresh, before):
        return before if part_of(path) in kept else fresh

    whole = {TRUNK, PEER} & kept

    def pick_stats(path, fresh, before):
        return before if part_of(path) in whole else fresh

    inner = {
        part: (old if part in kept else new).opt_state.inner_states[part]
        for part in PARTS
    }
    return new.replace(
        params=jax.tree_util.tree_map_with_path(pick, new.params, old.params),
        batch_stats=jax.tree_util.tree_map_with_path(
            pick_stats, new.batch_stats, old.batch_stats
        ),
        opt_state=new.opt_state._replace(inner_states=inner),
    )
