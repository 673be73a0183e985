"""Unlike pairs and second heads, each against its published formula in float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny

from spaced_kd import data, experiment, state, weights
from spaced_kd.config import ArchConfig, StudentConfig, student
from spaced_kd.errors import ConfigError
from spaced_kd.methods import make_method
from spaced_kd.methods.base import Now
from spaced_kd.methods.label_mix import label_distance
from spaced_kd.models import make_model
from spaced_kd.models.base import mixed_logits
from spaced_kd.parallel import BATCH_AXIS, BatchAxis
from spaced_kd.types import Batch, ModelOutput

rng = np.random.default_rng(0)
B, C = 6, 5
STUDENT, SECOND, TEACHER = (2 * rng.normal(size=(B, C)) for _ in range(3))
LABELS = np.array([0, 4, 2, 2, 1, 3], np.int32)
ALONE = BatchAxis()
IMAGES = jnp.asarray(rng.normal(size=(B, 8, 8, 3)), jnp.float32)


def _outputs(logits, second=None):
    logits = jnp.asarray(logits, jnp.float32)
    if second is not None:
        second = jnp.asarray(second, jnp.float32)
    return ModelOutput(logits, jnp.zeros((len(logits), 3)), second)


def _batch(padding=0):
    labels = jnp.asarray(np.pad(LABELS, (0, padding)))
    mask = jnp.arange(B + padding) < B if padding else None
    return Batch(jnp.zeros((B + padding, 1, 1, 1)), labels, mask)


def _method(name, axis=ALONE, **fields):
    defaults = {"soft_loss": "kl", "temperature_squared": "no"}
    return make_method(
        StudentConfig(method=name, **defaults | fields), axis, tiny.SIZES
    )


def _loss(name, padding=0, **fields):
    """The loss and its parts of a network with two heads; padding must not matter."""
    junk = np.full((padding, C), 9.0)
    first, second, teacher = (
        np.concatenate([x, junk]) for x in (STUDENT, SECOND, TEACHER)
    )
    pair = _outputs(first, second), _outputs(teacher)
    return _method(name, **fields).loss({}, *pair, _batch(padding), Now(0))


HEADED = {
    "mlp": lambda arch: make_model("narrow_mlp", C, arch),
    "small_cnn": lambda arch: make_model("tiny_cnn", C, arch),
    "small_cnn_branches": lambda arch: make_model("tiny_branches", C, arch),
    "resnet": lambda arch: make_model("resnet8", C, arch).clone(
        base_width=2, blocks=(1,)
    ),
    "resnet_branches": lambda arch: make_model("resnet18_branches", C, arch).clone(
        base_width=1, blocks=(1, 1, 1, 1), branch="bottleneck"
    ),
}
FIRST_HEAD = {"mlp": "Dense_1", "small_cnn": "Dense_0", "resnet": "head"}


@functools.cache
def _headed(name, **fields):
    model = HEADED[name](ArchConfig(**fields))
    init = lambda: model.init(jax.random.key(0), IMAGES, train=False)
    return model, jax.jit(init)()


def _run(model, variables, train):
    return model.apply(variables, IMAGES, train=train, mutable=["batch_stats"])[0]


@pytest.mark.parametrize("name", FIRST_HEAD)
def test_a_second_head_reads_the_same_features_and_is_mixed_in_afterwards(name):
    """Linear in training; the published mixture of probabilities in evaluation."""
    fields = {"second_head_share": 0.3, "second_head_temperature": 2.0}
    model, variables = _headed(name, second_head=True, **fields)
    run = jax.jit(functools.partial(_run, model), static_argnums=1)

    def read(outputs, head):
        layer = jax.tree.map(np.float64, variables["params"][head])
        return np.float64(outputs.features) @ layer["kernel"] + layer["bias"]

    trained, tested = run(variables, True), run(variables, False)
    np.testing.assert_allclose(
        trained.soft_logits, read(trained, "head_dist"), atol=1e-5
    )
    np.testing.assert_allclose(
        trained.logits, read(trained, FIRST_HEAD[name]), atol=1e-5
    )
    first = scipy.special.softmax(read(tested, FIRST_HEAD[name]), axis=1)
    second = scipy.special.softmax(read(tested, "head_dist") / 2, axis=1)
    found = scipy.special.softmax(tested.logits, axis=1)
    np.testing.assert_allclose(found, 0.7 * first + 0.3 * second, rtol=1e-4)


@pytest.mark.parametrize("name", HEADED)
def test_a_second_head_speaks_in_training_alone(name):
    """Also in a network with branches, which keeps them."""
    model, variables = _headed(name, second_head=True)
    trained, tested = (
        jax.eval_shape(functools.partial(_run, model, train=train), variables)
        for train in (True, False)
    )
    assert trained.soft_logits.shape == (B, C) and tested.soft_logits is None
    assert (tested.branch_logits is not None) == name.endswith("_branches")


@pytest.mark.parametrize("name", HEADED)
def test_without_asking_there_is_one_head_and_the_rest_starts_alike(name):
    """What existed is untouched: names, and initial values for one key."""
    one, two = _headed(name)[1], _headed(name, second_head=True)[1]
    rest = {k: v for k, v in two["params"].items() if k != "head_dist"}
    chex.assert_trees_all_equal(one["params"], rest)
    parts = state.part_labels({"net": two["params"], "method": {}})["net"]
    assert set(parts["head_dist"].values()) == {state.SOFT_HEAD}


@pytest.mark.parametrize(("share", "alone"), [(0.0, STUDENT), (1.0, SECOND / 0.5)])
def test_all_of_one_head_is_that_head(share, alone):
    """At the ends of the range a probability's weight is 0, its logarithm infinite."""
    got = mixed_logits(jnp.asarray(STUDENT), jnp.asarray(SECOND), share, 0.5)
    np.testing.assert_allclose(got, scipy.special.log_softmax(alone, 1), rtol=1e-5)


