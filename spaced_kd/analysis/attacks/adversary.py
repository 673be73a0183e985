"""White-box attacks within an L_inf ball: one ascent; FGSM, BIM and PGD are its cases.

x is an image of pixels in [0, 1], of the size that the network sees (resized before,
normalised within the network); y its label, CE the cross-entropy:

    x_0 = clip(x + eps u)          x_{k+1} = clip(x_k + alpha sign(dCE(x_k, y) / dx_k))

`clip` keeps every value within eps of its own in x, and in [0, 1]. The last iterate is
the adversary, as published, even if an earlier one fooled the network.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd import losses, metrics

LogitsOf = Callable[[jax.Array], jax.Array]
"""[b, H, W, C] float32 in [0, 1] -> [b, num_classes]; examples do not interact."""

_NO_START, _UNIFORM, _SIGNS = 0, 1, 2


class Rule(NamedTuple):
    """What an attack does; numbers or traced scalars, so one program runs every rule.

    eps: radius of the ball, of pixels in [0, 1]. alpha: length of a step, likewise.
    steps: along the gradient's sign. start: the u above: 0, uniform in [-1, 1], or
    random signs. restarts: ascents from other random starts, of which each example
    keeps the worst.
    """

    eps: jax.typing.ArrayLike
    alpha: jax.typing.ArrayLike = 0.0
    steps: jax.typing.ArrayLike = 0
    start: jax.typing.ArrayLike = _NO_START
    restarts: jax.typing.ArrayLike = 1


def fgsm(eps: float) -> Rule:
    """One step of length eps (Goodfellow et al., ICLR 2015, Section 4)."""
    return Rule(eps, alpha=eps, steps=1)


def bim(eps: float, alpha: float, steps: int) -> Rule:
    """Steps from the image itself (Kurakin et al., ICLR Workshop 2017, Section 2.2)."""
    return Rule(eps, alpha, steps)


def pgd(eps: float, alpha: float, steps: int, restarts: int = 1) -> Rule:
    """Steps from uniform points of the ball (Madry et al., ICLR 2018, Section 2.1)."""
    return Rule(eps, alpha, steps, _UNIFORM, restarts)


def noise(eps: float) -> Rule:
    """No attack: every value moves by eps, up or down at random."""
    return Rule(eps, start=_SIGNS)


class Perturbed(NamedTuple):
    """Changed images and what the network makes of them.

    image: [b, H, W, C] in [0, 1]. loss: [b], cross-entropy in nats. correct: [b] bool.
    """

    image: jax.Array
    loss: jax.Array
    correct: jax.Array


def perturb(
    logits_of: LogitsOf,
    image: jax.Array,
    label: jax.Array,
    keys: jax.Array,
    rule: Rule,
) -> Perturbed:
    """Attack every image of a batch.

    Args:
      logits_of: the network, normalisation included.
      image: [b, H, W, C] float32 in [0, 1].
      label: [b] int32; the attacks are untargeted.
      keys: [b] typed keys; an example's start is a function of its own key.
      rule: which attack, how far.

    Returns:
      The adversaries. Of several restarts an example keeps one that the network gets
      wrong if there is any, and of those, or else of all, that of the largest loss.
    """
    low, high = jnp.maximum(image - rule.eps, 0), jnp.minimum(image + rule.eps, 1)
    gradient = jax.grad(lambda x: losses.cross_entropy(logits_of(x), label).sum())

    def step(_, x):
        return jnp.clip(x + rule.alpha * jnp.sign(gradient(x)), low, high)

    def ascend(restart, worst):
        u = _starts(keys, restart, image.shape[1:], rule.start)
        start = jnp.clip(image + rule.eps * u, low, high)
        end = lax.fori_loop(0, rule.steps, step, start)
        return _worse(worst, judge(logits_of, end, label))

    nothing = Perturbed(image, jnp.full(label.shape, -jnp.inf), label == label)
    return lax.fori_loop(0, rule.restarts, ascend, nothing)


def judge(logits_of: LogitsOf, image: jax.Array, label: jax.Array) -> Perturbed:
    """Return these images and what the network makes of them; arguments as above."""
    logits = logits_of(image)
    loss = losses.cross_entropy(logits, label)
    return Perturbed(image, loss, metrics.is_correct(logits, label))


def has_gradient(logits_of: LogitsOf, image: jax.Array, label: jax.Array) -> jax.Array:
    """Return [b] bool: is any pixel's gradient of the loss other than zero?"""
    gradient = jax.grad(lambda x: losses.cross_entropy(logits_of(x), label).sum())
    return jnp.any(gradient(image) != 0, axis=(1, 2, 3))


def _starts(keys, restart, shape, start) -> jax.Array:
    draw = lambda key: jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    uniform = jax.vmap(lambda key: draw(jax.random.fold_in(key, restart)))(keys)
    moved = jnp.where(start == _SIGNS, jnp.sign(uniform), uniform)
    return jnp.where(start == _NO_START, 0.0, moved)


def _worse(one: Perturbed, other: Perturbed) -> Perturbed:
    """Return, of each example, the one that is worse for the network."""
    same = one.correct == other.correct
    take = jnp.where(same, other.loss > one.loss, one.correct)

    def pick(a, b):
        return jnp.where(take.reshape(-1, *[1] * (a.ndim - 1)), b, a)

    return jax.tree.map(pick, one, other)
