"""Fields of the loss: what a network minimises."""

import dataclasses

from spaced_kd.config.names import AUTO
from spaced_kd.fields import option


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """What a network minimises; each method reads its own fields."""

    method: str = option("kd", "distillation loss, a key of spaced_kd.methods.METHODS")
    kd_weight: float = option(
        0.3,
        "alpha: weight of the soft loss; 1 - alpha on the labels (self KD: at each "
        "branch)",
        low=0.0,
        high=1.0,
    )
    feature_weight: float = option(
        0.03, "beta: weight of the feature loss (paper 5.1)", low=0.0
    )
    temperature: float = option(
        3.0, "softmax temperature of the soft loss (paper 5.1)", above=0.0
    )
    soft_loss: str = option(
        AUTO, "soft loss, a key of spaced_kd.losses.SOFT_LOSSES, or auto"
    )
    temperature_squared: str = option(
        AUTO,
        "multiply the soft loss by temperature^2 (Hinton et al. 2015): yes or no; a "
        "loss of raw logits (l1, smooth_l1, mse, mse_sum) has no temperature: never",
        choices=(AUTO, "yes", "no"),
    )
    feature_loss: str = option(
        "dist", "feature loss, a key of spaced_kd.losses.FEATURE_LOSSES (paper Table 3)"
    )
    label_smoothing: float = option(
        0.0,
        "share of the label's target that goes to all classes alike, in every loss on "
        "labels of this network (each exit's too)",
        low=0.0,
        high=1.0,
    )
    feature_branches: str = option(
        AUTO,
        "self KD: branches whose features are held against the deepest exit's: all, or "
        "not_deepest (all but the deepest branch, as released)",
        choices=(AUTO, "all", "not_deepest"),
    )
    branch_adaptor: str = option(
        "linear",
        "self KD: what maps a branch's features before that: linear (released), or "
        "none (for transformers, whose branches align them)",
        choices=("linear", "none"),
    )
    branch_reduction: str = option(
        "sum",
        "self KD: how the branches' losses add up: sum (paper Eq. 4), or mean_times_3, "
        "which gives any number of branches the weight of a ResNet's three",
        choices=("sum", "mean_times_3"),
    )
    ofa_weight: float = option(
        1.0, "ofa: weight of the exit branches' losses beside the logits'", low=0.0
    )
    ofa_gamma: float = option(
        1.0,
        "ofa: exponent that enhances the label in the target (released: 1 for "
        "CIFAR-100, 1.5 for ImageNet)",
        above=0.0,
    )
    nd_weight: float = option(
        1.0, "nd: weight of the norm-and-direction loss of the features", low=0.0
    )
    nd_window: int = option(
        500, "nd: examples of a class that the teacher's mean of it is taken of", low=1
    )
    diswot_relation: float = option(
        1.0,
        "diswot: weight of the similarities between examples, a mean over the batch",
        low=0.0,
    )
    diswot_semantic: float = option(
        1.0,
        "diswot: weight of the similarities between classes, a mean over the classes",
        low=0.0,
    )
    sinkd_weight: float = option(
        0.8, "sinkd: weight of the Sinkhorn distance, a mean over the batch", low=0.0
    )
    sinkd_regularization: float = option(
        0.1, "sinkd: lambda, how far the transport plan is blurred", above=0.0
    )
    sinkd_iterations: int = option(20, "sinkd: scalings of rows and columns", low=1)
    taid_start: float = option(
        0.4, "taid: the teacher's share of the target at first", low=0.0, high=1.0
    )
    taid_end: float = option(
        1.0, "taid: the teacher's share of the target at last", low=0.0, high=1.0
    )
    taid_adaptive: bool = option(
        False,
        "taid: let the teacher's share run ahead of its schedule while the loss falls",
    )
    taid_rate: float = option(
        5e-4, "taid, adaptive: how fast it may run ahead", low=0.0
    )
    taid_momentum: float = option(
        0.99, "taid, adaptive: of the loss's relative change", low=0.0, high=1.0
    )
    dlb_weight: float = option(
        1.0, "dlb: weight of what the last batch's logits teach", low=0.0
    )
    dml_weight: float = option(
        1.0, "dml: weight of what either network teaches the other", low=0.0
    )
    dml_peer: str = option(
        "",
        "dml: the peer's architecture, a key of spaced_kd.models.MODELS; empty: the "
        "network's own",
    )
    shake_scale: float = option(
        3.1415,
        "shake: standard deviation that all logits of the losses are brought to, over "
        "the classes, and their mean to 0; 0: logits as they are",
        low=0.0,
    )
    shake_hard_weight: float = option(
        1.0,
        "shake: weight of the shadow head's loss on labels (1: released; 0: paper)",
        low=0.0,
    )
    ps_kd_weight: float = option(
        0.8, "ps_kd: share of the network's own predictions at last", low=0.0, high=1.0
    )
