"""What each part of a training step costs: by programs that leave parts out.

Each program is the one before with a part left out, made of the functions that train; the
difference of their times is the part's.

| program | what is left out |
|---|---|
| the step | |
| `plain` | the optimizer: the gradient, scaled, is added to the parameters |
| `headless` | the head too: as many classes as the class matrix has rows at least |
| `forward` | the backward pass: views and embeddings alone |
| `views` | the network |
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from crfr.bench.timing import in_a_row
from crfr.commands import compile_training
from crfr.model.branches import embed_branches, group_span
from crfr.networks import build
from crfr.recipe import Config
from crfr.train import sharding
from crfr.train.state import CLASS_MULTIPLE
from crfr.views.augment import Augmentation, Draws, draw, make_views
from crfr.views.methods import draw_resolutions, parse_method

Times = dict[str, tuple[float, float]]


def plain() -> optax.GradientTransformation:
    """No optimizer; so small a rate that the values stay what they are."""
    return optax.scale(-1e-6)


def _say(name: str, time: tuple[float, float]) -> None:
    """At once, for who is cut off before the end."""
    print(f"{name}_ms {1e3 * time[0]:.4f}", flush=True)


def time_update(
    config: Config, classes: int, mesh: Mesh, images: Array, count: int, repeats: int
) -> tuple[float, float]:
    """Seconds of the update without its optimizer."""
    init, _, update, constants = compile_training(config, classes, lambda _: 0.0, mesh, plain())
    state = init()
    label = jax.device_put(jnp.arange(config.batch) % classes, sharding.by_example(mesh))

    def call() -> Any:
        nonlocal state
        state, scalars = update(state, images, label, *constants)
        return scalars

    jax.block_until_ready(call())
    return in_a_row(call, count, repeats)


def time_forward(
    config: Config, mesh: Mesh, images: Array, matrices: Array, count: int, repeats: int
) -> Times:
    """Seconds of views alone, and of views and embeddings."""
    method, augmentation = parse_method(config.method), Augmentation(**config.augment)
    span = group_span(config.batch, config.model.bn_group, mesh.size)
    network, _ = build(config, span, lambda _: 0.0)
    single, _ = build(config, 1, lambda _: 0.0)
    variables = jax.jit(single.init, out_shardings=sharding.replicated(mesh))(
        jax.random.key(0), jnp.zeros((1, *images.shape[1:]))
    )
    keys = jax.device_put(jax.random.key(1), sharding.replicated(mesh))

    def drawn(key: Array) -> tuple[Array, Draws, Array]:
        which = draw_resolutions(method, key, config.batch)
        dropout = jax.random.split(key, which.shape)
        return which, draw(augmentation, key, config.batch), dropout

    def views(images: Array, key: Array, matrices: Array) -> Array:
        which, draws, _ = drawn(key)
        # the network takes them in its own type
        return make_views(images, which, draws, matrices).astype(network.dtype)

    def forward(variables: Any, images: Array, key: Array, matrices: Array) -> Array:
        which, draws, dropout = drawn(key)
        group, frozen = config.model.bn_group, config.model.bn_frozen
        embed = partial(embed_branches, network, mesh, group, frozen)
        state = variables["params"], variables["batch_stats"]
        return embed(*state, images, which, draws, matrices, dropout)[0]

    found = {}
    for name, call in (
        ("views", partial(jax.jit(views), images, keys, matrices)),
        ("forward", partial(jax.jit(forward), variables, images, keys, matrices)),
    ):
        jax.block_until_ready(call())
        found[name] = in_a_row(call, count, repeats)
        _say(name, found[name])
    return found


def part_times(
    config: Config,
    classes: int,
    mesh: Mesh,
    images: Array,
    matrices: Array,
    count: int,
    repeats: int,
) -> Times:
    """program -> (median, spread) in seconds a step, of all but the step itself."""
    few = min(classes, CLASS_MULTIPLE)
    # what compiles in the shortest time comes first
    times = time_forward(config, mesh, images, matrices, count, repeats)
    for name, identities in (("headless", few), ("plain", classes)):
        times[name] = time_update(config, identities, mesh, images, count, repeats)
        _say(name, times[name])
    return times


def shares(step: float, times: Times) -> dict[str, float]:
    """part -> its share of the step, in the order of the flow; the sum is 1."""
    plain, headless, forward, views = (
        times[name][0] for name in ("plain", "headless", "forward", "views")
    )
    parts = {
        "views": views,
        "forward": forward - views,
        "backward": headless - forward,
        "head": plain - headless,
        "optimizer": step - plain,
    }
    return {name: round(seconds / step, 5) for name, seconds in parts.items()}
