"""A student against its teacher: closed forms, NumPy, and what training recorded."""

import dataclasses
import json
from typing import cast

import jax
import numpy as np
import pytest
from scipy import special

from spaced_kd import analyze, style
from spaced_kd.analysis import chunks, gradients, teacher_gap
from spaced_kd.analysis.gradients import Gradients
from spaced_kd.analysis.subject import Run, open_run
from spaced_kd.analysis.teacher_gap import Options
from spaced_kd.config import MethodConfig
from spaced_kd.data.augment_spec import AugmentSpec
from spaced_kd.errors import ConfigError
from spaced_kd.models.mlp import MLP
from spaced_kd.parallel import SeedGroup
from spaced_kd.types import Split

rng = np.random.default_rng(0)
SPLIT = Split(
    rng.integers(0, 256, (10, 3, 3, 1), dtype=np.uint8),
    rng.integers(0, 4, 10).astype(np.int32),
)
SPEC = AugmentSpec(0, False, 0.0, mean=(0.5,), std=(0.25,), padded=False)
CONFIG = MethodConfig(
    soft_loss="kl", temperature=2.5, temperature_squared="yes", label_smoothing=0.1
)
EVERYTHING = Options(num_examples=0, batch_size=16)


def linear(seed):
    """A linear network's variables."""
    kernel = np.random.default_rng(seed).normal(size=(9, 4)).astype(np.float32)
    bias = np.random.default_rng(seed + 50).normal(size=4).astype(np.float32)
    return {"params": {"Dense_0": {"kernel": kernel, "bias": bias}}}


def closed_form(own, others):
    """Sums over SPLIT of both terms' gradients by the kernel, in float64."""
    x = ((SPLIT.image / 255 - 0.5) / 0.25).reshape(10, 9)
    logits = lambda v: x @ np.float64(v["kernel"]) + np.float64(v["bias"])
    z, t = logits(own["params"]["Dense_0"]), logits(others["params"]["Dense_0"])
    labels = 0.9 * np.eye(4)[SPLIT.label] + 0.1 / 4
    hard = x.T @ (special.softmax(z, -1) - labels)
    # T^2 from the loss, 1 / T from the softmax.
    difference = special.softmax(z / 2.5, -1) - special.softmax(t / 2.5, -1)
    return hard, 2.5 * x.T @ difference


def summed(batch_size, devices=1):
    group = SeedGroup((0,), tuple(jax.devices()[:devices]))
    model = MLP(4, widths=())
    program = chunks.program(gradients.sums_of(model, model, CONFIG, SPEC), group)
    return [
        (cast(Gradients, program((linear(1), linear(2)), chunk)), chunk.weight)
        for chunk in chunks.of(SPLIT, batch_size, group)
    ]


@pytest.mark.parametrize("devices", [1, 2])
def test_gradients_are_the_closed_form_of_a_linear_network(devices):
    """Batches of four, the last one half padding, on one device and on two."""
    parts = summed(4, devices)
    assert [int(weight.sum()) for _, weight in parts] == [4, 4, 2]
    total = jax.tree.map(lambda *x: sum(map(np.asarray, x)), *(g for g, _ in parts))
    hard, soft = closed_form(linear(1), linear(2))
    np.testing.assert_allclose(total.hard["Dense_0"]["kernel"], hard, rtol=1e-4)
    np.testing.assert_allclose(total.soft["Dense_0"]["kernel"], soft, rtol=1e-4)


def test_cosine_and_norms_are_of_the_mean_gradients():
    """By the kernel and the bias together; batches of two, five of them."""
    parts = summed(2)
    found = gradients.values_of(parts)
    whole, _ = summed(10)[0]
    hard, soft = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(g)])
                  for g in (whole.hard, whole.soft))  # fmt: skip
    norms = np.linalg.norm(hard), np.linalg.norm(soft)
    assert found["hard_norm"] == pytest.approx(norms[0] / 10, rel=1e-5)
    assert found["soft_norm"] == pytest.approx(norms[1] / 10, rel=1e-5)
    assert found["norm_ratio"] == pytest.approx(norms[1] / norms[0], rel=1e-5)
    assert found["cosine"] == pytest.approx(hard @ soft / np.prod(norms), rel=1e-4)
    assert found["cosine"] != pytest.approx(found["batch_cosine"], rel=0.05)


def test_the_batches_cosine_leaves_batches_with_padding_out():
    """Cosines 1 and 0 of whole batches; -1 of one that is half empty."""
    full, half = np.ones(2), np.array([1.0, 0.0])
    east, north, west = (np.array(v, np.float32) for v in ([1, 0], [0, 1], [-1, 0]))
    parts = [
        (Gradients({"w": east}, {"w": 2 * east}), full),
        (Gradients({"w": east}, {"w": north}), full),
        (Gradients({"w": east}, {"w": west}), half),
    ]
    found = gradients.values_of(parts)
    assert found["batch_cosine"] == pytest.approx(0.5)
    # Sums [3, 0] and [1, 1], of five examples.
    assert found["cosine"] == pytest.approx(1 / np.sqrt(2))
    assert found["hard_norm"] == pytest.approx(3 / 5)


