"""Shadow knowledge distillation: a head on the teacher learns from the student too.

student: CE(n z_s, y) + soft(n z_s, sg n z_h; T)
shadow head: w CE(n z_h, y) + MSE(n z_h, n z_t) + soft(n z_h, sg n z_s; T)

The shadow head reads feature maps of a trained, frozen teacher and stands in for it: it
imitates the teacher, adapts to the student, and is the only one the student listens to.
n brings logits to mean 0 and standard deviation `scale` over the classes. Spaced: the
lead trains the head against the frozen student, the replay the student against the
frozen head. Source: Li, Jin, "Shadow Knowledge Distillation: Bridging Offline and
Online Knowledge Transfer", NeurIPS 2022, as released (github.com/lliai/SHAKE,
shake/models/util.py class Shake, shake/helper/loops.py, shake/scripts: T = 4, T^2, KL,
scale 3.1415, all weights 1, no soft loss from the teacher itself). w is 1 there; the
paper has no such term (its issue #1; the label's arrow of its poster).

Ours: any number of maps, where the released head reads those of the first three stages;
a classifier of its own, where the released one borrows the teacher's. Fields of the
config: `shake_*`, `temperature` (give 4), `soft_loss`, `label_smoothing`.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from spaced_kd import losses, state
from spaced_kd.config import MethodConfig
from spaced_kd.conv import Conv
from spaced_kd.errors import ConfigError
from spaced_kd.layers import BatchNorm, Dense, pooled
from spaced_kd.methods.base import Method, Phase, Sizes, make_soft_loss, taught_logits
from spaced_kd.parallel import BatchAxis

_EPSILON = 1e-7
"""Of the variance of logits (released loops.py)."""


def standardized(logits: jax.Array, scale: float) -> jax.Array:
    """Return logits [b, C] with mean 0 and standard deviation `scale` over classes.

    scale 0: as they are. The deviation divides by C; where logits hardly differ
    (variance about 1e-7 or less) the result is smaller.
    """
    if not scale:
        return logits
    centred = logits - logits.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return scale * centred * lax.rsqrt(variance + _EPSILON)


class _Fuse(nn.Module):
    """A convolution, BatchNorm by the batch's own statistics, ReLU."""

    channels: int
    size: int
    stride: int
    axis: BatchAxis

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        x = Conv(self.channels, self.size, self.stride, "kaiming", name="conv")(x)
        return nn.relu(BatchNorm(self.axis, name="norm")(x, train=True, mask=mask))


class ShadowHead(nn.Module):
    """From the feature maps of a network to logits.

    x = map 1; x = down(x) + side(map k) for each deeper map; logits = linear(mean over
    the image of last(x)). down and last are 3x3 convolutions, side is 1x1, each with
    BatchNorm and ReLU; down has the stride from map to map. BatchNorm always uses the
    statistics of the (global) batch: the head sees no test images, and a frozen one
    that replays the batches it learned on reads them alike. Its running averages are
    a by-product (collection "batch_stats") that nobody reads.

    num_classes: C. axis: the devices that share the batch.
    """

    num_classes: int
    axis: BatchAxis = BatchAxis()

    @nn.compact
    def __call__(
        self, maps: Sequence[jax.Array], mask: jax.Array | None = None
    ) -> jax.Array:
        """Map feature maps to logits [b, num_classes] float32.

        Args:
          maps: [b, H_k, W_k, C_k] of any float type, from the shallowest to the
            deepest, H_k = ceil(H_{k-1} / stride) for some stride, W_k likewise.
          mask: [b] bool, False for padding, which no statistics count.

        Raises:
          ConfigError: maps whose sizes no stride explains.
        """
        x = maps[0]
        for number, deeper in enumerate(maps[1:], 2):
            channels = deeper.shape[-1]
            down = _Fuse(
                channels, 3, _stride(x, deeper), self.axis, name=f"down{number}"
            )
            side = _Fuse(channels, 1, 1, self.axis, name=f"side{number}")
            x = down(x, mask) + side(deeper, mask)
        x = _Fuse(x.shape[-1], 3, 1, self.axis, name="last")(x, mask)
        return Dense(self.num_classes, name="linear")(pooled(x))


