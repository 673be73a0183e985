"""Distillation methods: one a file, one line here."""

from spaced_kd import registry
from spaced_kd.config import StudentConfig
from spaced_kd.methods import dho, hard, kd, label_mix, pld, self_kd, sinkd, taid
from spaced_kd.methods.base import Method
from spaced_kd.parallel import BatchAxis

METHODS = {
    "dho": dho.make,
    "hard": hard.make,
    "kd": kd.make,
    "label_mix": label_mix.make,
    "pld": pld.make,
    "self_kd": self_kd.make,
    "sinkd": sinkd.make,
    "taid": taid.make,
}


def make_method(config: StudentConfig, axis: BatchAxis, updates: int) -> Method:
    """Return the loss that a student trains on.

    Args:
      config: the student's.
      axis: the devices that share the batch.
      updates: of this student in the whole run, of any kind (labels alone, replays).

    Raises:
      ConfigError: unknown method, soft loss or feature loss.
    """
    return registry.lookup(METHODS, config.method, "student.method")(
        config, axis, updates
    )
