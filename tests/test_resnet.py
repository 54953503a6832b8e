"""The network against a plain NumPy reading of its definition, in float64, and against published
counts.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from readings import convolve, relu, windows

from crfr.errors import InputError
from crfr.model import resnet


def conv(x, kernel, stride):
    """`kernel` [out height width in]."""
    return convolve(x, kernel.transpose(1, 2, 3, 0), stride, kernel.shape[1] // 2)


def norm(x, params, stats, epsilon):
    scaled = (x - stats["mean"]) / np.sqrt(stats["var"] + epsilon)
    return scaled * params["scale"] + params["bias"]


def numpy_resnet(params, stats, images, stages, bottleneck, version, head, epsilon):
    """Residual network as He et al. define it (v1) and as torchvision builds it (v1.5)."""
    x = conv((images - 127.5) / 127.5, params["conv_stem"]["kernel"], 2)
    x = relu(norm(x, params["norm_stem"], stats["norm_stem"], epsilon))
    x = windows(x, 3, 2, 1, -np.inf).max((-2, -1))
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            name = f"stage{stage}_block{block}"
            p, s = params[name], stats[name]
            stride = 2 if stage > 0 and block == 0 else 1
            if bottleneck:
                strides = [stride, 1, 1] if version == "v1" else [1, stride, 1]
            else:
                strides = [stride, 1]
            y = x
            for i, step in enumerate(strides):
                y = conv(y, p[f"conv{i}"]["kernel"], step)
                y = norm(y, p[f"norm{i}"], s[f"norm{i}"], epsilon)
                y = relu(y) if i < len(strides) - 1 else y
            if "conv_shortcut" in p:
                x = conv(x, p["conv_shortcut"]["kernel"], stride)
                x = norm(x, p["norm_shortcut"], s["norm_shortcut"], epsilon)
            x = relu(x + y)
    if head == "E":
        x = norm(x, params["norm_features"], stats["norm_features"], epsilon)
    x = x.reshape(len(x), -1) @ params["dense"]["kernel"] + params["dense"].get("bias", 0)
    if head == "E":
        x = norm(x, params["norm_embedding"], stats["norm_embedding"], epsilon)
    return x


def disturbed(tree, key):
    """Random values everywhere, so that no scale of 1 or mean of 0 hides a mistake; variances
    positive.
    """
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten(
        [
            a + 0.3 * jnp.abs(jax.random.normal(k, a.shape, a.dtype))
            for a, k in zip(leaves, keys, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("name", "version", "head", "width"),
    [
        ("resnet50", "v1", "E", 4),
        ("resnet50", "v1.5", "plain", 4),
        ("resnet18", "v1", "E", 4),
        ("tiny", "v1", "plain", None),
    ],
)
def test_forward_equals_numpy(name, version, head, width):
    with jax.enable_x64(True):
        network = resnet.build(
            name, version=version, head=head, width=width, dtype="float64", param_dtype="float64",
            embedding=16, bn_epsilon=1e-3,
        )  # fmt: skip
        images = jnp.asarray(np.random.default_rng(0).uniform(0, 255, (2, 112, 112, 3)))
        variables = disturbed(jax.jit(network.init)(jax.random.key(0), images), jax.random.key(1))
        # at the suite's level 0 a convolution in float64 takes six times as long
        fast = {"xla_backend_optimization_level": 1}
        result = jax.jit(network.apply, compiler_options=fast)(variables, images)
        plain = jax.tree.map(np.asarray, variables)
        expected = numpy_resnet(
            plain["params"], plain["batch_stats"], np.asarray(images), network.stages,
            network.block == "bottleneck", version, head, 1e-3,
        )  # fmt: skip
        np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_resnet50_has_the_published_size():
    network = resnet.build("resnet50")
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    backbone = {
        name: leaves
        for name, leaves in shapes["params"].items()
        if name not in ("norm_features", "dense", "norm_embedding")
    }
    # torchvision's resnet50: 25,557,032 parameters, of which 2,049,000 in its classifier
    assert sum(leaf.size for leaf in jax.tree.leaves(backbone)) == 25_557_032 - 2_049_000
    assert shapes["params"]["dense"]["kernel"].shape == (4 * 4 * 2048, 512)


def test_batchnorm_in_training_gives_the_batch_s_mean_and_biased_variance():
    network = resnet.build("tiny", dropout=0.0)
    images = jax.random.uniform(jax.random.key(0), (6, 112, 112, 3)) * 255
    variables = jax.jit(network.init)(jax.random.key(1), images)
    apply = functools.partial(network.apply, train=True, mutable=["batch_stats"])
    _, new = jax.jit(apply)(variables, images)
    kernel = variables["params"]["conv_stem"]["kernel"]
    stem = conv((np.asarray(images, np.float64) - 127.5) / 127.5, np.asarray(kernel), 2)
    found = new["batch_stats"]["norm_stem"]
    np.testing.assert_allclose(found["mean"], stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], stem.var((0, 1, 2)), rtol=1e-4)


def test_dropout_belongs_to_an_image_s_key():
    keys = jax.random.split(jax.random.key(0), 4)
    x = jnp.ones((4, 4, 4, 64))
    dropped = resnet.drop(x, keys, 0.25)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float((dropped == 0).mean()) - 0.25) < 0.03
    np.testing.assert_array_equal(resnet.drop(x[2:], keys[2:], 0.25), dropped[2:])
    assert (dropped[0] != dropped[1]).any()


def test_bfloat16_computes_in_bfloat16_and_returns_float32():
    network = resnet.build("tiny", dtype="bfloat16")
    images = jnp.full((1, 112, 112, 3), 99.0)
    variables = network.init(jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert network.apply(variables, images).dtype == jnp.float32
    text = jax.jit(network.apply).lower(variables, images).as_text()
    assert "convolution" in text
    assert all("bf16" in line for line in text.splitlines() if "stablehlo.convolution" in line)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"name": "resnet5"}, "did you mean 'resnet50'"),
        ({"name": "tiny", "version": "v2"}, "model.version"),
        ({"name": "tiny", "version": "v1.5"}, "tiny has one form only"),
        ({"name": "tiny", "head": "F"}, "model.head"),
        ({"name": "tiny", "dtype": "float16"}, "model.dtype"),
        ({"name": "tiny", "dropout": 1.0}, "model.dropout=1.0"),
    ],
)
def test_unknown_settings_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        resnet.build(**bad)


def test_kernels_begin_with_the_deviation_of_their_inputs():
    """He et al. 2015: sqrt(2 / inputs); a kernel is [out height width in]."""
    shapes = {"conv_stem": 7 * 7 * 3, "stage3_block0": 3 * 3 * 64}
    network = resnet.build("tiny", width=16)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 112, 112, 3)))["params"]
    for name, inputs in shapes.items():
        kernel = params[name].get("kernel", params[name].get("conv0", {}).get("kernel"))
        assert kernel[0].size == inputs
        assert float(kernel.std()) == pytest.approx(np.sqrt(2 / inputs), rel=0.05)
