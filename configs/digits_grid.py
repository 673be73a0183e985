r"""A grid of learning rates, or batch sizes, on handwritten digits: minutes on a CPU.

    python -m spaced_kd.grid --config=configs/digits_grid.py:learning_rate \
        --workdir=runs/digits_learning_rate
    python -m spaced_kd.grid --config=configs/digits_grid.py:batch_size \
        --workdir=runs/digits_batch_size

Paper Figure 5 in small: the images and networks of configs/digits.py, 3 seeds of online
KD and of 1.5 epochs of space in every cell. Why batch sizes are hard to compare is said
in configs/paper/figure5.py.
Hardware: 2 CPU cores; 8 and 15 minutes beside other programs, not measured alone.
Variants: `:learning_rate` (default), `:batch_size`, `:smoke` (seconds).
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student
from spaced_kd.grid import cells

NOTE = "Digits are not the paper's data: its claims about Figure 5 need not hold here."


def base():
    config = base_config()
    config.num_epochs = 60
    recipes.digits(config)
    config.teacher.model = config.student.model = "small_cnn"
    config.students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    return config


def get_config(variant: str = "learning_rate"):
    config = base()
    if variant == "learning_rate":
        return cells.learning_rates(config, (0.001, 0.005, 0.01, 0.05, 0.1), NOTE)
    if variant == "batch_size":
        return cells.batch_sizes(config, (10, 20, 30, 60, 100), NOTE)
    if variant == "smoke":
        config.num_seeds = 1
        config.num_epochs = 3
        return cells.learning_rates(config, (0.01, 0.1), NOTE)
    raise ValueError(
        f"unknown variant '{variant}'; known: learning_rate, batch_size, smoke"
    )
