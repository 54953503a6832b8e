"""Losses and states that are not finite: what is skipped, and what a run that stops says."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from crfr.agreement import SharedError

Saved = Callable[[], list[int]]  # the steps of the checkpoints

MODES = ("stop", "skip")
IN_A_ROW = 100  # skipped steps after which going on is of no use


class DivergedError(SharedError):
    """Losses or states of a training that are not finite: of this run, and no other's affair."""


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number of a tree is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def keep_where(finite: Bool[Array, ""], new: Any, old: Any) -> Any:
    """The tree `new` where `finite`, else `old` bit for bit, but for whole numbers: the counts of
    the optimizer go on, and the learning rate with them, as the number of the step does.
    """

    def choose(n: Array, o: Array) -> Array:
        return jnp.where(finite, n, o) if jnp.issubdtype(n.dtype, jnp.inexact) else n

    return jax.tree.map(choose, new, old)


@jax.jit
def _finite_leaves(tree: Any) -> list[Bool[Array, ""]]:
    return [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]


class FiniteCheck:
    """Looks at the loss of every step, one step late, and at the states that are to be saved.

    `mode` is one of MODES, `start` the step from which the run goes on, `skipped` the number of
    steps that were left out before, which is counted further.  All processes see the same.
    """

    def __init__(self, mode: str, start: int, skipped: int = 0):
        self._mode = mode
        self._checked = start  # the last step after which the whole state was finite
        self._row = 0
        self.skipped = skipped

    def look(self, step: int, scalars: dict[str, Any], saved: Saved) -> None:
        """Raise DivergedError where the loss of a step is not finite, or a hundred were skipped in
        a row.  `scalars` are on the host or ready on the device; `saved` tells the checkpoints.
        """
        if self._mode == "skip":
            left_out = int(jax.device_get(scalars["skipped"]))
            self.skipped += left_out
            self._row = self._row + 1 if left_out else 0
            if self._row == IN_A_ROW:
                raise DivergedError(
                    f"{IN_A_ROW} steps in a row, up to step {step}, had a loss or gradients that "
                    f"are not finite: training has diverged; {_remedy(saved)}"
                )
            return
        loss = float(jax.device_get(scalars["loss"]))
        if not math.isfinite(loss):
            raise DivergedError(
                f"loss is {loss} at step {step}, the first that is not finite: training has "
                f"diverged between steps {max(step - 1, self._checked + 1)} and {step}; "
                f"{_remedy(saved)}, or "
                "--config.run.on_nan=skip to leave such steps out"
            )

    def look_at_state(self, step: int, state: Any, saved: Saved) -> None:
        """Raise DivergedError where the state after a step, about to be saved, is not finite."""
        paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
        finite = jax.device_get(_finite_leaves(state))
        bad = [path for path, good in zip(paths, finite, strict=True) if not good]
        if bad:
            raise DivergedError(
                f"{bad[0]} and {len(bad) - 1} other arrays are not finite after step {step}, which "
                f"is not saved: training has diverged between steps {self._checked + 1} and "
                f"{step}; {_remedy(saved)}"
            )
        self._checked = step


def _remedy(saved: Saved) -> str:
    last = max(saved(), default=0)
    good = f"step {last} is the last good checkpoint" if last else "nothing is saved yet"
    return (
        f"{good}; lower schedule.learning_rate or add schedule.warmup_epochs, in another --workdir"
    )
