"""Degradation against jax.image.resize and hand calculations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import crfr
from crfr.errors import InputError
from crfr.views import degrade


def noise(n=2, side=112, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def test_every_resolution_agrees_with_jax_image_resize():
    # jax.image.resize is the independent reference; its weights, one line at a time, are what it
    # applies to each axis.  Every shape has to be compiled, so the identity is resized along one
    # axis only, and all in one program.
    both, _, _ = degrade.bank()
    sizes = range(5, 113)

    @jax.jit
    def references(identity):
        found = []
        for r in sizes:
            down = jax.image.resize(
                identity, (r, 112), "cubic", antialias=True, precision="highest"
            )
            found.append(
                jax.image.resize(down, (112, 112), "cubic", antialias=True, precision="highest")
            )
        return found

    for r, up in zip(sizes, references(jnp.eye(112)), strict=True):
        # jax.image.resize computes its weights in float32, the bank in float64
        np.testing.assert_allclose(both[r - 1], up, atol=1e-5)


@pytest.mark.parametrize("r", [5, 7, 14, 28, 56, 111])
def test_images_agree_with_jax_image_resize(r):
    images = jnp.asarray(noise(), jnp.float32)
    small = jax.image.resize(images, (2, r, r, 3), "cubic", antialias=True, precision="highest")
    back = jax.image.resize(small, (2, 112, 112, 3), "cubic", antialias=True, precision="highest")
    # float32 sums of some 100 products of values up to 255, in another order
    np.testing.assert_allclose(
        degrade.apply_degradation(images, jnp.array([r, r]), "noclip"), back, atol=2e-3
    )
    np.testing.assert_allclose(crfr.degrade(images, r), jnp.clip(back, 0, 255), atol=2e-3)


def test_bilinear_agrees_with_jax_image_resize():
    for size_in, size_out in [(112, 7), (7, 112), (112, 50)]:
        reference = jax.image.resize(
            jnp.eye(size_in), (size_out, size_in), "linear", antialias=True
        )
        np.testing.assert_allclose(
            degrade.resize_matrix(size_in, size_out, "linear"), reference, atol=1e-5
        )


def test_area_is_the_block_mean_down_and_repetition_up():
    images = noise(1)
    blocks = images.reshape(1, 14, 8, 14, 8, 3).mean((2, 4))
    expected = blocks.repeat(8, 1).repeat(8, 2)
    np.testing.assert_allclose(crfr.degrade(images, 14, variant="area"), expected, atol=1e-3)


def test_full_resolution_is_the_identity_exactly():
    images = noise()
    np.testing.assert_array_equal(crfr.degrade(images, 112), images.astype(np.float32))


def test_each_image_has_its_own_resolution():
    images = noise(4)
    together = crfr.degrade(images, np.array([5, 112, 31, 1]))
    for i, r in enumerate([5, 112, 31, 1]):
        np.testing.assert_allclose(together[i], crfr.degrade(images[i : i + 1], r)[0], atol=1e-4)


def test_range_is_kept_and_noclip_shows_the_overshoot():
    images = np.where(noise() > 127, 255, 0).astype(np.uint8)
    clipped = np.asarray(crfr.degrade(images, 56))
    free = np.asarray(crfr.degrade(images, 56, variant="noclip"))
    assert clipped.min() == 0
    assert clipped.max() == 255
    assert free.min() < -1
    assert free.max() > 256


def test_quantize_rounds_the_small_image():
    images = noise(1)
    small = jax.image.resize(
        jnp.asarray(images, jnp.float32), (1, 7, 7, 3), "cubic", antialias=True, precision="highest"
    )
    small = jnp.round(jnp.clip(small, 0, 255))
    expected = jax.image.resize(small, images.shape, "cubic", antialias=True, precision="highest")
    result = crfr.degrade(images, 7, variant="quantize")
    np.testing.assert_allclose(result, jnp.clip(expected, 0, 255), atol=2e-3)
    assert np.abs(result - crfr.degrade(images, 7)).max() > 0.05


def test_other_sides_are_served():
    images = noise(side=32)
    np.testing.assert_array_equal(crfr.degrade(images, 32), images.astype(np.float32))
    assert crfr.degrade(images, 8).shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    ("resolutions", "message"),
    [
        (0, "resolution 0 px is outside 1..112"),
        (113, "resolution 113 px is outside 1..112"),
        (np.array([7, -3]), "resolution -3 px is outside 1..112"),
        (np.array([7, 7, 7]), r"\[3\] resolutions for 2 images"),
        (7.5, "give integers"),
    ],
)
def test_bad_resolutions_are_refused(resolutions, message):
    with pytest.raises(InputError, match=message):
        crfr.degrade(noise(), resolutions)


def test_bad_images_and_variants_are_refused():
    with pytest.raises(InputError, match=r"\[2, 112, 96, 3\]"):
        crfr.degrade(noise()[:, :, :96], 7)
    with pytest.raises(InputError, match="did you mean 'bicubic'"):
        crfr.degrade(noise(), 7, variant="bicubc")
