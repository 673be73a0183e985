"""Our networks answer what PyTorch's answer, with weights loaded by their names.

The other side was computed once by tests/torch_parity/make_fixtures.py with networks
written in PyTorch; here PyTorch is not needed. The largest difference allowed is 1e-4
of the largest value: the two sum in another order, through up to a hundred layers.
"""

import json
import pathlib

import jax
import numpy as np
import pytest
import tiny
from torch_parity import values
from torch_parity.cases import CASES, CLASSES, SLOW, thin

from spaced_kd.config import ArchConfig
from spaced_kd.models import MODELS, make_model
from spaced_kd.weights import import_torch, to_torch

FIXTURES = pathlib.Path(__file__).parent / "torch_parity" / "fixtures.npz"
PARAMETERS = [
    pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in CASES
]


@pytest.fixture(scope="module")
def answers():
    """Case -> name -> array; pickles in the file would be refused."""
    found: dict = {}
    with np.load(FIXTURES, allow_pickle=False) as file:
        for key in file:
            case, name = key.split("/")
            found.setdefault(case, {})[name] = file[key]
    return found


def test_every_registered_network_is_compared(monkeypatch, answers):
    for name in tiny.NETWORKS:
        monkeypatch.delitem(MODELS, name)
    assert {model for model, _, _ in CASES.values()} == set(MODELS)
    assert set(answers) == set(CASES)
    assert FIXTURES.stat().st_size < 200_000


@pytest.mark.parametrize("case", PARAMETERS)
def test_the_network_answers_as_pytorchs(case, answers):
    """Names, shapes, counts, and every layer's arithmetic, in eval and train mode."""
    name, image_shape, fields = CASES[case]
    expected = answers[case]
    shapes = json.loads(str(expected["shapes"]))
    tensors = values.weights(shapes)
    model = make_model(name, CLASSES, ArchConfig(**fields))
    variables = import_torch(tensors, model, image_shape)
    assert expected["count"] == sum(
        x.size for x in jax.tree.leaves(variables["params"])
    )
    for name, tensor in to_torch(variables, model).items():
        np.testing.assert_array_equal(tensor, tensors[name])
    images = values.images(image_shape)
    for mode in ("eval", "train") if "train_logits" in expected else ("eval",):
        run = jax.jit(
            lambda v, train=mode == "train": model.apply(
                v, images, train=train, mutable=["batch_stats"]
            )[0]
        )
        for field, ours in run(variables)._asdict().items():
            if ours is None:
                assert f"{mode}_{field}" not in expected
                continue
            ours = thin(ours) if field.endswith("features") else ours
            theirs = expected[f"{mode}_{field}"]
            error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
            print(f"{case} {mode} {field}: relative error {error:.1e}")
            assert error < 1e-4, (case, mode, field)
