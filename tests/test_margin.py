"""Margins against their formulas in float64, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import crfr
from crfr.errors import InputError
from crfr.model.margin import cosface_logits, margin_logits


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def reference(cosine, label, scale, margin):
    """ArcFace by angles, one logit at a time."""
    out = scale * np.array(cosine)
    for i, k in enumerate(label):
        theta = np.arccos(cosine[i, k])
        if theta + margin <= np.pi:
            out[i, k] = scale * np.cos(theta + margin)
        else:
            out[i, k] = scale * (np.cos(theta) - margin * np.sin(margin))
    return out


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5, 1.2])
def test_arcface_follows_the_formula(float64, margin):
    cosine = np.random.default_rng(0).uniform(-1, 1, (200, 7))
    cosine[0], cosine[1] = 1, -1
    label = np.arange(200) % 7
    result = crfr.arcface_logits(jnp.asarray(cosine), jnp.asarray(label), scale=64.0, margin=margin)
    # the sine's floor at cos = +-1 is 1.5e-8 in float64
    np.testing.assert_allclose(result, reference(cosine, label, 64.0, margin), atol=2e-6)


def test_margin_zero_is_the_plain_softmax(float64):
    cosine = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (9, 5)))
    label = jnp.arange(9) % 5
    result = crfr.arcface_logits(cosine, label, scale=30.0, margin=0.0)
    np.testing.assert_allclose(result, 30 * cosine, rtol=1e-12)


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_gradients_are_true(float64, name):
    cosine = jnp.asarray(np.random.default_rng(2).uniform(-0.95, 0.95, (12, 6)))
    label = jnp.arange(12) % 6

    def loss(c):
        c = jnp.asarray(c)  # check_grads passes NumPy arrays
        logits = margin_logits(c, label, name=name, scale=16.0, margin=0.4, gradient="true")
        return jax.nn.logsumexp(logits, -1).sum() - logits[jnp.arange(12), label].sum()

    check_grads(loss, (cosine,), order=1, modes=["rev"])


@pytest.mark.parametrize("c", [1.0, -1.0, 1 + 2e-7, -1 - 2e-7, 1 - 6e-8, 0.0])
@pytest.mark.parametrize("gradient", ["true", "straight-through"])
def test_value_and_gradient_are_finite_where_rounding_leads(c, gradient):
    def target(x):
        logits = crfr.arcface_logits(
            x[None, None], jnp.array([0]), scale=64.0, margin=0.5, gradient=gradient
        )
        return logits[0, 0]

    value, slope = jax.value_and_grad(target)(jnp.float32(c))
    assert np.isfinite(value)
    assert np.isfinite(slope)


def test_straight_through_has_the_values_of_arcface_and_the_slope_of_the_cosine():
    cosine = jnp.array([[0.3, -0.2]])
    label = jnp.array([0])

    def logits(c, gradient):
        return crfr.arcface_logits(c, label, scale=64.0, margin=0.5, gradient=gradient)

    np.testing.assert_allclose(
        logits(cosine, "straight-through"), logits(cosine, "true"), rtol=1e-6
    )
    slope = jax.grad(lambda c: logits(c, "straight-through")[0, 0])(cosine)
    np.testing.assert_allclose(slope, [[64.0, 0.0]])
    true = jax.grad(lambda c: logits(c, "true")[0, 0])(cosine)
    theta = np.arccos(0.3)
    np.testing.assert_allclose(true[0, 0], 64 * np.sin(theta + 0.5) / np.sin(theta), rtol=1e-5)


def test_cosface_by_hand():
    result = cosface_logits(jnp.array([[0.5, 0.1]]), jnp.array([1]), scale=10.0, margin=0.35)
    np.testing.assert_allclose(result, [[5.0, -2.5]], rtol=1e-6)


def test_branches_broadcast():
    cosine = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (2, 4, 3)))
    label = jnp.array([0, 1, 2, 0])
    both = crfr.arcface_logits(cosine, jnp.stack([label, label]), scale=8.0, margin=0.5)
    for branch in range(2):
        np.testing.assert_array_equal(
            both[branch], crfr.arcface_logits(cosine[branch], label, scale=8.0, margin=0.5)
        )


def test_unknown_names_are_refused():
    cosine, label = jnp.zeros((1, 2)), jnp.array([0])
    with pytest.raises(InputError, match="did you mean 'arcface'"):
        margin_logits(cosine, label, name="arcfase", scale=1.0, margin=0.1, gradient="true")
    with pytest.raises(InputError, match="unknown gradient"):
        crfr.arcface_logits(cosine, label, gradient="ste")
