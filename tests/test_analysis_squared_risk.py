"""The two parts of a trace against explicit Hessians in float64, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import flatten_util

from spaced_kd.analysis import squared_risk

ALPHA = 0.3
exact_parts = jax.jit(squared_risk.exact_parts, static_argnums=0)


def two_layers(params, x):
    """A tanh network of one output; Hessian with every entry, no kinks."""
    return params["out"] @ jnp.tanh(params["in"] @ x + params["bias"])


def drawn(seed, outputs=None):
    """Parameters and data of that network, in the precision that is on."""
    draw = np.random.default_rng(seed).normal
    params = {"in": draw(size=(4, 3)), "bias": draw(size=4), "out": draw(size=4)}
    if outputs:
        params["out"] = draw(size=(outputs, 4))
    shape = (6, outputs) if outputs else (6,)
    data = draw(size=(6, 3)), draw(size=shape), draw(size=shape)
    return jax.tree.map(jnp.asarray, (params, *data))


def explicit_trace(outputs, params, labels, teacher):
    """The trace of the mean risk by `jax.hessian`, written out independently."""
    flat, unravel = flatten_util.ravel_pytree(params)

    def mean_risk(w):
        f = outputs(unravel(w))
        task, distilled = (f - labels) ** 2 / 2, (f - teacher) ** 2 / 2
        return ((1 - ALPHA) * task + ALPHA * distilled).sum() / len(labels)

    return jax.jit(lambda w: jnp.trace(jax.hessian(mean_risk)(w)))(flat)


@pytest.mark.parametrize("alpha, same", [(ALPHA, True), (1 - ALPHA, False)])
def test_the_parts_add_up_to_the_explicit_hessians_trace(alpha, same):
    """Eq. 6 in float64; with beta of another alpha it must not hold."""
    with jax.enable_x64(True):
        params, inputs, labels, teacher = drawn(0)
        outputs = lambda p: jax.vmap(lambda x: two_layers(p, x))(inputs)
        betas = squared_risk.beta(outputs(params), labels, teacher, alpha)
        parts = exact_parts(two_layers, params, inputs, betas)
        explicit = explicit_trace(outputs, params, labels, teacher)
        found = float(parts.gauss_newton + parts.residual)
        assert abs(float(parts.residual)) > 0.01
        assert np.isclose(found, float(explicit), rtol=1e-12) == same


def test_beta_is_the_risks_derivative_by_the_output():
    """On four numbers, worked out by hand."""
    f, y, g = jnp.asarray([2.0, 0.5]), jnp.asarray([1.0, 1.0]), jnp.asarray([0.0, 0.5])
    found = squared_risk.beta(f, y, g, 0.25)
    np.testing.assert_allclose(found, [0.75 * 1 + 0.25 * 2, 0.75 * -0.5], rtol=1e-6)
    slope = jax.grad(lambda f: squared_risk.risk(f, y, g, 0.25).sum())(f)
    np.testing.assert_allclose(slope, found, rtol=1e-6)
    np.testing.assert_allclose(
        squared_risk.risk(f, y, g, 0.25), [0.875, 0.09375], rtol=1e-6
    )


@pytest.fixture(scope="module")
def probed():
    """Each unit vector as a probe of a network of two outputs: its share of the sum."""
    with jax.enable_x64(True):
        params, inputs, labels, teacher = drawn(1, outputs=2)
        outputs = lambda p: jax.vmap(lambda x: two_layers(p, x))(inputs)
        betas = squared_risk.beta(outputs(params), labels, teacher, ALPHA)
        flat, unravel = flatten_util.ravel_pytree(params)

        def forms(v):
            whole = squared_risk.probed_whole(
                outputs, params, (labels, teacher), ALPHA, unravel(v)
            )
            parts = squared_risk.probed_parts(outputs, params, betas, unravel(v))
            return whole, parts

        forms = jax.jit(jax.vmap(forms))
        explicit = float(explicit_trace(outputs, params, labels, teacher))
        random = np.random.default_rng(2).normal(size=(20, flat.size))
        per_class = [
            exact_parts(
                lambda p, x, c=c: two_layers(p, x)[c], params, inputs, betas[:, c]
            )
            for c in range(2)
        ]
        found = forms(jnp.eye(flat.size)), forms(jnp.asarray(random))
        # Out of JAX before its precision changes back.
        return jax.tree.map(np.asarray, (*found, explicit, per_class))


def test_every_probe_splits_into_the_two_parts(probed):
    """v'Hv, not only its mean, so that a check needs no average over probes."""
    _, (whole, parts), _, _ = probed
    np.testing.assert_allclose(whole, parts.gauss_newton + parts.residual, rtol=1e-11)


def test_probes_along_all_axes_give_the_parts_of_the_classes_summed(probed):
    (whole, parts), _, explicit, per_class = probed
    np.testing.assert_allclose(whole.sum() / 6, explicit, rtol=1e-12)
    for name in ("gauss_newton", "residual"):
        expected = sum(float(getattr(c, name)) for c in per_class)
        np.testing.assert_allclose(getattr(parts, name).sum() / 6, expected, rtol=1e-11)


def test_the_linear_gap_is_the_derivative_towards_the_earlier_weights():
    """Of g = w^2 x: 2 w* (w - w*) x; its sign is that of phi - phi*."""
    outputs = lambda p: (p["w"] ** 2 * jnp.asarray([1.0, -3.0]))[:, None]
    found = squared_risk.linear_gap(outputs, {"w": 2.0}, {"w": 1.5})
    np.testing.assert_allclose(found, [[-2.0], [6.0]], rtol=1e-6)
