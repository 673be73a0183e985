"""Spaced self KD on handwritten digits: real images, no download, minutes on a CPU.

    python -m spaced_kd.main --config=configs/digits_self.py --workdir=runs/digits_self

A small CNN with an exit after each of its three convolutions is its own teacher; all
six arms of the comparison (docs/recipes.md). The deepest exit is quoted: the first
convolution alone recognises so little that an ensemble with it says less about the
network. The learning rate is 0.03, because at the 0.01 of configs/digits.py the
branches are far from trained when the deepest exit is; it was chosen on other seeds,
and on baseline and self_kd alone.
Hardware: 2 CPU cores, under 2 minutes. docs/recipes.md explains the arms, README.md has
the table.
Variants: `:smoke` (2 seeds, 8 epochs, a minute).
"""

from spaced_kd import recipes
from spaced_kd.config import base_config


def get_config(variant: str = ""):
    config = base_config()
    config.num_seeds = 5
    config.num_epochs = 56  # the interval divides all of them, and a half
    recipes.digits(config)
    recipes.own_teacher(config)
    config.student.model = "small_cnn_branches"
    config.student.quote = "deepest"
    config.student.optim.learning_rate = 0.03
    if variant == "smoke":
        config.num_seeds = 2
        config.num_epochs = 8
    elif variant:
        raise ValueError(f"unknown variant '{variant}'; known: smoke")
    config.students = recipes.self_kd_arms(config)
    return config
