"""A run of seconds: synthetic 8x8 images, an MLP or a small CNN, one or two seeds."""

import functools

from spaced_kd.config import Config, base_config, from_config_dict, student
from spaced_kd.methods.base import Sizes
from spaced_kd.models.mlp import MLP
from spaced_kd.models.small_cnn import SmallCNN


def config_dict(students=None, **fields):
    """Return a tiny ConfigDict; `fields` are dotted paths with '__' for the dots."""
    config = base_config()
    config.num_seeds = 1
    config.num_epochs = 3
    config.num_devices = 1
    config.chunk_steps = 4
    config.progress = "none"
    config.report = False  # takes longer than the run
    config.checkpoint.every_seconds = 0.0
    config.data.name = "fake"
    config.data.num_train_examples = 100
    config.data.num_test_examples = 40
    config.data.batch_size = 16
    config.data.eval_batch_size = 16
    # Without random numbers in the program it compiles in half the time.
    config.data.crop_padding = 0
    config.data.horizontal_flip = False
    config.data.rotation_degrees = 0.0
    config.teacher.model = "mlp"
    config.student.model = "mlp"
    config.teacher.optim.learning_rate = 0.05
    config.student.optim.learning_rate = 0.05
    config.students = students or {
        "online": student(plan="online"),
        "spaced": student(plan="spaced", space_interval_epochs=0.5),
    }
    for path, value in fields.items():
        node, *parts = config, *path.split("__")
        for part in parts[:-1]:
            node = node[part]
        node[parts[-1]] = value
    return config


NETWORKS = {
    "narrow_mlp": functools.partial(MLP, widths=(16,)),
    "tiny_cnn": functools.partial(SmallCNN, channels=(4, 4)),
    # A trunk of the same names: its baseline starts from the same weights.
    "tiny_branches": functools.partial(SmallCNN, channels=(4, 4, 4), branches=True),
}
SIZES = Sizes(
    updates=100,
    steps_per_epoch=10,
    batch_size=6,
    num_examples=60,
    num_classes=10,
    image_shape=(8, 8, 3),
)
"""For a method on its own."""

SELF_KD = {
    "teacher__model": "none",
    "student__model": "tiny_branches",
    "student__method": "self_kd",
}
AUGMENT = {
    "data__crop_padding": 1,
    "data__horizontal_flip": True,
    "data__rotation_degrees": 15.0,
}


def config(students=None, **fields) -> Config:
    """Return the resolved form of `config_dict`."""
    return from_config_dict(config_dict(students, **fields))
