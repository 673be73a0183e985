"""Theorem 4.4 on a tiny run: both parts in closed form, the gap by differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd import fields, style
from spaced_kd.analysis import squared_risk, theorem, theorem_view
from spaced_kd.analysis.base import Found, Row
from spaced_kd.analysis.subject import open_run
from spaced_kd.errors import ConfigError
from spaced_kd.models.small_cnn import SmallCNN

COUNT = 20
OPTIONS = theorem.Options(num_examples=COUNT, num_probes=400, toy_seeds=0)


@pytest.fixture(scope="module")
def run(analysed_run):
    return open_run(analysed_run.workdir, num_devices=1)


@pytest.fixture(scope="module")
def spaced(run):
    """A student of half the training, the teacher beside it, and both measured."""
    subject = next(iter(run.subjects(["spaced"], [3], "snapshots")))
    return subject, theorem.measure(subject, OPTIONS)


def layers(variables):
    """The MLP's kernels and biases in float64, first to last."""
    params = variables["params"]
    arrays = [(params[n]["kernel"], params[n]["bias"]) for n in sorted(params)]
    return [tuple(np.asarray(a, np.float64) for a in pair) for pair in arrays]


def forward(weights, image):
    """Logits [n, C] of a ReLU network, NumPy."""
    x = image
    for place, (kernel, bias) in enumerate(weights):
        x = x @ kernel + bias
        if place < len(weights) - 1:
            x = np.maximum(x, 0)
    return x


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def seen(subject):
    """Images as the network sees them, flat, in float64; labels one-hot."""
    split = subject.run.split("train", COUNT, "")
    image = np.asarray(subject.run.prepare(split.image), np.float64)
    return image.reshape(COUNT, -1), np.eye(10)[split.label]


def jacobian_products(subject, image):
    """J J' of every example's logits, [n, C, C]: gradients multiplied by hand."""
    weights = layers(subject.variables)
    products = []
    for x in image:
        inputs, back = [x], [np.eye(10)]
        for kernel, bias in weights[:-1]:
            inputs.append(np.maximum(inputs[-1] @ kernel + bias, 0))
        for (kernel, _), below in zip(weights[:0:-1], inputs[:0:-1], strict=True):
            back.append((back[-1] @ kernel.T) * (below > 0))
        # A kernel's gradient is an outer product; 1 is the bias's.
        pairs = zip(back, inputs[::-1], strict=True)
        products.append(sum((g @ g.T) * (1 + x @ x) for g, x in pairs))
    return np.array(products)


def second_derivative(p, betas):
    """sum_c beta_c d2 p_c / dz dz of a softmax, [C, C]."""
    eye = np.eye(len(p))
    return sum(
        b * p[c] * (np.outer(eye[c] - p, eye[c] - p) - np.diag(p) + np.outer(p, p))
        for c, b in enumerate(betas)
    )


def test_both_parts_are_those_of_the_closed_form(spaced):
    """Of a ReLU network only the softmax bends: its residual is tr(M J J')."""
    subject, found = spaced
    image, labels = seen(subject)
    p, g = (
        softmax(forward(layers(net.variables), image))
        for net in (subject, subject.teacher)
    )
    betas = 0.7 * (p - labels) + 0.3 * (p - g)
    products = jacobian_products(subject, image)
    slopes = np.array([np.diag(q) - np.outer(q, q) for q in p])
    bends = np.array([second_derivative(*pair) for pair in zip(p, betas, strict=True)])
    expected = {
        "gauss_newton": np.einsum("nij,njk,nki->", slopes, products, slopes) / COUNT,
        "residual": np.einsum("nij,nji->", bends, products) / COUNT,
    }
    expected["trace"] = sum(expected.values())
    for name, value in expected.items():
        assert abs(found[name] - value) < 4 * found[f"{name}_error"], name
        assert found[f"{name}_error"] < 0.2 * expected["gauss_newton"]
    assert found["identity_error"] < 1e-4
    np.testing.assert_allclose(found["absolute_beta"], np.abs(betas).mean(), rtol=1e-4)


