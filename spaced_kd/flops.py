"""How many floating-point operations a network's forward pass takes, as XLA counts.

Counted from the program as it is lowered, before any compiler changes it: the number is
a property of network and batch, whatever the device.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax

from spaced_kd.models.base import Model


def forward_flops(
    models: Iterable[Model], shape: tuple[int, int, int, int]
) -> dict[Model, int | None]:
    """Return the operations of one eval-mode pass of each network; nothing is compiled.

    A multiplication and an addition are two. Positions at which a convolution sees the
    padding are not counted.

    Args:
      models: with equal ones counted once.
      shape: of a batch of images, [b, H, W, C].

    Returns:
      By network; None where XLA does not say.
    """
    return {model: _counted(model, shape) for model in dict.fromkeys(models)}


def _count(model: Model, shape: tuple[int, ...]) -> int | None:
    image = jax.ShapeDtypeStruct(shape, "float32")
    start = functools.partial(model.init, train=False)
    variables = jax.eval_shape(start, jax.random.key(0), image)
    forward = jax.jit(functools.partial(model.apply, train=False))
    try:
        found: Any = forward.lower(variables, image).cost_analysis()
    except NotImplementedError:
        return None
    count = (found or {}).get("flops")
    return None if count is None else round(count)


_counted: Callable[[Any, tuple[int, ...]], int | None] = functools.cache(_count)