def _stride(x: jax.Array, deeper: jax.Array) -> int:
    before, after = x.shape[1:3], deeper.shape[1:3]
    stride = -(-before[0] // after[0])
    if tuple(-(-size // stride) for size in before) != tuple(after):
        raise ConfigError(
            f"student.method='shake' cannot bring the teacher's feature maps of "
            f"{before[0]}x{before[1]} to {after[0]}x{after[1]}: no stride does; give "
            "a teacher whose maps shrink by whole factors (resnet18, small_cnn)."
        )
    return stride


def make_losses(config: MethodConfig, axis: BatchAxis) -> tuple[Callable, Callable]:
    """Return the losses of the shadow head and of the student, each for one learner.

    head_loss(shadow_logits, student, teacher, batch) -> (scalar, its parts): no
    gradient reaches the student.
    student_loss(shadow_logits, student, batch) -> (scalar, its parts): none reaches the
    shadow head. Each scalar is the plain sum of its parts, means over the global batch.

    Raises:
      ConfigError: unknown soft loss.
    """
    soft_fn = make_soft_loss(config)
    normal = lambda logits: standardized(logits, config.shake_scale)
    hard_fn = lambda z, y: losses.cross_entropy(normal(z), y, config.label_smoothing)

    def reduced(parts, batch):
        means = {k: losses.batch_mean(v, batch.mask, axis) for k, v in parts.items()}
        return sum(means.values()), means

    def head_loss(shadow, student, teacher, batch):
        own, target = normal(shadow), normal(teacher.logits)
        reverse = lax.stop_gradient(normal(taught_logits(student)))
        parts = {
            "shadow_hard_loss": config.shake_hard_weight * hard_fn(shadow, batch.label),
            "shadow_teacher_loss": losses.mean_squared_error(own, target),
            "shadow_student_loss": soft_fn(own, reverse),
        }
        return reduced(parts, batch)

    def student_loss(shadow, student, batch):
        target = lax.stop_gradient(normal(shadow))
        parts = {
            "hard_loss": hard_fn(student.logits, batch.label),
            "soft_loss": soft_fn(normal(taught_logits(student)), target),
        }
        return reduced(parts, batch)

    return head_loss, student_loss


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method, for a teacher that comes trained and stays as it is.

    Of its metrics, hard_loss and soft_loss are the student's, shadow_hard_loss,
    shadow_teacher_loss and shadow_student_loss the shadow head's, as they enter the
    sum; in an update of one of both only its own are there.

    Raises:
      ConfigError: unknown soft loss, or (from init) a teacher whose feature maps no
        stride explains.
    """
    head_loss, student_loss = make_losses(config, axis)

    def init(key, student, teacher):
        del student
        # Outside of the devices' axis, where BatchNorm could not sum.
        head = ShadowHead(sizes.num_classes)
        return head.init(key, teacher.maps)["params"]

    def read(params, teacher, batch):
        head = ShadowHead(sizes.num_classes, axis)
        variables, kept = {"params": params}, ["batch_stats"]
        return head.apply(variables, teacher.maps, batch.mask, mutable=kept)[0]

    def lead(params, student, teacher, batch, now):
        del now
        return head_loss(read(params, teacher, batch), student, teacher, batch)

    def replay(params, student, teacher, batch, now):
        del now
        return student_loss(read(params, teacher, batch), student, batch)

    def both(params, student, teacher, batch, now):
        del now
        shadow = read(params, teacher, batch)
        first, first_parts = head_loss(shadow, student, teacher, batch)
        second, second_parts = student_loss(shadow, student, batch)
        return first + second, first_parts | second_parts

    learner = state.TRUNK, state.SOFT_HEAD
    return Method(
        init,
        both,
        needs_maps=True,
        lead=Phase(lead, (state.METHOD,)),
        replay=Phase(replay, learner),
    )
