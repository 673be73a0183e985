"""From config to an optax transformation, and the learning rate as a function of time.

The two are apart, because a student's rate may run on the teacher's clock: the step
multiplies the transformation's direction by the rate of the moment.
"""

import math
from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import optax

from spaced_kd import registry, state
from spaced_kd.config import OptimConfig
from spaced_kd.types import Params

Schedule = Callable[[jax.Array], jax.Array]
"""Updates completed on the schedule's clock -> learning rate, [] float32."""

_WITHOUT_DECAY = ("token", "pos_embed")


def learning_rate_schedule(
    config: OptimConfig, steps_per_epoch: int, total_steps: int
) -> Schedule:
    """Return updates completed -> learning rate.

    cosine: final + (peak - final) / 2 (1 + cos(pi t / total)), with t counted from the
    first update; during warm-up a line from `warmup_learning_rate` to the peak takes
    its place (released vit/: timm's schedule, warm-up not prefixed; method C.2). With
    `schedule_unit="epoch"` t stands still within an epoch.

    Deviation: the released ResNet schedulers are created but never stepped; its runs,
    and the paper's, are at a constant rate.

    Args:
      config: of the network.
      steps_per_epoch: batches in an epoch.
      total_steps: updates on the schedule's clock in the whole run.
    """
    peak, final = config.learning_rate, config.final_learning_rate
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)

    def schedule(step):
        at = jnp.asarray(step, jnp.int32)
        if config.schedule_unit == "epoch":
            at = at // steps_per_epoch * steps_per_epoch
        rate = jnp.float32(peak)
        if config.schedule == "cosine":
            turn = jnp.minimum(at / max(total_steps, 1), 1.0) * math.pi
            rate = final + 0.5 * (peak - final) * (1.0 + jnp.cos(turn))
        if warmup_steps:
            start = config.warmup_learning_rate
            line = start + (peak - start) * (at / warmup_steps)
            rate = jnp.where(at < warmup_steps, line, rate)
        return jnp.asarray(rate, jnp.float32)

    return schedule


def sgd(config: OptimConfig) -> optax.GradientTransformation:
    """Return SGD as PyTorch defines it: decay is added to the gradient (coupled)."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, _decay_mask(config)),
        optax.trace(decay=config.momentum, nesterov=config.nesterov),
    )


def adamw(config: OptimConfig) -> optax.GradientTransformation:
    """Return AdamW as PyTorch defines it, epsilon 1e-8 outside the root."""
    return optax.chain(
        optax.scale_by_adam(config.beta1, config.beta2, eps=1e-8),
        optax.add_decayed_weights(config.weight_decay, _decay_mask(config)),
    )


OPTIMIZERS: dict[str, Callable[[OptimConfig], optax.GradientTransformation]] = {
    "sgd": sgd,
    "adamw": adamw,
}


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Return the optimiser that `config.name` names, without its learning rate.

    An update is `params - rate * direction` (`descend`). Each of `state.PARTS` has a
    state of its own, count included, so that it can rest.

    Raises:
      ConfigError: unknown name.
    """
    tx = registry.lookup(OPTIMIZERS, config.name, "optim.name")(config)
    return optax.partition(dict.fromkeys(state.PARTS, tx), state.part_labels)


def descend(params: Params, direction: Params, rate: jax.Array) -> Params:
    """Return the parameters after a step of length `rate` against `direction`."""
    return jax.tree.map(lambda p, d: p - rate * d, params, direction)


def average(mean: Params, params: Params, decay: float, count: jax.Array) -> Params:
    """Return an exponential moving average of parameters, one update later.

    min(decay, t / (t + 1)) of it is kept. Until that is `decay`, this is the plain mean
    of the initial and all later parameters, so that the initial ones do not linger
    (Tarvainen & Valpola, NeurIPS 2017, as released).

    Args:
      mean: so far, at first the initial parameters.
      params: the newest.
      decay: in [0, 1].
      count: t, [] int32, updates behind `params`.
    """
    keep = jnp.minimum(decay, count / (count + 1))
    return jax.tree.map(lambda m, p: keep * m + (1 - keep) * p, mean, params)


def ascend(params: Params, grads: Params, rho: float, parts: Collection[str]) -> Params:
    """Return the parameters after a step of length `rho` up the gradient.

    params + rho * grads / |grads|, |.| the Euclidean norm over `parts` as a whole:
    where SAM takes its gradient (Foret et al., ICLR 2021, Eq. 2 and 3 with p = 2).

    Deviation: in the released code (google-research/sam) each device climbs by its own
    gradient unless `sync_perturbations` is set, and weight decay is part of the loss,
    so of the climb. Here all devices climb together, and decay is the optimiser's.

    Args:
      params: what the gradient was taken at.
      grads: likewise, of the global batch.
      rho: distance.
      parts: of `state.PARTS`; the others stay where they are.
    """

    def kept(path, grad):
        return grad if state.part_of(path) in parts else jnp.zeros_like(grad)

    grads = jax.tree_util.tree_map_with_path(kept, grads)
    # Where the gradient vanishes there is no way up.
    scale = rho / (optax.tree.norm(grads) + 1e-12)
    return jax.tree.map(lambda p, g: p + scale * g, params, grads)


def decays(params: Params) -> Params:
    """Return which parameters `decay_on="matrices"` decays: a tree of bools.

    Not those with one axis, tokens and position embeddings (released
    vit/pycls/core/optimizer.py).
    """

    def decide(path, leaf):
        name = str(getattr(path[-1], "key", path[-1]))
        return leaf.ndim > 1 and not name.endswith(_WITHOUT_DECAY)

    return jax.tree_util.tree_map_with_path(decide, params)


def _decay_mask(config: OptimConfig):
    return decays if config.decay_on == "matrices" else None
