"""Layers whose gradients are written out, against differentiating their formulas."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crfr.model import losses
from crfr.model.conv import Conv
from crfr.model.conv_cpu import WINOGRAD_PIXELS
from crfr.model.margin import arcface_logits
from crfr.model.norm import normalise
from crfr.model.pool import max_pool
from crfr.model.product import cosines
from crfr.model.resnet import relu

EPSILON = 1e-5


def formula(x, scale, bias, rectify):
    mean, var = x.mean((0, 1)), x.var((0, 1))
    y = (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias
    return jnp.where(y > 0, y, 0) if rectify else y


@pytest.mark.parametrize("platform", ["default", "cuda", "rocm"])
@pytest.mark.parametrize("rectify", [False, True])
def test_values_and_gradients_are_those_of_the_formula(rectify, platform, monkeypatch):
    """On each platform: what is written for it runs on a CPU, too."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *a, **of: of[platform](*a))
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(3, 2, (6, 5, 4)))
        scale, bias = jnp.asarray(rng.normal(1, 0.5, (2, 4)))
        weights = jnp.asarray(rng.normal(size=(6, 5, 4)))
        y, mean, var = normalise(x, scale, bias, EPSILON, 1, rectify)
        np.testing.assert_allclose(y, formula(x, scale, bias, rectify), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(mean, x.mean((0, 1)), rtol=1e-12)
        np.testing.assert_allclose(var, x.var((0, 1)), rtol=1e-12)

        def of(function):
            return jax.grad(lambda *a: (weights * function(*a)).sum(), (0, 1, 2))(x, scale, bias)

        ours = of(lambda *a: normalise(*a, EPSILON, 1, rectify)[0])
        theirs = of(lambda *a: formula(*a, rectify))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_a_1x1_convolution_is_a_product_on_every_platform(platform, stride, monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *a, **of: of[platform](*a))
    rng = np.random.default_rng(stride)
    x, slope = rng.normal(size=(2, 7, 6, 3)), rng.normal(size=(2, 7, 6, 5))[:, ::stride, ::stride]
    kernel = rng.normal(size=(5, 1, 1, 3))
    with jax.enable_x64(True):
        conv = Conv(5, 1, stride, False, jnp.dtype("float64"), jnp.dtype("float64"))
        apply = lambda x, kernel: conv.apply({"params": {"kernel": kernel}}, x)  # noqa: E731
        value, pull = jax.vjp(apply, x, kernel)
        of_x, of_kernel = pull(jnp.asarray(slope))
    picked, matrix = x[:, ::stride, ::stride], kernel[:, 0, 0]
    expected = np.zeros(x.shape)
    expected[:, ::stride, ::stride] = np.einsum("nhwd,dc->nhwc", slope, matrix)
    np.testing.assert_allclose(value, np.einsum("nhwc,dc->nhwd", picked, matrix), rtol=1e-12)
    np.testing.assert_allclose(of_x, expected, rtol=1e-12)
    summed = np.einsum("nhwd,nhwc->dc", slope, picked)
    np.testing.assert_allclose(of_kernel[:, 0, 0], summed, rtol=1e-12)


def by_taps(x, kernel, slope):
    """(convolution, its gradients) of [n h w c], [d 3 3 c] and [n h w d], a tap at a time."""
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded, (_, h, w, _) = np.pad(x, border), x.shape
    y, of_padded, of_kernel = np.zeros(slope.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i, j in np.ndindex(3, 3):
        part = np.s_[:, i : i + h, j : j + w]
        y += padded[part] @ kernel[:, i, j].T
        of_padded[part] += slope @ kernel[:, i, j]
        of_kernel[:, i, j] = np.einsum("nhwd,nhwc->dc", slope, padded[part])
    return y, of_padded[:, 1:-1, 1:-1], of_kernel


@pytest.mark.parametrize(
    ("sides", "channels", "groups"),
    [((4, 4), (64, 70), 1), ((7, 7), (70, 64), 2), ((6, 5), (64, 70), 6), ((1, 2), (64, 64), 2)],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_3x3_convolution_of_many_channels_on_a_cpu(dtype, sides, channels, groups):
    """By Winograd's sums; in groups of branches, whose gradients of the one kernel are added."""
    rng = np.random.default_rng(sum(sides))
    images = -(-WINOGRAD_PIXELS // (sides[0] * sides[1]))
    x, slope = (rng.normal(size=(groups, 2, images, *sides, c)) for c in channels)
    kernel = rng.normal(size=(channels[1], 3, 3, channels[0]))
    with jax.enable_x64(dtype == "float64"):
        conv = Conv(channels[1], 3, 1, False, jnp.dtype(dtype), jnp.dtype(dtype))
        layer = lambda x, kernel: conv.apply({"params": {"kernel": kernel}}, x)  # noqa: E731
        branches = jax.vmap(jax.vmap(layer, (0, None)), (0, None))
        both = jax.jit(lambda x, kernel, slope: (lambda y, pull: (y, *pull(slope)))(*jax.vjp(branches, x, kernel)))  # fmt: skip  # noqa: E501
        given = [jnp.asarray(a, dtype) for a in (x, kernel, slope)]
        text = both.lower(*given).as_text()
        found = both(*given)
    assert "stablehlo.convolution" not in text
    # a CPU is slow at products in a batch; where there are many, it would be slow to compile others
    assert ("batching_dims" in text) == (groups > 5)
    flat = [a.reshape(-1, *sides, a.shape[-1]) for a in (x, slope)]
    for ours, theirs in zip(found, by_taps(flat[0], kernel, flat[1]), strict=True):
        ours, theirs = np.asarray(ours, np.float64).ravel(), theirs.ravel()
        # of sums of 9 x 64 products, and for the kernel one an image and pixel, in another order
        error = {"float64": 1e-13, "float32": 2e-6}[dtype]
        assert np.abs(ours - theirs).max() < error * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"channels": 63}, "few channels"),
        ({"given": 63}, "few channels"),
        ({"stride": 2}, "other tiles"),
        ({"side": 65}, "too much memory"),
        ({"side": 7, "images": 5}, "few pixels"),
        ({"images": "b"}, "how many is open"),
        ({"dtype": "bfloat16"}, "too few digits"),
        ({"size": 7}, "another kernel"),
        ({"platform": "cuda"}, "no CPU"),
    ],
)
def test_where_a_convolution_stays_one(changed, why):
    def text(
        given=64, channels=64, size=3, stride=1, side=8, dtype="float32", platform="cpu", images=4
    ):
        of_type = jnp.dtype(dtype)
        conv = Conv(channels, size, stride, False, of_type, of_type)
        images = jax.export.symbolic_shape(images)[0] if images == "b" else images
        x = jax.ShapeDtypeStruct((images, side, side, given), of_type)
        kernel = jax.ShapeDtypeStruct((channels, size, size, given), of_type)
        variables = {"params": {"kernel": kernel}}
        traced = jax.jit(conv.apply).trace(variables, x)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.convolution" not in text()
    assert "stablehlo.convolution" in text(**changed), why


