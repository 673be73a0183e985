"""Networks to be analysed, without a run: untrained, with statistics of their own."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from spaced_kd import data, experiment
from spaced_kd.analysis.subject import Run, Subject
from spaced_kd.config import to_dict
from spaced_kd.parallel import SeedGroup


def make_run(model="small_cnn", devices=1, **fields) -> Run:
    """A run of the students online and spaced and their teacher, on 8x8 images."""
    models = {"teacher__model": model, "student__model": model}
    config = tiny.config(**models | fields)
    parts = experiment.build(config, data.load(config.data))
    group = SeedGroup((0,), tuple(jax.devices()[:devices]))
    return Run(pathlib.Path("nowhere"), {"config": to_dict(config)}, parts, group)


def make_subject(run: Run, name="online", key=0) -> Subject:
    """A network of random weights and statistics, all of them far from 0 and 1."""
    random = np.random.default_rng(key)
    model, image = run.model(name), jnp.zeros((1, *run.dataset.image_shape))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    kernel = lambda x: random.normal(0, 2 / np.prod(x.shape[:-1]) ** 0.5, x.shape)
    other = lambda x: random.uniform(0.5, 1.5, x.shape)
    draw = lambda x: (kernel if x.ndim > 1 else other)(x).astype(np.float32)
    variables = {
        kind: jax.tree.map(draw, shapes.get(kind, {}))
        for kind in ("params", "batch_stats")
    }
    return Subject(run, name, 0, 1, variables, {}, None)


def scores_by_hand(subject: Subject, variables, split) -> tuple[float, float]:
    """Loss and accuracy in float64 from logits of one plain forward pass."""
    image = subject.run.prepare(jnp.asarray(split.image))
    logits = np.asarray(_forward(subject.model)(variables, image), np.float64)
    highest = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - highest).sum(-1)) + highest[:, 0]
    own = logits[np.arange(len(logits)), split.label]
    correct = (logits.argmax(-1) == split.label).mean()
    return float((log_sum - own).mean()), 100 * float(correct)


@functools.cache
def _forward(model):
    return jax.jit(lambda variables, x: model.apply(variables, x, train=False).logits)
