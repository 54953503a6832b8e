"""SIGTERM, Ctrl-C, SIGHUP: heard by one process, obeyed by all after the same step."""

import multiprocessing
import os
import signal
import threading
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from crfr.train.sharding import by_example, replicated


class Stops:
    """The signals of a loop, for a `with`; a second Ctrl-C in a process ends it at once, unsaved.

    A second SIGTERM or SIGHUP changes nothing: clusters send them by the half dozen.

    Several processes agree by the maximum over a number of each, which they compute every step
    beside the update, so that none of them waits for it: it is read a step later.
    """

    def __init__(self, mesh: Mesh):
        self._asked: list[int] = []
        self._mesh = mesh
        self._before: Array | None = None
        self._alone = jax.process_count() == 1
        if not self._alone:
            self._most = jax.jit(lambda numbers: numbers.max(), out_shardings=replicated(mesh))
            self._none = self._spread(0)

    def __enter__(self) -> "Stops":
        # handlers can be set in the main thread only
        main = threading.current_thread() is threading.main_thread()
        stops = [signal.SIGTERM, signal.SIGINT] if main else []
        if main and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
            stops.append(signal.SIGHUP)
        self._handlers = {number: signal.signal(number, self._ask) for number in stops}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: Any) -> None:
        if self._asked and number == signal.SIGINT:
            for child in multiprocessing.active_children():  # readers, which nobody else would end
                child.kill()
            os._exit(128 + number)  # an orderly end would wait for the device and for saves
        self._asked.append(number)

    def _spread(self, number: int) -> Array:
        """This process's number on its devices, as its part of an array over all of them."""
        local = np.full(jax.local_device_count(), number, np.int32)
        return jax.make_array_from_process_local_data(by_example(self._mesh), local)

    def agreed(self) -> int:
        """The signal to stop for, or 0; every process calls it once a step and gets the same."""
        asked = self._asked[0] if self._asked else 0
        if self._alone:
            return asked
        before = self._before
        self._before = self._most(self._spread(asked) if asked else self._none)
        return 0 if before is None else int(before)
