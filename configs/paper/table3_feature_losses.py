r"""Table 3, ResNet-18 on CIFAR-100: five feature losses, online and spaced.

    python -m spaced_kd.main --config=configs/paper/table3_feature_losses.py \
        --workdir=runs/table3_feature_losses

Hardware: one GPU; not measured yet. With --config.compute_dtype=bfloat16, arithmetic at
a sustained 120 TFLOP/s (H100 class) gives about 1.3 hours for 3 seeds of 11 students.
Expected accuracy (paper, Table 3; online / spaced; best epoch on the test set, mean of
3, no s.d. given): L1 69.54 / 69.30 (l1), smooth L1 68.96 / 69.45 (smooth_l1), MSE mean
69.34 / 69.45 (mse), MSE sum 71.05 / 72.43 (dist), cross-entropy 70.38 / 72.04 (ce). The
row MSE sum has Table 1's numbers of the default run, which is the Euclidean norm of the
whole batch's difference (dist).
The reading as released, where a flag swaps the feature loss; its coefficient stays
0.03, and the soft loss is the usual one. The other reading:
configs/paper/table3_logit_losses.py. The paper has no baseline; next to it shows which
losses do nothing. Left out is feature_loss="mse_sum", what the row's name says: at 0.03
it is 100 times the cross-entropy, and one student that diverges stops the run.

Variants: `:paper`, `:recommended` (whom to follow), `:smoke`.
"""

from spaced_kd import arms, recipes
from spaced_kd.config import base_config

LOSSES = ("l1", "smooth_l1", "mse", "dist", "ce")


def get_config(variant: str = "released"):
    config = base_config()
    recipes.cnn(config, "cifar100")
    config.students = arms.loss_swap("feature_loss", LOSSES)
    config.reference = ",".join(f"online_{loss}" for loss in LOSSES)
    recipes.follow(config, variant)
    return config
