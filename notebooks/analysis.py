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
# # Why: analyses of a finished run
#
# Curvature, calibration, robustness to noise and the teacher's gap, for every student and the teacher.

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
# ## A small run

# %%
import spaced_kd
from spaced_kd import recipes
from spaced_kd.config import base_config, student

config = base_config()
recipes.digits(config)
config.num_seeds = 1 if SMOKE else 3
config.num_epochs = 2 if SMOKE else 40
config.teacher.model = config.student.model = "mlp" if SMOKE else "small_cnn"
config.students = {
    "online": student(plan="online"),
    "spaced": student(plan="spaced", space_interval_epochs=0.5 if SMOKE else 1.5),
}
workdir = "runs/analysis_smoke" if SMOKE else "runs/analysis"
spaced_kd.run(config, workdir)

# %% [markdown]
# ## Measure
#
# `analyze` adds to the run's `analysis.json`, `figures/` and report; what was measured of the same weights with the same options is
# not measured again. Any other run's workdir will do.

# %%
from spaced_kd.analyze import analyze

options = {"hessian": {"losses": "ce", "num_eigenvalues": 1, "density_probes": 1}}
if SMOKE:
    options["hessian"] |= {"num_examples": 20, "num_probes": 2, "depth": 3}
    options["noise"] = {"num_draws": 1, "relative": "0,0.1", "absolute": "0,0.1"}
    options["noise"] |= {"num_train_examples": 20, "num_test_examples": 20}
found = analyze(
    workdir, ["teacher_gap", "calibration", "hessian", "noise"], options=options
)

# %%
from pathlib import Path

from IPython.display import HTML, Image, display

from spaced_kd.report.analyses import table


def show(name, figure):
    measured = table(name, found[name])
    display(HTML(measured.html() if measured else "Nothing was measured."))
    display(Image(Path(workdir) / "figures" / f"{figure}.png"))


# %% [markdown]
# ## The teacher's gap
#
# How far each student stands from the teacher that taught it last: in its answers (KL divergence, equal first choices), its features and
# its weights, and whether labels and teacher pull the student's weights the same way (cosine of the two gradients). The figure
# compares the teacher's answers with the students' on training and test images: where spacing widens the gap, it shows here.

# %%
show("teacher_gap", "teacher_gap_kl")

# %% [markdown]
# ## Calibration
#
# Whether a network is as often right as it is confident. Bars below the dashed line: more confident than right. ECE is the mean
# distance from that line; Brier score and negative log-likelihood also reward being right.

# %%
show("calibration", "calibration_reliability")

# %% [markdown]
# ## Curvature
#
# Trace and largest eigenvalue of the loss's Hessian on training images, and the density of all its eigenvalues: many large ones mean a
# sharp minimum. The paper's explanation of spacing is a flatter one. That a flatter minimum generalises better is not a law: a network
# can be rescaled to any sharpness without changing what it computes (docs/theory.md).

# %%
show("hessian", "hessian_density_ce")

# %% [markdown]
# ## Noise on the weights
#
# The paper's Figure 4: accuracy and loss while Gaussian noise on all weights grows; a flat minimum loses them later. Relative noise is
# scaled to each tensor's weights, so that the mere size of weights decides less.

# %%
show("noise", "noise_relative_test")

# %% [markdown]
# Bands and "±" are sample standard deviations over seeds. Everything is in the report as well: `report.html` in the workdir.
