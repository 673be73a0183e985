r"""Figure 5, ResNet-18 on CIFAR-100: does spacing help at other rates and batch sizes?

    python -m spaced_kd.grid --config=configs/paper/figure5.py:learning_rate \
        --workdir=runs/figure5_learning_rate
    python -m spaced_kd.grid --config=configs/paper/figure5.py:batch_size \
        --workdir=runs/figure5_batch_size

Hardware: one GPU; not measured yet. With --config.base.compute_dtype=bfloat16,
arithmetic at a sustained 120 TFLOP/s (H100 class) gives about 2 hours for 3 seeds of
either grid: five runs of the size of Table 1's.
Expected accuracy (paper, Table 1; best epoch on the test set, mean of 3, no s.d.
given), in the cells 0.01 and 128, which are that run: baseline 68.12, online 71.05,
spaced 72.43. The figure is a drawing whose numbers the text does not have, nor the
values along its axes, which are our choice. The text claims that spaced is above online
at all learning rates, and that spacing is an advantage at batches larger than 64.

The learning rate is the teacher's and the students'; it is not rescaled with the batch.
The interval is 1.5 epochs in every cell, so that its steps change with the batches of
an epoch: 2,344 at 32 examples, 147 at 512.
What grows with the batch besides: the default feature loss, `dist`, is the Euclidean
norm of the whole batch's difference, whereas the cross-entropy is a mean. Against it
the features weigh as sqrt(batch): half as much at 32 as at 128, twice as much at 512.
--config.base.student.feature_weight=0 leaves them out.

Variants: `:learning_rate` (default), `:batch_size`, `:smoke`. Whom to follow:
--config.base.compat=released (as here), paper, recommended.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student
from spaced_kd.grid import cells

RATES = (0.001, 0.005, 0.01, 0.05, 0.1)
SIZES = (32, 64, 128, 256, 512)
NO_NUMBERS = "The paper gives no numbers for Figure 5. It claims that "


def base():
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.teacher.model = config.student.model = "resnet18"
    config.students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    return config


def get_config(variant: str = "learning_rate"):
    config = base()
    recipes.follow(config, "smoke" if variant == "smoke" else "released")
    if variant == "learning_rate":
        claim = "spaced is above online at all learning rates."
        return cells.learning_rates(config, RATES, NO_NUMBERS + claim)
    if variant == "batch_size":
        claim = "spacing is an advantage at batches larger than 64."
        return cells.batch_sizes(config, SIZES, NO_NUMBERS + claim)
    if variant == "smoke":
        return cells.learning_rates(config, (0.01, 0.1), "Synthetic images.")
    raise ValueError(
        f"unknown variant '{variant}'; known: learning_rate, batch_size, smoke"
    )
