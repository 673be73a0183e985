r"""Tables 9 and 10, ResNet-18 x4 teaches ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table9_10_resnet18_x4.py \
        --workdir=runs/table9_10_resnet18_x4

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 1 hours for 3 seeds.
Expected accuracy (paper, Tables 9 and 10; best epoch on the test set, mean of 3, no
s.d. given): teacher 70.75, online 72.17, spaced 73.11, offline 72.83. The paper's
baseline is the teacher alone, which is this run's teacher; baseline here is the student
on the labels, 68.12 in Table 1.
x4 is read as in the released networks, 4 times the parameters: 128 channels, 44.8 M.
Table 9 says "width"; 4 times the channels, 256 (about 2.8 hours), is
--config.teacher.arch.param_factor=1 --config.teacher.arch.channel_multiple=4.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.teacher.arch.param_factor = 4.0
    config.students = arms.pair()
    config.reference = "online,offline"
    recipes.follow(config, variant)
    return config
