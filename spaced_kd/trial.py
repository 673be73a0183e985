"""Whether a network or method of the user's is one that a run can train.

Found at once and by shapes alone: nothing is computed, and no device is started.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from spaced_kd.config import MethodConfig, StudentConfig
from spaced_kd.errors import ConfigError, SpacedKDError, one_line
from spaced_kd.methods.base import Method, Now, Sizes
from spaced_kd.models.base import Model
from spaced_kd.parallel import BatchAxis
from spaced_kd.state import BRANCHES
from spaced_kd.types import Batch, ModelOutput

_SIZES = Sizes(
    updates=100,
    steps_per_epoch=10,
    batch_size=6,
    num_examples=60,
    num_classes=10,
    image_shape=(8, 8, 3),
)
"""Of the run that a method is tried in."""

_CLASSES = 7
"""Of a network that is tried: not the width of anything else."""


def check_model(
    at: str, family: Callable[..., Model], image_shape: tuple[int, int, int]
) -> None:
    """Try a network on two images, in training and in evaluation.

    Args:
      at: what it is, for messages.
      family, image_shape: as for `register.model`.

    Raises:
      ConfigError: what is wrong with it.
    """
    kind = getattr(family, "func", family)
    if not (isinstance(kind, type) and issubclass(kind, Model)):
        raise ConfigError(
            f"{at}: {family!r} is no subclass of spaced_kd.models.base.Model; make it "
            "one, whose __call__(image, *, train, mask=None) returns a ModelOutput."
        )
    hint = f"images of {image_shape}, unless image_shape=(H, W, C) gives others"
    for train in (False, True):
        found = tried(at, hint, lambda t=train: _outputs_of(family, image_shape, t))
        _check_outputs(at, found)


def check_method(
    at: str, make: Callable[[MethodConfig, BatchAxis, Sizes], Method]
) -> None:
    """Try a method's loss on a batch.

    Args:
      at: what it is, for messages.
      make: as for `register.method`.

    Raises:
      ConfigError: what is wrong with it.
    """
    check_arguments(at, make, "config, axis, sizes")
    config = StudentConfig(soft_loss="kl", temperature_squared="yes")
    method = tried(at, "the default config", lambda: make(config, BatchAxis(), _SIZES))
    if not isinstance(method, Method):
        raise ConfigError(
            f"{at}: make returns a {type(method).__name__}; it must return a "
            "spaced_kd.methods.base.Method."
        )
    if not method.needs_teacher or method.lead or BRANCHES in method.trains:
        raise ConfigError(
            f"{at} needs no teacher, or trains branches or a second network; a run's "
            "plan must know such a method by name: add it to the package, and to "
            "spaced_kd/config/names.py (docs/add_a_method.md)."
        )
    if method.batches == 1:  # others need `Memory.extend`, and that a run
        _check_loss(at, method)


def tried(at: str, on: str, call: Callable[[], Any]) -> Any:
    """Return `call()`; what it raises becomes a ConfigError of one line.

    Args:
      at: what is tried. on: on what.
    """
    try:
        return call()
    except SpacedKDError:
        raise
    # Whatever a function of the user's may raise.
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(f"{at} fails on {on}: {kind}: {one_line(error)}") from error


def check_arguments(at: str, function: Callable, names: str) -> None:
    """Refuse what is no function of so many arguments; `names`: "config, axis"."""
    try:
        inspect.signature(function).bind(*names.split(", "))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{at}: {function!r} must be a function of ({names})."
        ) from error


def _outputs_of(family: Callable[..., Model], shape: Sequence[int], train: bool) -> Any:
    network = family(num_classes=_CLASSES, dtype=jnp.float32, remat=False)

    def forward(image):
        variables = network.init(jax.random.key(0), image, train=False)
        mask = jnp.ones(2, bool) if train else None
        call = functools.partial(network.apply, variables, image, train=train)
        outputs, _ = call(mask=mask, mutable=["batch_stats"])
        other = set(variables) - {"params", "batch_stats"}
        if other:
            raise ValueError(f"its variables are also of {sorted(other)}")
        return outputs

    return jax.eval_shape(forward, jax.ShapeDtypeStruct((2, *shape), jnp.float32))


def _check_outputs(at: str, outputs: Any) -> None:
    if not isinstance(outputs, ModelOutput):
        raise ConfigError(
            f"{at} returns a {type(outputs).__name__}; it must return a "
            "spaced_kd.types.ModelOutput(logits, features)."
        )
    logits, features = outputs.logits, outputs.features
    if logits.shape != (2, _CLASSES) or logits.dtype != jnp.float32:
        raise ConfigError(
            f"{at}: logits of 2 images in {_CLASSES} classes are {logits.dtype} of "
            f"shape {logits.shape}; they must be float32 [b, self.num_classes]."
        )
    if len(features.shape) != 2 or features.dtype != jnp.float32:
        raise ConfigError(
            f"{at}: features of 2 images are {features.dtype} of shape "
            f"{features.shape}; they must be float32 [b, D]: what the last layer reads."
        )


def _check_loss(at: str, method: Method) -> None:
    def outputs(width: int) -> ModelOutput:
        rows = _SIZES.batch_size
        maps = (jnp.zeros((rows, 8, 8, 2)), jnp.zeros((rows, 4, 4, width)))
        logits = jnp.zeros((rows, _SIZES.num_classes))
        return ModelOutput(logits, jnp.zeros((rows, width)), maps=maps)

    def loss():
        student, teacher = outputs(5), outputs(7)
        params = method.init(jax.random.key(0), student, teacher)
        memory = method.memory.start(student, teacher) if method.memory else ()
        label = jnp.zeros(_SIZES.batch_size, jnp.int32)
        image = jnp.zeros((_SIZES.batch_size, *_SIZES.image_shape))
        batch = Batch(image, label, raw=image.astype(jnp.uint8), example=label)
        return method.loss(params, student, teacher, batch, Now(0, memory))

    found = tried(at, "a batch of 6 in 10 classes", lambda: jax.eval_shape(loss))
    match found:
        case (total, dict()) if getattr(total, "shape", None) == ():
            return
    raise ConfigError(
        f"{at}: loss must return (scalar, dict of scalars); reduce over the batch with "
        "spaced_kd.losses.batch_mean."
    )
