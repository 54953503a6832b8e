"""The compiled update: one device against eight, a device's share of the work, no recompilation."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from updates import ARCFACE, EVEN, FLOAT64, begin, sgd

from configs.baseline import get_config
from crfr.commands import compile_training
from crfr.errors import InputError
from crfr.model import losses, resnet
from crfr.model.branches import embed_branches, group_span
from crfr.train import sharding
from crfr.train.schedule import due, learning_rate, steps_of
from crfr.train.state import decay_mask, padded_classes
from crfr.views.augment import Augmentation, draw, make_views, view_bank
from crfr.views.methods import draw_resolutions, parse_method

BATCH, CLASSES = 32, 50


def setup(
    method,
    devices,
    group,
    dtype="float32",
    margin="arcface",
    rate=0.01,
    rates=EVEN,
    frozen=False,
    sample=1.0,
    chunk=0,
    on_nan="stop",
):
    network = resnet.build(
        "tiny",
        embedding=32,
        dtype=dtype,
        param_dtype=dtype,
        bn_span=group_span(BATCH, group, devices),
    )
    return begin(
        network, sgd(rate, rates), CLASSES, method, devices, margin=ARCFACE | {"name": margin},
        sample=sample, chunk=chunk, bn_group=group, bn_frozen=frozen, rates=rates,
        rate=lambda _: rate, on_nan=on_nan,
    )  # fmt: skip


def batch_of(mesh, step):
    rng = np.random.default_rng(step)
    # smooth images: of pure noise nothing is left at 7 px for BatchNorm to divide by
    coarse = rng.uniform(0, 255, (BATCH, 8, 8, 3))
    images = coarse.repeat(14, 1).repeat(14, 2).astype(np.uint8)
    label = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    return jax.device_put((images, label), sharding.by_example(mesh))


def losses_of(method, devices, group, steps=5, **settings):
    mesh, state, update, constants = setup(method, devices, group, **settings)
    options = FLOAT64 if settings.get("dtype") == "float64" else None
    update = update.lower(state, *batch_of(mesh, 0), *constants).compile(options)
    found = []
    for step in range(steps):
        state, scalars = update(state, *batch_of(mesh, step), *constants)
        found.append(float(scalars["loss"]))
    return np.array(found)


# groups that fit in a device (whose share is 4 images), span two devices, span all
@pytest.mark.parametrize(
    ("method", "group", "numbers"),
    [("baseline", 4, (2, 4, 8)), ("bt-m", 8, (8,)), ("st-m1", 0, (8,))],
)
def test_more_devices_give_the_losses_of_one_in_float64(method, group, numbers):
    with jax.enable_x64(True):
        one = losses_of(method, 1, group, dtype="float64")
        for devices in numbers:
            more = losses_of(method, devices, group, dtype="float64")
            np.testing.assert_allclose(more, one, rtol=1e-9)


@pytest.mark.parametrize(
    ("method", "group", "numbers"), [("baseline", 4, (2, 4)), ("st-m2", 0, (8,))]
)
def test_more_devices_give_the_losses_of_one_in_float32(method, group, numbers):
    # At a rate of 0.0001, where rounding stays small over five steps.  At 0.01 it does not, on one
    # device alone: moving every parameter of this very run by one unit in its last place moved
    # the loss of step 5 by 7e-3 to 2e-2 in three draws, as eight devices did (2e-2); at 0.0001 by
    # 2e-5 to 1e-4, as eight devices did (6e-5).  In float64 they agree at 0.01, see above.
    one = losses_of(method, 1, group, rate=0.0001)
    for devices in numbers:
        more = losses_of(method, devices, group, rate=0.0001)
        np.testing.assert_allclose(more[0], one[0], rtol=1e-5)
        np.testing.assert_allclose(more, one, rtol=1e-3)


# bt-r is bt-m, and st-r is st-m1, with other constants in the same program
@pytest.mark.parametrize(
    ("method", "group"),
    [("baseline", 4), ("bt-m", 4), ("st-m1", 4), ("st-m2", 4), ("baseline", 0), ("st-m2", 0)],
)
def test_a_device_does_its_share_and_gathers_no_image(method, group):
    flops = {}
    for devices in (1, 8):
        mesh, state, update, constants = setup(method, devices, group)
        compiled = update.lower(state, *batch_of(mesh, 0), *constants).compile()
        flops[devices] = compiled.cost_analysis()["flops"]
    assert flops[8] < 1.1 / 8 * flops[1]
    gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather", compiled.as_text())
    branches = len(parse_method(method).views)
    # embeddings, labels and the resolutions' indices may be gathered; images and activations have
    # four axes
    assert f"{branches},{BATCH},32" in gathered
    for shape in gathered:
        size = np.prod([int(n) for n in shape.split(",") if n], initial=1)
        assert size <= branches * BATCH * 32, shape


def convolutions(method, group):
    """The types of a step's convolutions, forward and backward, of a batch of 4 on one GPU (a CPU
    has products in the place of some)."""
    config = get_config("quick")
    config.method, config.batch, config.model.bn_group = method, 4, group
    mesh = sharding.make_mesh(1)
    _, state, update, constants = compile_training(config, CLASSES, lambda _: 0.0, mesh)
    images = jax.ShapeDtypeStruct((4, 112, 112, 3), np.uint8)
    label = jax.ShapeDtypeStruct((4,), np.int32)
    traced = update.trace(state, images, label, *constants)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert all("batch_group_count = 1 " in line for line in lines)
    assert all("feature_group_count = 1 " in line for line in lines)
    return [line.rpartition(" : ")[2] for line in lines]


def test_branches_and_groups_are_one_folded_batch():
    """ST-M2 has the baseline's convolutions, of five times as many images; a loop over branches
    would have five times as many, and a vmap over kernels grouped ones.
    """
    one, five = convolutions("baseline", 4), convolutions("st-m2", 2)
    # a stem, four blocks of two and three shortcuts: forward, and for input and kernel backward
    assert len(one) == 3 * (1 + 4 * 2 + 3) - 1  # images have no gradient
    assert five == [text.replace("tensor<4x", "tensor<20x") for text in one]


def test_no_recompilation_after_the_second_step():
    mesh, state, update, constants = setup("bt-m", 8, 4)
    for step in range(4):
        state, _ = update(state, *batch_of(mesh, step), *constants)
        if step == 1:
            compiled = update._cache_size()
    assert update._cache_size() == compiled == 1


@pytest.mark.parametrize("method", ["bt-m", "st-m2"])
def test_vmapped_branches_and_groups_equal_a_plain_loop(method):
    """Embeddings and running statistics, in float64, against a forward pass a branch and group."""
    group, devices = 8, 8  # a group spans two devices
    with jax.enable_x64(True):
        network = resnet.build(
            "tiny", embedding=8, dtype="float64", param_dtype="float64", bn_span=2, dropout=0.5
        )
        plain = network.clone(bn_span=1)
        mesh = sharding.make_mesh(devices)
        images = jnp.asarray(np.asarray(batch_of(mesh, 0)[0]))
        variables = jax.jit(plain.init)(jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
        apply = jax.jit(
            partial(plain.apply, train=True, mutable=["batch_stats"]), compiler_options=FLOAT64
        )
        method = parse_method(method)
        which = draw_resolutions(method, jax.random.key(1), BATCH)
        draws = draw(Augmentation(), jax.random.key(2), BATCH)
        keys = jax.random.split(jax.random.key(3), which.shape)
        matrices = jnp.asarray(view_bank(method.resolutions, 128), jnp.float64)
        args = (images, which, draws, matrices, keys)
        got, stats = jax.jit(
            partial(embed_branches, network, mesh, group, False), compiler_options=FLOAT64
        )(variables["params"], variables["batch_stats"], *args)
        views = make_views(images, which, draws, matrices)
        collected = []
        for r in range(len(which)):
            for g in range(0, BATCH, group):
                part = slice(g, g + group)
                out, new = apply(variables, views[r, part], dropout_keys=keys[r, part])
                np.testing.assert_allclose(got[r, part], losses.unit(out), rtol=1e-8, atol=1e-10)
                collected.append(new["batch_stats"])
        expected = jax.tree.map(
            lambda old, *new: 0.9 * old + 0.1 * sum(new) / len(new),
            variables["batch_stats"],
            *collected,
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), stats, expected)


def test_the_first_update_is_minus_the_rate_times_gradient_and_decay():
    mesh, state, update, constants = setup("baseline", 1, 0, rate=0.5)
    before = jax.tree.map(np.asarray, state.params)
    after, _ = update(state, *batch_of(mesh, 0), *constants)
    # after one step the momentum is gradient + decay, and the change is -rate times it
    _, (trace, _) = after.opt_state
    jax.tree.map(
        lambda old, new, t: np.testing.assert_allclose(new, old - 0.5 * t, rtol=1e-5, atol=1e-6),
        before,
        jax.tree.map(np.asarray, after.params),
        jax.tree.map(np.asarray, trace.trace),
    )
    # rows beyond the classes are 0 and stay it, and so does their momentum
    for leaf in (after.params["classes"], trace.trace["classes"]):
        assert not np.asarray(leaf)[CLASSES:].any()
        assert np.asarray(leaf)[:CLASSES].any(1).all()


def test_weight_decay_is_on_kernels_and_classes():
    params = {"backbone": {"conv": {"kernel": 0}, "norm": {"scale": 0, "bias": 0}}, "classes": 0}
    mask = decay_mask(params, False)
    assert mask["classes"]
    assert mask["backbone"] == {"conv": {"kernel": True}, "norm": {"scale": False, "bias": False}}
    assert decay_mask(params, True)["backbone"]["norm"] == {"scale": True, "bias": True}


def test_margins_train():
    for margin in ("arcface", "cosface"):
        assert np.isfinite(losses_of("baseline", 1, 0, steps=2, margin=margin)).all()


@pytest.mark.parametrize(
    ("batch", "group", "devices", "span"),
    [(128, 128, 1, 1), (128, 128, 8, 8), (1024, 128, 8, 1), (128, 0, 4, 4), (64, 32, 4, 2)],
)
def test_group_span(batch, group, devices, span):
    assert group_span(batch, group, devices) == span


@pytest.mark.parametrize(
    ("batch", "group", "devices", "message"),
    [
        (10, 0, 8, "batch 10 does not divide by 8 devices"),
        (16, 5, 1, "bn_group=5 does not divide the batch of 16"),
        (24, 4, 4, "fits neither in nor around"),
    ],
)
def test_groups_that_do_not_fit_are_refused(batch, group, devices, message):
    with pytest.raises(InputError, match=message):
        group_span(batch, group, devices)


def test_classes_are_padded_to_a_multiple_of_128_and_of_the_devices():
    assert [padded_classes(k) for k in (1, 128, 129, 85742)] == [128, 128, 256, 85760]
    assert [padded_classes(85742, n) for n in (8, 256, 3, 7)] == [85760, 85760, 86016, 86016]


def test_cadence():
    assert [s for s in range(1, 11) if due(s, 4, 10)] == [4, 8, 10]
    assert [s for s in range(1, 11) if due(s, 0, 10)] == [10]
    # 100 images in batches of 32: epochs end inside steps 4, 7, 10, 13
    assert [s for s in range(1, 14) if due(s, 100 / 32, 99)] == [4, 7, 10, 13]
    assert [s for s in range(1, 31) if due(s, 0.3, 99)] == list(range(1, 31))


def test_learning_rate_drops_at_the_steps_that_complete_the_epochs():
    assert steps_of(9, 100, 32) == 29  # ceil(28.125)
    assert steps_of(1.1, 100, 10) == 11  # which is 11.000000000000002 in binary
    rate = learning_rate("steps", 0.01, (29, 41), 0.1, 0, 50)
    updates = [float(rate(count)) for count in (0, 28, 29, 40, 41, 49)]
    np.testing.assert_allclose(updates, [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001], rtol=1e-5)


def test_warmup_rises_linearly_and_keeps_the_drops():
    rate = learning_rate("steps", 0.1, (20,), 0.1, 10, 50)
    np.testing.assert_allclose(
        [float(rate(c)) for c in (0, 5, 10, 19, 20)], [0, 0.05, 0.1, 0.1, 0.01], rtol=1e-5
    )
    cosine = learning_rate("cosine", 0.1, (), 0.1, 10, 50)
    np.testing.assert_allclose([float(cosine(c)) for c in (10, 30, 50)], [0.1, 0.05, 0], atol=1e-7)
    with pytest.raises(InputError, match="warmup_epochs"):
        learning_rate("cosine", 0.1, (), 0.1, 50, 50)
    with pytest.raises(InputError, match="drops begin at step 20, inside the 20 steps"):
        learning_rate("steps", 0.1, (20, 30), 0.1, 20, 50)


def parts_of(params):
    """Leaves by part: the trunk, the head that makes the embedding, the class matrix."""
    backbone = dict(params["backbone"])
    head = {name: backbone.pop(name) for name in resnet.HEAD}
    parts = {"trunk": backbone, "head": head, "classes": params["classes"]}
    return {name: [np.asarray(leaf) for leaf in jax.tree.leaves(p)] for name, p in parts.items()}


def test_rates_scale_the_change_of_each_part():
    """Of one update from the same state: decay and gradient alike; a rate of 0 changes no bit."""
    rates = {"trunk": 0.0, "head": 0.5, "classes": 2.0}
    moved = []
    for chosen in (EVEN, rates):
        mesh, state, update, constants = setup("st-7", 1, 0, rates=chosen)
        before = parts_of(state.params)
        state, _ = update(state, *batch_of(mesh, 0), *constants)
        after = parts_of(state.params)
        moved.append({n: [b - a for a, b in zip(before[n], after[n], strict=True)] for n in before})
    plain, scaled = moved
    for part, rate in rates.items():
        assert any(np.abs(change).max() > 1e-5 for change in plain[part])
        for a, b in zip(plain[part], scaled[part], strict=True):
            np.testing.assert_allclose(b, rate * a, atol=1e-6 if rate else 0)


def test_a_frozen_trunk_costs_no_backward_pass():
    flops = []
    for rates in (EVEN, EVEN | {"trunk": 0.0}):
        mesh, state, update, constants = setup("baseline", 1, 0, rates=rates)
        compiled = update.lower(state, *batch_of(mesh, 0), *constants).compile()
        flops.append(compiled.cost_analysis()["flops"])
    # of three passes over the trunk one is left; the views and the head cost what they did
    assert flops[1] < 0.65 * flops[0]


def test_frozen_batch_norm_keeps_its_statistics_and_normalises_by_them():
    mesh, state, update, constants = setup("st-7", 1, 0, frozen=True)
    before = jax.tree.map(np.asarray, state.batch_stats)
    images, label = batch_of(mesh, 0)
    state, _ = update(state, images, label, *constants)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, state.batch_stats))
    # with running statistics the other images of the batch say nothing about an image
    mesh, state, update, constants = setup("baseline", 1, 0, frozen=True)
    network = resnet.build("tiny", embedding=32, dropout=0.0)
    matrices = jnp.asarray(view_bank((112,), 112))
    embed = jax.jit(partial(embed_branches, network, mesh, 0, True))
    found, again = (
        embed(
            state.params["backbone"], state.batch_stats,
            part, jnp.zeros((1, len(part)), jnp.int32), no_draws(len(part)),
            matrices, jax.random.split(jax.random.key(0), (1, len(part))),
        )[0]
        for part in (images[:4], images[jnp.array([0, 5, 6, 7])])
    )  # fmt: skip
    np.testing.assert_allclose(found[0, 0], again[0, 0], atol=1e-5)


def no_draws(count):
    return draw(
        Augmentation(crop=112, flip=False, brightness=0, saturation=0), jax.random.key(0), count
    )
