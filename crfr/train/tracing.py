"""A profile of some steps of the loop, for XProf, TensorBoard and benchmarks/overlap.py."""

import time
from pathlib import Path
from typing import Any

import jax

from crfr.agreement import gather
from crfr.errors import InputError

BEFORE = 5  # steps of a start that are not traced: the first compile, and fill the read-ahead
# The phases of every turn of the loop, as they are called in a profile and by the watchdog
READING = "reading a batch"
DISPATCHING = "dispatching the update"
WAITING = "waiting for the update before it"


class Trace:
    """A context manager around a loop that calls `before` and `after` each step: profiles `steps`
    of them into `folder`, from the sixth after step `start` on; 0 steps: it does nothing.

    What an error or a signal cuts short is written all the same.  Every start has a folder of its
    own, and so has every process, of which several may share a host and its name.
    """

    def __init__(self, steps: int, folder: Path, start: int):
        self._first, self._last = start + BEFORE + 1, start + BEFORE + steps
        self._folder = folder
        self._running = False
        self._session = ""
        if steps:  # one name for all processes, though their clocks differ
            self._session = gather(time.strftime("%Y_%m_%d_%H_%M_%S"))[0]
            if jax.process_count() > 1:
                self._session += f"-process-{jax.process_index()}"

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._running:
            self._write(f"ended before step {self._last}")

    def before(self, step: int) -> None:
        """Begin, where this step is the first to be traced."""
        if step == self._first <= self._last:
            options = jax.profiler.ProfileOptions()
            options.session_id = self._session
            options.python_tracer_level = 0  # to trace each call of Python would slow the loop down
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """End, where this step was the last to be traced; with all of its work, for `result`."""
        if self._running and step == self._last:
            jax.block_until_ready(result)
            self._write(f"to step {step}")

    def _write(self, until: str) -> None:
        self._running = False
        jax.profiler.stop_trace()
        folder = self._folder / "plugins/profile" / self._session
        print(f"traced from step {self._first} on, {until}: {folder}", flush=True)


def steps_to_trace(steps: int, start: int, total: int) -> int:
    """How many a start from step `start` of `total` traces, where `steps` are asked for.

    InputError where a run that begins has too few.  One that goes on, by the same command, traces
    those that are left, which a line says.
    """
    left = max(total - start - BEFORE, 0)
    if steps > left and start:
        print(f"--trace={steps}: from step {start} of {total} on, {left} are left to trace")
        return left
    if steps > left:
        remedy = f"give {left} at most" if left else "train longer, or leave it out"
        raise InputError(
            f"--trace={steps}: the first {BEFORE} steps of a start are not traced, and of steps "
            f"{start + 1} to {total} that leaves {left}: {remedy}"
        )
    return steps
