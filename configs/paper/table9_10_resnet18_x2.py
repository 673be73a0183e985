r"""Tables 9 and 10, ResNet-18 x2 teaches ResNet-18 on CIFAR-100.

    python -m spaced_kd.main --config=configs/paper/table9_10_resnet18_x2.py \
        --workdir=runs/table9_10_resnet18_x2

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 0.7 hours for 3 seeds.
Expected accuracy (paper, Tables 9 and 10; best epoch on the test set, mean of 3, no
s.d. given): teacher 69.40, online 71.77, spaced 72.77, offline 72.53. The paper's
baseline is the teacher alone, which is this run's teacher; baseline here is the student
on the labels, 68.12 in Table 1.
x2 is read as in the released networks, 2 times the parameters: 90 channels, 22.2 M.
Table 9 says "width"; 2 times the channels, 128 (about 1 hours), is
--config.teacher.arch.param_factor=1 --config.teacher.arch.channel_multiple=2.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.teacher.arch.param_factor = 2.0
    config.students = arms.pair()
    config.reference = "online,offline"
    recipes.follow(config, variant)
    return config
