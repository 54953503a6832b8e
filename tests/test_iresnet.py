"""IR networks: their published sizes, their place in training; test_weights.py has the values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crfr import commands
from crfr.data.faces import Faces
from crfr.evaluate.encoders import load_encoder
from crfr.model import resnet
from crfr.model.iresnet import PReLU
from crfr.recipe import recipe, shrink


@pytest.mark.parametrize(
    ("name", "millions"),  # arcface_torch's docs: of the whole backbone, its embedding head too
    [("iresnet18", 24.03), ("iresnet34", 34.14), ("iresnet50", 43.59), ("iresnet100", 65.16)],
)
def test_published_sizes(name, millions):
    network = resnet.build(name)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    size += network.embedding  # fc's bias, which is in a running mean here
    assert round(size / 1e6, 2) == millions
    assert shapes["params"]["dense"]["kernel"].shape == (7 * 7 * 512, 512)


def test_prelu_has_a_slope_a_channel():
    layer = PReLU(jnp.dtype("float32"), jnp.dtype("float32"))
    x = jnp.array([[-2.0, -2.0, 0.0, 3.0]])
    slopes = {"params": {"slope": jnp.array([0.5, -1.0, 7.0, 7.0])}}
    np.testing.assert_array_equal(layer.apply(slopes, x), [[-1.0, 2.0, 0.0, 3.0]])
    fresh = layer.init(jax.random.key(0), x)
    np.testing.assert_array_equal(fresh["params"]["slope"], [0.25] * 4)


def test_bfloat16_and_width():
    network = resnet.build("iresnet18", width=4, embedding=16, dtype="bfloat16")
    images = jnp.full((1, 112, 112, 3), 99.0)
    variables = jax.jit(network.init)(jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    text = jax.jit(network.apply).lower(variables, images).as_text()
    assert all("bf16" in line for line in text.splitlines() if "stablehlo.convolution" in line)
    assert jax.eval_shape(network.apply, variables, images).dtype == jnp.float32


@pytest.mark.usefixtures("one_device")
def test_two_steps_of_training(tmp_path):
    config = recipe()
    config.method = "st-m1"
    config = shrink(config)
    config.update(
        {
            "batch": 8,
            "epochs": 1.0,
            "model": {"name": "iresnet18", "embedding": 16, "width": 4, "bn_group": 4},
            "schedule": {"warmup_epochs": 0.0},
            "run": {"log_every": 1, "save_every": 0.0, "benchmark": "", "threads": 2},
        }
    )
    assert commands.train(config, tmp_path, source=Faces(identities=4, images=4)) == 2
    encoder = load_encoder(str(tmp_path), commands.build_for_evaluation)
    assert encoder.network is not None
    assert encoder.network.block == "iresnet"
    fresh = jax.eval_shape(encoder.network.init, jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    assert jax.tree.structure(encoder.variables) == jax.tree.structure(fresh)
    slopes = encoder.variables["params"]["prelu_stem"]["slope"]
    assert (np.asarray(slopes) != 0.25).all()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(encoder.variables))