def test_the_gap_is_the_derivative_at_the_last_teacher(spaced, run):
    """By central differences in float64, and un-linearised from the outputs."""
    subject, found = spaced
    image, _ = seen(subject)
    final = layers(run.subject("teacher", 3).variables)
    before = layers(subject.teacher.variables)

    def outputs(share):
        mixed = [
            tuple(a + share * (b - a) for a, b in zip(*pair, strict=True))
            for pair in zip(final, before, strict=True)
        ]
        return softmax(forward(mixed, image))

    slope = (outputs(1e-5) - outputs(-1e-5)) / 2e-5
    np.testing.assert_allclose(found["gap"], np.abs(slope).mean(), rtol=1e-3)
    whole = np.abs(outputs(1.0) - outputs(0.0)).mean()
    np.testing.assert_allclose(found["unlinearised_gap"], whole, rtol=1e-3)
    assert found["gap"] > 1e-5 and found["teacher_step"] == subject.teacher.step


def test_no_gap_is_left_to_the_last_teacher(run):
    quick = dataclasses.replace(OPTIONS, num_probes=2)
    found = theorem.measure(run.subject("teacher", 3), quick)
    assert found["gap"] == 0.0 and found["unlinearised_gap"] < 1e-7


def test_a_network_on_labels_alone_has_no_gap_and_their_risk(run):
    quick = dataclasses.replace(OPTIONS, num_probes=2)
    subject = run.subject("baseline", 3)
    found = theorem.measure(subject, quick)
    assert "gap" not in found
    image, labels = seen(subject)
    betas = softmax(forward(layers(subject.variables), image)) - labels
    np.testing.assert_allclose(found["absolute_beta"], np.abs(betas).mean(), rtol=1e-4)


def test_a_gap_hangs_on_the_teacher_and_on_the_last_one(spaced, run):
    """Of a snapshot these differ; a baseline's values hang on neither."""
    subject, _ = spaced
    beside = theorem.ANALYSIS.beside
    then, last = beside(subject, OPTIONS)
    assert then is subject.teacher and then.step < last.step
    assert last.digest == run.subject("teacher", 3).digest != then.digest
    assert last.digest in [net.digest for net in beside(then, OPTIONS)]
    assert beside(run.subject("baseline", 3), OPTIONS) == ()


def test_too_few_images_are_told_before_anything_is_measured(run):
    few = dataclasses.replace(OPTIONS, num_examples=3)
    with pytest.raises(ConfigError, match=r"^--options.theorem.num_examples=3 "):
        theorem.ANALYSIS.check(run, few)


