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
# # Spacing around your own data, network and method
#
# Nothing in the package is edited: `spaced_kd.register` gives your things a name, and configs say the name.

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
# ## Data: two pairs of arrays
#
# `uint8` images `[N, H, W]` or `[N, H, W, C]`, integer labels 0 to C-1. Here: bars, upright or level, or a cross, at a random place
# in noise. Data too large for memory: `register.dataset("name", load)`.

# %%
import numpy as np

from spaced_kd import register


def draw(seed, count, side=12):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 110, (count, side, side), dtype=np.uint8)
    labels = np.arange(count) % 3
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(0, side, 2)
        if label != 0:
            image[row] += 70
        if label != 1:
            image[:, column] += 70
    return images, labels


register.arrays("bars", train=draw(0, 240), test=draw(1, 300))

# %% [markdown]
# ## A network
#
# A flax module that returns logits and the features below them. `spaced_kd.conv.Conv` and `spaced_kd.layers.BatchNorm` are the package's:
# fast inside compiled loops, also on a CPU, and right with padding and with several devices.

# %%
import flax.linen as nn

from spaced_kd.conv import Conv
from spaced_kd.layers import BatchNorm, Dense, pooled
from spaced_kd.models.base import Model
from spaced_kd.types import ModelOutput


class TwoConvs(Model):
    width: int = 8

    @nn.compact
    def __call__(self, image, *, train, mask=None):
        x = image.astype(self.dtype)
        for stride in (1, 2):
            x = Conv(self.width, stride=stride)(x)
            x = nn.relu(BatchNorm(self.axis)(x, train=train, mask=mask))
        features = pooled(x)
        return ModelOutput(Dense(self.num_classes)(features), features)


register.model("two_convs", TwoConvs, image_shape=(12, 12, 1))

# %% [markdown]
# ## A method
#
# Distillation from a teacher that is heard only where it is sure:
# loss = (1 − α) CE(z_s, y) + α mean_i [sure_i · soft(z_s, z_t; T)], where sure_i says whether the teacher gives its first class more than half.

# %%
import jax.numpy as jnp

from spaced_kd import losses
from spaced_kd.methods.base import Method, make_soft_loss, no_params


def make_sure_teacher(config, axis, sizes):
    soft_fn = make_soft_loss(config)  # which, and its temperature, as the config says

    def loss(params, student, teacher, batch, now):
        mean = lambda values: losses.batch_mean(values, batch.mask, axis)
        hard = mean(losses.cross_entropy(student.logits, batch.label))
        sure = (jax.nn.softmax(teacher.logits).max(-1) > 0.5).astype(jnp.float32)
        soft = mean(sure * soft_fn(student.logits, teacher.logits))
        total = (1 - config.kd_weight) * hard + config.kd_weight * soft
        return total, {"hard_loss": hard, "soft_loss": soft, "sure": mean(sure)}

    return Method(no_params, loss)


register.method("sure_teacher", make_sure_teacher)

# %% [markdown]
# ## Plain and spaced, and ordinary distillation beside them
#
# Resuming, reports and analyses work as for the package's own names.

# %%
import spaced_kd
from spaced_kd.config import base_config, student

config = base_config()
config.num_seeds = 1 if SMOKE else 3
config.num_epochs = 2 if SMOKE else 30
config.num_devices = 1  # too small to share
config.data.name = "bars"
config.data.batch_size = 40
config.data.crop_padding = 0
config.data.horizontal_flip = False
config.data.rotation_degrees = 0.0
config.teacher.model = config.student.model = "two_convs"
config.teacher.optim.learning_rate = config.student.optim.learning_rate = 0.05
config.students = {
    "kd": student(plan="online"),
    "online": student(plan="online", method="sure_teacher"),
    "spaced": student(
        plan="spaced",
        method="sure_teacher",
        space_interval_epochs=0.5 if SMOKE else 1.5,
    ),
}
workdir = "runs/own_smoke" if SMOKE else "runs/own"
results = spaced_kd.run(config, workdir)
results

# %% [markdown]
# How often the teacher was sure, as the run logged it:

# %%
import json
from pathlib import Path

rows = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").open()]
sure = [row["student/spaced/sure"] for row in rows if "student/spaced/sure" in row]
print(f"sure of {sure[0]:.0%} at first, of {sure[-1]:.0%} at last")

# %% [markdown]
# ## In other processes
#
# A notebook's names end with its kernel. For `python -m spaced_kd.main`, `analyze`, `export` and cluster jobs write the cells above
# into a module, say `my_things.py`, and name it in the config file: `config.imports = "my_things"`. Every process that opens the run
# imports it first, from the folder where it is started or from `PYTHONPATH`.
