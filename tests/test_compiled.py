"""What the compiler makes of the engine's programs, and of sums over long axes."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from spaced_kd import conv, data, experiment, losses
from spaced_kd.config import ArchConfig, student
from spaced_kd.engine import Engine
from spaced_kd.layers import BatchNorm
from spaced_kd.methods.pld import plackett_luce
from spaced_kd.methods.sinkd import sinkhorn_distance
from spaced_kd.models import MODELS, branches, make_model, resnet
from spaced_kd.parallel import BatchAxis
from spaced_kd.schedule import Lockstep

pytestmark = pytest.mark.real_compiler

CANONICAL = "b01f_01io->b01f"

# Convolutions with a kernel's size and stride in one network; the first one's images
# need no gradient. One of every family: a new one with convolutions belongs here.
CONVOLUTIONS = {
    "small_cnn": {("3x3", 1): 1, ("3x3", 2): 2},
    "resnet8": {("3x3", 1): 5, ("3x3", 2): 2, ("1x1", 2): 2},
    "resnet20": {("3x3", 1): 17, ("3x3", 2): 2, ("1x1", 2): 2},
    "thin_bottleneck": {("3x3", 1): 2, ("3x3", 2): 1, ("1x1", 1): 5, ("1x1", 2): 1},
    "thin_imagenet": {("7x7", 2): 1, ("3x3", 1): 3, ("3x3", 2): 1, ("1x1", 2): 1},
}
STEMS = {"thin_imagenet": "imagenet"}  # the others have the default one
FAMILIES = [
    "small_cnn",
    pytest.param("thin_bottleneck", marks=pytest.mark.slow),
    pytest.param("thin_imagenet", marks=pytest.mark.slow),
    pytest.param("resnet8", marks=pytest.mark.slow),
    pytest.param("resnet20", marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def thin_networks(monkeypatch):
    """The other block and the other stem, in networks that compile in seconds."""
    thin = functools.partial(resnet.ResNet, blocks=(1, 1), base_width=4)
    deep = functools.partial(thin, block=resnet.Bottleneck)
    monkeypatch.setitem(MODELS, "thin_bottleneck", deep)
    monkeypatch.setitem(MODELS, "thin_imagenet", thin)


def _programs(model: str) -> dict[str, str]:
    """Compiled text of the lockstep chunk and of the replay chunk."""
    students = {
        "online": student(plan="online"),
        "spaced": student(plan="spaced", space_interval_epochs=0.5),
    }
    # Of real size: where an image is smaller than a kernel, XLA swaps the two.
    sizes = {"data__image_size": 32, "data__batch_size": 4}
    fields = {"teacher__model": model, "student__model": model, "chunk_steps": 3}
    if model in STEMS:
        fields |= {f"{who}__arch__stem": STEMS[model] for who in ("teacher", "student")}
    config = tiny.config(students, **sizes, **fields)
    parts = experiment.build(config, data.load(config.data))
    engine, template = Engine(parts), experiment.state_template(parts)
    texts = {}
    for tick in engine.usual_ticks():
        assert tick.stop - tick.start == 3
        name = "lockstep" if isinstance(tick, Lockstep) else "replay"
        program, arguments = engine.first_call(template, tick)
        texts[name] = program.lower(*arguments).compile().as_text()
    return texts


def _layouts(text: str) -> list[str]:
    return re.findall(r"convolution\([^\n]*?dim_labels=([^\s,]+)", text)


def _slow(text: str) -> list[str]:
    return [layout for layout in _layouts(text) if layout != CANONICAL]


@pytest.mark.parametrize("model", FAMILIES)
def test_no_program_of_the_engine_holds_a_slow_convolution(model):
    """In another layout XLA:CPU runs them as naive loops inside a while body.

    Counted: each network's forward pass and two gradients a convolution, but one for
    the first; a replay adds the frozen teacher's forward pass. A 1x1 convolution may
    become a product of matrices, which is fast.
    """
    assert jax.default_backend() == "cpu"
    forward = sum(n for (size, _), n in CONVOLUTIONS[model].items() if size != "1x1")
    trained = 3 * forward - 1
    texts = _programs(model)
    expected = {"lockstep": 2 * trained, "replay": trained + forward}
    for name, count in expected.items():
        assert " while(" in texts[name]
        assert len(_layouts(texts[name])) >= count, name
    for name, text in texts.items():
        assert not _slow(text), name


def test_the_guard_finds_stock_convolutions(monkeypatch):
    """The control: without the remedy both chunks have slow ones."""
    monkeypatch.setattr(conv, "convolve", conv.stock)
    texts = _programs("tiny_cnn")
    assert _slow(texts["lockstep"]) and _slow(texts["replay"])


def _trained_in_a_loop(branch) -> str:
    """Compiled text of a scan that takes a branch's gradients of weights and image."""
    images = jax.ShapeDtypeStruct((3, 4, 16, 16, 8), jnp.float32)
    variables = jax.eval_shape(
        lambda: branch.init(jax.random.key(0), jnp.zeros(images.shape[1:]), True, None)
    )

    def gradients(variables, image):
        def loss(params, image):
            given = {**variables, "params": params}
            out, _ = branch.apply(given, image, True, None, mutable=["batch_stats"])
            return jnp.square(out).sum()

        params, image = jax.grad(loss, (0, 1))(variables["params"], image)
        return {**variables, "params": params}, image

    loop = jax.jit(lambda v, x: jax.lax.scan(gradients, v, x))
    return loop.lower(variables, images).compile().as_text()


