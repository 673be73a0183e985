"""From config to an optax transformation; the rate is a function of the step."""

from collections.abc import Callable

import optax

from spaced_kd import registry
from spaced_kd.config import OptimConfig


def learning_rate_schedule(
    config: OptimConfig, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
    """Return updates completed -> learning rate, on the network's own clock.

    Deviation: the released schedulers are created but never stepped; its runs, and the
    paper's, are at a constant rate. The own clock (and not the teacher's) keeps the
    rate a student sees independent of how far the teacher has run ahead.
    """
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(
            config.learning_rate, max(total_steps - warmup_steps, 1)
        )
    else:
        main = optax.constant_schedule(config.learning_rate)
    if not warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, config.learning_rate, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


def sgd(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return SGD as PyTorch defines it: decay is added to the gradient (coupled)."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.trace(decay=config.momentum, nesterov=config.nesterov),
        optax.scale_by_learning_rate(schedule),
    )


OPTIMIZERS: dict[
    str, Callable[[OptimConfig, optax.Schedule], optax.GradientTransformation]
] = {"sgd": sgd}


def make_optimizer(
    config: OptimConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Return the optimiser that `config.name` names.

    Raises:
      ConfigError: unknown name.
    """
    return registry.lookup(OPTIMIZERS, config.name, "optim.name")(config, schedule)