def test_relu_has_the_gradient_of_jax():
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0])
    for ours, theirs in ((relu, jax.nn.relu), (jax.grad(lambda v: relu(v).sum()), jax.grad(lambda v: jax.nn.relu(v).sum()))):  # fmt: skip  # noqa: E501
        np.testing.assert_array_equal(ours(x), theirs(x))


@pytest.mark.parametrize("side", [8, 7])
def test_max_pool_and_its_gradient_are_those_of_jax_with_ties(side):
    rng = np.random.default_rng(side)
    x = jnp.asarray(rng.integers(-2, 3, (2, side, side, 3)), jnp.float32)  # full of ties

    def reference(x):
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))

    weights = jnp.asarray(rng.integers(1, 99, reference(x).shape), jnp.float32)
    np.testing.assert_array_equal(max_pool(x), reference(x))
    ours, theirs = (jax.grad(lambda x: (weights * f(x)).sum())(x) for f in (max_pool, reference))  # noqa: B023
    np.testing.assert_array_equal(ours, theirs)


def test_products_of_rounded_factors_have_float32_sums():
    """Forward and backward: NumPy's float64 products of the factors, each rounded to bfloat16."""
    rng = np.random.default_rng(0)
    args = [
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 6, 64), (40, 64), (2, 6, 40))
    ]
    value, pull = jax.vjp(lambda e, w: cosines(e, w, jnp.dtype("bfloat16")), *args[:2])
    found = value, *pull(args[2])

    def rounded(x):
        return np.asarray(jnp.asarray(x, jnp.float32).astype(jnp.bfloat16)).astype(np.float64)

    def gap(x):
        """Between a number's neighbours in bfloat16."""
        return 2.0 ** (np.floor(np.log2(np.abs(x))) - 7)

    true = np.asarray(args[1]).astype(np.float64)
    scale = 1 / np.linalg.norm(true, axis=1)
    e, w = rounded(args[0]), rounded(args[1])
    slope = rounded(args[2] * scale.astype(np.float32))
    cosine = np.einsum("rbd,kd->rbk", e, w) * scale
    straight = np.einsum("rbk,rbd->kd", slope, e)
    wanted = (
        (cosine, 0),
        (np.einsum("rbk,kd->rbd", slope, w), 0),
        # the centres' straight gradient is rounded, to either neighbour where it lies between two
        (
            rounded(straight) - ((slope * cosine).sum((0, 1)) * scale)[:, None] * true,
            np.where(np.abs(straight - rounded(straight)) > 0.49 * gap(straight), gap(straight), 0),
        ),
    )
    for a, (b, rounding) in zip(found, wanted, strict=True):
        assert a.dtype == jnp.float32
        # the sums are of 12 to 64 numbers around 1
        assert (np.abs(a - b) < 1e-5 * (1 + np.abs(b)) + rounding).all()