@pytest.mark.parametrize("kind", ["attention", "bottleneck"])
def test_no_branch_of_a_resnet_holds_a_slow_convolution(kind):
    """1x1 ones with both gradients; the others are no convolutions to XLA."""
    branch = {
        "attention": branches.Attention(BatchAxis(), "torch"),
        "bottleneck": branches.BottleneckBranch(16, 8, BatchAxis(), "torch"),
    }[kind]
    text = _trained_in_a_loop(branch)
    assert " while(" in text
    assert not _slow(text)
    # A 1x1 convolution may become a product of matrices: at least one did not.
    assert _layouts(text)


def test_the_guard_finds_stock_convolutions_in_branches(monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(conv, "canonical", conv.stock)
    branch = branches.BottleneckBranch(16, 8, BatchAxis(), "torch")
    assert _slow(_trained_in_a_loop(branch))


@pytest.mark.parametrize("model", CONVOLUTIONS)
def test_the_guarded_networks_have_the_convolutions_that_are_counted(
    model, monkeypatch
):
    """Strided and 1x1 ones among them; a network without would prove nothing."""
    seen: dict[tuple[str, int], int] = {}

    def counted(images, kernel, stride=1):
        key = (f"{kernel.shape[0]}x{kernel.shape[1]}", stride)
        seen[key] = seen.get(key, 0) + 1
        return conv.stock(images, kernel, stride)

    monkeypatch.setattr(conv, "convolve", counted)
    arch = ArchConfig(stem=STEMS.get(model, ArchConfig.stem))
    network = make_model(model, 10, arch)
    image = jnp.zeros((2, 8, 8, 3))
    jax.eval_shape(lambda k: network.init(k, image, train=False), jax.random.key(0))
    assert seen == CONVOLUTIONS[model]


# Where jaxlib 0.10's fused reductions were wrong for some programs (jax #39103): long
# leading, tiny trailing axes.
LONG = [(33280, 3), (40000, 3)]


def _normal(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape)


def _check(function, *arguments):
    """Compiled as one program and op by op, values and gradients must agree."""
    whole = jax.jit(function)(*arguments)
    with jax.disable_jit():
        np.testing.assert_allclose(whole, function(*arguments), rtol=2e-5, atol=1e-6)
    total = lambda *args: function(*args).sum()
    slope = jax.jit(jax.grad(total))(*arguments)
    with jax.disable_jit():
        expected = jax.grad(total)(*arguments)
    np.testing.assert_allclose(slope, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", LONG)
@pytest.mark.parametrize("name", losses.SOFT_LOSSES)
def test_soft_losses_compiled_equal_eager_ones(name, shape):
    loss = losses.SOFT_LOSSES[name]
    _check(lambda s, t: loss(s, t, 3.0), _normal(shape, 0), _normal(shape, 1))


@pytest.mark.parametrize("shape", LONG)
def test_the_order_of_classes_compiled_equals_eager(shape):
    labels = jnp.arange(shape[0]) % shape[1]
    ranking = lambda s, t: plackett_luce(s, t, labels, 3.0)
    _check(ranking, _normal(shape, 0), _normal(shape, 1))


def test_the_transport_of_a_batch_compiled_equals_eager():
    student, teacher = (jax.nn.softmax(_normal((256, 3), k)) for k in (0, 1))
    _check(lambda s, t: sinkhorn_distance(s, t, 0.1, 3), student, teacher)


@pytest.mark.parametrize("shape", LONG)
def test_cross_entropy_compiled_equals_eager(shape):
    labels = jnp.arange(shape[0]) % shape[1]
    _check(lambda logits: losses.cross_entropy(logits, labels), _normal(shape, 0))


@pytest.mark.parametrize("shape", LONG)
@pytest.mark.parametrize("name", losses.FEATURE_LOSSES)
def test_feature_losses_compiled_equal_eager_ones(name, shape):
    """Per example, and reduced over a batch with padding."""
    loss = losses.FEATURE_LOSSES[name]
    student_features, teacher_features = _normal(shape, 0), _normal(shape, 1)
    _check(loss.per_example, student_features, teacher_features)
    mask = jnp.arange(shape[0]) % 7 > 0
    reduced = lambda s, t: loss(s, t, mask, BatchAxis())
    _check(reduced, student_features, teacher_features)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [*LONG, (16385, 1), (128, 32, 32, 64)])
def test_batch_norm_sums_compiled_equal_float64(shape, masked):
    """A wrong sum in every layer would look like a worse network, and no more."""
    x = 2 + 3 * _normal(shape, 0)
    mask = np.arange(shape[0]) % 7 > 0 if masked else None
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), x, train=False)

    @jax.jit
    def statistics(variables, x, mask):
        _, moved = layer.apply(
            variables, x, train=True, mask=mask, mutable=["batch_stats"]
        )
        return moved["batch_stats"]

    got = statistics(variables, x, mask)
    real = np.asarray(x, np.float64)[mask if masked else slice(None)]
    axes = tuple(range(x.ndim - 1))
    variance = 0.9 + 0.1 * real.var(axes, ddof=1)
    np.testing.assert_allclose(got["mean"], 0.1 * real.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(got["var"], variance, rtol=1e-5)
