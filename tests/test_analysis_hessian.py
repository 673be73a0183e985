"""The analysis `hessian` on networks of a run, against closed forms by NumPy."""

import contextlib
import dataclasses
from typing import cast

import curved
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spaced_kd import analyze, style
from spaced_kd.analysis import chunks, curvature, hessian, objectives
from spaced_kd.analysis.curvature import Risk
from spaced_kd.analysis.subject import Run, open_run
from spaced_kd.config import MethodConfig
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.errors import ConfigError
from spaced_kd.models.mlp import MLP
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import ModelOutput, Split

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SPEC = AugmentSpec(0, False, 0.0, MEAN, STD, padded=False)
KD = MethodConfig(
    kd_weight=0.6, temperature=2.5, soft_loss="kl", temperature_squared="yes"
)
OPTIONS = {"num_examples": 30, "chunk_size": 8, "num_probes": 30}


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def covariance(p):
    return np.einsum("nc,cd->ncd", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None]


def forward(params, x):
    """Return an MLP's activations, layer by layer, and its logits; float64."""
    layers = sorted(params, key=lambda name: int(name.split("_")[1]))
    weights = [np.asarray(params[name]["kernel"], np.float64) for name in layers]
    biases = [np.asarray(params[name]["bias"], np.float64) for name in layers]
    acts = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        acts.append(np.maximum(acts[-1] @ w + b, 0))
    return weights, acts, acts[-1] @ weights[-1] + biases[-1]


def gauss_newton_traces(params, x, curvature_of):
    """Return the trace of every layer's block, by layer; float64.

    A ReLU network's logits are linear in each single weight, so that the Hessian's
    diagonal is that of the Gauss-Newton matrix: of J'AJ, A the loss's own curvature.
    """
    weights, acts, logits = forward(params, x)
    inner = curvature_of(logits)
    count, classes = logits.shape
    back = np.broadcast_to(np.eye(classes), (count, classes, classes))
    traces = {}
    for number in range(len(weights) - 1, -1, -1):
        outer = np.einsum("njc,ncd,njd->n", back, inner, back)
        size = (acts[number] ** 2).sum(1) + 1  # the bias sees 1
        traces[f"Dense_{number}"] = (size * outer).mean()
        if number:
            passed = np.einsum("jk,nkc->njc", weights[number], back)
            back = passed * (acts[number] > 0)[:, :, None]
    return traces


CURVATURES = {
    "ce": lambda z: covariance(softmax(z)),
    # Of T^2 KL at temperature T: the factors T cancel.
    "kd": lambda z: 0.4 * covariance(softmax(z)) + 0.6 * covariance(softmax(z / 2.5)),
    "mse": lambda z: np.broadcast_to(np.eye(z.shape[1]), (len(z), *(z.shape[1:] * 2))),
}


def normalised(split, mean, std):
    return ((split.image / 255 - mean) / std).reshape(len(split.label), -1)


@pytest.mark.parametrize("loss", objectives.LOSSES)
def test_the_trace_of_each_loss_is_its_gauss_newton_trace(loss):
    """Normalised images, right targets, weights and temperature, no padding."""
    r = np.random.default_rng(0)
    split = Split(
        r.integers(0, 256, (7, 3, 3, 3), np.uint8), np.arange(7, dtype=np.int32) % 4
    )
    targets = r.normal(size=(7, 4)).astype(np.float32)
    model = MLP(4, widths=(5, 6))
    params = model.init(jax.random.key(1), jnp.ones((1, 3, 3, 3)), train=False)
    group = SeedGroup((0,), tuple(jax.devices()[:1]))
    pairs = zip(
        chunks.of(split, 4, group),
        chunks.of(Split(targets, split.label), 4, group),
        strict=True,
    )
    risk = Risk(
        objectives.Objective(model, SPEC, loss, KD),
        params["params"],
        {},
        [objectives.Taught(*chunk, beside.image) for chunk, beside in pairs],
        7,
        group,
    )
    found = curvature.exact_trace(risk)
    x = normalised(split, MEAN, STD)
    expected = gauss_newton_traces(params["params"], x, CURVATURES[loss])
    np.testing.assert_allclose(found.mean, sum(expected.values()), rtol=1e-5)
    for name, trace in expected.items():
        own = [found.layers[f"{name}/{part}"].mean for part in ("kernel", "bias")]
        np.testing.assert_allclose(sum(own), trace, rtol=1e-5)


