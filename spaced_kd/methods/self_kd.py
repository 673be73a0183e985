"""Self KD: the deepest exit of a network teaches its branches.

loss = CE(z, y) + sum_k [(1 - alpha) CE(z_k, y) + alpha soft(z_k, sg z; T)]
       + beta sum_k feature(A_k f_k, sg f)

z and f are logits and features of the deepest exit, z_k and f_k those of branch k; sg
cuts the gradient. The teacher is the network as it is in this very pass, in a replay
too (paper Alg. 4): nothing is frozen. Source: paper Eq. 4 and Section 5.1, whose Eq. 4
has no feature term; as released, self_KD/train.py:222-242, the soft loss is a cross-
entropy without T^2, and the deepest branch's features are left out.
"""

from typing import cast

import jax
from jax import lax

from spaced_kd import losses, registry, state
from spaced_kd.config import MethodConfig
from spaced_kd.layers import Dense
from spaced_kd.methods.base import Method, Sizes, make_soft_loss
from spaced_kd.parallel import BatchAxis
from spaced_kd.types import exit_name

_BRANCHES_OF_A_RESNET = 3


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the weights and losses of `config`.

    Of its metrics, loss = hard_loss + (1 - alpha) branch_hard_loss + alpha soft_loss +
    beta feature_loss; hard_loss is the deepest exit's, the others are sums over
    branches, with `branch_reduction` applied.

    Raises:
      ConfigError: unknown soft or feature loss.
    """
    del sizes
    soft_fn = make_soft_loss(config)
    hard_fn = lambda z, y: losses.cross_entropy(z, y, config.label_smoothing)
    feature_fn = registry.lookup(
        losses.FEATURE_LOSSES, config.feature_loss, "student.feature_loss"
    )
    # Branches come deepest first.
    first = 1 if config.feature_branches == "not_deepest" else 0

    def compared(num_branches: int) -> dict[str, int]:
        """Return the branches whose features count: adaptor's name -> place."""
        if not config.feature_weight:
            return {}
        return {exit_name(num_branches - k): k for k in range(first, num_branches)}

    def init(key, student, teacher):
        del teacher
        if config.branch_adaptor == "none":
            return {}
        width = student.features.shape[-1]
        return {
            name: Dense(width).init(
                jax.random.fold_in(key, place), student.branch_features[:, place]
            )["params"]
            for name, place in compared(student.branch_logits.shape[1]).items()
        }

    def branch_losses(student, batch):
        teacher = lax.stop_gradient(student.logits)
        per_branch = lambda fn: jax.vmap(fn, in_axes=1, out_axes=1)
        hard = per_branch(lambda z: hard_fn(z, batch.label))
        soft = per_branch(lambda z: soft_fn(z, teacher))
        return tuple(
            losses.batch_mean(fn(student.branch_logits).sum(1), batch.mask, axis)
            for fn in (hard, soft)
        )

    def feature_loss(params, student, batch):
        teacher, total = lax.stop_gradient(student.features), 0.0
        for name, place in compared(student.branch_logits.shape[1]).items():
            features = student.branch_features[:, place]
            if params:
                layer = Dense(teacher.shape[-1])
                features = cast(
                    jax.Array, layer.apply({"params": params[name]}, features)
                )
            total += feature_fn(features, teacher, batch.mask, axis)
        return total

    def loss(params, student, teacher, batch, now):
        del teacher, now
        count = student.branch_logits.shape[1]
        mean = config.branch_reduction == "mean_times_3"
        weight = _BRANCHES_OF_A_RESNET / count if mean else 1.0
        hard = hard_fn(student.logits, batch.label)
        hard = losses.batch_mean(hard, batch.mask, axis)
        branch_hard, soft = (weight * x for x in branch_losses(student, batch))
        total = hard + (1 - config.kd_weight) * branch_hard + config.kd_weight * soft
        metrics = {
            "hard_loss": hard,
            "branch_hard_loss": branch_hard,
            "soft_loss": soft,
        }
        if config.feature_weight:
            features = weight * feature_loss(params, student, batch)
            total = total + config.feature_weight * features
            metrics["feature_loss"] = features
        return total, metrics

    trains = (state.TRUNK, state.METHOD, state.BRANCHES)
    return Method(init, loss, needs_teacher=False, trains=trains)
