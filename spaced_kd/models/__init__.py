"""Architectures: one family a file, one line here."""

import dataclasses

import jax.numpy as jnp

from spaced_kd import registry
from spaced_kd.config import ArchConfig
from spaced_kd.errors import ConfigError
from spaced_kd.models import branched_resnet, deit, mlp, pit, resnet, small_cnn
from spaced_kd.models.base import Model

MODELS = registry.Open(
    {
        "mlp": mlp.MLP,
        "small_cnn": small_cnn.SmallCNN,
        "small_cnn_branches": small_cnn.small_cnn_branches,
        "resnet8": resnet.resnet8,
        "resnet20": resnet.resnet20,
        "resnet32": resnet.resnet32,
        "resnet56": resnet.resnet56,
        "resnet110": resnet.resnet110,
        "resnet18": resnet.resnet18,
        "resnet34": resnet.resnet34,
        "resnet50": resnet.resnet50,
        "resnet101": resnet.resnet101,
        "resnet18_branches": branched_resnet.resnet18_branches,
        "resnet50_branches": branched_resnet.resnet50_branches,
        "resnet101_branches": branched_resnet.resnet101_branches,
        "deit_tiny": deit.deit_tiny,
        "deit_tiny_distilled": deit.deit_tiny_distilled,
        "deit_tiny_branches": deit.deit_tiny_branches,
        "pit_tiny": pit.pit_tiny,
        "pit_tiny_branches": pit.pit_tiny_branches,
    }
)

DEFAULT_ARCH = ArchConfig()


def make_model(
    name: str,
    num_classes: int,
    arch: ArchConfig = DEFAULT_ARCH,
    *,
    compute_dtype: str = "float32",
    remat: bool = False,
) -> Model:
    """Return the network that `name` names.

    Args:
      name: a key of MODELS.
      num_classes: width of the logits.
      arch: what the name leaves open.
      compute_dtype: "float32" or "bfloat16".
      remat: compute activations again in the backward pass.

    Raises:
      ConfigError: unknown name, or a field of `arch` that this network does not have.
    """
    family = registry.lookup(MODELS, name, "model")
    options, fields = {}, _fields(family)
    for field in dataclasses.fields(ArchConfig):
        value = getattr(arch, field.name)
        if field.name in fields:
            options[field.name] = value
        elif value != field.default:
            raise ConfigError(
                f"arch.{field.name}={value!r} is not an option of model '{name}'; "
                f"leave it at {field.default!r}, or choose another model."
            )
    return family(
        num_classes=num_classes,
        dtype=jnp.dtype(compute_dtype).type,
        remat=remat,
        **options,
    )


def arch_for(name: str, arch: ArchConfig, what: str) -> ArchConfig:
    """Return those options of an architecture that another network has too.

    Args:
      name: of that network, a key of MODELS.
      arch: the options; what the network does not have is left at its default.
      what: the config field that gave the name, for the message.

    Raises:
      ConfigError: unknown name.
    """
    fields = _fields(registry.lookup(MODELS, name, what))
    known = {f.name for f in dataclasses.fields(ArchConfig)} & set(fields)
    return ArchConfig(**{field: getattr(arch, field) for field in known})


def _fields(family) -> dict:
    return getattr(family, "func", family).__dataclass_fields__