def test_batch_norm_uses_the_networks_own_averages():
    """Those that stand still beside the parameters, not the batch's."""
    split = Split(curved.IMAGES, curved.LABELS)
    spec = AugmentSpec(0, False, 0.0, (0.5,) * 2, (0.5,) * 2, padded=False)
    objective = objectives.Objective(curved.MODEL, spec, "ce", MethodConfig())
    (chunk,) = chunks.of(split, curved.EXAMPLES, curved.group())
    variables = curved.variables()
    fixed = {"batch_stats": variables["batch_stats"]}
    found = objective(
        variables["params"], fixed, objectives.Taught(*chunk, targets=None)
    )
    image = jnp.asarray(split.image / 127.5 - 1, jnp.float32)
    outputs = cast(ModelOutput, curved.MODEL.apply(variables, image, train=False))
    p = softmax(np.asarray(outputs.logits, np.float64))
    expected = -np.log(p[np.arange(len(p)), split.label]).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", objectives.LOSSES)
def test_the_risk_of_a_saved_network_is_its_mean_loss(analysed_run, monkeypatch, loss):
    """By NumPy from logits: its own fields, and the teacher of its own seed."""
    run = open_run(analysed_run.workdir, num_devices=1)
    subject = run.subject("spaced", 4)
    fields = {
        "kd_weight": 0.6,
        "soft_loss": "soft_cross_entropy",
        "temperature": 2.0,
        "temperature_squared": "yes",
        "label_smoothing": 0.1,
    }
    settings = dataclasses.replace(subject.settings, **fields)
    monkeypatch.setattr(Run, "settings", lambda run, name: settings)
    split = run.split("train", 30, "count")
    risk = objectives.risk_of(subject, loss, split, 8)
    total = sum(risk.loss_sum(risk.params, risk.fixed, chunk) for chunk in risk.chunks)
    x = normalised(split, run.spec.mean, run.spec.std)
    _, _, logits = forward(risk.params, x)
    teacher = run.subject("teacher", 4).variables["params"]
    wanted = np.eye(10)[split.label]
    hard = -(wanted * np.log(softmax(logits))).sum(1)
    smooth = -((0.9 * wanted + 0.01) * np.log(softmax(logits))).sum(1)
    p, q = softmax(forward(teacher, x)[2] / 2), softmax(logits / 2)
    expected = {
        "ce": hard,
        "kd": 0.4 * smooth - 0.6 * 4 * (p * np.log(q)).sum(1),
        "mse": ((logits - wanted) ** 2).sum(1) / 2,
    }[loss]
    np.testing.assert_allclose(total / risk.num_examples, expected.mean(), rtol=1e-5)


@pytest.fixture(scope="module")
def found(analysed_run, tmp_path_factory):
    """Two networks and the teacher, on one device."""
    workdir = analysed_run.copy(tmp_path_factory.mktemp("hessian") / "run")
    options = OPTIONS | {"num_eigenvalues": 2, "density_probes": 2, "depth": 8}
    found = analyze.analyze(
        workdir,
        ["hessian"],
        networks=["teacher", "online", "spaced"],
        options={"hessian": options},
        num_devices=1,
    )
    return found["hessian"], open_run(workdir, num_devices=1)


def test_a_networks_trace_is_found_in_a_run(found):
    """Every network and seed within its stated error of the closed form."""
    found, run = found
    split = run.split("train", 30, "count")
    x = normalised(split, run.spec.mean, run.spec.std)
    assert [(row.network, row.seed) for row in found.rows] == [
        (name, seed) for name in ("teacher", "online", "spaced") for seed in (3, 4)
    ]
    for row in found.rows:
        values = row.values["losses"]
        assert set(values) == ({"ce"} if row.network == "teacher" else {"ce", "kd"})
        params = run.subject(row.network, row.seed).variables["params"]
        expected = gauss_newton_traces(params, x, CURVATURES["ce"])
        trace, error = values["ce"]["trace"], values["ce"]["standard_error"]
        assert abs(trace - sum(expected.values())) < 4 * error
        assert 0 < error < 0.3 * trace
        np.testing.assert_allclose(sum(values["ce"]["layers"].values()), trace)
        largest, second = values["ce"]["eigenvalues"]
        assert trace > largest > second > values["ce"]["smallest_eigenvalue"]


@pytest.mark.parametrize("estimator", ["hutchinson", "hutch++", "exact"])
def test_every_estimator_finds_a_closed_forms_trace(estimator):
    """Within its own standard error, which is 0 where the trace is exact."""
    options = hessian.Options(estimator=estimator, num_probes=20)
    risk = curved.regression()
    found = hessian.trace_of(risk, jax.random.key(0), options)
    expected = np.trace(curved.regression_hessian())
    assert found.standard_error is not None
    assert abs(found.mean - expected) < 4 * found.standard_error + 1e-5 * expected
    assert (found.standard_error == 0) == (estimator == "exact")


