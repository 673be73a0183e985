"""Unlike pairs and second heads, each against its published formula in float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import tiny
from jax.test_util import check_grads

from spaced_kd import data, experiment, state, weights
from spaced_kd.config import ArchConfig, StudentConfig, student
from spaced_kd.engine import Engine
from spaced_kd.errors import ConfigError
from spaced_kd.methods import make_method
from spaced_kd.methods.base import Now
from spaced_kd.methods.label_mix import label_distance
from spaced_kd.methods.ofa import ConvBranch, ExitBranches, TokenBranch, ofa_divergence
from spaced_kd.models import MODELS, deit, make_model
from spaced_kd.models.base import mixed_logits
from spaced_kd.parallel import BATCH_AXIS, BatchAxis
from spaced_kd.schedule import Evaluate
from spaced_kd.types import Batch, ModelOutput

rng = np.random.default_rng(0)
B, C = 6, 5
STUDENT, SECOND, TEACHER = (2 * rng.normal(size=(B, C)) for _ in range(3))
LABELS = np.array([0, 4, 2, 2, 1, 3], np.int32)
ALONE = BatchAxis()
IMAGES = jnp.asarray(rng.normal(size=(B, 8, 8, 3)), jnp.float32)


SHAPES = {
    "resnet": [(8, 8, 4), (4, 4, 8), (2, 2, 16)],
    "transformer": [(2, 2, 8)] * 3,
    "mlp": [(1, 1, 6), (1, 1, 5)],
    "small": [(4, 4, 3), (2, 2, 6)],
}


def _maps(name, count=B):
    r = np.random.default_rng(2)
    return tuple(
        jnp.asarray(r.normal(size=(count, *shape)), jnp.float32)
        for shape in SHAPES[name]
    )


def _outputs(logits, second=None, maps=()):
    logits = jnp.asarray(logits, jnp.float32)
    if second is not None:
        second = jnp.asarray(second, jnp.float32)
    return ModelOutput(logits, jnp.zeros((len(logits), 3)), second, maps=maps)


def _pair(padding=0):
    """Student and teacher, with numbers in the padding that must not matter."""
    junk = np.full((padding, C), 9.0)
    first, second, teacher = (
        np.concatenate([x, junk]) for x in (STUDENT, SECOND, TEACHER)
    )
    maps = tuple(
        jnp.concatenate([x, jnp.full((padding, *x.shape[1:]), 9.0)])
        for x in _maps("small")
    )
    return _outputs(first, second, maps), _outputs(teacher)


@functools.cache
def _learned(name):
    """Parameters of the method, from a single image as in a run."""
    single = jax.tree.map(lambda x: x[:1], _pair())
    return jax.jit(_method(name).init)(jax.random.key(0), *single)


def _batch(padding=0):
    labels = jnp.asarray(np.pad(LABELS, (0, padding)))
    mask = jnp.arange(B + padding) < B if padding else None
    return Batch(jnp.zeros((B + padding, 1, 1, 1)), labels, mask)


def _method(name, axis=ALONE, **fields):
    defaults = {"soft_loss": "kl", "temperature_squared": "no"}
    config = StudentConfig(method=name, **defaults | fields)
    return make_method(config, axis, tiny.SIZES)


def _loss(name, padding=0, **fields):
    """The loss and its parts of a network with two heads and two maps."""
    method = _method(name, **fields)
    arguments = _learned(name), *_pair(padding), _batch(padding), Now(0)
    return jax.jit(method.loss)(*arguments)


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
    with pytest.raises(ConfigError, match=r"students\.s\.arch\.second_head=False"):
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


def _ofa_by_hand(student, gamma, temperature):
    """Class by class: the label's share grows, the others' are bent."""
    taught = scipy.special.softmax(TEACHER / temperature, axis=1)
    total = np.zeros(B)
    for i, c in np.ndindex(B, C):
        right = c == LABELS[i]
        weight = (taught[i, c] + right) ** gamma - right
        total[i] -= weight * scipy.special.log_softmax(student[i] / temperature)[c]
    return total


@pytest.mark.parametrize(("gamma", "temperature"), [(1.5, 1.0), (1.0, 2.0), (0.5, 1.0)])
def test_ofa_equals_the_released_formula(gamma, temperature):
    args = map(jnp.asarray, (STUDENT, TEACHER, LABELS))
    got = jax.jit(ofa_divergence)(*args, gamma, temperature)
    np.testing.assert_allclose(
        got, _ofa_by_hand(STUDENT, gamma, temperature), rtol=1e-5
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ofa_gradients():
    """Closed form (sum of weights) p - weights, and finite differences."""
    taught, onehot = scipy.special.softmax(TEACHER, axis=1), np.eye(C)[LABELS]
    weights = (taught + onehot) ** 1.5 - onehot
    p = scipy.special.softmax(STUDENT, axis=1)
    expected = weights.sum(1, keepdims=True) * p - weights
    fn = lambda s: ofa_divergence(s, jnp.asarray(TEACHER), LABELS, 1.5, 1.0).sum()
    fn = jax.jit(fn)
    np.testing.assert_allclose(jax.grad(fn)(jnp.asarray(STUDENT)), expected, atol=1e-5)
    with jax.enable_x64(True):
        check_grads(fn, (jnp.asarray(STUDENT),), order=1, modes=("rev",), rtol=1e-4)


def test_ofa_is_finite_at_extreme_logits():
    """A class that the teacher rules out altogether has probability 0."""
    extreme = jnp.array([[1e4, -1e4, 0.0]])
    loss = lambda s: ofa_divergence(s, -extreme, jnp.array([2]), 0.5, 1.0).sum()
    value, grad = jax.jit(jax.value_and_grad(loss))(extreme)
    assert np.isfinite(value) and np.all(np.isfinite(grad))


def _random_params(module, *inputs):
    """Of the module's shapes, none alike, also where they would start at 0 or 1."""
    init = lambda: module.init(jax.random.key(0), *inputs)["params"]
    r = np.random.default_rng(1)
    draw = lambda x: jnp.asarray(r.normal(size=x.shape), jnp.float32)
    return jax.tree.map(draw, jax.eval_shape(init))