def test_mixed_logits_keep_tiny_probabilities():
    """In logarithms throughout: exp(-200) has no float32."""
    got = mixed_logits(jnp.array([0.0, -200]), jnp.array([0.0, -200]), 0.5, 1.0)
    np.testing.assert_allclose(got, [0.0, -200], atol=1e-6)


def test_a_second_head_is_exported_with_the_network():
    """By its name, and comes back from it."""
    model, variables = _headed("resnet", second_head=True)
    tensors = weights.to_torch(variables, model)
    assert tensors["head_dist.weight"].shape == (C, 2)
    again = weights.import_torch(tensors, model, IMAGES.shape[1:])
    chex.assert_trees_all_equal(again, variables)


def _ce(logits):
    return -scipy.special.log_softmax(logits, axis=1)[np.arange(B), LABELS]


def test_dho_teaches_each_head_its_own():
    """0.5 CE of the first and 0.5 T^2 KL of the second, as released."""
    p, log_q = (
        scipy.special.softmax(TEACHER / 2, axis=1),
        scipy.special.log_softmax(SECOND / 2, axis=1),
    )
    divergence = 4 * (p * (np.log(p) - log_q)).sum(1).mean()
    fields = {"kd_weight": 0.5, "temperature": 2.0, "temperature_squared": "yes"}
    total, parts = _loss("dho", **fields)
    np.testing.assert_allclose(parts["soft_loss"], divergence, rtol=1e-6)
    expected = 0.5 * _ce(STUDENT).mean() + 0.5 * divergence
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_dho_needs_a_second_head():
    """Found before anything is compiled, with the student's name and what to do."""
    config = tiny.config({"s": student(method="dho")})
    with pytest.raises(ConfigError, match="students.s.arch.second_head=True"):
        experiment.build(config, data.load(config.data))
    config = tiny.config({"s": student(method="dho", arch={"second_head": True})})
    experiment.build(config, data.load(config.data))