def test_the_table_pairs_networks_by_seed(found):
    """One row a loss and network; the difference's digits are those of the rows."""
    found, _ = found
    table = hessian.ANALYSIS.table(found)
    assert table is not None
    places = [row[:2] for row in table.rows]
    assert places[:3] == [("teacher", "ce"), ("online", "ce"), ("spaced", "ce")]
    assert places[3:] == [("online", "kd"), ("spaced", "kd")]
    by_name = {row[:2]: row for row in table.rows}
    trace = lambda name, seed: next(
        row.values["losses"]["ce"]["trace"]
        for row in found.rows
        if (row.network, row.seed) == (name, seed)
    )
    pairs = [trace("spaced", s) - trace("online", s) for s in (3, 4)]
    expected = f"{np.mean(pairs):+.3g} ± {np.std(pairs, ddof=1):.3g}"
    assert by_name["spaced", "ce"][-1] == expected
    assert by_name["online", "ce"][-1] == ""


def test_every_figure_is_drawn(found):
    """Trace, parts and density of both losses, all with the networks' colours."""
    found, _ = found
    looks = style.line_looks(["online", "spaced"])
    with style.drawing():
        drawn = hessian.ANALYSIS.figures(found, looks)
    kinds = ("trace", "layers", "density")
    stems = [f"hessian_{kind}_{loss}" for loss in ("ce", "kd") for kind in kinds]
    assert [stem for stem, _, _ in drawn] == stems
    assert all(figure is not None for _, _, figure in drawn)


def test_neither_chunks_nor_devices_change_what_is_measured(found):
    """The same random vectors whatever the split of the work."""
    (row, *_), run = found[0].rows, found[1]
    shared = open_run(run.workdir, num_devices=4)
    options = hessian.Options(num_examples=30, chunk_size=18, num_probes=30)
    values = hessian.ANALYSIS.measure(shared.subject(row.network, row.seed), options)
    assert values is not None
    one, other = values["losses"]["ce"], row.values["losses"]["ce"]
    np.testing.assert_allclose(one["trace"], other["trace"], rtol=1e-5)
    np.testing.assert_allclose(
        one["standard_error"], other["standard_error"], rtol=1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": "ce,dk"}, "--options.hessian.losses='dk' is unknown; did you"),
        ({"num_eigenvalues": 9, "depth": 8}, "num_eigenvalues=9 is more than"),
        ({"estimator": "exact"}, "at most 20,000, and teacher has 42,"),
        ({"num_examples": 3}, "^--options.hessian.num_examples=3 cannot be"),
    ],
)
def test_what_cannot_work_is_told(analysed_run, options, message):
    """In one line, before anything is measured."""
    run = open_run(analysed_run.workdir, num_devices=1)
    with pytest.raises(ConfigError, match=message):
        hessian.ANALYSIS.check(run, hessian.Options(**options))


@pytest.mark.parametrize(
    ("losses", "sizes", "refused"),
    [
        ("ce", {"teacher": 20_000}, ""),
        ("ce", {"teacher": 20_001}, "teacher has 20,001"),
        ("kd", {"teacher": 20_001}, ""),
        ("kd", {"spaced": 20_001}, "spaced has 20,001"),
    ],
)
def test_the_exact_trace_is_refused_for_networks_that_it_is_wanted_of(
    analysed_run, monkeypatch, losses, sizes, refused
):
    """The teacher has no loss kd, so that its size is no matter then."""
    run = open_run(analysed_run.workdir, num_devices=1)
    size = lambda subject: sizes.get(subject.name, 10)
    monkeypatch.setattr(hessian, "_size", size)
    options = hessian.Options(losses=losses, estimator="exact", num_examples=10)
    with (
        contextlib.nullcontext()
        if not refused
        else pytest.raises(ConfigError, match=refused)
    ):
        hessian.ANALYSIS.check(run, options)


def test_a_network_hangs_on_its_teacher_where_kd_is_measured(analysed_run):
    subject = open_run(analysed_run.workdir, num_devices=1).subject("online", 3)
    beside = hessian.ANALYSIS.beside
    assert beside(subject, hessian.Options(losses="ce, kd")) == (subject.teacher,)
    assert beside(subject, hessian.Options(losses="ce,mse")) == ()


def test_a_loss_without_a_teacher_does_not_apply(analysed_run):
    """The teacher has none."""
    subject = open_run(analysed_run.workdir, num_devices=1).subject("teacher", 3)
    options = hessian.Options(losses="kd", num_examples=30)
    assert hessian.ANALYSIS.measure(subject, options) is None
