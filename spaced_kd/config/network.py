"""Fields of one network: what its architecture's name leaves open, its optimiser."""

import dataclasses

from spaced_kd.fields import option


@dataclasses.dataclass(frozen=True)
class ArchConfig:
    """What an architecture's name leaves open; each family reads its own fields.

    A field that differs from its default and that the model does not have is an error.
    """

    stem: str = option(
        "cifar",
        "ResNets: cifar (3x3, no max-pool; released, at every image size) or imagenet "
        "(7x7 stride 2, max-pool)",
        choices=("cifar", "imagenet"),
    )
    param_factor: float = option(
        1.0,
        "ResNets: parameters as a multiple, channels int(64 sqrt(f)) (Tables 9, 10 as "
        "released)",
        above=0.0,
    )
    channel_multiple: float = option(
        1.0, "ResNets: channels as a multiple (the other reading of x2)", above=0.0
    )
    weight_init: str = option(
        "torch",
        "ResNets: torch (PyTorch's default; released online KD) or kaiming (normal, "
        "fan out; released self KD)",
        choices=("torch", "kaiming"),
    )
    branch: str = option(
        "separable",
        "ResNets with branches: separable (attention and separable convolutions; "
        "released self KD) or bottleneck (Be Your Own Teacher, ICCV 2019)",
        choices=("separable", "bottleneck"),
    )
    second_head: bool = option(
        False,
        "ResNets, small_cnn, mlp: a second head on the same features, which soft "
        "targets train and which evaluation mixes in (Kang et al. 2025)",
    )
    second_head_share: float = option(
        0.5,
        "second head: its share of the evaluated probabilities (1 - alpha there)",
        low=0.0,
        high=1.0,
    )
    second_head_temperature: float = option(
        0.5, "second head: softmax temperature in evaluation (beta there)", above=0.0
    )
    patch_size: int = option(
        16, "transformers: side of a patch, pixels (released: 16)", low=1
    )
    drop_path: float = option(
        0.1, "transformers: DropPath rate of the last block", low=0.0, high=1.0
    )
    depth_multiple: float = option(
        1.0,
        "transformers: blocks as a multiple, rounded, one in each stage at least",
        above=0.0,
    )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimiser of one network and its learning rate over time."""

    name: str = option("sgd", "optimiser, a key of spaced_kd.optim.OPTIMIZERS")
    learning_rate: float = option(
        0.01, "peak learning rate (paper 5.1: 0.01)", above=0.0
    )
    momentum: float = option(0.9, "SGD momentum (paper 5.1)", low=0.0, high=1.0)
    nesterov: bool = option(False, "Nesterov form of momentum")
    beta1: float = option(0.9, "AdamW: decay of the first moment", low=0.0, high=1.0)
    beta2: float = option(0.999, "AdamW: decay of the second moment", low=0.0, high=1.0)
    weight_decay: float = option(
        5e-4,
        "sgd: added to the gradient (coupled); adamw: decoupled (released: 0.05)",
        low=0.0,
    )
    sam_rho: float = option(
        0.0,
        "SAM (Foret et al., ICLR 2021): take the gradient this far uphill, a Euclidean "
        "distance (often 0.05), for a second pass at each update; 0: plain",
        low=0.0,
    )
    decay_on: str = option(
        "all",
        "what decays: all parameters (released ResNets), or matrices (released "
        "transformers: no 1-D tensors, no tokens, no position embeddings)",
        choices=("all", "matrices"),
    )
    schedule: str = option(
        "constant",
        "learning-rate schedule (paper 5.1: constant)",
        choices=("constant", "cosine"),
    )
    final_learning_rate: float = option(
        0.0, "where a cosine ends (released transformers: 5e-6)", low=0.0
    )
    warmup_epochs: float = option(
        0.0, "linear warm-up, epochs; the cosine counts from 0 all the same", low=0.0
    )
    warmup_learning_rate: float = option(
        0.0, "where warm-up starts (released transformers: 5e-7)", low=0.0
    )
    schedule_unit: str = option(
        "step",
        "the rate changes every step, or every epoch (released transformers)",
        choices=("step", "epoch"),
    )
    schedule_clock: str = option(
        "own",
        "whose updates the schedule counts: own, or teacher (released transformers: a "
        "replay runs at the teacher's current rate; self KD: at that of the batch the "
        "stream is at)",
        choices=("own", "teacher"),
    )
