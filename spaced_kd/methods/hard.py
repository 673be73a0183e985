"""Plain cross-entropy on the labels: the teacher's loss, and the no-KD baseline's."""

from spaced_kd import losses
from spaced_kd.config import StudentConfig
from spaced_kd.methods.base import Method
from spaced_kd.parallel import BatchAxis


def make(config: StudentConfig, axis: BatchAxis, updates: int) -> Method:
    """Return the method; no field of `config` matters to it."""
    del config, updates
    return make_loss(axis)


def make_loss(axis: BatchAxis) -> Method:
    """Return the method for networks that have no student config."""

    def init(key, student, teacher):
        del key, student, teacher
        return {}

    def loss(params, student, teacher, batch, step):
        del params, teacher, step
        per_example = losses.cross_entropy(student.logits, batch.label)
        hard_loss = losses.batch_mean(per_example, batch.mask, axis)
        return hard_loss, {"hard_loss": hard_loss}

    return Method(init, loss, needs_teacher=False, trains_side=False)
