"""The only loop.  Step n means n finished updates.

Each turn, in this order: read a batch, dispatch the update, write the scalars of an earlier step
(they leave the device one step late, so that the device never waits for the log), save, verify.
"""

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from crfr.data.batches import Batch
from crfr.train.checkpoint import Checkpoints
from crfr.train.log import Log, duration
from crfr.train.schedule import due
from crfr.train.sharding import by_example
from crfr.train.state import State
from crfr.train.step import Update


def train(
    state: State,
    update: Update,
    constants: tuple,
    stream: Iterator[Batch],
    *,
    mesh: Mesh,
    start: int,
    total: int,
    batch: int,
    images: int,
    learning_rate: Callable[[int], Any],
    log_every: int,
    save_every: int,
    verify_every: int,
    checkpoints: Checkpoints,
    log: Log,
    verify: Callable[[State], dict[str, Any]] | None,
) -> tuple[State, int]:
    """Train from step `start` to `total`; returns the state and the step reached.

    `batch` is the global batch, `images` the size of the training set (for epochs), the three
    `..._every` are in steps.  `verify(state)` returns the scalars of a verification row.  On
    SIGTERM or Ctrl-C the loop saves after the update under way and returns early.
    """
    place = by_example(mesh)
    pending: tuple[int, dict] | None = None
    asked: list[int] = []
    mark, marked = time.monotonic(), start

    def write_pending() -> None:
        nonlocal pending, mark, marked
        if pending is None:
            return
        step, scalars = pending
        pending = None
        values = {name: float(v) for name, v in jax.device_get(scalars).items()}
        rate = (step - marked) * batch / (time.monotonic() - mark)
        mark, marked = time.monotonic(), step
        row = {
            "step": step,
            "epoch": round(step * batch / images, 4),
            **values,
            "learning_rate": float(learning_rate(step - 1)),
            "images_per_second": round(rate, 1),
        }
        log.write(
            row,
            f"step {step}/{total}  epoch {row['epoch']:.2f}  loss {values['loss']:.3f} (ce "
            f"{values['cross_entropy']:.3f}, distance {values['distance']:.4f})  accuracy "
            f"{100 * values['accuracy']:.1f} %  lr {row['learning_rate']:.2g}  {rate:.0f} "
            f"images/s  left {duration((total - step) * batch / max(rate, 1e-9))}",
        )

    previous = {s: signal.signal(s, lambda s, _: asked.append(s)) for s in _stoppable()}
    step = start
    try:
        for step in range(start + 1, total + 1):
            examples = next(stream)
            image, label = (
                jax.make_array_from_process_local_data(place, np.asarray(examples[name]))
                for name in ("image", "label")
            )
            with jax.transfer_guard("disallow"):
                state, scalars = update(state, image, label, *constants)
            write_pending()
            if due(step, log_every, total):
                pending = (step, scalars)
            stop = bool(asked)
            if due(step, save_every, total) or stop:
                write_pending()
                checkpoints.save(step, state)
            if verify is not None and due(step, verify_every, total) and not stop:
                write_pending()
                before = time.monotonic()
                found = verify(state)
                row = {"step": step, "epoch": round(step * batch / images, 4), **found}
                log.write(
                    row,
                    f"step {step}/{total}  {found['benchmark']}: verification accuracy "
                    f"{100 * found['verification_accuracy']:.2f} % at 112 px",
                )
                mark += time.monotonic() - before  # verification does not count against images/s
            if stop:
                print(
                    f"stopped by signal {asked[0]}: saved step {step}; "
                    "run the same command to go on"
                )
                break
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return state, step


def _stoppable() -> list[int]:
    """The signals to turn into a save; handlers can be set in the main thread only."""
    import threading

    if threading.current_thread() is not threading.main_thread():
        return []
    return [signal.SIGTERM, signal.SIGINT]
