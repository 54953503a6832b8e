"""Each method's views and loss terms, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crfr.errors import InputError
from crfr.model import losses
from crfr.views.methods import draw_resolutions, parse_method


def drawn(name, batch=1000, seed=0):
    method = parse_method(name)
    index = np.asarray(draw_resolutions(method, jax.random.key(seed), batch))
    return np.asarray(method.resolutions)[index]


def test_baseline_sees_full_resolution_alone():
    assert (drawn("baseline") == 112).all()
    assert parse_method("baseline").distance_weight == 0


@pytest.mark.parametrize(("batch", "low"), [(128, 64), (7, 3)])
def test_bt_puts_half_of_the_batch_at_r_at_random_places(batch, low):
    views = drawn("bt-9", batch)
    assert views.shape == (1, batch)
    assert (views == 9).sum() == low
    assert (views == 112).sum() == batch - low
    assert (views != drawn("bt-9", batch, seed=1)).any()
    assert parse_method("bt-9").distance_weight == 0


def test_bt_m_draws_five_resolutions_with_equal_probability():
    views = drawn("bt-m", 20_000)
    assert views.shape == (1, 20_000)
    share = [(views == r).mean() for r in (7, 14, 28, 56, 112)]
    assert np.allclose(share, 0.2, atol=0.015)  # 5 standard deviations
    assert sum(share) == pytest.approx(1)


def test_st_has_two_branches():
    assert (drawn("st-14") == np.array([[112], [14]])).all()
    assert parse_method("st-14").distance_weight == 25


def test_st_m1_draws_the_low_branch_from_four():
    views = drawn("st-m1", 20_000)
    assert (views[0] == 112).all()
    share = [(views[1] == r).mean() for r in (7, 14, 28, 56)]
    assert np.allclose(share, 0.25, atol=0.016)
    assert sum(share) == pytest.approx(1)
    assert parse_method("st-m1").distance_weight == 25


def test_st_m2_has_five_branches_high_resolution_first():
    assert (drawn("st-m2") == np.array([[112], [56], [28], [14], [7]])).all()
    assert parse_method("st-m2").distance_weight == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("st-m3", "did you mean 'st-m"),
        ("bt-112", "112 px is outside 1..111"),
        ("st-0", "0 px is outside 1..111"),
        ("bt-00", "0 px is outside 1..111"),
        ("bt-07", "method 'bt-07': write bt-7, without a 0 before it"),
        ("st-007", "method 'st-007': write st-7, without"),
        ("st-0112", "112 px is outside 1..111"),
        ("bt-٧", "unknown method"),
        ("BT-7", "unknown method"),
    ],
)
def test_unknown_methods_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        parse_method(name)


def test_loss_terms_by_hand():
    # two images, three branches, embeddings in the plane at known angles
    angle = jnp.deg2rad(jnp.array([[0.0, 90.0], [60.0, 90.0], [90.0, 180.0]]))
    embeddings = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    distances = losses.distance_terms(embeddings)
    np.testing.assert_allclose(distances, [(0.5 + 0) / 2, (1 + 1) / 2], atol=1e-6)

    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]]))
    everyone = jnp.ones(3, bool)
    entropies = losses.cross_entropy(logits, jnp.array([0, 2]), everyone)
    np.testing.assert_allclose(entropies, [-(np.log(0.5) + np.log(0.1)) / 2], rtol=1e-6)

    total = losses.total(jnp.array([1.0, 2.0, 3.0]), distances, 3.0)
    assert float(total) == pytest.approx(6 + 3 * (0.25 + 1))


def test_one_branch_has_no_distance():
    assert losses.distance_terms(jnp.ones((1, 4, 2))).shape == (0,)
    assert float(losses.total(jnp.array([2.5]), jnp.zeros(0), 0.0)) == 2.5


def test_padded_classes_are_out_of_the_softmax():
    logits = jax.random.normal(jax.random.key(0), (1, 5, 8))
    label = jnp.array([0, 1, 2, 3, 4])
    padded = losses.cross_entropy(logits, label, jnp.arange(8) < 6)
    whole = losses.cross_entropy(logits[..., :6], label, jnp.ones(6, bool))
    np.testing.assert_allclose(padded, whole, rtol=1e-6)


def test_the_distance_pulls_both_branches():
    a, b = losses.unit(jax.random.normal(jax.random.key(1), (2, 3, 4)))
    first, second = jax.grad(lambda x, y: losses.distance_terms(jnp.stack([x, y])).sum(), (0, 1))(
        a, b
    )
    np.testing.assert_allclose(first, -b / 3, rtol=1e-5)
    np.testing.assert_allclose(second, -a / 3, rtol=1e-5)
