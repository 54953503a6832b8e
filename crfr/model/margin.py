"""Margin softmax: from the cosines of embeddings and class centres to logits."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from crfr.errors import unknown

MARGINS = {"arcface": 0.5, "cosface": 0.35}  # name -> its authors' margin
GRADIENTS = ("true", "straight-through")


def check_margin(name: str, gradient: str) -> None:
    """Raises InputError for a name or gradient that is unknown."""
    if name not in MARGINS:
        raise unknown("margin.name", name, MARGINS)
    if gradient not in GRADIENTS:
        raise unknown("gradient", gradient, GRADIENTS)


def _replace_target(
    cosine: Float[Array, "*n k"], label: Int[Array, "*n"], target: Float[Array, "*n k"]
) -> Float[Array, "*n k"]:
    # A comparison instead of a gather keeps everything sharded by class.
    return jnp.where(label[..., None] == jnp.arange(cosine.shape[-1]), target, cosine)


def arcface_logits(
    cosine: Float[Array, "*n k"],
    label: Int[Array, "*n"],
    *,
    scale: float = 64.0,
    margin: float = 0.5,
    gradient: str = "true",
) -> Float[Array, "*n k"]:
    """ArcFace logits: `s cos(theta + m)` at the label, `s cos(theta)` elsewhere (paper ref. 18).

    Where theta + m > pi the target is `cos(theta) - m sin(m)`, which keeps it falling in theta.

    Args:
      cosine: [... k], cosines of unit embeddings and unit class centres.
      label: [...], ints in 0..k-1.
      scale, margin: s and m (radians, 0 <= m < pi).
      gradient: "true", or "straight-through": InsightFace's, which gives the target logit the slope
        of the plain cosine.

    Returns:
      [... k]; value and gradient are finite for all cosines, also at and slightly beyond +-1.
    """
    check_margin("arcface", gradient)
    c = jnp.clip(cosine, -1.0, 1.0)
    # The sine's slope is infinite at cos = +-1, which rounded products reach: below the resolution
    # of 1 - cos^2 the sine counts as constant.  The inner where keeps sqrt's gradient finite there.
    floor = jnp.finfo(c.dtype).eps
    square = 1 - c * c
    smooth = square > floor
    sine = jnp.where(smooth, jnp.sqrt(jnp.where(smooth, square, 1.0)), jnp.sqrt(floor))
    target = jnp.where(
        c >= -np.cos(margin),  # theta + m <= pi
        c * np.cos(margin) - sine * np.sin(margin),
        c - margin * np.sin(margin),
    )
    if gradient == "straight-through":
        target = cosine + jax.lax.stop_gradient(target - cosine)
    return scale * _replace_target(cosine, label, target)


def cosface_logits(
    cosine: Float[Array, "*n k"],
    label: Int[Array, "*n"],
    *,
    scale: float = 64.0,
    margin: float = 0.35,
) -> Float[Array, "*n k"]:
    """CosFace logits: `s (cos(theta) - m)` at the label, `s cos(theta)` elsewhere (ref. 21)."""
    return scale * _replace_target(cosine, label, cosine - margin)


def margin_logits(
    cosine: Float[Array, "*n k"],
    label: Int[Array, "*n"],
    *,
    name: str,
    scale: float,
    margin: float | None,
    gradient: str,
) -> Float[Array, "*n k"]:
    """The logits of the margin called `name`; CosFace has no other `gradient`."""
    check_margin(name, gradient)
    margin = MARGINS[name] if margin is None else margin
    if name == "arcface":
        return arcface_logits(cosine, label, scale=scale, margin=margin, gradient=gradient)
    return cosface_logits(cosine, label, scale=scale, margin=margin)
