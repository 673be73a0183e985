"""Deep mutual learning: two networks that teach one another.

L_i = CE(z_i, y) + w soft(z_i, sg z_j; T)

for either of both and its peer j; sg cuts the gradient, so that each loss trains one
network alone. Plain, both learn every batch at once, from what the other is before this
update. Spaced, the peer takes the interval's updates against the network as it stands,
then the network replays them against the peer as it stands (our form: the paper that
spaces it gives no more than that the student learns later; method D.4). The network's
accuracy is the one to report. Source: Zhang et al., "Deep Mutual Learning", CVPR 2018
(arXiv:1706.00384): KL at T = 1, w = 1; simultaneous updates as in the public
re-implementation for CIFAR (github.com/chxy95/Deep-Mutual-Learning,
trainer.py:197-219), where the paper's algorithm updates one after the other.

Fields of the config: `dml_weight`, `dml_peer`, `temperature` (give 1), `soft_loss`.
"""

from jax import lax

from spaced_kd import losses, state
from spaced_kd.config import MethodConfig
from spaced_kd.methods.base import Method, Phase, Sizes, make_soft_loss, no_params
from spaced_kd.parallel import BatchAxis


def make(config: MethodConfig, axis: BatchAxis, sizes: Sizes) -> Method:
    """Return the method, for a `models.pair.Pair`.

    Of its metrics, hard_loss and soft_loss are the network's, peer_hard_loss and
    peer_soft_loss the peer's; in an update of one network only its own are there.

    Raises:
      ConfigError: unknown soft loss.
    """
    del sizes
    soft_fn = make_soft_loss(config)

    def loss_of(logits, other, batch, prefix):
        hard = losses.cross_entropy(logits, batch.label, config.label_smoothing)
        hard_loss = losses.batch_mean(hard, batch.mask, axis)
        soft = soft_fn(logits, lax.stop_gradient(other))
        soft_loss = losses.batch_mean(soft, batch.mask, axis)
        parts = {f"{prefix}hard_loss": hard_loss, f"{prefix}soft_loss": soft_loss}
        return hard_loss + config.dml_weight * soft_loss, parts

    def own(params, student, teacher, batch, now):
        del params, teacher, now
        return loss_of(student.logits, student.branch_logits[:, 0], batch, "")

    def peer(params, student, teacher, batch, now):
        del params, teacher, now
        return loss_of(student.branch_logits[:, 0], student.logits, batch, "peer_")

    def both(*args):
        (first, first_parts), (second, second_parts) = own(*args), peer(*args)
        return first + second, first_parts | second_parts

    return Method(
        no_params,
        both,
        needs_teacher=False,
        trains=(state.TRUNK, state.PEER),
        lead=Phase(peer, (state.PEER,), needs_teacher=False),
        replay=Phase(own, (state.TRUNK,), needs_teacher=False),
    )
