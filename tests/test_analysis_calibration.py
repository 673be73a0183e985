"""Calibration of networks: as training recorded, and as drawn."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from scipy import special

from spaced_kd import metrics, style
from spaced_kd.analysis import calibration
from spaced_kd.analysis.base import Found, Row
from spaced_kd.analysis.calibration import Options
from spaced_kd.analysis.subject import open_run
from spaced_kd.errors import ConfigError
from spaced_kd.types import Predictions

rng = np.random.default_rng(0)
LOGITS = 4.0 * rng.normal(size=(4000, 6))
LABELS = (LOGITS / 4 + rng.gumbel(size=LOGITS.shape)).argmax(-1).astype(np.int32)


def test_scores_are_of_all_images_and_bins_of_percent():
    found = calibration.scores(LOGITS, LABELS, Options())
    probs = special.softmax(LOGITS, -1)
    confidence, correct = probs.max(-1), probs.argmax(-1) == LABELS
    assert found["acc1"] == pytest.approx(100 * correct.mean(), rel=1e-5)
    expected = -np.log(probs[np.arange(4000), LABELS]).mean()
    assert found["nll"] == pytest.approx(expected, rel=1e-5)
    assert found["confidence"] == pytest.approx(100 * confidence.mean())
    place = np.ceil(confidence * 15).astype(int) - 1
    counts = np.bincount(place, minlength=15)
    np.testing.assert_array_equal(found["bins"]["count"], counts)
    gaps = [abs((correct - 1.0 * confidence)[place == m].sum()) for m in range(15)]
    assert found["ece"] == pytest.approx(100 * sum(gaps) / 4000)
    # All of one bin: the calibration error is the gap of the means.
    one = calibration.scores(LOGITS, LABELS, Options(num_bins=1))
    gap = abs(found["acc1"] - found["confidence"])
    assert one["ece"] == pytest.approx(gap, rel=1e-5)
    assert one["adaptive_ece"] == pytest.approx(gap, rel=1e-5)


def test_the_temperature_is_scored_on_images_it_was_not_fitted_on():
    """Labels were drawn at temperature 4; the two halves are those of any seed."""
    found = calibration.scores(LOGITS, LABELS, Options())["scaling"]
    assert found["temperature"] == pytest.approx(4.0, rel=0.1)
    assert found["scaled_nll"] < 0.7 * found["nll"]
    assert found["scaled_ece"] < 0.5 * found["ece"]
    # Labels that say nothing in the half that is scored do not move the temperature.
    order = np.random.default_rng(0).permutation(4000)
    spoilt = LABELS.copy()
    spoilt[order[2000:]] = rng.integers(0, 6, 2000)
    again = calibration.scores(LOGITS, spoilt, Options())["scaling"]
    assert again["temperature"] == found["temperature"]
    assert again["scaled_nll"] > found["scaled_nll"]
    # And in the half that is fitted they do.
    spoilt = LABELS.copy()
    spoilt[order[:2000]] = rng.integers(0, 6, 2000)
    other = calibration.scores(LOGITS, spoilt, Options())["scaling"]
    assert other["temperature"] > 2 * found["temperature"]
    assert other["nll"] == found["nll"]


@pytest.mark.parametrize("network", ["teacher", "spaced"])
def test_accuracy_and_likelihood_are_what_training_recorded(analysed_run, network):
    run = open_run(analysed_run.workdir, num_devices=1)
    found = calibration.measure(run.subject(network, 3), Options())
    rows = map(
        json.loads, (analysed_run.workdir / "metrics.jsonl").read_text().splitlines()
    )
    own = [r for r in rows if r["phase"] == "eval" and r["network"] == network]
    told = [row for row in own if row["seed"] == 3][-1]
    prefix = "eval/teacher/" if network == "teacher" else "eval/student/spaced/"
    assert found["acc1"] == pytest.approx(told[prefix + "acc1"], rel=1e-5)
    assert found["nll"] == pytest.approx(told[prefix + "loss"], rel=1e-4)
    assert sum(found["bins"]["count"]) == 40


def test_a_network_is_judged_by_the_exits_that_the_run_quotes():
    """The ensemble is the mean of logits; alone, without its peer, it is itself."""
    both = Predictions(jnp.array([[1.0, 2.0]]), jnp.array([[[3.0, -2.0]]]))
    np.testing.assert_array_equal(metrics.quoted(both, "ensemble"), [[2.0, 0.0]])
    assert metrics.quoted(both, "deepest") is both.logits
    alone = both._replace(branch_logits=None)
    assert metrics.quoted(alone, "ensemble") is both.logits


def found_of(logits_by_seed, step=10):
    rows = [
        Row("spaced", seed, step, 1.0, calibration.scores(logits, LABELS, Options()))
        for seed, logits in enumerate(logits_by_seed)
    ]
    return Found({"reference": ""}, {}, {}, rows)


def test_the_diagrams_bars_are_the_accuracies_of_all_seeds_together():
    other = LOGITS / 3 + rng.normal(size=LOGITS.shape)
    found = found_of([LOGITS, other])
    with style.drawing():
        figure = calibration.reliability_figure(found, style.line_looks(["spaced"]))
    assert figure is not None
    axes = figure.axes[0]
    bars = [p for p in axes.patches if isinstance(p, Rectangle)]
    both = np.concatenate([special.softmax(z, -1) for z in (LOGITS, other)])
    correct = both.argmax(-1) == np.concatenate([LABELS, LABELS])
    place = np.ceil(both.max(-1) * 15).astype(int) - 1
    for m in range(15):
        inside = place == m
        height = correct[inside].mean() if inside.any() else 0.0
        assert bars[m].get_height() == pytest.approx(height, abs=1e-9)
        assert bars[m].get_x() == pytest.approx(m / 15, abs=1e-9)
        assert bars[m].get_width() == pytest.approx(1 / 15)


def test_the_table_has_a_line_for_each_network():
    table = calibration.table(found_of([LOGITS, 0.5 * LOGITS]))
    assert table is not None
    (row,) = table.rows
    assert len(row) == len(table.titles)
    values = [
        calibration.scores(s * LOGITS, LABELS, Options())["ece"] for s in (1, 0.5)
    ]
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in row


def test_the_table_has_a_networks_difference_to_the_reference():
    """Paired by seed: smaller steps of the logits, the same labels."""
    rows = [
        Row(name, seed, 10, 1.0, calibration.scores(s * LOGITS, LABELS, Options()))
        for name, factor in (("online", 1.0), ("spaced", 0.5))
        for seed, s in enumerate((factor, 0.9 * factor))
    ]
    table = calibration.table(Found({"reference": "online"}, {}, {}, rows))
    assert table is not None
    assert [row[0] for row in table.rows] == ["online", "spaced", "spaced - online"]
    nll = [row.values["nll"] for row in rows]
    pairs = [nll[2] - nll[0], nll[3] - nll[1]]
    expected = f"{np.mean(pairs):+.3f} ± {np.std(pairs, ddof=1):.3f}"
    assert table.rows[2][1] == expected


def test_too_few_images_are_told_before_anything_is_measured(analysed_run):
    run = open_run(analysed_run.workdir)
    with pytest.raises(ConfigError, match=r"^--options.calibration.num_examples=3 "):
        calibration.ANALYSIS.check(run, Options(num_examples=3))


def test_nothing_measured_is_nothing_shown():
    nothing = Found({"reference": ""}, {}, {}, [])
    assert calibration.table(nothing) is None
    assert all(figure is None for _, _, figure in calibration.figures(nothing, {}))
