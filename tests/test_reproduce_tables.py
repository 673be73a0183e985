"""What a table of the paper shows of its runs, and what it never shows."""

import csv
import dataclasses
import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image

from spaced_kd.reproduce import compared, figures, tables
from spaced_kd.reproduce import numbers as numbers_lib
from spaced_kd.reproduce.items import ITEMS, Column, Item, Place, Row
from spaced_kd.reproduce.items.base import Best
from spaced_kd.reproduce.numbers import Number
from spaced_kd.reproduce.planner import Spot
from spaced_kd.tables import Table

COLUMNS = {"baseline": Column("w/o"), "online": Column("online"), "spaced": Column("s")}
R18, R50 = "ResNet-18 / CIFAR-100", "ResNet-50 / CIFAR-100"


def _item(labels=(R18,), comparisons=(("spaced", "online"),), **more):
    rows = tuple(
        Row(label, "d", "m", {c: Place(label, c) for c in COLUMNS}) for label in labels
    )
    return Item("table1", "A title", COLUMNS, rows, comparisons, **more)


def _number(values, run="run", network="net", passes=1000, status="finished"):
    by_seed = dict(enumerate(values))
    spot = Spot(run, network, tuple(by_seed))
    return Number(status, by_seed, (spot,), "", 100, passes, 100)


def _numbers(item, by_column, run=lambda row: row):
    return {
        place: _number(by_column[column], run(row.label), column)
        for row in item.rows
        for column, place in row.places.items()
    }


VALUES = {
    "baseline": [68.0, 69.0, 70.0],
    "online": [70.0, 71.0, 72.0],
    "spaced": [72.0, 72.5, 74.0],
}


def test_a_cell_has_ours_the_papers_and_the_difference():
    """72.43 is Table 1's; ours is the mean 72.8333 with s.d. 1.0408 of three seeds."""
    item = _item()
    (row,) = tables.main(item, _numbers(item, VALUES)).rows
    assert row == (
        R18,
        "69.00 ± 1.00 (n=3)\npaper 68.12, +0.88",
        "71.00 ± 1.00 (n=3)\npaper 71.05, -0.05",
        "72.83 ± 1.04 (n=3)\npaper 72.43, +0.40",
    )


@pytest.mark.parametrize("status", ["failed", "unfinished", "running"])
def test_a_run_that_is_not_finished_is_no_number(status):
    """Whatever its log holds: half a training is not a result."""
    item = _item()
    numbers = _numbers(item, VALUES)
    place = item.rows[0].places["spaced"]
    numbers[place] = dataclasses.replace(
        numbers[place], status=status, by_seed={}, error="it broke."
    )
    table = tables.main(item, numbers)
    assert table.rows[0][3] == f"{status.upper()}\npaper 72.43"
    assert "UNFINISHED: 1 of 3 cells have no number yet." in table.notes
    assert ("FAILED: it broke." in table.notes) == (status == "failed")
    (difference,) = compared.differences(item, numbers)
    assert difference.comparison is None
    shown = tables.differences([difference], item)
    assert shown is not None
    assert not any(c.isdigit() for c in "".join(shown.rows[0][3:9]))
    line = list(csv.DictReader(io.StringIO(tables.long_csv(item, numbers))))[2]
    assert (line["status"], line["mean"], line["by_seed"]) == (status, "", "")


def test_a_value_that_is_not_finite_is_no_number():
    item = _item()
    numbers = _numbers(item, VALUES | {"spaced": [72.0, None, 74.0]})
    assert tables.main(item, numbers).rows[0][3] == "not finite\npaper 72.43"
    (difference,) = compared.differences(item, numbers)
    assert difference.comparison is None


def test_rows_that_share_their_runs_say_so():
    """At a small budget ResNet-50 is the small CNN too: that is one result, not two."""
    item = _item((R18, R50))
    numbers = _numbers(item, VALUES, run=lambda label: "the same")
    first, second = tables.main(item, numbers).rows
    assert "72.83" in first[3]
    assert second[3] == f"as {R18}\npaper 73.77"
    assert [d.row.label for d in compared.differences(item, numbers)] == [R18]
    assert numbers_lib.shared_with(item, numbers) == {R50: R18}
    apart = _numbers(item, VALUES)
    assert numbers_lib.shared_with(item, apart) == {}


