"""Mixed labels: squared distances to the labels and to the teacher's probabilities.

loss = (1 - alpha) |p_s - onehot(y)|^2 + alpha |p_s - p_t|^2,   p = softmax(z)

Up to alpha (1 - alpha) |onehot(y) - p_t|^2, which has no gradient, this is the squared
distance to one target, (1 - alpha) onehot(y) + alpha p_t: what each generation of
iterated self-distillation learns, its teacher being the generation before. Source:
Borup and Andersen, "Even your Teacher Needs Guidance: Ground-Truth Targets Dampen
Regularization Imposed by Self-Distillation", NeurIPS 2021 (arXiv:2102.13088), as
released (github.com/Kennethborup/self_distillation, self_distiller.py, whose alpha is
our 1 - alpha; 0.6 of the labels in its example). The labels' share keeps later
generations from collapsing to zero. Fields of the config: `kd_weight`,
`label_smoothing`.

Ours: the sum over classes, where the released code takes their mean (its Adam takes no
notice of the factor); weight decay instead of the sum of all parameters' norms. With
the cross-entropy in place of the distance, the same target is method `kd` with
`soft_loss` "soft_cross_entropy", T = 1 and no feature loss.
"""

import jax

from spaced_kd import losses
from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Method, Sizes, no_params, taught_logits
from spaced_kd.parallel import BatchAxis


def label_distance(
    logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
    """Return |softmax(logits) - target|^2, the Brier score, per example.

    target_c = (1 - smoothing) onehot(label)_c + smoothing / C.

    Args:
      logits: [B, C].
      labels: [B] int32 in [0, C).
      smoothing: in [0, 1].

    Returns:
      [B], not averaged; in [0, 2].
    """
    classes = logits.shape[-1]
    target = (1 - smoothing) * jax.nn.one_hot(labels, classes) + smoothing / classes
    return losses.squared_distance(jax.nn.softmax(logits), target)


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method with the share of `config`.

    Its metrics hard_loss and soft_loss are the two mean distances.
    """
    del sizes
    share = config.kd_weight

    def loss(params, student, teacher, batch, now):
        del params, now
        hard = label_distance(student.logits, batch.label, config.label_smoothing)
        soft = losses.squared_distance(
            jax.nn.softmax(taught_logits(student)), jax.nn.softmax(teacher.logits)
        )
        hard_loss = losses.batch_mean(hard, batch.mask, axis)
        soft_loss = losses.batch_mean(soft, batch.mask, axis)
        total = (1 - share) * hard_loss + share * soft_loss
        return total, {"hard_loss": hard_loss, "soft_loss": soft_loss}

    return Method(no_params, loss)
