"""Spaced self KD on handwritten digits: real images, no download, minutes on a CPU."""

from spaced_kd import recipes
from spaced_kd.config import base_config


def get_config(variant: str = ""):
    config = base_config()
    config.num_seeds = 5
    config.num_epochs = 56
    config.num_devices = 1  # too small to share
    config.chunk_steps = 5
    config.data.name = "digits"
    config.data.batch_size = 30
    config.data.crop_padding = 1
    config.data.horizontal_flip = False
    config.data.rotation_degrees = 15.0
    config.data.eval_batch_size = 500
    config.teacher.model = "none"
    config.student.model = "small_cnn_branches"
    config.student.method = "self_kd"
    config.reference = "self_kd,self_kd_double"
    config.students = recipes.self_kd_arms(config)
    if variant == "smoke":
        config.num_seeds = 2
        config.num_epochs = 8
        config.students = recipes.self_kd_arms(config)
    elif variant:
        raise ValueError(f"unknown variant '{variant}'; known: smoke")
    return config
