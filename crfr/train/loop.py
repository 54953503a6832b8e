"""The only loop.  Step n means n finished updates.

Each turn, in this order: read a batch, dispatch the update, wait for the update before it, write
the scalars that are due (one step late, so that the device never waits for the log), verify, save.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from crfr.data.batches import Batch
from crfr.train.checkpoint import Checkpoints
from crfr.train.finite import FiniteCheck
from crfr.train.log import Log, duration
from crfr.train.schedule import due
from crfr.train.sharding import by_example
from crfr.train.state import State
from crfr.train.step import Scalars, Update
from crfr.train.stops import Stops
from crfr.train.tracing import DISPATCHING, READING, WAITING, Trace
from crfr.train.watchdog import Watchdog


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
    log_every: float,
    save_every: float,
    verify_every: float,
    checkpoints: Checkpoints,
    log: Log,
    verify: Callable[[State], dict[str, Any]] | None,
    check: FiniteCheck,
    watchdog: Watchdog,
    trace: Trace,
) -> State:
    """Train from step `start` to `total`.

    `batch` is the global batch, `images` the size of the training set (for epochs), the three
    `..._every` are in steps.  `verify(state)` returns the scalars of a verification row.
    `check` looks at every loss and at the states to be saved; `watchdog` and `trace` are told the
    phases.  On signal (stops.py) the loop saves after the update under way and raises
    SystemExit(128 + signal).
    """
    place = by_example(mesh)
    pending: tuple[int, Scalars] | None = None
    unseen: tuple[int, Scalars] | None = None  # of the update before, not yet looked at
    mark, marked = time.monotonic(), start

    def phase(step: int, name: str) -> jax.profiler.TraceAnnotation:
        watchdog.phase(step, name)
        return jax.profiler.TraceAnnotation(name)

    def look() -> None:
        nonlocal unseen
        if unseen is not None:
            (step, scalars), unseen = unseen, None
            check.look(step, scalars, checkpoints.steps)

    def write_pending() -> None:
        nonlocal pending, mark, marked
        if pending is None:
            return
        (step, scalars), pending = pending, None
        shown = {name: float(v) for name, v in jax.device_get(scalars).items()}
        values: dict[str, Any] = dict(shown)
        if "skipped" in shown:  # the loss of such a step is no number for a curve
            values = {name: v if math.isfinite(v) else None for name, v in shown.items()}
            values["skipped"] = check.skipped
        rate = (step - marked) * batch / (time.monotonic() - mark)
        mark, marked = time.monotonic(), step
        log.write(
            {
                "step": step,
                "epoch": round(step * batch / images, 4),
                **values,
                "images_per_second": round(rate, 1),
            },
            f"step {step}/{total}  epoch {step * batch / images:.2f}  loss {shown['loss']:.3f} "
            f"(ce {shown['cross_entropy']:.3f}, distance {shown['distance']:.4f})  accuracy "
            f"{100 * shown['accuracy']:.1f} %  lr {shown['learning_rate']:.2g}  {rate:.0f} "
            f"images/s  left {duration((total - step) * batch / max(rate, 1e-9))}"
            + (f"  skipped {check.skipped}" if check.skipped else ""),
        )

    with Stops(mesh) as stops, trace:
        for step in range(start + 1, total + 1):
            trace.before(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                with phase(step, READING):
                    examples = next(stream)
                with phase(step, DISPATCHING):
                    image, label = (
                        jax.make_array_from_process_local_data(place, np.asarray(examples[name]))
                        for name in ("image", "label")
                    )
                    with jax.transfer_guard("disallow"):
                        state, scalars = update(state, image, label, *constants)
                # one update ahead of the device, no more: a stop is heard in time, memory bounded
                with phase(step, WAITING):
                    jax.block_until_ready(unseen)
            look()
            unseen = (step, scalars)
            trace.after(step, scalars)
            write_pending()
            stop = stops.agreed()
            saving = due(step, save_every, total) or bool(stop)
            if saving or due(step, log_every, total):
                pending = (step, scalars)
            verifying = verify is not None and due(step, verify_every, total)
            found = None
            if saving or verifying:  # what is not finite stops here, before it is saved
                watchdog.phase(step, "waiting for the update")
                look()
                check.look_at_state(step, state, checkpoints.steps)
            if verify is not None and verifying:
                watchdog.phase(step, "verifying")
                write_pending()
                before = time.monotonic()
                found = verify(state)
                log.write(
                    {"step": step, "epoch": round(step * batch / images, 4), **found},
                    f"step {step}/{total}  {found['benchmark']}: verification accuracy "
                    f"{100 * found['verification_accuracy']:.2f} % at 112 px",
                )
                mark += time.monotonic() - before  # verification does not count against images/s
            if saving:
                watchdog.phase(step, "saving")
                write_pending()
                checkpoints.save(step, state, found)
            if stop:
                checkpoints.wait()
                print(f"stopped by signal {stop}: saved step {step}; the same command goes on")
                raise SystemExit(128 + stop)
        watchdog.phase(total, "waiting for the last save")
        checkpoints.wait()
    return state
