"""ResNet-18 teaches ResNet-18 on ImageNet-1K (Table 7), images streamed from disk.

    python -m spaced_kd.main --config=configs/imagenet.py --workdir=runs/imagenet

The data: ImageNet-1K prepared by TFDS (array_record), or folders or tars of its
classes, under $TFDS_DATA_DIR or `config.data.dir`.
Deviation: the ImageNet stem (1.8 GMAC an image). With the released CIFAR stem a run
takes 27 GMAC an image at 224 pixels, 15 times as much. Hardware: 8 GPUs; not measured
yet. With --config.compute_dtype=bfloat16, arithmetic at a sustained 120 TFLOP/s each
(H100 class) gives about 4 hours for 3 seeds, for which the hosts would have to decode
43,000 images a second (3 seeds, each image read by the teacher and again by the
replay); at 150 a second and core, say, reading alone takes 70 hours on 16 cores.
Expected accuracy (paper, Table 7; at 20 / 40 / 60 / 80 epochs of one run, no s.d.
given): online 44.35 / 45.94 / 46.62 / 48.59, spaced 49.28 / 51.35 / 52.36 / 53.67.

Variants: `:paper` and `:recommended` (whom to follow, see `config.compat`), `:smoke`
(synthetic images, a small network, a minute).
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "imagenet")
    config.teacher.arch.stem = config.student.arch.stem = "imagenet"
    config.students = {
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    recipes.follow(config, variant)
    return config