def test_a_zero_gradient_has_no_cosine():
    """A student that answers as its teacher does has nothing to learn from it."""
    zero, one = {"w": np.zeros(2, np.float32)}, {"w": np.ones(2, np.float32)}
    found = gradients.values_of([(Gradients(one, zero), np.ones(3))])
    assert found["cosine"] is None and found["batch_cosine"] is None
    assert found["norm_ratio"] == 0
    found = gradients.values_of([(Gradients(zero, one), np.ones(3))])
    assert found["norm_ratio"] is None


def test_parameters_are_as_far_as_numpy_says():
    own, others = linear(1)["params"], linear(2)["params"]
    found = teacher_gap.parameter_values(own, others)
    a, b = (np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(p)])
            for p in (own, others))  # fmt: skip
    assert found is not None
    assert found["distance"] == pytest.approx(np.linalg.norm(a - b), rel=1e-6)
    relative = np.linalg.norm(a - b) / np.linalg.norm(b)
    assert found["relative"] == pytest.approx(relative, rel=1e-6)


def test_other_architectures_have_no_distance():
    own = linear(1)["params"]
    wider = {"Dense_0": {"kernel": np.ones((9, 5)), "bias": np.ones(5)}}
    deeper = {**own, "Dense_1": own["Dense_0"]}
    assert teacher_gap.parameter_values(own, wider) is None
    assert teacher_gap.parameter_values(own, deeper) is None


def test_soft_divergence_and_confidence_are_scipys():
    own, others = rng.normal(size=(2, 30, 4)).astype(np.float32)
    found = teacher_gap.output_values(own, others, 3.0)
    p, q = special.softmax(others / 3.0, -1), special.softmax(own / 3.0, -1)
    expected = special.rel_entr(np.float64(p), np.float64(q)).sum(-1).mean()
    assert found["soft_kl"] == pytest.approx(expected, rel=1e-4)
    sure = [100 * special.softmax(z, -1).max(-1).mean() for z in (own, others)]
    assert found["confidence"] == pytest.approx(sure[0], rel=1e-5)
    assert found["confidence_gap"] == pytest.approx(sure[1] - sure[0], rel=1e-3)


