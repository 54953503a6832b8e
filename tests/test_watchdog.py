"""A run that hangs ends with exit code 75 and says where."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crfr.train.watchdog import EXIT, Watchdog

ROOT = Path(__file__).parents[1]
HANG = """
import multiprocessing, os, time
from crfr.train.watchdog import Watchdog
def wait_for_nothing():  # with a line on its way to a reader who does not read
    os.dup2(os.pipe()[1], 1)
    os.write(1, bytes(2**16))
    print("a line")
    time.sleep(60)
if __name__ == "__main__":
    reader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    reader.start()
    print(reader.pid, flush=True)
    with Watchdog(0.5) as watchdog:
        for step in range(1, 8):  # in all it takes longer than 0.5 s, and no phase does
            watchdog.phase(step, "reading a batch")
            time.sleep(0.1)
        watchdog.phase(8, "saving")
        wait_for_nothing()
"""


def test_a_hang_is_named_with_its_step_phase_and_stacks():
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", HANG], cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": ""},
        capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert result.returncode == EXIT == 75, result.stderr
    assert 1.2 < time.monotonic() - started < 30
    first = result.stderr.splitlines()[0]
    assert first.startswith("crfr: step 8 hangs: saving has taken 0.5 s and more (run.hang_after)")
    assert "exit code 75, and the same command goes on" in first
    assert "wait_for_nothing" in result.stderr
    time.sleep(0.2)
    state = Path(f"/proc/{result.stdout.strip()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"  # its reader is ended too


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_a_loop_that_is_over_or_unwatched_is_left_alone(seconds):
    with Watchdog(seconds) as watchdog:
        for step in range(10):
            watchdog.phase(step, "reading a batch")
            time.sleep(0.005 if seconds else 0.02)
    time.sleep(0.2)  # it would have ended this process
