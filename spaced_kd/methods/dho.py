"""Dual-head distillation: the labels train one head, the teacher the other.

loss = (1 - alpha) CE(z_1, y) + alpha soft(z_2, z_t; T)

Both heads read the same features; evaluation mixes their probabilities
(spaced_kd/models/base.py, `mixed_logits`). Source: Kang et al., "Simple yet Effective
Semi-supervised Knowledge Distillation from Vision-Language Models via Dual-Head
Optimization" (arXiv:2505.07675), as released (github.com/erjui/DHO, train_imgnet.py):
alpha 0.5, T = 2, KL times T^2; heads linear on pooled features. There a second batch,
without labels, adds its own soft loss. Fields of the config: those of `kd` but
features, and the student's `arch.second_head*`.

Ours: a DeiT with a distillation token will do, whose heads read one token each, and
whose evaluation is the mean of both heads' logits.
"""

from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Method, Sizes, make_mixture, no_params
from spaced_kd.parallel import BatchAxis


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the weights of `config`.

    Raises:
      ConfigError: unknown soft loss.
    """
    del sizes
    mixture = make_mixture(config, axis)

    def loss(params, student, teacher, batch, now):
        del params, now
        return mixture(student, teacher.logits, batch)

    return Method(no_params, loss, needs_soft_head=True)
