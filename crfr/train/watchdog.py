"""Ends a run that hangs, and says at which step and in which phase."""

import faulthandler
import multiprocessing
import os
import threading
from typing import Any

EXIT = os.EX_TEMPFAIL  # 75: nothing is wrong with the input; the same command may go on


class Watchdog:
    """A context manager around a loop that calls `phase`; 0 seconds: it does nothing.

    It counts its own ticks, so that a machine asleep or a stopped process does not count.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._now = (0, "starting")
        self._over = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()

    def phase(self, step: int, name: str) -> None:
        """What the loop does from now on, for the step under way."""
        self._now = (step, name)

    def _watch(self) -> None:
        tick = min(self._seconds / 10, 5.0)
        seen, waited = self._now, 0.0
        while not self._over.wait(tick):
            if self._now is not seen:
                seen, waited = self._now, 0.0
                continue
            waited += tick
            if waited >= self._seconds:
                self._end(*seen)

    def _end(self, step: int, name: str) -> None:
        text = (
            f"crfr: step {step} hangs: {name} has taken {self._seconds:g} s and more "
            f"(run.hang_after); ends with exit code {EXIT}, and the same command goes on from the "
            "last checkpoint.  What each thread does:\n"
        )
        os.write(2, text.encode())  # to flush stdout may be what hangs
        faulthandler.dump_traceback(file=2, all_threads=True)
        for child in multiprocessing.active_children():  # readers, which nobody else would end
            child.kill()
        os._exit(EXIT)  # a thread that hangs would keep a regular exit waiting
