"""Plain cross-entropy on the labels: the teacher's loss, and the no-KD baseline's."""

from spaced_kd import losses, state
from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Method, Sizes, no_params
from spaced_kd.parallel import BatchAxis


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method; of `config` only `label_smoothing` matters to it."""
    del sizes
    return make_loss(axis, config.label_smoothing)


def make_loss(axis: BatchAxis, label_smoothing: float = 0.0) -> Method:
    """Return the method: for the teacher, and for a student's steps on labels alone."""

    def loss(params, student, teacher, batch, now):
        del params, teacher, now
        per_example = losses.cross_entropy(student.logits, batch.label, label_smoothing)
        hard_loss = losses.batch_mean(per_example, batch.mask, axis)
        return hard_loss, {"hard_loss": hard_loss}

    return Method(no_params, loss, needs_teacher=False, trains=(state.TRUNK,))
