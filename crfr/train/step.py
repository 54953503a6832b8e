"""One update: views, branches, margin softmax, distance, gradient, optimizer — compiled as one
function.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, UInt8

from crfr.model import losses
from crfr.model.branches import embed_branches
from crfr.model.resnet import ResNet
from crfr.model.sampling import Sample, draw_sample
from crfr.model.softmax import Head, class_scores
from crfr.train.finite import all_finite, keep_where
from crfr.train.sharding import by_example, put_rows, replicated, state_sharding, take_rows
from crfr.train.state import State, freeze
from crfr.views.augment import Augmentation, draw, view_bank
from crfr.views.methods import Method, draw_resolutions

Scalars = dict[str, Float[Array, ""]]
Update = Callable[[State, Array, Array, Array, Array], tuple[State, Scalars]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the step of a run is, but for its state and its data.

    mesh: a Mesh, or an AbstractMesh where nothing is compiled.  margin: the keywords of
    `margin_logits`.  classes: identities.  sample, chunk: of the softmax (docs/scaling.md).
    rates: of state.py's `rates_of`.  rate: the learning rate by the step.  on_nan: "stop" or
    "skip".
    """

    mesh: Any
    method: Method
    augmentation: Augmentation
    network: ResNet
    margin: Mapping[str, Any]
    distance_weight: float
    classes: int
    sample: float
    chunk: int
    bn_group: int
    bn_frozen: bool
    rates: Mapping[str, float]
    rate: optax.Schedule
    tx: optax.GradientTransformation
    on_nan: str


def update(
    state: State,
    images: UInt8[Array, "b h w c"],
    label: Int[Array, " b"],
    key: Array,
    matrices: Float[Array, "s o h w"],
    *,
    given: Settings,
) -> tuple[State, Scalars]:
    """One training step over a global batch; the randomness of step n is `fold_in(key, n)`.

    With `sample` below 1 the softmax is over that part of the classes (sampling.py), and only their
    rows of the class matrix and of the optimizer's state are read and written.

    `on_nan` "skip": a step whose loss, gradients or statistics are not finite changes nothing but
    the number of the step, and its scalar `skipped` is 1; "stop": the loop looks at the loss.
    """
    mesh = given.mesh
    batch, rows = images.shape[0], state.params["classes"].shape[0]
    resolution_key, draw_key, dropout_key, sample_key = jax.random.split(
        jax.random.fold_in(key, state.step + 1), 4
    )
    which = draw_resolutions(given.method, resolution_key, batch)
    draws = draw(given.augmentation, draw_key, batch)
    dropout_keys = jax.random.split(dropout_key, which.shape)

    held = state.params, state.opt_state
    if given.sample < 1:
        taking_part = draw_sample(
            label, sample_key, rows=rows, classes=given.classes, fraction=given.sample, mesh=mesh
        )
        old_params, old_opt_state = take_rows(held, taking_part.rows, mesh)
    else:
        taking_part = Sample(jnp.arange(rows), jnp.arange(rows) < given.classes, label)
        old_params, old_opt_state = held

    head = Head(given.margin, mesh, given.chunk, given.network.dtype)

    def loss_of(params: Any) -> tuple[Float[Array, ""], tuple[Any, Scalars]]:
        params = freeze(params, given.rates)
        embeddings, batch_stats = embed_branches(
            given.network,
            mesh,
            given.bn_group,
            given.bn_frozen,
            params["backbone"],
            state.batch_stats,
            images,
            which,
            draws,
            matrices,
            dropout_keys,
        )
        with jax.named_scope("head"):
            cross_entropies, accuracy = class_scores(
                embeddings, params["classes"], taking_part.label, taking_part.real, head
            )
        distances = losses.distance_terms(embeddings)
        loss = losses.total(cross_entropies, distances, given.distance_weight)
        scalars = {
            "loss": loss,
            "cross_entropy": cross_entropies.sum(),
            "distance": distances.sum(),
            "accuracy": accuracy,
        }
        return loss, (batch_stats, scalars)

    grads, (batch_stats, scalars) = jax.grad(loss_of, has_aux=True)(old_params)
    with jax.named_scope("optimizer"):
        changes, opt_state = given.tx.update(grads, old_opt_state, old_params)
        params = optax.apply_updates(old_params, changes)
    scalars["learning_rate"] = jnp.asarray(given.rate(state.step), jnp.float32)
    if given.on_nan == "skip":
        finite = all_finite((scalars["loss"], grads, batch_stats))
        params, opt_state, batch_stats = keep_where(
            finite,
            (params, opt_state, batch_stats),
            (old_params, old_opt_state, state.batch_stats),
        )
        scalars["skipped"] = 1.0 - finite
    if given.sample < 1:
        params, opt_state = put_rows(held, (params, opt_state), taking_part.rows, mesh)
    return State(state.step + 1, params, batch_stats, opt_state), scalars


def jit_update(state: State, settings: Settings) -> Update:
    """The jitted update, to be called as `update(state, images, label, key, matrices)`.

    `state` (arrays or shapes) tells the sharding; the old state is donated.
    """
    shardings = state_sharding(state, settings.mesh)
    examples, whole = by_example(settings.mesh), replicated(settings.mesh)
    return jax.jit(
        functools.partial(update, given=settings),
        donate_argnums=0,
        in_shardings=(shardings, examples, examples, whole, whole),
        out_shardings=(shardings, whole),
    )


def compile_update(
    state: State, settings: Settings, key: Array
) -> tuple[Update, tuple[Array, Array]]:
    """(jitted update, constants): call it as `update(state, images, label, *constants)`.

    The constants are the run's key and view matrices, on the devices.
    """
    matrices = view_bank(settings.method.resolutions, settings.augmentation.crop)
    # compiled, because device_put takes no keys to the devices of other processes
    constants = jax.jit(lambda: (key, matrices), out_shardings=replicated(settings.mesh))()
    return jit_update(state, settings), constants
