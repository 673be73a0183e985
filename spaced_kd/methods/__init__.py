"""Distillation methods: one a file, one line here."""

from spaced_kd import registry
from spaced_kd.config import MethodConfig
from spaced_kd.methods import (
    dho,
    diswot,
    dlb,
    dml,
    hard,
    kd,
    label_mix,
    nd,
    ofa,
    pld,
    ps_kd,
    self_kd,
    shake,
    sinkd,
    taid,
)
from spaced_kd.methods.base import Method, Sizes
from spaced_kd.parallel import BatchAxis

METHODS = registry.Open(
    {
        "diswot": diswot.make,
        "dho": dho.make,
        "dlb": dlb.make,
        "dml": dml.make,
        "hard": hard.make,
        "kd": kd.make,
        "nd": nd.make,
        "label_mix": label_mix.make,
        "ofa": ofa.make,
        "pld": pld.make,
        "ps_kd": ps_kd.make,
        "self_kd": self_kd.make,
        "shake": shake.make,
        "sinkd": sinkd.make,
        "taid": taid.make,
    }
)


def make_method(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the loss that a network trains on.

    Args:
      config: the network's.
      axis: the devices that share the batch.
      sizes: of its run.

    Raises:
      ConfigError: unknown method, soft loss or feature loss.
    """
    make = registry.lookup(METHODS, config.method, "student.method")
    return make(config, axis, sizes)
