r"""Table 8, DeiT-Tiny on ImageNet-1K: self KD, spaced self KD and their controls.

    python -m spaced_kd.main --config=configs/paper/table8_self_deit_imagenet.py \
        --workdir=runs/table8_self_deit_imagenet

The data: as for configs/imagenet.py.
Hardware: 8 GPUs; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s each (H100 class) gives about 23 hours for 3 seeds of six arms
(docs/recipes.md says how it is counted), in which the hosts would have to decode 50,000
images a second (1,049 passes over the data a seed: the stream is as long as
self_kd_double needs, and both spaced arms read their batches again); at 150 a second
and core, say, reading alone takes 467 hours on 16 cores. --config.num_seeds=1 takes a
third.
Expected accuracy (paper, Table 8; at 100 / 200 / 300 epochs of one run, no s.d. given):
self KD 58.81 / 66.37 / 72.39 (self_kd), spaced self KD 60.82 / 67.27 / 73.69 (spaced).
These are epochs of the stream, in which spaced makes twice the updates: its
evaluations, which count its own updates, have the paper's epoch e at about 2e. The
space interval is 1.5 epochs in this table, not 4.0 as in Table 2. The other arms are
not the paper's (docs/recipes.md).
No code is released for self KD of transformers: losses, alignment layers and loop are
our reading of paper 5.1, and `:released` means the choices of the released ResNets
(docs/recipes.md).

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import recipes
from spaced_kd.config import base_config


def get_config(variant: str = "released"):
    config = base_config()
    recipes.self_kd_transformer(config, "imagenet")
    config.student.model = "deit_tiny_branches"
    config.student.space_interval_epochs = 1.5
    config.students = recipes.self_kd_arms(config)
    recipes.follow(config, variant)
    return config
