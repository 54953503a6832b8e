"""BatchNorm's groups on eight devices: within one, over two, over all; against a plain loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_softmax import communicated, small_network

from crfr.model import losses
from crfr.model.branches import embed_branches, group_span
from crfr.train import sharding
from crfr.views.augment import Augmentation, draw, make_views, view_bank
from crfr.views.methods import draw_resolutions, parse_method

BATCH, METHOD = 32, parse_method("st-7")


@pytest.fixture(scope="module")
def inputs():
    """(variables, images and what embed_branches takes with them, their views), in float64."""
    with jax.enable_x64(True):
        network = small_network("float64")
        images = np.random.default_rng(0).integers(0, 256, (BATCH, 112, 112, 3), np.uint8)
        which = draw_resolutions(METHOD, jax.random.key(1), BATCH)
        draws = draw(Augmentation(), jax.random.key(2), BATCH)
        matrices = jnp.asarray(view_bank(METHOD.resolutions, 128), jnp.float64)
        keys = jax.random.split(jax.random.key(3), which.shape)
        variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
        views = jax.jit(make_views)(jnp.asarray(images), which, draws, matrices)
        return variables, (jnp.asarray(images), which, draws, matrices, keys), views


def compiled_on(devices, group, inputs, what="all"):
    """(compiled function, its arguments) of embeddings and running statistics, of embeddings alone,
    or of the parameters' gradients of what embeddings say ("gradients").
    """
    variables, args, _ = inputs
    network = small_network("float64").clone(
        bn_span=group_span(BATCH, group, devices), bn_momentum=0.75
    )
    embed = partial(embed_branches, network, sharding.make_mesh(devices), group, False)
    given = (variables["params"], variables["batch_stats"], *args)
    mesh = sharding.make_mesh(devices)
    whole, by_example = sharding.replicated(mesh), sharding.by_example(mesh)
    second = jax.NamedSharding(mesh, jax.P(None, sharding.AXIS))
    places = (whole, whole, by_example, second, by_example, whole, second)
    call = {
        "all": embed,
        "embeddings": lambda *args: embed(*args)[0],
        "gradients": jax.grad(lambda *args: (embed(*args)[0] ** 3).sum()),
    }[what]
    compiled = jax.jit(call, in_shardings=places).lower(*given).compile()
    return compiled, jax.device_put(given, places)


@pytest.mark.parametrize("group", [2, 8, 0])
def test_groups_are_those_of_the_global_batch(inputs, group):
    """A device has 4 of 32 images.  Embeddings and running statistics are those of a loop over
    groups of consecutive images and branches, and each device does an eighth of the work."""
    with jax.enable_x64(True):
        variables, (*_, keys), views = inputs
        eight, given = compiled_on(8, group, inputs)
        got, stats = eight(*given)
        network, size = small_network("float64"), group or BATCH
        apply = jax.jit(partial(network.apply, train=True, mutable=["batch_stats"]))
        collected = []
        for r in range(2):
            for g in range(0, BATCH, size):
                part = slice(g, g + size)
                out, new = apply(variables, views[r, part], dropout_keys=keys[r, part])
                np.testing.assert_allclose(got[r, part], losses.unit(out), rtol=0, atol=1e-11)
                collected.append(new["batch_stats"])
        expected = jax.tree.map(
            lambda old, *new: 0.75 * old + 0.25 * sum(new) / len(new),
            variables["batch_stats"],
            *collected,
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), stats, expected)
        one, _ = compiled_on(1, group, inputs)
        assert eight.cost_analysis()["flops"] < 1.1 / 8 * one.cost_analysis()["flops"]


@pytest.mark.parametrize(("group", "rows"), [(2, None), (8, 4), (0, 1)])
def test_only_groups_over_several_devices_are_synchronised(inputs, group, rows):
    """What a forward pass without the running statistics sends: nothing, or sums of channels, one
    row of them for each group."""
    with jax.enable_x64(True):
        compiled, _ = compiled_on(8, group, inputs, "embeddings")
        shapes = communicated(compiled.as_text())
    if rows is None:
        assert not shapes
    else:
        assert shapes
        # the stem and the features have two channels, the embedding 16; vmap adds the branches
        assert {int(np.prod(shape)) for shape in shapes} <= {
            count * channels * rows for count in (1, 2, 4) for channels in (2, 16)
        }


@pytest.mark.parametrize(("group", "groups"), [(2, 0), (8, 4), (0, 1)])
def test_gradients_are_summed_and_nothing_else_where_groups_fit_in_a_device(inputs, group, groups):
    """Where they span devices, also two means forward and two back of each layer, for each branch
    and group: the bytes of docs/scaling.md."""
    variables, *_ = inputs
    with jax.enable_x64(True):
        compiled, _ = compiled_on(8, group, inputs, "gradients")
        shapes = communicated(compiled.as_text())
    for leaf in jax.tree.leaves(variables["params"]):
        shapes.remove(leaf.shape)
    channels = sum(leaf.size for leaf in jax.tree.leaves(variables["batch_stats"])) // 2
    assert sum(int(np.prod(shape)) for shape in shapes) == 4 * 2 * channels * groups
