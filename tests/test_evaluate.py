import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from spaced_kd import evaluate, metrics
from spaced_kd.data.augment import normalize
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.models import make_model
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import Predictions

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (23, 8, 8, 3)).astype(np.uint8)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
SPEC = AugmentSpec(4, True, 15.0, MEAN, STD, False)


@pytest.mark.parametrize(
    ("batch_size", "devices"),
    [(1, 1), (5, 1), (23, 1), (64, 1), (8, 2), (12, 4), (7, 4)],
)
def test_every_example_is_counted_once_whatever_the_batch(batch_size, devices):
    """A dropped or doubled last batch changes accuracies by a little, unnoticed."""
    model = make_model("tiny_cnn", 10)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
    expected = model.apply(variables, normalize(IMAGES, MEAN, STD), train=False).logits
    group = SeedGroup((0,), tuple(jax.devices()[:devices]))
    predict = evaluate.make_predict(model, group, 23, batch_size, SPEC)
    logits = predict(group.put(variables), group.put(IMAGES)).logits
    assert logits.shape == (23, 10)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


LOGITS = rng.normal(size=(40, 12)).astype(np.float32)
TEACHER = rng.normal(size=(40, 12)).astype(np.float32)
LABELS = rng.integers(0, 12, 40).astype(np.int32)


def test_measurements_equal_numpy():
    """Top-1, top-5, loss and the gap to the teacher against independent formulas."""
    got = evaluate.measure(
        Predictions(jnp.asarray(LOGITS)), jnp.asarray(LABELS), jnp.asarray(TEACHER)
    )
    order = np.argsort(-LOGITS, axis=1)
    p = scipy.special.softmax(TEACHER.astype(np.float64), axis=1)
    q = scipy.special.softmax(LOGITS.astype(np.float64), axis=1)
    expected = {
        "acc1": 100 * np.mean(order[:, 0] == LABELS),
        "acc5": 100 * np.mean((order[:, :5] == LABELS[:, None]).any(1)),
        "loss": -np.log(q[np.arange(40), LABELS]).mean(),
        "teacher_kl": np.mean(
            [scipy.stats.entropy(a, b) for a, b in zip(p, q, strict=True)]
        ),
        "teacher_agreement": 100 * np.mean(order[:, 0] == TEACHER.argmax(1)),
        "teacher_acc1": 100 * np.mean(TEACHER.argmax(1) == LABELS),
    }
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)


def _accuracy(logits):
    return 100 * np.mean(logits.argmax(-1) == LABELS)


BRANCHES = rng.normal(size=(40, 3, 12)).astype(np.float32)


@pytest.mark.parametrize("quote", ["deepest", "ensemble"])
def test_every_exit_and_the_ensemble_against_numpy(quote):
    """Branches come deepest first; the mean is of logits, not of probabilities."""
    found = Predictions(jnp.asarray(LOGITS), jnp.asarray(BRANCHES))
    got = evaluate.measure(found, jnp.asarray(LABELS), None, quote)
    mean = (LOGITS + BRANCHES.sum(1)) / 4
    exits = {"exit4": LOGITS, "ensemble": mean}
    exits |= {f"exit{3 - k}": BRANCHES[:, k] for k in range(3)}
    for name, logits in exits.items():
        np.testing.assert_allclose(got[f"{name}/acc1"], _accuracy(logits), rtol=1e-6)
        p = scipy.special.softmax(logits.astype(np.float64), axis=1)
        loss = -np.log(p[np.arange(40), LABELS]).mean()
        np.testing.assert_allclose(got[f"{name}/loss"], loss, rtol=1e-5)
    deepest = scipy.special.softmax(LOGITS.astype(np.float64), axis=1)
    for place, name in enumerate(["exit3", "exit2", "exit1"]):
        own = scipy.special.softmax(BRANCHES[:, place].astype(np.float64), axis=1)
        kl = np.mean(
            [scipy.stats.entropy(a, b) for a, b in zip(deepest, own, strict=True)]
        )
        np.testing.assert_allclose(got[f"{name}/deepest_kl"], kl, rtol=1e-5)
        same = 100 * np.mean(BRANCHES[:, place].argmax(1) == LOGITS.argmax(1))
        np.testing.assert_allclose(got[f"{name}/deepest_agreement"], same, rtol=1e-6)
    shown = mean if quote == "ensemble" else LOGITS
    np.testing.assert_allclose(got["acc1"], _accuracy(shown), rtol=1e-6)
    name = "ensemble" if quote == "ensemble" else "exit4"
    assert got["loss"] == got[f"{name}/loss"] and got["exit4/loss"] != got["exit3/loss"]
    assert len(got) == 3 + 2 * 5 + 2 * 3


def test_the_teacher_has_no_gap_to_itself():
    alone = evaluate.measure(
        Predictions(jnp.asarray(LOGITS)), jnp.asarray(LABELS), None
    )
    assert set(alone) == {"acc1", "acc5", "loss"}


def test_a_network_that_answers_the_same_for_all_classes_is_wrong():
    """Counting ties as hits would give a collapsed network 100 %."""
    for value in (0.0, jnp.nan):
        same = jnp.full((4, 12), value)
        assert not metrics.is_correct(same, jnp.arange(4)).any()
        assert not metrics.is_correct(same, jnp.arange(4), k=5).any()


def test_compiled_measurements_equal_eager_ones():
    """jaxlib 0.10 computes some small reductions wrongly when compiled on CPU."""
    big = [rng.normal(size=(2000, 100)).astype(np.float32) for _ in range(2)]
    labels = rng.integers(0, 100, 2000).astype(np.int32)
    compiled = evaluate.measure(Predictions(big[0]), labels, big[1])
    with jax.disable_jit():
        eager = evaluate.measure(
            Predictions(jnp.asarray(big[0])), jnp.asarray(labels), jnp.asarray(big[1])
        )
    for name, value in eager.items():
        np.testing.assert_allclose(compiled[name], value, rtol=1e-5, err_msg=name)
