"""The smallest run with a replay: one seed, two students, a checkpoint each tick."""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config():
    config = base_config()
    recipes.digits(config)
    config.num_seeds = 1
    config.num_epochs = 3
    config.teacher.model = config.student.model = "mlp"
    config.data.crop_padding = 0
    config.data.rotation_degrees = 0.0
    config.students = {
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    config.checkpoint.every_seconds = 0
    config.progress = "none"
    config.report = False
    return config
