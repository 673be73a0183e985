"""ResNet-18 teaches ResNet-18 on ImageNet-100 (Table 1), images streamed from disk.

    python -m spaced_kd.main --config=configs/imagenet100.py --workdir=runs/in100

The data: ImageNet-1K prepared by TFDS (array_record), or folders or tars of its
classes, under $TFDS_DATA_DIR or `config.data.dir`; the 100 classes are
spaced_kd/data/imagenet100.txt. The paper names neither the classes nor the recipe:
both are our reading (docs/recipes.md). The stem is CIFAR's, as in the released
networks: 27 GMAC an image. With --config.teacher.arch.stem=imagenet and
--config.student.arch.stem=imagenet it is 1.8. Hardware: one GPU; not measured yet. With
--config.compute_dtype=bfloat16, arithmetic at a sustained 120 TFLOP/s (H100 class)
gives about 50 hours for 3 seeds.
Expected accuracy (paper, Table 1; best epoch on the test set, mean of 3, no s.d.
given): baseline 77.82, online 78.73, spaced 80.39.

Variants: `:paper` and `:recommended` (whom to follow, see `config.compat`), `:smoke`
(synthetic images, a small network, a minute).
"""

from spaced_kd import recipes
from spaced_kd.config import base_config, student


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "imagenet100")
    config.students = {
        "baseline": student(plan="none"),
        "online": student(plan="online"),
        "spaced_1_5": student(plan="spaced", space_interval_epochs=1.5),
    }
    recipes.follow(config, variant)
    return config