def last_evaluation(workdir, network, seed):
    """What training wrote of a network's last evaluation."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    own = [r for r in rows if r["phase"] == "eval" and r["network"] == network]
    return [row for row in own if row["seed"] == seed][-1]


def test_test_images_give_what_training_recorded(analysed_run):
    """Of the same weights and images, from the checkpoint, by other programs."""
    subject = open_run(analysed_run.workdir, num_devices=1).subject("spaced", 4)
    found = teacher_gap.measure(subject, EVERYTHING)
    assert found is not None
    told = last_evaluation(analysed_run.workdir, "spaced", 4)
    for name in ("acc1", "teacher_acc1", "teacher_kl", "teacher_agreement"):
        expected = told[f"eval/student/spaced/{name}"]
        assert found["test"][name] == pytest.approx(expected, rel=1e-4), name
    assert 0 < found["train"]["cka"] < 1
    assert found["test"]["cka"] != found["train"]["cka"]


def test_devices_that_share_the_work_change_nothing(analysed_run):
    """Batches of 30 on 4 devices are of 32; the last one is half padding."""
    one, four = (
        teacher_gap.measure(
            open_run(analysed_run.workdir, num_devices=count).subject("online", 3),
            Options(splits="train", num_examples=80, batch_size=32 - 2 * (count == 4)),
        )
        for count in (1, 4)
    )
    assert one is not None and four is not None
    flat = lambda values: {k: v for k, v in values.items() if k != "gradients"}
    assert flat(one["train"]) == pytest.approx(flat(four["train"]), rel=1e-4)
    expected = pytest.approx(one["train"]["gradients"], rel=1e-3)
    assert four["train"]["gradients"] == expected


def test_a_student_that_is_its_teacher_has_no_gap(analysed_run):
    subject = open_run(analysed_run.workdir, num_devices=1).subject("online", 3)
    itself = dataclasses.replace(subject, teacher=subject)
    found = teacher_gap.measure(itself, Options(splits="test", num_examples=0))
    assert found is not None
    test = found["test"]
    assert test["teacher_agreement"] == 100
    assert test["teacher_kl"] == test["soft_kl"] == test["confidence_gap"] == 0
    assert test["cka"] == pytest.approx(1.0, abs=1e-12)
    assert test["gradients"]["soft_norm"] < 1e-6 * test["gradients"]["hard_norm"]
    assert found["parameters"]["distance"] == 0


def test_it_does_not_apply_to_the_teacher(analysed_run):
    subject = open_run(analysed_run.workdir).subject("teacher", 3)
    assert teacher_gap.measure(subject, Options()) is None


def test_too_few_examples_for_the_classes_are_refused_by_the_options_name(
    analysed_run,
):
    """In one line, before anything is measured."""
    run = open_run(analysed_run.workdir)
    with pytest.raises(ConfigError, match=r"^--options.teacher_gap.num_examples=3 "):
        teacher_gap.ANALYSIS.check(run, Options(num_examples=3))
    teacher_gap.ANALYSIS.check(run, Options(num_examples=10))


def test_a_baseline_has_no_gradients_of_a_loss_that_was_never_its_own(analysed_run):
    """All else is measured against the teacher of its repetition."""
    subject = open_run(analysed_run.workdir, num_devices=1).subject("baseline", 3)
    found = teacher_gap.measure(subject, Options(splits="test", num_examples=10))
    assert found is not None and found["test"]["gradients"] is None
    assert found["test"]["teacher_kl"] > 0 and found["parameters"]["distance"] > 0


@pytest.mark.parametrize(
    ("name", "method", "taught"),
    [
        ("online", "kd", True),
        ("online", "dlb", False),
        ("baseline", "hard", False),
        ("teacher", "hard", False),
    ],
)
def test_a_network_is_guided_by_the_teacher_that_its_method_looks_at(
    analysed_run, monkeypatch, name, method, taught
):
    """Not by one that only stands beside it."""
    subject = open_run(analysed_run.workdir).subject(name, 3)
    settings = dataclasses.replace(subject.settings, method=method)
    monkeypatch.setattr(Run, "settings", lambda run, name: settings)
    assert subject.guide is (subject.teacher if taught else None)
    assert (subject.teacher is None) == (name == "teacher")


def test_a_student_is_measured_again_where_its_teacher_changed(analysed_run):
    run = open_run(analysed_run.workdir)
    student, teacher = run.subject("online", 3), run.subject("teacher", 3)
    beside = teacher_gap.ANALYSIS.beside
    assert beside(student, Options()) == (student.teacher,)
    assert beside(teacher, Options()) == ()


def test_features_are_those_that_the_last_layer_reads(analysed_run):
    """CKA by NumPy, of hidden layers worked out by hand."""
    run = open_run(analysed_run.workdir, num_devices=1)
    subject = run.subject("online", 3)
    assert subject.teacher is not None
    test = run.split("test", 0, "count")
    hidden = []
    for one in (subject, subject.teacher):
        x = np.asarray(run.prepare(test.image), np.float64).reshape(40, -1)
        for layer in ("Dense_0", "Dense_1"):
            weights = one.variables["params"][layer]
            x = np.maximum(x @ weights["kernel"] + weights["bias"], 0)
        hidden.append(x - x.mean(0))
    k, l = (x @ x.T for x in hidden)
    expected = (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())
    found = teacher_gap.measure(subject, Options(splits="test"))
    assert found is not None
    assert found["test"]["cka"] == pytest.approx(expected, rel=1e-4)


def test_batches_are_mixed(analysed_run):
    """Where a data set comes class by class, a batch would be of one class."""
    mixed = chunks.mixed(Split(np.arange(40), np.repeat(np.arange(4), 10)))
    np.testing.assert_array_equal(mixed.image // 10, mixed.label)
    np.testing.assert_array_equal(np.sort(mixed.image), np.arange(40))
    assert all(len(set(mixed.label[k : k + 10])) > 1 for k in range(0, 40, 10))


def test_snapshots_become_curves_and_the_last_weights_a_table(analysed_run, tmp_path):
    found = analyze.analyze(
        analysed_run.copy(tmp_path / "run"),
        ["teacher_gap"],
        networks=["teacher", "online", "spaced"],
        at="snapshots",
        options={"teacher_gap": {"batch_size": 20}},
        num_devices=1,
    )["teacher_gap"]
    assert found.networks == ["online", "spaced"]
    table = teacher_gap.table(found)
    assert table is not None
    assert [row[:2] for row in table.rows] == [
        (name, which)
        for which in ("train", "test")
        for name in ("online", "spaced", "spaced - online")
    ]
    last = [row.values["test"]["cka"] for row in found.last if row.network == "spaced"]
    assert table.rows[4][4] == f"{np.mean(last):.3f} ± {np.std(last, ddof=1):.3f}"
    assert table.titles[4] == "features'\nCKA"
    assert len(table.titles) == len(table.rows[4]) == 7
    with style.drawing():
        drawn = teacher_gap.figures(found, style.line_looks(["online", "spaced"]))
    assert all(figure is not None for _, _, figure in drawn)
    train, test = drawn[3][2].axes
    assert "test" in test.get_title(loc="left")
    means = [
        np.mean([row.values["test"]["cka"] for row in found.rows
                 if row.network == "spaced" and row.epoch == epoch])
        for epoch in (1.0, 2.0)
    ]  # fmt: skip
    line = test.lines[1]
    np.testing.assert_allclose(line.get_xdata(), [1.0, 2.0])
    np.testing.assert_allclose(line.get_ydata(), means)
