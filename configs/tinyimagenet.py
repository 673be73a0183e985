"""ResNet-18 teaches ResNet-18 on Tiny-ImageNet: the interval sweep of Table 6.

    python -m spaced_kd.main --config=configs/tinyimagenet.py --workdir=runs/tiny

The data: put tiny-imagenet-200.zip (http://cs231n.stanford.edu/tiny-imagenet-200.zip)
into $TFDS_DATA_DIR or `config.data.dir`; it is read in place.
Follows the released code where it differs from the paper (docs/deviations.md): 80
epochs, batch 128 (782 steps), SGD at a constant 0.01, no rotation. Hardware: one GPU;
not measured yet. With --config.compute_dtype=bfloat16, arithmetic at a sustained 120
TFLOP/s (H100 class) gives about 7 hours for 3 seeds.
Expected accuracy (paper, Table 6; best epoch on the test set, mean of 3, no s.d.
given): baseline 53.08, online 59.19, spaced 0.5 59.62, 1.0 59.68, 1.5 60.75, 2.0 59.52,
offline 59.34.

Variants: `:paper` and `:recommended` (whom to follow, see `config.compat`), `:smoke`
(synthetic images, a small network, a minute).
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "tiny_imagenet")
    config.students = arms.interval_sweep()
    recipes.follow(config, variant)
    return config