def _sign_flips(differences):
    """Two-sided p of the mean over all 2^n signs, counted one by one."""
    observed = abs(np.mean(differences))
    means = [
        abs(np.mean(np.multiply(differences, signs)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return np.mean([mean >= observed - 1e-12 for mean in means])


def test_differences_are_paired_tested_and_adjusted():
    """Against all sign flips, and Holm worked out by hand for two tests."""
    item = _item(comparisons=(("spaced", "online"), ("spaced", "baseline")))
    values = {
        "baseline": [68.0, 69.0, 70.5, 71.0, 66.0],
        "online": [72.0, 70.0, 73.0, 71.0, 70.0],
        "spaced": [72.5, 71.5, 72.0, 73.0, 71.0],
    }
    found = compared.differences(item, _numbers(item, values))
    spaced = np.array(values["spaced"])
    p = []
    for difference in found:
        minus = spaced - values[difference.reference]
        assert difference.comparison is not None
        assert difference.comparison.mean == pytest.approx(minus.mean())
        assert difference.comparison.p_value == pytest.approx(_sign_flips(minus))
        assert difference.comparison.p_least == 0.0625
        p.append(_sign_flips(minus))
    low, high = min(p), max(p)
    expected = {low: min(1.0, 2 * low), high: max(min(1.0, 2 * low), high)}
    assert [d.p_holm for d in found] == pytest.approx([expected[one] for one in p])


def test_compute_that_differs_is_marked():
    """A replay pays the teacher's forward pass: 7 passes for 6."""
    item = _item()
    numbers = _numbers(item, VALUES)
    place = item.rows[0].places["spaced"]
    more = {"updates": 101, "forward_passes": 1200}
    numbers[place] = dataclasses.replace(numbers[place], **more)
    found = compared.differences(item, numbers)
    assert found[0].updates == pytest.approx(0.01)
    assert found[0].passes == pytest.approx(200 / 1200)
    table = tables.differences(found, item)
    assert table is not None
    assert table.rows[0][-1] == "+1 %, +16.7 % †"
    assert any("--equal" in note for note in table.notes)
    even = tables.differences(compared.differences(item, _numbers(item, VALUES)), item)
    assert even is not None
    assert not any("†" in text for text in (*even.rows[0], *even.notes))


def test_the_best_is_chosen_on_the_other_seeds():
    """Else the best of several would be the luckiest, and nothing could beat it."""
    columns = {name: Column(name) for name in ("own", "first", "second")}
    places = {name: Place("c", name) for name in columns}
    item = Item(
        "adaptive",
        "t",
        columns,
        (Row("r", "d", "m", places),),
        (("own", "best"),),
        kind="study",
        best={"best": Best("best of both", ("first", "second"))},
    )
    values = {"own": [5.0] * 3, "first": [8.0, 2.0, 2.0], "second": [1.0, 8.0, 8.0]}
    (found,) = compared.differences(item, _numbers(item, values))
    rivals = []
    for seed in range(3):
        rest = [k for k in range(3) if k != seed]
        means = {n: np.mean([values[n][k] for k in rest]) for n in ("first", "second")}
        rivals.append(values[max(means, key=lambda n: means[n])][seed])
    expected = [5.0 - rival for rival in rivals]
    assert found.comparison is not None
    assert found.comparison.mean == pytest.approx(np.mean(expected))
    table = tables.differences([found], item)
    assert table is not None and table.rows[0][1] == "own - best of both"


def test_csv_has_every_seed():
    """For whoever trusts no table."""
    item = _item()
    lines = list(
        csv.DictReader(io.StringIO(tables.long_csv(item, _numbers(item, VALUES))))
    )
    assert [line["column"] for line in lines] == list(COLUMNS)
    assert lines[2]["by_seed"] == "0:72.0 1:72.5 2:74.0"
    assert float(lines[2]["minus_paper"]) == pytest.approx(218.5 / 3 - 72.43)
    assert lines[2]["run"] == R18


def test_latex_compiles_what_the_table_says():
    """Characters that LaTeX reads otherwise, a row that begins with a bracket."""
    table = Table(("a\nb", "100 %"), (("[x] & _y", "1 ± 2 \\ {z} †"),), ("50 % ~ ^",))
    assert table.latex() == (
        "\\begin{tabular}{ll}\n\\toprule\n"
        "a b & 100 \\% \\\\\n\\midrule\n"
        "{[}x] \\& \\_y & 1 $\\pm$ 2 \\textbackslash{} \\{z\\} $\\dagger$ \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
        "\\par\\smallskip\\footnotesize 50 \\% \\textasciitilde{} \\textasciicircum{}\n"
    )


def test_the_fit_is_the_least_squares_parabola():
    """Against the normal equations, and nothing through too few places."""
    x, y = [0.0, 0.5, 1.0, 1.5, 2.0, 2.0], [0.0, 0.9, 1.1, 1.6, 1.0, 1.4]
    design = np.vander(x, 3)
    expected = np.linalg.solve(design.T @ design, design.T @ y)
    np.testing.assert_allclose(figures.quadratic(x, y), expected, rtol=1e-9)
    assert figures.quadratic([0.0, 1.0, 1.0], [0.0, 1.0, 2.0]) is None


def test_figures_draw_what_is_finished():
    """Every figure's panels, from numbers made up; nothing as long as nothing is."""
    for name in ("figure2", "figure3", "figure4", "figure5", "adaptive"):
        item = ITEMS[name]
        places = {place: k for k, place in enumerate(item.places)}
        none = {p: Number("unfinished", {}, (Spot("r", "n", (0,)),)) for p in places}
        assert figures.draw(item, none) == []
        some = {
            p: _number([50.0 + k % 7, 51.0], run=f"{k}") if k % 5 else none[p]
            for p, k in places.items()
        }
        drawn = figures.draw(item, some)
        panels = {row.panel for row in item.rows if row.panel}
        assert len(drawn) == {"figure2": 2, "adaptive": 1}.get(name, len(panels))
        stems = [stem for stem, _, _ in drawn]
        assert len(set(stems)) == len(stems)


def test_panels_of_shared_runs_are_drawn_once():
    """At a small budget ResNet-50 under noise is the small CNN under noise."""
    item = ITEMS["figure4"]
    same = {p: _number([50.0, 52.0], run="one") for p in item.places}
    titles = [title for _, title, _ in figures.draw(item, same)]
    assert len(titles) == 4
    assert all("ResNet-18" in title for title in titles)


def test_a_picture_has_its_place_in_the_grid():
    """Figure 6: rows are corruptions, columns severities."""
    item = ITEMS["figure6"]
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 200).save(buffer, format="PNG")
    spot = Spot("run", "net", (0,))
    numbers = {
        p: Number("finished", {}, (spot,), picture=buffer.getvalue())
        for p in item.places
    }
    ((_, _, figure),) = figures.draw(item, numbers)
    grid = [axes.get_title() for axes in figure.axes]
    count = len(item.columns)
    assert grid[:count] == [column.title for column in item.columns.values()]
    assert set(grid[count:]) == {""}
    labels = [axes.get_ylabel() for axes in figure.axes[::count]]
    assert labels == [row.label for row in item.rows]
    assert all(axes.images for axes in figure.axes)


def test_a_line_has_a_gap_where_there_is_no_number():
    item = ITEMS["figure5"]
    numbers = {p: _number([50.0, 52.0], run=p.cell) for p in item.places}
    missing = item.rows[2].places["online"]
    numbers[missing] = dataclasses.replace(numbers[missing], by_seed={})
    (_, _, figure), _ = figures.draw(item, numbers)
    (axes,) = figure.axes
    lines = [line.get_ydata() for line in axes.lines]
    assert sum(math.isnan(float(y)) for line in lines for y in line) == 1
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "0.001",
        "0.005",
        "0.01",
        "0.05",
        "0.1",
    ]