def _depthwise_by_hand(x, kernel, stride):
    b, h, w, c = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((b, -(-h // stride), -(-w // stride), c))
    for i, j in np.ndindex(*out.shape[1:3]):
        window = padded[:, stride * i : stride * i + 3, stride * j : stride * j + 3]
        out[:, i, j] = (window * kernel[:, :, 0]).sum((1, 2))
    return out


def _norm_by_hand(x, layer):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + 1e-5) * layer["scale"] + layer["bias"]


def _sep_by_hand(x, layers):
    for place, stride in ((1, 2), (2, 1)):
        x = _depthwise_by_hand(x, layers[f"depthwise{place}"]["kernel"], stride)
        x = x @ layers[f"pointwise{place}"]["kernel"][0, 0]
        x = np.maximum(_norm_by_hand(x, layers[f"sep_norm{place}"]), 0)
    return x


def _apply(module, params, *inputs):
    run = lambda p: module.apply({"params": p}, *inputs, mutable=["batch_stats"])[0]
    return jax.jit(run)(params)


@pytest.mark.parametrize("halvings", [0, 2])
def test_a_convolutional_branch_halves_pools_and_classifies(halvings):
    """In float64 by hand; padding stays out of the norms, and channels double."""
    branch, image = ConvBranch(halvings, 7, C, ALONE), rng.normal(size=(B + 2, 5, 4, 3))
    mask = jnp.arange(B + 2) < B
    params = _random_params(branch, jnp.asarray(image), mask)
    got = _apply(branch, params, jnp.asarray(image, jnp.float32), mask)[:B]
    params, x = jax.tree.map(np.float64, params), image[:B]
    if halvings:
        assert params["sep1"]["pointwise2"]["kernel"].shape == (1, 1, 3, 6)
        x = _sep_by_hand(_sep_by_hand(x, params["sep1"]), params["sep2"])
        assert x.shape == (B, 2, 1, 7)
    else:
        x = x @ params["widen"]["kernel"][0, 0]
    expected = x.mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_a_token_branch_merges_patches_by_fours():
    """14 x 14 become 7 x 7: the four joined, normalised, mapped, with GELU."""
    branch, grid = TokenBranch(0, C, ALONE), rng.normal(size=(2, 14, 14, 2))
    params = _random_params(branch, jnp.asarray(grid))
    got = _apply(branch, params, jnp.asarray(grid, jnp.float32))
    params = jax.tree.map(np.float64, params)
    norm, dense, tokens = params["LayerNorm_0"], params["Dense_0"], []
    for i, j in np.ndindex(7, 7):
        four = grid[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(2, 8)
        four = (four - four.mean(1, keepdims=True)) / np.sqrt(
            four.var(1, keepdims=True) + 1e-6
        )
        x = (four * norm["scale"] + norm["bias"]) @ dense["kernel"] + dense["bias"]
        tokens.append(x * scipy.special.ndtr(x))
    expected = np.mean(tokens, 0) @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet", [{"sep1", "sep2", "head"}, {"sep1", "head"}, {"widen", "head"}]),
        ("transformer", [{"Block_0", "Block_1", "head"}] + [{"Block_0", "head"}] * 2),
        ("mlp", [{"sep1", "head"}, {"widen", "head"}]),
    ],
)
def test_branches_suit_the_student_and_get_shallower_with_depth(name, expected):
    """As many halvings as stages follow; a transformer's attend instead."""
    branches = ExitBranches(12, C, ALONE)
    params = _random_params(branches, _maps(name), None)
    assert [set(params[f"exit{k}"]) for k in range(1, len(params) + 1)] == expected
    if name != "transformer":
        assert {branch["head"]["kernel"].shape for branch in params.values()} == {
            (12, C)
        }


def test_a_transformers_branch_sees_every_token_and_their_order_not():
    """Attention and an average: what the class token would have read is still there."""
    branch, (grid, *_) = TokenBranch(1, C, ALONE), _maps("transformer")
    params = jax.tree.map(lambda x: 0.3 * x, _random_params(branch, grid))
    turned, other = grid[:, ::-1, ::-1], grid.at[:, 1, 1].add(1.0)
    every = _apply(branch, params, jnp.concatenate([grid, turned, other]))
    got, turned, other = np.split(np.asarray(every), 3)
    np.testing.assert_allclose(turned, got, rtol=1e-4, atol=1e-5)
    assert np.abs(other - got).max(1).min() > 1e-3


def test_ofa_adds_up_labels_logits_and_branches():
    """(1 - alpha) CE + alpha [ofa(z_s) + w sum_k ofa(branch k)], smoothed labels."""
    total, parts = _loss(
        "ofa",
        kd_weight=0.4,
        temperature=1.0,
        ofa_gamma=1.5,
        ofa_weight=0.5,
        label_smoothing=0.2,
    )
    width = max(x.features.shape[-1] for x in _pair())
    maps = _maps("small")
    exits = _apply(ExitBranches(width, C, ALONE), _learned("ofa"), maps, None)
    of = lambda logits: _ofa_by_hand(np.float64(logits), 1.5, 1.0).mean()
    uniform = -scipy.special.log_softmax(STUDENT, axis=1).mean()
    hard = 0.8 * _ce(STUDENT).mean() + 0.2 * uniform
    np.testing.assert_allclose(parts["hard_loss"], hard, rtol=1e-5)
    # A network with a head for soft targets learns them there.
    expected = 0.6 * hard + 0.4 * (of(SECOND) + 0.5 * sum(map(of, exits)))
    np.testing.assert_allclose(total, expected, rtol=1e-4)


COUPLED = ["dho", "label_mix", "ofa"]


@pytest.mark.parametrize("name", COUPLED)
def test_padding_changes_nothing(name):
    np.testing.assert_allclose(_loss(name, 3)[0], _loss(name)[0], rtol=1e-6)


@pytest.mark.parametrize("name", COUPLED)
def test_the_number_of_devices_changes_nothing(name, padding=2):
    """Values, and gradients by the rule that each device's is D times its share."""
    size, params = B + padding, _learned(name)

    def loss(axis, student, params, teacher, batch):
        method = _method(name, axis)
        return method.loss(params, student, teacher, batch, Now(3))[0]

    student, teacher = _pair(padding)
    slopes_of = lambda axis: jax.value_and_grad(functools.partial(loss, axis), (0, 1))
    alone = jax.jit(slopes_of(ALONE))
    expected, slopes = alone(student, params, teacher, _batch(padding))
    shared = jax.pmap(
        slopes_of(BatchAxis(BATCH_AXIS)),
        axis_name=BATCH_AXIS,
        in_axes=(0, None, 0, 0),
        devices=jax.devices()[:2],
    )
    halves = lambda x: x.reshape(2, size // 2, *x.shape[1:])
    student, *rest = jax.tree.map(halves, (student, teacher, _batch(padding)))
    values, grads = shared(student, params, *rest)
    np.testing.assert_allclose(values, [expected] * 2, rtol=1e-6)
    whole = lambda x: x.reshape(size, *x.shape[2:]) / 2
    mean = lambda x: x.mean(0)
    found = jax.tree.map(whole, grads[0]), jax.tree.map(mean, grads[1])
    chex.assert_trees_all_close(found, slopes, rtol=1e-4, atol=1e-6)


TWO_HEADS = {"arch": {"second_head": True}}
UNLIKE = {
    "dho": student(plan="spaced", method="dho", **TWO_HEADS),
    "label_mix": student(plan="spaced", method="label_mix"),
    "ofa": student(plan="spaced", method="ofa"),
    "ofa_attends": student(
        plan="spaced", method="ofa", model="tiny_deit", arch={"patch_size": 4}
    ),
}


@pytest.mark.slow
def test_a_transformer_teaches_networks_of_another_family_with_spacing(monkeypatch):
    """Every part that a method trains moves, in replays too; the logs are whole."""
    tiny_deit = functools.partial(deit.DeiT, dim=8, depth=1, heads=2)
    monkeypatch.setitem(MODELS, "tiny_deit", tiny_deit)
    config = tiny.config(
        UNLIKE,
        num_epochs=1,
        data__num_train_examples=64,
        teacher__model="tiny_deit",
        teacher__arch__patch_size=4,
        student__model="tiny_cnn",
        student__space_interval_epochs=0.5,
    )
    parts = experiment.build(config, data.load(config.data))
    engine, states = Engine(parts), experiment.init_states(parts)
    start, logged = jax.device_get(states[0]), {}
    for tick in parts.ticks:
        if not isinstance(tick, Evaluate):
            states, measured = engine.advance(states, tick)
            for name, values in measured[0].items():
                logged[name] = values
    end = jax.device_get(states[0])
    for name in UNLIKE:
        assert parts.updates[name] == end[name].step == 4
        moved = jax.tree.map(
            lambda a, b: np.any(a != b), start[name].params, end[name].params
        )
        assert all(jax.tree.leaves(moved)), name
        assert all(np.all(np.isfinite(v)) for v in logged[name].values())
    assert logged["ofa"].keys() >= {"loss", "hard_loss", "soft_loss", "branch_loss"}
