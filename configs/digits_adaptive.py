r"""Intervals that change along training, on handwritten digits, minutes on a CPU.

    python -m spaced_kd.reproduce adaptive --budget=small --seeds=10 \
        --workdir=runs/adaptive

makes the table of docs/adaptive.md; one seed alone is an ordinary run:

    python -m spaced_kd.main --config=configs/digits_adaptive.py --config.seed=3 \
        --workdir=runs/digits_adaptive_3

The images and networks of configs/digits.py. One seed a run, because feedback decides
by what that seed measures. Every student replays what is left at the end, so that all
make the same number of updates; each varying interval lies within the range of the
constant ones.
Hardware: 2 CPU cores; docs/adaptive.md has the times.
Variants: `:smoke` (seconds).
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = ""):
    config = base_config()
    config.num_seeds = 1
    config.num_epochs = 60
    config.eval_every_epochs = 10  # testing would take longer than training
    recipes.digits(config)
    config.teacher.model = "small_cnn"
    config.student.model = "small_cnn"
    config.student.remainder = "flush"
    config.student.gap_images = 100  # of 300: a look costs 7 passes over a batch
    config.reference = "online"
    if variant == "smoke":
        config.num_epochs = 4
        config.eval_every_epochs = 1
        config.students = arms.adaptive((0.5, 1.0, 2.0))
    elif variant:
        raise ValueError(f"unknown variant '{variant}'; known: smoke")
    else:
        config.students = arms.adaptive((0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0))
    return config
