"""A batch's way through a network and back: at once, or in parts to save memory."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd.models.base import Model
from spaced_kd.state import NetState
from spaced_kd.types import Batch, Metrics, ModelOutput, Params, Variables

LossOf = Callable[[Params, ModelOutput], tuple[jax.Array, Metrics]]
"""(method parameters, outputs of the whole batch) -> (loss, its parts)."""


def run_model(model: Model, variables: Variables, batch: Batch, key: jax.Array | None):
    """Return a training pass's outputs and moved BatchNorm averages.

    Args:
      model: the network.
      variables: what it reads.
      batch: of one device.
      key: for the network's random numbers; None: it draws none.
    """
    outputs, moved = model.apply(
        variables,
        batch.image,
        train=True,
        mask=batch.mask,
        mutable=["batch_stats"],
        rngs=None if key is None else {"dropout": key},
    )
    return cast(ModelOutput, outputs), moved.get("batch_stats", {})


class Passed(NamedTuple):
    """What a batch's way through a network gives: an update's ingredients."""

    grads: Any
    outputs: ModelOutput
    batch_stats: Any
    metrics: Metrics


def at_once(
    count: int,
    model: Model,
    state: NetState,
    batch: Batch,
    key: jax.Array,
    loss_of: LossOf,
) -> Passed:
    """Pass the batch forward and backward as a whole.

    With a count above 1 it is that many batches, which BatchNorm sees one by one.
    """

    def pass_all(net, batch_stats):
        if count == 1:
            variables = {"params": net, "batch_stats": batch_stats}
            return run_model(model, variables, batch, key)
        size, found = batch.label.shape[0] // count, []
        for place in range(count):
            rows = slice(place * size, (place + 1) * size)
            own = jax.tree.map(operator.itemgetter(rows), batch)
            variables = {"params": net, "batch_stats": batch_stats}
            part_key = jax.random.fold_in(key, place)
            outputs, batch_stats = run_model(model, variables, own, part_key)
            found.append(outputs)
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), *found), batch_stats

    def loss_fn(params):
        outputs, batch_stats = pass_all(params["net"], state.batch_stats)
        loss, parts = loss_of(params["method"], outputs)
        return loss, (outputs, batch_stats, {"loss": loss} | parts)

    grads, aux = jax.grad(loss_fn, has_aux=True)(state.params)
    return Passed(grads, *aux)


def in_parts(
    count: int,
    model: Model,
    state: NetState,
    batch: Batch,
    key: jax.Array,
    loss_of: LossOf,
) -> Passed:
    """Pass the batch in parts, with the activations of one part in memory at a time.

    First all parts forward, then the loss of the whole batch, then each part again
    forward and backward. So the loss may couple examples (the feature distance is one
    norm over the batch); only BatchNorm sees parts, whose averages move part by part.
    """
    split = lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:])
    whole = lambda x: x.reshape(-1, *x.shape[2:])
    parts = jax.tree.map(split, batch._replace(raw=None, example=None))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))

    def forward(net, batch_stats, at):
        variables = {"params": net, "batch_stats": batch_stats}
        return run_model(model, variables, *at)

    def first(batch_stats, at):
        outputs, batch_stats = forward(state.params["net"], batch_stats, at)
        return batch_stats, outputs

    batch_stats, outputs = lax.scan(first, state.batch_stats, (parts, keys))
    outputs = jax.tree.map(whole, outputs)
    (loss, parts_of_loss), (method_grads, pulls) = jax.value_and_grad(
        loss_of, (0, 1), has_aux=True
    )(state.params["method"], outputs)

    def second(total, at):
        part, pull = at
        outputs_of = lambda net: forward(net, state.batch_stats, part)[0]
        _, pull_back = jax.vjp(outputs_of, state.params["net"])
        return jax.tree.map(jnp.add, total, pull_back(pull)[0]), None

    zeros = jax.tree.map(jnp.zeros_like, state.params["net"])
    pulls = jax.tree.map(split, pulls)
    net_grads, _ = lax.scan(second, zeros, ((parts, keys), pulls))
    return Passed(
        {"net": net_grads, "method": method_grads},
        outputs,
        batch_stats,
        {"loss": loss} | parts_of_loss,
    )
