"""A small version of the headline run for a laptop: ResNet-8 on a part of CIFAR-100.

    python -m spaced_kd.main --config=configs/cifar100_cpu.py --workdir=runs/small

3,000 training images (30 a class), 1,000 test images, 9 epochs, 5 seeds; 33 minutes of
one CPU core's time. It shows the machinery on real images; so short a run
says little about the method.
Variants: `:smoke` (a few steps).
"""

from spaced_kd.config import base_config, student


def get_config(variant: str = ""):
    config = base_config()
    config.num_seeds = 5
    config.num_epochs = 9
    config.num_devices = 1
    config.chunk_steps = 5
    config.data.num_train_examples = 3000
    config.data.num_test_examples = 1000
    config.data.batch_size = 60
    config.teacher.model = "resnet8"
    config.student.model = "resnet8"
    config.teacher.optim.learning_rate = 0.05
    config.student.optim.learning_rate = 0.05
    config.students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced_0_5": student(plan="spaced", space_interval_epochs=0.5),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
        "offline": student(plan="offline"),
    }
    if variant == "smoke":
        config.num_seeds = 1
        config.num_epochs = 2
        config.chunk_steps = 2
        config.data.num_train_examples = 250
        config.data.num_test_examples = 100
        config.data.eval_batch_size = 100
    elif variant:
        raise ValueError(f"unknown variant '{variant}'; known: smoke")
    return config
