"""docs/methods.md leaves nothing out, and the example of docs/add_a_method.md runs."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny

from spaced_kd import data, experiment, losses
from spaced_kd.config import StudentConfig, student
from spaced_kd.engine import Engine
from spaced_kd.methods import METHODS, make_method
from spaced_kd.methods.base import Now
from spaced_kd.parallel import BatchAxis
from spaced_kd.schedule import Evaluate
from spaced_kd.types import Batch, ModelOutput

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def test_every_method_has_its_section_and_command():
    text = (DOCS / "methods.md").read_text()
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", text, re.S | re.M))
    assert set(sections) == set(METHODS)
    for name, section in sections.items():
        assert f"[`{name}`](#{name})" in text
        assert "python -m spaced_kd.main" in section, name


def test_every_loss_is_described():
    section = (
        (DOCS / "methods.md").read_text().split("\n## `kd`\n")[1].split("\n## ")[0]
    )
    rows = re.findall(r"^\| `(\w+)` \|", section, re.M)
    assert sorted(rows) == sorted(losses.SOFT_LOSSES)
    for name in losses.FEATURE_LOSSES:
        assert f"`{name}`" in section


@pytest.fixture
def example(monkeypatch):
    """The file and the line of the document, taken literally."""
    text = (DOCS / "add_a_method.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)
    line = re.search(r'`"(\w+)": (\w+)\.make,`', text)
    assert code and line and len(code[1].splitlines()) <= 40
    scope: dict = {}
    exec(code[1], scope)
    monkeypatch.setitem(METHODS, line[1], scope["make"])
    return line[1]


def test_the_example_is_the_formula_above_it(example):
    rng = np.random.default_rng(0)
    z_s, z_t = rng.normal(size=(2, 6, 5)) * 2
    labels = np.where(np.arange(6) < 3, z_t.argmax(1), z_t.argmin(1))
    p, log_q = (
        scipy.special.softmax(z_t / 3, axis=1),
        scipy.special.log_softmax(z_s / 3, axis=1),
    )
    soft = (p * (np.log(p) - log_q)).sum(1) * (np.arange(6) < 3)
    hard = -scipy.special.log_softmax(z_s, axis=1)[np.arange(6), labels]
    config = StudentConfig(method=example, soft_loss="kl", temperature_squared="no")
    method = make_method(config, BatchAxis(), tiny.SIZES)
    outputs_of = lambda z: ModelOutput(jnp.asarray(z), jnp.zeros((6, 2)))
    batch = Batch(jnp.zeros((6, 1, 1, 1)), jnp.asarray(labels))
    total, parts = method.loss({}, outputs_of(z_s), outputs_of(z_t), batch, Now(0))
    np.testing.assert_allclose(total, (0.7 * hard + 0.3 * soft).mean(), rtol=1e-6)
    assert parts["right"] == 0.5


def test_the_example_trains_with_spacing(example):
    students = {"spaced": student(plan="spaced", space_interval_epochs=0.5)}
    config = tiny.config(students, student__method=example, num_epochs=1)
    parts = experiment.build(config, data.load(config.data))
    engine, states = Engine(parts), experiment.init_states(parts)
    start = jax.device_get(states[0]["spaced"].params)
    logged = set()
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate):
            states, measured = engine.advance(states, tick)
            logged |= measured[0].get("spaced", {}).keys()
    end = jax.device_get(states[0]["spaced"])
    assert end.step == parts.updates["spaced"] == 6
    moved = jax.tree.map(lambda a, b: np.any(a != b), start, end.params)
    assert all(jax.tree.leaves(moved))
    assert logged >= {"loss", "soft_loss", "right"}