def test_padding_and_devices_change_nothing(spaced, analysed_run):
    """Chunks of 8 on 4 devices, the last one half empty."""
    subject, whole = spaced
    run = open_run(analysed_run.workdir, num_devices=4)
    same = next(iter(run.subjects(["spaced"], [3], "snapshots")))
    parts = theorem.measure(same, dataclasses.replace(OPTIONS, chunk_examples=8))
    for name in ("trace", "gauss_newton", "gap", "unlinearised_gap", "absolute_beta"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def convolutional():
    """Parts of a logit of a ReLU network with BatchNorm's averages; and J v twice."""
    model = SmallCNN(3, channels=(2, 3))
    images = jax.random.normal(jax.random.key(1), (2, 4, 4, 2))
    variables = model.init(jax.random.key(0), images, train=False)
    rest = {k: v for k, v in variables.items() if k != "params"}

    def logit(params, image):
        outputs = model.apply({"params": params, **rest}, image[None], train=False)
        return outputs.logits[0, 1]  # pyright: ignore[reportAttributeAccessIssue]

    @jax.jit
    def parts(params):
        betas, probe = jnp.ones(2), squared_risk.signs(params, jax.random.key(0))
        outputs = lambda p: jax.vmap(logit, (None, 0))(p, images)
        exact = squared_risk.exact_parts(logit, params, images, betas)
        probed = squared_risk.probed_parts(outputs, params, betas, probe)
        along = squared_risk.derivative(outputs, params, probe)
        return exact, probed, along, jax.jacrev(outputs)(params), probe

    return jax.tree.map(np.asarray, parts(variables["params"]))


def test_logits_of_relu_networks_have_no_residual_part(convolutional):
    """Each weight enters at most once on a path: no diagonal second derivative.

    The Hessian's other entries are not 0.
    """
    exact, probed, *_ = convolutional
    assert abs(exact.residual) < 1e-5 * exact.gauss_newton
    assert abs(probed.residual) > 1e-2 * exact.gauss_newton


def test_the_derivative_along_a_vector_is_the_jacobians(convolutional):
    """Through convolutions, which forward mode does not pass on CPU."""
    _, probed, along, jacobian, probe = convolutional
    leaves = zip(jax.tree.leaves(jacobian), jax.tree.leaves(probe), strict=True)
    expected = np.sum([np.tensordot(j, v, v.ndim) for j, v in leaves], axis=0)
    np.testing.assert_allclose(along, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probed.gauss_newton, (expected**2).sum(), rtol=1e-4)


def row(network, seed, step, **values):
    known = {"trace": 2.0, "gauss_newton": 1.5, "residual": 0.5, "trace_error": 0.1}
    return Row(network, seed, step, step / 10, known | {"identity_error": 0} | values)


@pytest.fixture
def found():
    students = {
        "baseline": {"plan": "none", "method": "hard", "space_interval_epochs": 1.5},
        "online": {"plan": "online", "method": "kd", "space_interval_epochs": 1.5},
        "spaced": {"plan": "spaced", "method": "kd", "space_interval_epochs": 1.5},
        "max": {"plan": "offline", "method": "kd", "space_interval_epochs": 1.5},
    }
    config = {"students": students, "num_epochs": 4, "reference": "online"}
    rows = [
        row("baseline", 0, 20),
        row("online", 0, 10, gap=0.4),
        row("online", 0, 15, gap=0.2),
        row("online", 0, 20, gap=0.0),
        row("spaced", 0, 10, gap=0.1),
        row("spaced", 0, 20, gap=0.0, trace=1.25, residual=0.75),
    ]
    return Found(config, {}, {}, rows)


def test_u_is_that_of_the_snapshots_before_the_last_weights(found):
    assert theorem_view.gap_along(found, "online").mean == pytest.approx(0.3)
    assert theorem_view.gap_along(found, "baseline").mean is None


def test_intervals_are_those_of_the_plans(found):
    of = {
        n: theorem_view.interval_epochs(found.config, n)
        for n in found.config["students"]
    }
    assert of == {"baseline": None, "online": 0.0, "spaced": 1.5, "max": 4.0}
    assert theorem_view.interval_epochs(found.config, "teacher") is None


def test_the_table_shows_the_last_weights_and_differences(found):
    table = theorem_view.table(found)
    assert table is not None
    cells = {row[0]: row for row in table.rows}
    assert cells["spaced"][1:4] == ("1.5", "0.1", "1.25")
    assert cells["spaced"][-2:] == ("-0.75", "+0.25")
    assert cells["online"][-2:] == ("", "")
    assert cells["baseline"][1:3] == ("-", "-")
    assert theorem_view.table(found._replace(rows=[])) is None


def test_a_network_without_finite_values_is_shown_as_unknown(found):
    """NaN is None in the file; other networks keep their row."""
    broken = dict.fromkeys(found.rows[1].values)
    rows = [*found.rows[:4], *(r._replace(values=broken) for r in found.rows[4:])]
    table = theorem_view.table(found._replace(rows=rows))
    assert table is not None
    assert next(row for row in table.rows if row[0] == "spaced")[2:4] == ("-", "-")
    looks = style.line_looks(found.config["students"])
    theorem_view.figures(found._replace(rows=rows), looks)


def test_figures_leave_out_what_was_not_measured(found):
    looks = style.line_looks(found.config["students"])
    drawn = {stem: figure for stem, _, figure in theorem_view.figures(found, looks)}
    assert drawn["theorem_toy"] is None
    gap = drawn["theorem_gap"]
    assert gap is not None
    heights = np.asarray(gap.axes[0].lines[0].get_ydata())
    np.testing.assert_allclose(heights, [0.4, 0.2, 0.0])


def test_an_unknown_kind_of_outputs_is_told():
    raw = fields.to_config_dict(theorem.Options).to_dict() | {"outputs": "logit"}
    with pytest.raises(ConfigError, match="outputs='logit' is unknown; did you mean"):
        fields.parse(theorem.Options, raw, "--options.theorem")
