"""BatchNorm folded away: the same embeddings, from fewer operations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crfr.model import resnet
from crfr.model.fold import fold

NETWORKS = {
    "bottleneck": {"name": "resnet50", "bn_epsilon": 1.001e-5},
    "bottleneck-plain": {"name": "resnet50", "version": "v1.5", "head": "plain"},
    "basic": {"name": "resnet18", "input_mean": (1, 2, 3), "input_std": (50, 60, 70)},
    "basic-plain": {"name": "resnet18", "head": "plain"},
    "iresnet": {"name": "iresnet18", "bn_epsilon": 2e-3},
}


def made(kind, dtype):
    """(network, variables, images): no value is 0 or 1, where a mistake could hide.

    Two stages of two blocks have every kind of layer that the whole network has.
    """
    network = resnet.build(**NETWORKS[kind], width=4, embedding=16, dtype=dtype, param_dtype=dtype)
    network = network.clone(stages=(2, 2))
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, 112, 112, 3)).astype(dtype)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)

    def draw(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if name == "kernel":
            inputs = shape[1:] if len(shape) == 4 else shape[:1]
            value = rng.normal(0, np.sqrt(2 / np.prod(inputs)), shape)
        elif name == "var":
            value = rng.uniform(0.2, 2, shape)
        else:  # scale, slope, bias, mean
            value = rng.choice([-1, 1], shape) * rng.uniform(0.3, 1.5, shape)
        return value.astype(dtype)

    return network, jax.tree_util.tree_map_with_path(draw, shapes), images


def relative(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_embeddings_are_the_same_in_float64(kind):
    with jax.enable_x64(True):
        network, variables, images = made(kind, "float64")
        expected = jax.jit(network.apply)(variables, images)
        folded, weights = fold(network, variables)
        found = jax.jit(folded.apply)(weights, images)
        assert found.dtype == np.float64
        assert relative(found, expected) < 1e-12
        # its parameters are what a fresh folded network has, neither more nor less
        fresh = jax.eval_shape(folded.init, jax.random.key(0), images)
        assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, fresh)


@pytest.mark.parametrize("kind", ["basic", "iresnet"])
def test_the_embeddings_are_the_same_in_float32_from_fewer_operations(kind):
    network, variables, images = made(kind, "float32")
    folded, weights = fold(network, variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(weights)} == {np.dtype("float32")}
    before = jax.jit(network.apply).lower(variables, images).compile()
    after = jax.jit(folded.apply).lower(weights, images).compile()
    assert relative(after(weights, images), before(variables, images)) < 1e-5
    # a BatchNorm takes 3 operations a feature, a bias 1; the convolutions have no fewer
    assert after.cost_analysis()["flops"] < before.cost_analysis()["flops"]


def test_the_batchnorm_in_front_of_an_ir_block_stays():
    network, variables, _ = made("iresnet", "float32")
    _, weights = fold(network, variables)
    block = weights["params"]["stage1_block0"]
    assert set(block) == {"norm0", "conv0", "conv1", "conv_shortcut", "prelu"}
    norm, stats = (variables[n]["stage1_block0"]["norm0"] for n in ("params", "batch_stats"))
    np.testing.assert_allclose(
        block["norm0"]["scale"], norm["scale"] / np.sqrt(stats["var"] + 2e-3), rtol=1e-6
    )
    assert set(weights["params"]["stage0_block1"]) == {"norm0", "conv0", "conv1", "prelu"}


def test_a_folded_network_is_not_trained():
    network, variables, images = made("basic", "float32")
    folded, weights = fold(network, variables)
    with pytest.raises(ValueError, match="no statistics to train"):
        jax.eval_shape(lambda x: folded.apply(weights, x, train=True), jnp.asarray(images))


def test_a_network_in_bfloat16_has_its_weights_rounded_once():
    """Not in every batch; and the embeddings are those of weights that it rounds itself."""
    network, variables, images = made("bottleneck", "float32")
    wide, whole = fold(network, variables)
    narrow, rounded = fold(network.clone(dtype=jnp.dtype("bfloat16")), variables)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(rounded)} == {"bfloat16"}
    lowered = jax.jit(narrow.apply).lower(rounded, images).as_text()
    rounds = r"\(tensor<[\dx]+xf32>\) -> tensor<[\dx]+xbf16>"
    assert re.findall(rounds, lowered) == ["(tensor<2x112x112x3xf32>) -> tensor<2x112x112x3xbf16>"]
    expected = jax.jit(wide.clone(dtype=jnp.dtype("bfloat16")).apply)(whole, images)
    found = jax.jit(narrow.apply)(rounded, images)
    assert relative(found, expected) < 1e-2  # ties aside the same: 0 was measured
    # in the wider of two types it stays as it is kept
    _, kept = fold(network.clone(dtype=jnp.dtype("float64")), variables)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(kept)} == {"float32"}
