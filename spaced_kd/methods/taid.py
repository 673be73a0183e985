"""Interpolated distillation: the target moves from the student to the teacher.

loss = (1 - alpha) CE(z_s, y) + alpha soft(z_s, (1 - lambda) sg z_s + lambda z_t; T)
lambda = start + (end - start) step / updates

The target's logits lie between the student's own, through which no gradient flows (sg),
and the teacher's; lambda grows with the student's completed updates. Source: Shing et
al., "TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge
Transfer in Language Models", ICLR 2025 (arXiv:2501.16937), as released
(github.com/SakanaAI/TAID, src/distil_losses/taid.py with `disable_adaptive`: from 0.4
to 1; src/loss.py: alpha 1; T = 1, cross-entropy, which has the gradient of "kl").

Ours: the linear rate alone. The adaptive one, which may only run ahead of it, carries
the last loss and a momentum from step to step; a method here has no such state. lambda
is that of this step, the released one lags a step or two. Fields of the config: those
of `kd` but features, and `taid_*`.
"""

from jax import lax

from spaced_kd.config import StudentConfig
from spaced_kd.methods.base import Method, make_mixture, taught_logits
from spaced_kd.parallel import BatchAxis


def make(config: StudentConfig, axis: BatchAxis, updates: int) -> Method:
    """Return the method for a student of so many updates in the whole run.

    Its metric target_share is lambda.

    Raises:
      ConfigError: unknown soft loss.
    """
    mixture = make_mixture(config, axis)
    start, end = config.taid_start, config.taid_end

    def init(key, student, teacher):
        del key, student, teacher
        return {}

    def loss(params, student, teacher, batch, step):
        del params
        share = start + (end - start) * step / updates
        own = lax.stop_gradient(taught_logits(student))
        targets = (1 - share) * own + share * teacher.logits
        total, metrics = mixture(student, targets, batch)
        return total, metrics | {"target_share": share}

    return Method(init, loss)
