"""Spaced KD on handwritten digits: real images, no download, minutes on a CPU.

    python -m spaced_kd.main --config=configs/digits.py --workdir=runs/digits

Hardware: 2 CPU cores, under 1 minute. With all data, digits saturate near 99 %; here
300 training images leave the students room to differ, on 1497 test images.
Variants: `:smoke` (seconds).
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = ""):
    config = base_config()
    config.num_seeds = 5
    config.num_epochs = 60
    recipes.digits(config)
    config.teacher.model = "small_cnn"
    config.student.model = "small_cnn"
    config.students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced_0_5": student(plan="spaced", space_interval_epochs=0.5),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
        "offline": student(plan="offline"),
    }
    if variant == "smoke":
        config.num_seeds = 2
        config.num_epochs = 3
    elif variant:
        raise ValueError(f"unknown variant '{variant}'; known: smoke")
    return config
