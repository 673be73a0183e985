"""Slices of a landscape against quadratics of known curvature and NumPy's norms."""

import jax
import numpy as np
import pytest
import subjects

from spaced_kd.analysis import contours, directions, landscape
from spaced_kd.analysis.base import Found, Row
from spaced_kd.errors import ConfigError
from spaced_kd.style import line_looks

rng = np.random.default_rng(0)
TWICE = rng.normal(size=(6, 6))
HESSIAN = TWICE + TWICE.T
GRADIENT = rng.normal(size=6)
PLACES = [-1.0, -0.5, 0.0, 0.5, 1.0]


def _flat(params):
    return np.concatenate([np.asarray(params["a"]).ravel(), np.asarray(params["b"])])


def _quadratic(params):
    """g'w + w'Hw / 2 in float64."""
    w = _flat(params).astype(np.float64)
    return {"loss": float(GRADIENT @ w + w @ HESSIAN @ w / 2), "acc1": 5.0}


def _point():
    return {"a": rng.normal(size=(2, 2)), "b": rng.normal(size=2)}


def test_a_line_through_a_quadratic_is_its_parabola():
    """L(t) = L(0) + t g'd + t^2 d'Hd / 2 around the weights."""
    params, direction = _point(), _point()
    w, d = _flat(params), _flat(direction)
    slope, curvature = (GRADIENT + HESSIAN @ w) @ d, d @ HESSIAN @ d
    t = np.array(PLACES)
    expected = _quadratic(params)["loss"] + t * slope + t**2 / 2 * curvature
    found = landscape.line(_quadratic, params, direction, PLACES)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5, atol=1e-5)
    assert found["at"] == PLACES and found["acc1"] == [5.0] * 5


def test_a_plane_through_a_quadratic_has_its_mixed_curvature():
    """Rows go along the second direction, columns along the first."""
    params, first, second = _point(), _point(), _point()
    w, d, e = map(_flat, (params, first, second))
    gradient = GRADIENT + HESSIAN @ w
    y, x = np.meshgrid(PLACES, PLACES, indexing="ij")
    rise = x * (gradient @ d) + y * (gradient @ e) + x * y * (d @ HESSIAN @ e)
    rise += x**2 / 2 * (d @ HESSIAN @ d) + y**2 / 2 * (e @ HESSIAN @ e)
    found = landscape.plane(_quadratic, params, first, second, PLACES)
    expected = _quadratic(params)["loss"] + rise
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5, atol=1e-5)


def test_every_filter_is_as_long_as_the_networks_own():
    """[:, :, :, c] of a convolution, a column of a linear layer, a whole token."""
    shapes = {
        "conv": {"kernel": (3, 3, 2, 5)},
        "dense": {"kernel": (4, 3), "bias": (3,)},
        "norm": {"scale": (5,), "bias": (5,)},
        "cls_token": (1, 1, 6),
        "pos_embed": (1, 7, 6),
    }
    draw = lambda shape: rng.normal(size=shape).astype(np.float32)
    is_shape = lambda x: isinstance(x, tuple)
    params = jax.tree.map(draw, shapes, is_leaf=is_shape)
    raw = jax.tree.map(draw, shapes, is_leaf=is_shape)
    found = jax.tree.map(np.asarray, directions.filter_normalised(raw, params))

    def assert_filters(name, own, theirs, drawn):
        norm = np.linalg.norm
        np.testing.assert_allclose(norm(theirs), norm(own), rtol=1e-5, err_msg=name)
        cosine = np.vdot(theirs, drawn) / norm(theirs) / norm(drawn)
        np.testing.assert_allclose(cosine, 1, rtol=1e-5, err_msg=name)

    for name in ("conv", "dense"):
        trees = [tree[name]["kernel"] for tree in (params, found, raw)]
        for place in range(trees[0].shape[-1]):
            assert_filters(name, *(tree[..., place].ravel() for tree in trees))
    for name in ("cls_token", "pos_embed"):
        assert_filters(name, *(tree[name].ravel() for tree in (params, found, raw)))
    for tensor in (found["dense"]["bias"], found["norm"]["scale"]):
        np.testing.assert_array_equal(tensor, 0)


@pytest.fixture(scope="module")
def run():
    """Small CNNs with BatchNorm."""
    return subjects.make_run()


OPTIONS = landscape.Options(
    range=0.6, line_points=5, plane_points=3, num_examples=40, seed=2
)


def test_the_scale_of_filters_before_batch_norm_does_not_matter(run):
    """What filter normalisation is for: the same function has the same slice."""
    subject = subjects.make_subject(run)
    before = landscape.measure(subject, OPTIONS)
    scales = rng.uniform(0.5, 4, 16).astype(np.float32)
    params = jax.tree.map(np.copy, subject.variables["params"])
    stats = jax.tree.map(np.copy, subject.variables["batch_stats"])
    params["Conv_0"]["kernel"] *= scales
    stats["BatchNorm_0"]["mean"] *= scales
    stats["BatchNorm_0"]["var"] *= scales**2
    subject.variables.update(params=params, batch_stats=stats)
    after = landscape.measure(subject, OPTIONS)
    # The epsilon of BatchNorm, 1e-5 of variances around 1, is not scaled.
    for part in ("line", "plane"):
        np.testing.assert_allclose(after[part]["loss"], before[part]["loss"], rtol=2e-4)
    assert np.ptp(before["line"]["loss"]) > 0.1