def test_a_student_of_labels_alone_cannot_have_a_second_head():
    config = tiny.config({"s": student(plan="none", arch={"second_head": True})})
    with pytest.raises(ConfigError, match=r"arch\.second_head=False"):
        experiment.build(config, data.load(config.data))


def _distances(target):
    return ((scipy.special.softmax(STUDENT, axis=1) - target) ** 2).sum(1)


def test_label_mix_is_the_distance_to_the_mixed_target():
    """Up to a constant that only the teacher and the labels decide, by its gradient."""
    onehot, taught = np.eye(C)[LABELS], scipy.special.softmax(TEACHER, axis=1)
    method = _method("label_mix", kd_weight=0.4)

    def loss(logits):
        pair = _outputs(logits), _outputs(TEACHER)
        return method.loss({}, *pair, _batch(), Now(0))[0]

    value, slope = jax.jit(jax.value_and_grad(loss))(jnp.asarray(STUDENT, jnp.float32))
    p, target = scipy.special.softmax(STUDENT, axis=1), 0.6 * onehot + 0.4 * taught
    rest = 0.6 * 0.4 * ((onehot - taught) ** 2).sum(1)
    np.testing.assert_allclose(value, (_distances(target) + rest).mean(), rtol=1e-6)
    pull = 2 * (p - target) / B
    expected = p * (pull - (pull * p).sum(1, keepdims=True))
    np.testing.assert_allclose(slope, expected, atol=1e-7)


def test_label_mix_smooths_its_labels():
    smoothed = 0.8 * np.eye(C)[LABELS] + 0.2 / C
    got = label_distance(jnp.asarray(STUDENT), jnp.asarray(LABELS), 0.2)
    np.testing.assert_allclose(got, _distances(smoothed), rtol=1e-6)
    total, parts = _loss("label_mix", kd_weight=0.0, label_smoothing=0.2)
    np.testing.assert_allclose(parts["hard_loss"], got.mean(), rtol=1e-6)
    np.testing.assert_allclose(total, got.mean(), rtol=1e-6)


def test_label_mix_teaches_a_second_head_what_the_teacher_says():
    p, q = (scipy.special.softmax(x, axis=1) for x in (SECOND, TEACHER))
    total, _ = _loss("label_mix", kd_weight=1.0)
    np.testing.assert_allclose(total, ((p - q) ** 2).sum(1).mean(), rtol=1e-6)


COUPLED = ["dho", "label_mix"]


@pytest.mark.parametrize("name", COUPLED)
def test_padding_changes_nothing(name):
    np.testing.assert_allclose(_loss(name, 3)[0], _loss(name)[0], rtol=1e-6)


@pytest.mark.parametrize("name", COUPLED)
def test_the_number_of_devices_changes_nothing(name, padding=2):
    """Values, and gradients by the rule that each device's is D times its share."""
    size = B + padding
    junk = np.full((padding, C), 9.0)
    first, second, teacher = (
        jnp.asarray(np.concatenate([x, junk]), jnp.float32)
        for x in (STUDENT, SECOND, TEACHER)
    )

    def loss(axis, logits, teacher, batch):
        pair = _outputs(*logits), _outputs(teacher)
        return _method(name, axis).loss({}, *pair, batch, Now(3))[0]

    arguments = (first, second), teacher, _batch(padding)
    alone = jax.jit(jax.value_and_grad(functools.partial(loss, ALONE)))
    expected, slopes = alone(*arguments)
    halves = lambda x: x.reshape(2, size // 2, *x.shape[1:])
    shared = jax.pmap(
        jax.value_and_grad(functools.partial(loss, BatchAxis(BATCH_AXIS))),
        axis_name=BATCH_AXIS,
        devices=jax.devices()[:2],
    )
    values, grads = shared(*jax.tree.map(halves, arguments))
    np.testing.assert_allclose(values, [expected] * 2, rtol=1e-6)
    for found, slope in zip(grads, slopes, strict=True):
        np.testing.assert_allclose(found.reshape(size, C) / 2, slope, atol=1e-7)
