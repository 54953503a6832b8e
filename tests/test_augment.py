"""Folded views against the same operations one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crfr
from crfr.errors import InputError
from crfr.views.augment import LUMA, Augmentation, Draws, draw, make_views, view_bank

RESOLUTIONS = (7, 28, 112)


def images(n=3):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (n, 112, 112, 3)), jnp.uint8)


def matrices(crop):
    return jnp.asarray(view_bank(RESOLUTIONS, crop))


def draws(top, left, flip, shift, saturation):
    return Draws(*(jnp.asarray(v) for v in (top, left, flip, shift, saturation)))


def plain(n):
    return draws([0] * n, [0] * n, [False] * n, [0.0] * n, [1.0] * n)


def test_without_variation_a_view_is_the_degraded_image():
    x = images()
    views = make_views(x, jnp.array([[0, 1, 2], [2, 2, 2]]), plain(3), matrices(112))
    np.testing.assert_allclose(views[0], crfr.degrade(x, np.array(RESOLUTIONS)), atol=2e-3)
    np.testing.assert_array_equal(views[1], x)


def test_folded_order_is_crop_flip_colour_degrade_clip():
    x = images()
    given = draws([0, 5, 16], [16, 3, 0], [True, False, True], [20.0, -90.0, 80.0], [0.6, 1.4, 1.0])
    views = make_views(x, jnp.array([[0, 1, 2]]), given, matrices(128))
    for i, r in enumerate(RESOLUTIONS):
        grid = jax.image.resize(
            x[i].astype(np.float32), (128, 128, 3), "cubic", precision="highest"
        )
        top, left = int(given.top[i]), int(given.left[i])
        step = grid[top : top + 112, left : left + 112]
        step = step[:, ::-1] if given.flip[i] else step
        step = step + given.shift[i]
        grey = (step @ jnp.array(LUMA))[..., None]
        step = grey + given.saturation[i] * (step - grey)
        step = crfr.degrade(step[None], r, variant="noclip")[0]
        np.testing.assert_allclose(views[0, i], jnp.clip(step, 0, 255), atol=5e-3)


def test_all_views_of_an_image_share_their_variation():
    x = images()
    given = draw(Augmentation(), jax.random.key(3), 3)
    views = make_views(x, jnp.full((2, 3), 2), given, matrices(128))
    np.testing.assert_array_equal(views[0], views[1])
    assert np.abs(views[0] - x).max() > 1


def test_ranges_are_those_of_the_config():
    given = draw(Augmentation(crop=128, brightness=0.4, saturation=0.4), jax.random.key(0), 20_000)
    for offset in (given.top, given.left):
        assert set(np.unique(offset)) == set(range(17))
    assert abs(np.mean(given.flip) - 0.5) < 0.02
    assert 100 < np.max(given.shift) <= 102
    assert -102 <= np.min(given.shift) < -100
    assert 1.39 < np.max(given.saturation) <= 1.4
    assert 0.6 <= np.min(given.saturation) < 0.61


def test_variation_can_be_switched_off():
    off = Augmentation(crop=112, flip=False, brightness=0.0, saturation=0.0)
    given = draw(off, jax.random.key(0), 50)
    for drawn, neutral in zip(given, plain(50), strict=True):
        np.testing.assert_array_equal(drawn, neutral)


@pytest.mark.parametrize("bad", [{"crop": 100}, {"brightness": 1.5}, {"saturation": -0.1}])
def test_bad_ranges_are_refused(bad):
    with pytest.raises(InputError, match=f"augment.{next(iter(bad))}"):
        Augmentation(**bad)
