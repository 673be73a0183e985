# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     provenance: []
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Spaced knowledge distillation: a first comparison
#
# A teacher trains on a stream of batches. In **online** distillation the student learns from it at every batch, while it
# is still changing. **Spaced**, the teacher first goes an interval ahead and stops; then the student replays the very
# same batches, with the same augmentation, against the teacher as it stands. Then the next interval begins. The idea is
# from Sun et al., ["Right Time to Learn"](https://arxiv.org/abs/2502.06192), ICML 2025. Here, all students share one
# teacher and its batches, so that every difference is paired.

# %%
# Installs the package where it is missing. A JAX that fits, as Colab's, stays as it is.
import importlib.util
import os
import subprocess
import sys

SOURCE = ""  # git+https://... of the package, or file:///... of a checkout
EXTRA = ""  # where JAX itself is missing or too old: "[cuda12]" (GPU) or "[tpu]"
SMOKE = bool(os.environ.get("SPACED_KD_SMOKE"))  # tests run this notebook in seconds

if importlib.util.find_spec("spaced_kd") is None:
    assert SOURCE, "Say in SOURCE, above, where the package comes from."
    wanted = f"spaced_kd{EXTRA} @ {SOURCE}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", wanted], check=True)

# %%
# "cpu" on a machine with a GPU or TPU: set EXTRA above, and restart the kernel.
# On a TPU of several cores set, below, config.num_devices = 0 (all of them),
# config.data.batch_size = 128 or more, and config.compute_dtype = "bfloat16".
import jax

for device in jax.devices():
    print(device.platform, device.device_kind)

# %% [markdown]
# ## The comparison
#
# Real handwritten digits that need no download: 300 train, 1,497 test.

# %%
import spaced_kd
from spaced_kd import recipes
from spaced_kd.config import base_config, student

config = base_config()
recipes.digits(config)
config.num_seeds = 1 if SMOKE else 3
config.num_epochs = 2 if SMOKE else 60
config.teacher.model = config.student.model = "mlp" if SMOKE else "small_cnn"
config.students = {
    "baseline": student(plan="none"),
    "online": student(plan="online"),
    "spaced": student(plan="spaced", space_interval_epochs=0.5 if SMOKE else 1.5),
    "offline": student(plan="offline"),
}
workdir = "runs/quickstart_smoke" if SMOKE else "runs/quickstart"

# %% [markdown]
# Stop the next cell whenever you like ("interrupt"): it saves and says so in one line. Run it again, and it goes on from
# there; on a CPU the end has the very same bits.

# %%
results = spaced_kd.run(config, workdir)
results

# %% [markdown]
# *mean ± sample standard deviation over seeds*; the second table holds differences to `online`, paired by seed, with
# their 95 % t interval. On so small a run expect intervals that contain 0.
#
# ## The report
#
# One file, also for your colleagues: curves, the timeline of teacher and students, the whole configuration.

# %%
import html
from pathlib import Path

from IPython.display import HTML

page = html.escape((Path(workdir) / "report.html").read_text())
HTML(f'<div><iframe srcdoc="{page}" width="100%" height="600"></iframe></div>')

# %% [markdown]
# ## The paper's headline run
#
# ResNet-18, all of CIFAR-100, 80 epochs (paper: online 71.05, spaced 72.43 at 1.5 epochs). It needs a GPU, and nobody
# has run it with this package yet, so no time is given here. `doctor` loads the data, times a few steps of each
# student on your device and says how long the whole will take:
#
# ```
# !python -m spaced_kd.doctor --config=configs/cifar100.py
# !python -m spaced_kd.main --config=configs/cifar100.py --workdir=/content/drive/MyDrive/cifar100
# ```
#
# A workdir on Google Drive outlives the machine: the same command continues. `configs/` is in a checkout of the package.
