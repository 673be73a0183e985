import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.test_util import check_grads

from spaced_kd import losses
from spaced_kd.parallel import BatchAxis

ONE = BatchAxis()
rng = np.random.default_rng(0)
STUDENT = rng.normal(size=(6, 5)) * 2
TEACHER = rng.normal(size=(6, 5)) * 2
LABELS = np.array([0, 4, 2, 2, 1, 3], np.int32)


def test_cross_entropy_equals_scipy_in_float64():
    """Wrong axis, sign or reduction would show against an independent formula."""
    expected = -scipy.special.log_softmax(STUDENT, axis=1)[np.arange(6), LABELS]
    got = losses.cross_entropy(jnp.asarray(STUDENT), LABELS)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_are_the_published_mixture(smoothing):
    """The cross-entropy with (1 - e) onehot + e / C; all classes share e."""
    target = (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5
    expected = -(target * scipy.special.log_softmax(STUDENT, axis=1)).sum(1)
    got = losses.cross_entropy(jnp.asarray(STUDENT), LABELS, smoothing)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_is_teacher_to_student(temperature):
    """Swapped arguments give another number on an asymmetric example."""
    p = scipy.special.softmax(TEACHER / temperature, axis=1)
    q = scipy.special.softmax(STUDENT / temperature, axis=1)
    expected = [scipy.stats.entropy(a, b) for a, b in zip(p, q, strict=True)]
    got = losses.kl_divergence(STUDENT, TEACHER, temperature)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    swapped = losses.kl_divergence(TEACHER, STUDENT, temperature)
    assert np.abs(np.array(swapped) - expected).max() > 1e-2


def test_kl_is_zero_at_equality_and_blind_to_shifts():
    """Logits are defined up to a constant; a loss that sees it is not a divergence."""
    shifted = TEACHER + np.arange(6)[:, None]
    np.testing.assert_allclose(
        losses.kl_divergence(shifted, TEACHER, 3.0), np.zeros(6), atol=1e-6
    )


def test_kl_times_squared_temperature_has_the_high_temperature_limit():
    """T^2 KL tends to half the squared distance of centred logits over C."""
    temperature = 200.0
    s, t = (x - x.mean(1, keepdims=True) for x in (STUDENT, TEACHER))
    expected = ((s - t) ** 2).sum(1) / (2 * 5)
    # The KL itself is 1e-5 here; float64 keeps it apart from rounding.
    with jax.enable_x64(True):
        got = temperature**2 * losses.kl_divergence(
            jnp.asarray(STUDENT), jnp.asarray(TEACHER), temperature
        )
    np.testing.assert_allclose(got, expected, rtol=2e-2)


def test_probspace_is_minus_the_inner_product_up_to_a_constant():
    """Method E1: the released loss is const(teacher) - <p_t, p_s>."""
    p = scipy.special.softmax(TEACHER / 3, axis=1)
    q = scipy.special.softmax(STUDENT / 3, axis=1)
    expected = (p * np.log(p)).sum(1) - (p * q).sum(1)
    got = losses.probspace_divergence(STUDENT, TEACHER, 3.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("name", losses.SOFT_LOSSES)
def test_soft_losses_are_finite_with_finite_gradients_at_extreme_logits(name):
    """A log of an underflowed probability would be -inf, its gradient NaN."""
    extreme = jnp.array([[1e4, -1e4, 0.0]])
    loss = lambda s: losses.SOFT_LOSSES[name](s, -extreme, 1.0).sum()
    value, grad = jax.value_and_grad(loss)(extreme)
    chex.assert_tree_all_finite((value, grad))


@pytest.mark.parametrize("name", losses.SOFT_LOSSES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_soft_loss_gradients_match_finite_differences(name):
    """A hand-cut gradient path would differ from the numerical one."""
    fn = lambda s: losses.SOFT_LOSSES[name](s, jnp.asarray(TEACHER), 3.0).sum()
    with jax.enable_x64(True):
        check_grads(fn, (jnp.asarray(STUDENT),), order=1, modes=("rev",), rtol=1e-4)


LOGIT_ORACLES = {
    "l1": lambda x: np.abs(x).mean(1),
    "smooth_l1": lambda x: np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5).mean(1),
    "mse": lambda x: (x**2).mean(1),
    "mse_sum": lambda x: (x**2).sum(1),
}


@pytest.mark.parametrize("name", LOGIT_ORACLES)
def test_losses_of_raw_logits_equal_numpy_at_any_temperature(name):
    """One value per example; softening raw logits would be another loss."""
    expected = LOGIT_ORACLES[name](STUDENT - TEACHER)
    for temperature in (1.0, 3.0):
        got = losses.SOFT_LOSSES[name](STUDENT, TEACHER, temperature)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_every_loss_without_a_temperature_is_known_as_one():
    """`temperature_squared` would multiply one that is not by 9."""
    blind = {
        name
        for name, loss in losses.SOFT_LOSSES.items()
        if np.array_equal(loss(STUDENT, TEACHER, 1.0), loss(STUDENT, TEACHER, 3.0))
    }
    assert blind == losses.ON_RAW_LOGITS


FEATURE_ORACLES = {
    "dist": lambda s, t: np.linalg.norm(s - t),
    "mse_sum": lambda s, t: ((s - t) ** 2).sum(),
    "mse": lambda s, t: ((s - t) ** 2).mean(),
    "l1": lambda s, t: np.abs(s - t).mean(),
    "smooth_l1": lambda s, t: np.where(
        np.abs(s - t) < 1, (s - t) ** 2 / 2, np.abs(s - t) - 0.5
    ).mean(),
    "ce": lambda s, t: -(t * scipy.special.log_softmax(s, axis=1)).sum(1).mean(),
}


@pytest.mark.parametrize("name", losses.FEATURE_LOSSES)
@pytest.mark.parametrize("padding", [0, 3])
def test_feature_losses_equal_numpy_and_ignore_padding(name, padding):
    """Table 3's rows differ by reduction alone; padding must not enter any of them."""
    expected = FEATURE_ORACLES[name](STUDENT, np.abs(TEACHER))
    junk = np.full((padding, 5), 7.0)
    student = np.concatenate([STUDENT, junk])
    teacher = np.concatenate([np.abs(TEACHER), -junk])
    mask = None if not padding else jnp.arange(6 + padding) < 6
    got = losses.FEATURE_LOSSES[name](
        jnp.asarray(student), jnp.asarray(teacher), mask, ONE
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_distance_has_gradient_zero_at_zero():
    """The plain square root would give NaN for a student that equals its teacher."""
    same = jnp.asarray(STUDENT)
    grad = jax.grad(lambda s: losses.FEATURE_LOSSES["dist"](s, same, None, ONE))(same)
    np.testing.assert_array_equal(grad, np.zeros_like(STUDENT))


@pytest.mark.parametrize("name", losses.FEATURE_LOSSES)
def test_feature_losses_do_not_depend_on_the_number_of_devices(name):
    """A norm taken on each device and then averaged is another loss (method A.5)."""
    student, teacher = jnp.asarray(STUDENT[:4]), jnp.abs(jnp.asarray(TEACHER[:4]))
    mask = jnp.array([True, True, True, False])
    fn = losses.FEATURE_LOSSES[name]
    whole, grad = jax.value_and_grad(lambda s: fn(s, teacher, mask, ONE))(student)
    split = lambda x: x.reshape(2, 2, *x.shape[1:])
    axis = BatchAxis("d")

    def on_device(s, t, m):
        value, g = jax.value_and_grad(lambda s: fn(s, t, m, axis))(s)
        return value, g / 2  # psum is its own transpose: D times the share

    values, grads = jax.vmap(on_device, axis_name="d")(
        split(student), split(teacher), split(mask)
    )
    np.testing.assert_allclose(values, [whole, whole], rtol=1e-6)
    np.testing.assert_allclose(grads.reshape(4, 5), grad, rtol=1e-5, atol=1e-8)


def test_batch_mean_counts_only_real_examples():
    """Dividing by the padded size would shrink the last batch's loss."""
    values = jnp.array([1.0, 2.0, jnp.nan, 9.0])
    mask = jnp.array([True, True, False, False])
    assert losses.batch_mean(values, mask, ONE) == 1.5
    assert losses.batch_sum(values, mask, ONE) == 3.0


@pytest.mark.parametrize("name", ["kl_divergence", "probspace_divergence"])
def test_compiled_losses_equal_eager_ones(name):
    """jaxlib 0.10 computes some small reductions wrongly when compiled on CPU."""
    big = rng.normal(size=(128, 100)).astype(np.float32)
    other = rng.normal(size=(128, 100)).astype(np.float32)
    fn = getattr(losses, name)
    eager = fn(big, other, 3.0)
    compiled = jax.jit(lambda a, b: fn(a, b, 3.0))(big, other)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)
