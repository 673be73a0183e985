"""One update of one network: pass, gradient, optimiser, memory."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from spaced_kd import losses, metrics, optim
from spaced_kd.data.augment import fetch
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.methods.base import Now, Phase
from spaced_kd.models.base import Model
from spaced_kd.parallel import BatchAxis
from spaced_kd.passes import LossOf, Passed, at_once, in_parts
from spaced_kd.state import PARTS, NetState, rest
from spaced_kd.types import Batch, Metrics, ModelOutput


class Network(NamedTuple):
    """One architecture with its optimiser.

    model: reduces BatchNorm over the axis of its group. tx: without a learning rate.
    schedule: updates -> rate. clock: whose updates those are, "own" or "teacher".
    micro_batches: parts in which a batch passes the network. sam_rho: how far uphill
    the gradient is taken, 0: here (`optim.ascend`).
    """

    model: Model
    tx: optax.GradientTransformation
    schedule: optim.Schedule
    clock: str = "own"
    micro_batches: int = 1
    sam_rho: float = 0.0


Update = Callable[
    [NetState, Batch, jax.Array, ModelOutput | None, jax.Array],
    tuple[NetState, ModelOutput, Metrics],
]


def make_update(network: Network, phase: Phase, axis: BatchAxis) -> Update:
    """Return update(state, batch, key, teacher_outputs, stream_step).

    The result is (state, outputs, metrics); the outputs are those of the forward pass
    that the update came from; with SAM, like metrics and memory, of its first pass.
    stream_step, the place of the teacher's latest batch in the stream, is the time of a
    schedule on its clock.

    Args:
      network: what learns.
      phase: what it minimises, and which of its parts move.
      axis: the devices that share the batch.
    """
    resting = set(PARTS) - set(phase.trains)
    run = _make_pass(network, phase, axis)

    def update(state, batch, key, teacher_outputs, stream_step):
        now = Now(state.step, state.memory)

        def loss_of(method_params, outputs):
            return phase.loss(method_params, outputs, teacher_outputs, batch, now)

        passed = run(state, batch, key, loss_of)
        rate = network.schedule(
            stream_step if network.clock == "teacher" else state.step
        )
        # Of the batch alone, not of what a method adds to it.
        rows = slice(batch.label.shape[0] // phase.batches)
        right = metrics.is_correct(passed.outputs.logits[rows], batch.label[rows])
        mask = None if batch.mask is None else batch.mask[rows]
        measured = passed.metrics | {
            "acc1": 100.0 * losses.batch_mean(right.astype(jnp.float32), mask, axis),
            "learning_rate": rate,
        }
        direction, opt_state = network.tx.update(
            passed.grads, state.opt_state, state.params
        )
        memory = state.memory
        if phase.memory:
            memory = phase.memory.remember(
                memory, passed.outputs, teacher_outputs, batch, passed.metrics
            )
        new = state.replace(
            step=state.step + 1,
            params=optim.descend(state.params, direction, rate),
            batch_stats=passed.batch_stats,
            opt_state=opt_state,
            memory=memory,
        )
        return rest(new, state, resting), passed.outputs, measured

    return update


def _make_pass(
    network: Network, phase: Phase, axis: BatchAxis
) -> Callable[[NetState, Batch, jax.Array, LossOf], Passed]:
    """Return run(state, batch, key, loss_of), with the gradient of the global batch."""
    run = functools.partial(at_once, phase.batches)
    if network.micro_batches > 1:
        run = functools.partial(in_parts, phase.batches * network.micro_batches)

    def here(state, batch, key, loss_of):
        passed = run(network.model, state, batch, key, loss_of)
        # Each device's gradient of the already reduced loss is D times its share.
        return passed._replace(grads=axis.mean(passed.grads))

    def uphill(state, batch, key, loss_of):
        first = here(state, batch, key, loss_of)
        above = optim.ascend(state.params, first.grads, network.sam_rho, phase.trains)
        second = here(state.replace(params=above), batch, key, loss_of)
        # Evaluation reads the weights at hand, not those uphill, so BatchNorm's
        # averages move in the first pass alone (as in google-research/sam, and as
        # PyTorch users switch them off for the second). The key is the same: DropPath
        # that drew anew would make the climb one of another network.
        return first._replace(grads=second.grads)

    return uphill if network.sam_rho else here


def extended(
    phase: Phase,
    state: NetState,
    batch: Batch,
    key: jax.Array,
    axis: BatchAxis,
    spec: AugmentSpec,
) -> Batch:
    """Return what passes the network: the batch, or what the method makes of it.

    Args:
      phase: of the update.
      state: of the network, whose memory may hold an earlier batch.
      batch: as it was fetched.
      key: of new views of remembered images; equal on all devices.
      axis: the devices that share the batch.
      spec: how images are augmented.
    """
    if not (phase.memory and phase.memory.extend):
        return batch
    position = axis.positions(batch.label.shape[0])

    def view(raw, label, example):
        own = example[position]
        index = jnp.where(own >= 0, position, -1)
        again = fetch(raw, label, index, position, key, spec)
        return again._replace(raw=raw[position], example=own)

    return phase.memory.extend(state.memory, batch, view)
