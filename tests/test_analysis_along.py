"""Figures over the run: which steps and seeds become curves, which points."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from spaced_kd import style
from spaced_kd.analysis import along
from spaced_kd.analysis.base import Found, Row
from spaced_kd.spread import Spread

LOOKS = style.line_looks(["a", "b"])


def drawn(rows, panels=("x",)):
    found = Found({}, {}, {}, [Row(n, s, int(10 * e), e, v) for n, s, e, v in rows])
    with style.drawing():
        return along.figure(
            found, LOOKS, {p: along.at("in", p) for p in panels}, "nats"
        )


def value(x, **more):
    return {"in": {"x": x, **more}}


def test_several_steps_are_curves_of_the_mean_with_a_band():
    rows = [("a", s, e, value(e + s)) for s in (0, 1, 5) for e in (1.0, 2.0, 3.0)]
    figure = drawn(rows)
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [3, 4, 5])
    band = axes.collections[0].get_paths()[0].vertices
    at_one = band[band[:, 0] == 1.0, 1]
    deviation = np.std([0, 1, 5], ddof=1)
    np.testing.assert_allclose(at_one.min(), 3 - deviation)
    np.testing.assert_allclose(at_one.max(), 3 + deviation)


def test_a_step_that_a_seed_lacks_is_left_out():
    """A mean over other seeds would bend the curve."""
    rows = [("a", s, e, value(e + s)) for s in (0, 1) for e in (1.0, 2.0)]
    rows += [("a", 0, 3.0, value(9.0)), ("a", 1, 4.0, value(None))]
    (axes,) = drawn(rows).axes
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1, 2])


def test_a_band_has_a_gap_where_there_is_no_mean():
    """And no height where there is a single seed; both in the colour of the line."""
    spreads = [Spread.of(v) for v in ([1.0, 3.0], [5.0], [None, 1.0], [7.0])]
    with style.drawing():
        _, axes = style.panel()
        style.band(axes, [0.0, 1.0, 2.0, 3.0], spreads, LOOKS["a"])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2, 5, np.nan, 7])
    ends = np.concatenate([p.vertices for p in axes.collections[0].get_paths()])
    height = {x: np.ptp(ends[ends[:, 0] == x, 1]) for x in set(ends[:, 0])}
    assert height == {0.0: pytest.approx(2 * 2**0.5), 1.0: 0.0, 3.0: 0.0}
    shade = to_rgb(axes.collections[0].get_facecolor()[0][:3])
    np.testing.assert_allclose(shade, to_rgb(axes.lines[0].get_color()))


def test_one_step_is_a_point_a_network():
    rows = [(n, s, 2.0, value(s + k)) for k, n in enumerate("ab") for s in (0, 2)]
    (axes,) = drawn(rows).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    points = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(points, [[1, 0], [2, 1]])
    assert axes.get_xlabel() == "nats"


def test_panels_have_titles_and_leave_out_what_lacks_the_value():
    rows = [("a", 0, 1.0, value(1.0, y=2.0)), ("b", 0, 1.0, value(3.0))]
    rows += [("b", 1, 1.0, {"in": None})]
    figure = drawn(rows, ("x", "y"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["x", "y"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a"]


def test_no_value_is_no_figure():
    assert drawn([("a", 0, 1.0, value(None))]) is None
    assert drawn([]) is None