def test_the_gradient_of_cosines_is_that_of_normalised_centres():
    """In float64, against differentiating; a centre of zeros has neither cosine nor radial part."""

    def plain(e, w):
        return jnp.einsum("rbd,kd->rbk", e, losses.unit(w))

    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        e, w, slope = (rng.normal(size=s) for s in ((2, 6, 64), (40, 64), (2, 6, 40)))
        w *= 10.0 ** rng.integers(-3, 3, (40, 1))
        w[7] = 0
        e, w, slope = map(jnp.asarray, (e, w, slope))
        ours, theirs = (
            (value, *pull(slope))
            for value, pull in (
                jax.vjp(lambda e, w: cosines(e, w, jnp.dtype("float64")), e, w),
                jax.vjp(plain, e, w),
            )
        )
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        assert not ours[0][..., 7].any()


def test_fifty_steps_of_the_head_in_bfloat16_have_the_losses_of_float32():
    """A linear map to embeddings and the class matrix, by SGD, on what can be learnt."""
    rng = np.random.default_rng(1)
    label = jnp.arange(64) % 16
    features = jnp.asarray(rng.normal(size=(16, 24))[label] + 0.5 * rng.normal(size=(64, 24)))
    params = [jnp.asarray(0.1 * rng.normal(size=s), jnp.float32) for s in ((24, 32), (16, 32))]

    def losses_of(dtype):
        def loss(params):
            cosine = cosines(
                losses.unit(features.astype(jnp.float32) @ params[0])[None],
                params[1],
                jnp.dtype(dtype),
            )
            logits = arcface_logits(cosine, jnp.broadcast_to(label, (1, 64)), scale=16.0)
            return losses.cross_entropy(logits, label, jnp.ones(16, bool)).sum()

        def step(params, _):
            value, grads = jax.value_and_grad(loss)(params)
            return [p - 0.02 * g for p, g in zip(params, grads, strict=True)], value

        return np.asarray(jax.jit(lambda p: jax.lax.scan(step, p, length=50)[1])(params))

    true, rounded = losses_of("float32"), losses_of("bfloat16")
    assert true[-1] < 0.7 * true[0]
    np.testing.assert_allclose(rounded, true, rtol=0.01)
    assert (rounded != true).any()
