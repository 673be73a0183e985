"""The examples of docs/add_a_model.md and docs/add_a_dataset.md run as printed."""

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from spaced_kd import data, experiment
from spaced_kd.config import ArchConfig, DataConfig, base_config, student
from spaced_kd.engine import Engine
from spaced_kd.errors import DataError
from spaced_kd.models import MODELS, make_model
from spaced_kd.schedule import Evaluate

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def _example(document, table, attribute, monkeypatch):
    """Register what the document's file defines under the line it tells to write."""
    text = (DOCS / document).read_text()
    code, fields = re.findall(r"```python\n(.*?)```", text, re.S)
    line = re.search(r'`"(\w+)": (\w+)\.(\w+),`', text)
    assert line and line[1] == line[2] and line[3] == attribute
    scope: dict = {"__name__": line[1]}
    exec(code, scope)
    monkeypatch.setitem(table, line[1], scope[attribute])
    exec(fields, {"config": base_config()})
    assert line[1] in fields
    return line[1]


@pytest.fixture
def network(monkeypatch):
    return _example("add_a_model.md", MODELS, "PatchNet", monkeypatch)


def _init(model, image):
    return jax.jit(functools.partial(model.init, train=False))(jax.random.key(1), image)


def test_the_network_is_what_the_text_says(network):
    """Parameters by its definition; the answer does not depend on padding."""
    model = make_model(network, 10, ArchConfig(patch_size=4))
    image = jax.random.normal(jax.random.key(0), (6, 8, 12, 3))
    variables = _init(model, image)
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    embedding, head = (4 * 4 * 3 + 1) * 64, (64 + 1) * 10
    assert count == embedding + 2 * (2 * 64 + (64 + 1) * 64) + head

    @jax.jit
    def train(rows, mask):
        return model.apply(
            variables, rows, train=True, mask=mask, mutable=["batch_stats"]
        )

    real, _ = train(image, None)
    padded, _ = train(jnp.concatenate([image, image[:2] * 9]), jnp.arange(8) < 6)
    np.testing.assert_allclose(padded.logits[:6], real.logits, atol=1e-5)


def test_the_network_reads_patches(network):
    """Moving pixels within a patch and moving whole patches are different things."""
    model = make_model(network, 10, ArchConfig(patch_size=4))
    image = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    variables = _init(model, image)
    answer = jax.jit(lambda x: model.apply(variables, x, train=False).logits)
    swapped = jnp.concatenate([image[:, :, 4:], image[:, :, :4]], axis=2)
    np.testing.assert_allclose(answer(swapped), answer(image), atol=1e-5)
    assert jnp.abs(answer(jnp.roll(image, 1, axis=1)) - answer(image)).max() > 1e-3


def test_the_network_trains_with_spacing(network):
    students = {"spaced": student(plan="spaced", space_interval_epochs=0.5)}
    own = {"student__model": network, "student__arch__patch_size": 4}
    config = tiny.config(students, num_epochs=1, **own)
    parts = experiment.build(config, data.load(config.data))
    engine, states = Engine(parts), experiment.init_states(parts)
    start = jax.device_get(states[0]["spaced"].params)
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate):
            states, _ = engine.advance(states, tick)
    end = jax.device_get(states[0]["spaced"])
    assert end.step == parts.updates["spaced"] == 6
    moved = jax.tree.map(lambda a, b: np.any(a != b), start, end.params)
    assert all(jax.tree.leaves(moved))


@pytest.fixture
def dataset(monkeypatch):
    return _example("add_a_dataset.md", data.DATASETS, "load", monkeypatch)


def _arrays(order):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)
    label = np.arange(30) % 10
    train, test = order(np.arange(20)), order(np.arange(20, 30))
    names = {"train": train, "test": test}
    return {
        f"{which}_{what}": values[rows]
        for which, rows in names.items()
        for what, values in (("image", image), ("label", label))
    }


def test_the_data_set_is_the_same_whatever_the_order_of_its_file(dataset, tmp_path):
    """The same seed would mean another run on another machine."""
    found = []
    for name, order in (("a", lambda x: x), ("b", lambda x: x[::-1])):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "my_images.npz", **_arrays(order))
        found.append(data.load(DataConfig(name=dataset, dir=str(tmp_path / name))))
    first, second = found
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first.train.image, second.train.image)
    expected = _arrays(lambda x: x)
    pairs = zip(expected["train_image"], expected["train_label"], strict=True)
    wanted = sorted((image.tobytes(), int(label)) for image, label in pairs)
    shown = zip(first.train.image, first.train.label, strict=True)
    assert sorted((i.tobytes(), int(k)) for i, k in shown) == wanted


def test_a_file_that_is_missing_or_wrong_is_told(dataset, tmp_path):
    config = DataConfig(name=dataset, dir=str(tmp_path))
    with pytest.raises(DataError, match=r"my_images\.npz cannot be read: No such file"):
        data.load(config)
    np.savez(tmp_path / "my_images.npz", train_image=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"my_images\.npz is not what it should be"):
        data.load(config)
