"""One update: views, branches, margin softmax, distance, gradient, optimizer — compiled as one
function.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Int, UInt8

from crfr.model import losses
from crfr.model.branches import embed_branches
from crfr.model.margin import margin_logits
from crfr.model.norm import AXIS
from crfr.model.product import cosines
from crfr.model.resnet import ResNet
from crfr.train.sharding import by_example, replicated, state_sharding
from crfr.train.state import State, freeze
from crfr.views.augment import Augmentation, draw, view_bank
from crfr.views.methods import Method, draw_resolutions

P = jax.P
Scalars = dict[str, Float[Array, ""]]
Update = Callable[[State, Array, Array, Array, Array], tuple[State, Scalars]]


def class_scores(
    embeddings: Float[Array, "r b d"],
    centres: Float[Array, "k d"],
    label: Int[Array, " b"],
    classes: int,
    margin: Mapping[str, Any],
    mesh: Mesh,
    dtype: jnp.dtype,
) -> tuple[Float[Array, " r"], Float[Array, ""]]:
    """(cross-entropy of each branch, training accuracy of the plain cosine over all branches).

    Embeddings are gathered, the class matrix stays sharded by class, logits are never gathered.
    """
    embeddings = jax.lax.with_sharding_constraint(embeddings, replicated(mesh))
    cosine = cosines(embeddings, losses.unit(centres), dtype)
    if centres.shape[0] % mesh.size == 0:
        cosine = jax.lax.with_sharding_constraint(cosine, NamedSharding(mesh, P(None, None, AXIS)))
    real = jnp.arange(centres.shape[0]) < classes
    logits = margin_logits(cosine, jnp.broadcast_to(label, cosine.shape[:2]), **margin)
    target = jnp.where(label[:, None] == jnp.arange(cosine.shape[-1]), cosine, -2).max(-1)
    accuracy = (target >= jnp.where(real, cosine, -2).max(-1)).mean()
    return losses.cross_entropy(logits, label, real), accuracy


def update(
    state: State,
    images: UInt8[Array, "b h w c"],
    label: Int[Array, " b"],
    key: Array,
    matrices: Float[Array, "s o h w"],
    *,
    network: ResNet,
    mesh: Mesh,
    method: Method,
    augmentation: Augmentation,
    margin: Mapping[str, Any],
    distance_weight: float,
    classes: int,
    bn_group: int,
    bn_frozen: bool,
    rates: Mapping[str, float],
    rate: optax.Schedule,
    tx: optax.GradientTransformation,
) -> tuple[State, Scalars]:
    """One training step over a global batch; the randomness of step n is `fold_in(key, n)`."""
    batch = images.shape[0]
    resolution_key, draw_key, dropout_key = jax.random.split(
        jax.random.fold_in(key, state.step + 1), 3
    )
    which = draw_resolutions(method, resolution_key, batch)
    draws = draw(augmentation, draw_key, batch)
    dropout_keys = jax.random.split(dropout_key, which.shape)

    def loss_of(params: Any) -> tuple[Float[Array, ""], tuple[Any, Scalars]]:
        params = freeze(params, rates)
        embeddings, batch_stats = embed_branches(
            network,
            mesh,
            bn_group,
            bn_frozen,
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
                embeddings, params["classes"], label, classes, margin, mesh, network.dtype
            )
        distances = losses.distance_terms(embeddings)
        loss = losses.total(cross_entropies, distances, distance_weight)
        scalars = {
            "loss": loss,
            "cross_entropy": cross_entropies.sum(),
            "distance": distances.sum(),
            "accuracy": accuracy,
        }
        return loss, (batch_stats, scalars)

    grads, (batch_stats, scalars) = jax.grad(loss_of, has_aux=True)(state.params)
    with jax.named_scope("optimizer"):
        changes, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
    scalars["learning_rate"] = jnp.asarray(rate(state.step), jnp.float32)
    return State(state.step + 1, params, batch_stats, opt_state), scalars


def compile_update(
    state: State,
    *,
    mesh: Mesh,
    method: Method,
    augmentation: Augmentation,
    key: Array,
    **settings: Any,
) -> tuple[Update, tuple[Array, Array]]:
    """(jitted update, constants): call it as `update(state, images, label, *constants)`.

    The constants are the run's key and view matrices, on the devices; the old state is donated.
    `state` (arrays or shapes) tells the sharding; `settings` are the other keywords of `update`.
    """
    matrices = view_bank(method.resolutions, augmentation.crop)
    constants = jax.device_put((key, matrices), replicated(mesh))
    shardings = state_sharding(state, mesh)
    examples, whole = by_example(mesh), replicated(mesh)
    compiled = jax.jit(
        functools.partial(update, mesh=mesh, method=method, augmentation=augmentation, **settings),
        donate_argnums=0,
        in_shardings=(shardings, examples, examples, whole, whole),
        out_shardings=(shardings, whole),
    )
    return compiled, constants
