"""The training step of a network and its first state, for the tests that run one."""

import dataclasses
from functools import partial

import jax

from crfr.train import sharding
from crfr.train.state import init_state, make_optimizer
from crfr.train.step import Settings, compile_update
from crfr.views.augment import Augmentation
from crfr.views.methods import parse_method

EVEN = {"trunk": 1.0, "head": 1.0, "classes": 1.0}
ARCFACE = {"name": "arcface", "scale": 16.0, "margin": 0.3, "gradient": "true"}
KEY = 5
# XLA's CPU has no fast convolution in float64.  What it makes of one at the suite's level 0 takes
# six times as long as at level 1, and compiling a second less.
FLOAT64 = {"xla_backend_optimization_level": 1}


def sgd(rate, rates=EVEN, weight_decay=5e-4):
    """The paper's optimizer at a constant learning rate."""
    return make_optimizer(
        "sgd",
        lambda _: rate,
        momentum=0.9,
        weight_decay=weight_decay,
        decay_norm_and_bias=False,
        rates=rates,
    )


def begin(network, tx, classes, method, devices=1, **changes):
    """(mesh, state, update, constants); `changes` are to the settings of a plain step."""
    mesh, method = sharding.make_mesh(devices), parse_method(method)
    init = partial(init_state, network, classes, tx, devices=devices)
    shapes = jax.eval_shape(init, jax.random.key(0))
    state = jax.jit(init, out_shardings=sharding.state_sharding(shapes, mesh))(jax.random.key(0))
    settings = Settings(
        mesh=mesh,
        method=method,
        augmentation=Augmentation(),
        network=network,
        margin=ARCFACE,
        distance_weight=method.distance_weight,
        classes=classes,
        sample=1.0,
        chunk=0,
        bn_group=0,
        bn_frozen=False,
        rates=EVEN,
        rate=lambda _: 0.01,
        tx=tx,
        on_nan="stop",
    )
    settings = dataclasses.replace(settings, **changes)
    return mesh, state, *compile_update(shapes, settings, jax.random.key(KEY))