def test_measured_scores_are_those_of_moved_weights_by_hand(run):
    """In eval mode with the running statistics, which stand still."""
    subject = subjects.make_subject(run, key=1)
    found = landscape.measure(subject, OPTIONS)
    params = subject.variables["params"]
    first, second = (
        directions.filter_normalised(directions.gaussian((2, k), params), params)
        for k in range(2)
    )
    corner = jax.tree.map(lambda w, d, e: w + 0.6 * d - 0.6 * e, params, first, second)
    split = run.split("train", 40, "")
    variables = {**subject.variables, "params": corner}
    loss, accuracy = subjects.scores_by_hand(subject, variables, split)
    np.testing.assert_allclose(found["plane"]["loss"][0][2], loss, rtol=1e-5)
    np.testing.assert_allclose(found["plane"]["acc1"][0][2], accuracy, rtol=1e-6)
    assert found["plane"]["at"] == [-0.6, 0.0, 0.6]
    assert found["line"]["loss"][2] == found["centre"]["loss"]
    # Both go along the same first direction.
    assert found["plane"]["loss"][1][2] == found["line"]["loss"][-1]


def test_devices_change_nothing(run):
    """Each evaluates its share of the images with the same weights."""
    alone = landscape.measure(subjects.make_subject(run), OPTIONS)
    many = subjects.make_subject(subjects.make_run(devices=4))
    found = landscape.measure(many, OPTIONS)
    for part in ("line", "plane"):
        np.testing.assert_allclose(found[part]["loss"], alone[part]["loss"], rtol=1e-5)


@pytest.mark.parametrize(("dims", "parts"), [("1", {"line"}), ("2", {"plane"})])
def test_only_what_was_asked_for_is_measured(run, dims, parts):
    options = landscape.Options(
        dims=dims, line_points=3, plane_points=3, num_examples=40
    )
    found = landscape.measure(subjects.make_subject(run), options)
    assert set(found) == {"centre"} | parts


def _found(values, **options):
    fields = landscape.Options(**options)
    fields = {n: getattr(fields, n) for n in fields.__dataclass_fields__}
    rows = [Row(name, 0, 1, 1.0, values[name]) for name in values]
    return Found({"reference": ""}, fields, {}, rows)


def _values(curvature, points=21):
    at = np.linspace(-1, 1, points)
    bowl = (1 + curvature * (at[:, None] ** 2 + at**2)).tolist()
    line = {"at": at.tolist(), "loss": (1 + curvature * at**2).tolist()}
    flat = np.full((points, points), 50.0).tolist()
    return {
        "centre": {"loss": 1.0, "acc1": 50.0},
        "line": line | {"acc1": [50.0] * points},
        "plane": {"at": at.tolist(), "loss": bowl, "acc1": flat},
    }


def test_the_table_has_the_rise_at_points_that_were_measured():
    """Not between two points, where a straight line would make a bowl look steep."""
    table = landscape.table(_found({"online": _values(4.0)}))
    # 4 t^2 at the point nearest to a quarter, at a half and at the end.
    titles = ("rise at\n0.2", "rise at\n0.5", "rise at\n1")
    assert table.titles[3:6] == titles
    assert table.rows[0][:6] == ("online", "1.00", "50.00", "0.16", "1.00", "4.00")
    three = landscape.table(_found({"online": _values(4.0, 3)}, line_points=3))
    assert three.titles[3:-1] == ("rise at\n1",)
    assert three.rows[0][3] == "4.00"


@pytest.mark.parametrize("points", [5, 11, 401])
def test_the_mean_rise_of_a_bowl_comes_to_its_integral(points):
    """Mean of x^2 over [-1, 1] is 1/3; by trapezoids h^2 / 6 more, exactly."""
    values = _values(1.0, points)
    step = 2 / (points - 1)
    expected = 2 * (1 / 3 + step**2 / 6)
    np.testing.assert_allclose(landscape.mean_rise(values), expected, rtol=1e-12)
    values["plane"]["loss"][0][0] = None
    assert landscape.mean_rise(values) is None


def test_the_table_compares_with_the_reference():
    values = {"online": _values(4.0), "spaced": _values(1.0)}
    table = landscape.table(_found(values)._replace(config={"reference": "online"}))
    assert table.rows[2][:6] == (
        "spaced - online", "+0.00", "+0.00", "-0.12", "-0.75", "-3.00",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["line_points", "plane_points"])
def test_an_even_number_of_points_is_refused_in_a_line(name):
    """There would be none at the weights, from which rises are taken."""
    with pytest.raises(ConfigError, match=f"landscape.{name}=4 is even") as error:
        landscape.Options(**{name: 4})
    assert "\n" not in str(error.value)


def test_too_few_images_for_the_classes_are_told_before_anything_is_measured(run):
    with pytest.raises(ConfigError, match="--options.landscape.num_examples"):
        landscape.ANALYSIS.check(run, landscape.Options(num_examples=1))


def test_planes_of_all_networks_have_common_levels():
    """Else a sharper minimum would look like a flat one."""
    values = {"online": _values(4.0), "spaced": _values(1.0)}
    looks = line_looks(["online", "spaced"])
    lines, planes = landscape.figures(_found(values), looks)
    assert [lines[0], planes[0]] == ["landscape_line", "landscape_plane"]
    figure = planes[2]
    filled = [axes.collections[0] for axes in figure.axes[:2]]
    np.testing.assert_array_equal(filled[0].levels, filled[1].levels)
    assert filled[0].levels[0] == pytest.approx(1.0)
    assert filled[0].levels[-1] == pytest.approx(9.0)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["online", "spaced"]


def test_a_plane_without_finite_losses_is_not_drawn():
    nothing = {"at": [0.0, 1.0], "loss": [[None] * 2] * 2}
    assert contours.figure({"online": nothing}, "") is None
