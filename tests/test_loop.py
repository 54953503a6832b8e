"""crfr.train.loop: batches are read and sent to the device while the update before them runs."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from crfr.data.batches import train_batches
from crfr.train import loop, sharding
from crfr.train.checkpoint import Checkpoints
from crfr.train.finite import FiniteCheck
from crfr.train.log import Log
from crfr.train.state import State
from crfr.train.tracing import Trace
from crfr.train.watchdog import Watchdog

STEPS, SECONDS = 12, 0.08  # each of them, to read a batch and to run an update
pytestmark = pytest.mark.usefixtures("one_device")


class Slow:
    """A source that takes SECONDS for a batch of 4, as a disk would: asleep."""

    classes = 2

    def __len__(self):
        return 64

    def __getitem__(self, index):
        time.sleep(SECONDS / 4)
        return {"image": np.zeros((112, 112, 3), np.uint8), "label": index % 2}

    def where(self, index):
        return f"image {index}"

    def identity(self, label):
        return str(label)


class Scalar:
    """What an update returns: a number that is there once the device has done the work."""

    def __init__(self, future):
        self.future = future

    def block_until_ready(self):
        self.future.result()
        return self

    def __array__(self, dtype=None, copy=None):
        self.future.result()
        return np.zeros((), dtype)


class Nowhere(Checkpoints):
    def __init__(self):
        pass

    def save(self, step, state, found=None):
        pass

    def wait(self):
        pass


class Silent(Log):
    def __init__(self):
        self.rows = []

    def write(self, row, text):
        self.rows.append(row)


def one_by_one(source):
    """Batches that are read when they are asked for, with nothing ahead."""
    while True:
        examples = [source[index] for index in range(4)]
        yield {
            "image": np.stack([example["image"] for example in examples]),
            "label": np.array([example["label"] for example in examples], np.int32),
        }


def run(stream, device, watchdog=None, log=None, verify=None) -> float:
    """Seconds of the loop; an update is a job for `device`, which does one at a time."""
    names = ("loss", "cross_entropy", "distance", "accuracy", "learning_rate")

    def update(state, image, label):
        assert image.shape == (4, 112, 112, 3)
        done = Scalar(device.submit(time.sleep, SECONDS))
        return state, dict.fromkeys(names, done)

    next(stream)  # threads are running now
    before = time.monotonic()
    loop.train(
        State(np.zeros((), np.int32), {}, {}, {}),
        update,  # pyright: ignore[reportArgumentType]
        (),
        stream,
        mesh=sharding.make_mesh(),
        start=0,
        total=STEPS,
        batch=4,
        images=64,
        log_every=5,
        save_every=STEPS,
        verify_every=5,
        checkpoints=Nowhere(),
        log=log or Silent(),
        verify=verify,
        check=FiniteCheck("stop", 0),
        watchdog=watchdog or Watchdog(0),
        trace=Trace(0, Path(), 0),
    )
    return time.monotonic() - before


@pytest.mark.parametrize("ahead", [False, True])
def test_reading_and_updates_overlap(ahead):
    """One after the other they would take 24 x SECONDS each time, and at the same time at least 12;
    a busy machine may lengthen that now and then."""
    for _ in range(3):
        source = Slow()
        stream = train_batches(source, batch=4, seed=0, threads=1) if ahead else one_by_one(source)
        with ThreadPoolExecutor(1) as device:
            seconds = run(stream, device)
        if seconds < 1.6 * STEPS * SECONDS:
            break
    assert STEPS * SECONDS * 0.99 < seconds < 1.6 * STEPS * SECONDS


def test_verification_does_not_count_against_images_a_second():
    log = Silent()

    def verify(state):
        time.sleep(6 * SECONDS)  # more than the five steps of a line
        return {"benchmark": "lfw", "verification_accuracy": 0.5}

    stream = iter([{"image": np.zeros((4, 112, 112, 3), np.uint8), "label": np.zeros(4)}] * 99)
    with ThreadPoolExecutor(1) as device:
        run(stream, device, log=log, verify=verify)
    rates = {r["step"]: r["images_per_second"] for r in log.rows if "loss" in r}
    assert list(rates) == [5, 10, 12]
    # of the ten steps after a verification, too; a busy machine may make them slower
    assert 0.6 * 4 / SECONDS < rates[10] <= 1.05 * 4 / SECONDS


class Recorder(Watchdog):
    """A watchdog that only remembers what it is told."""

    def __init__(self):
        super().__init__(0)
        self.told = []

    def phase(self, step, name):
        self.told.append((step, name))


def test_the_watchdog_is_told_every_phase():
    stream = iter([{"image": np.zeros((4, 112, 112, 3), np.uint8), "label": np.zeros(4)}] * 99)
    watchdog = Recorder()
    with ThreadPoolExecutor(1) as device:
        run(stream, device, watchdog)
    turn = ["reading a batch", "dispatching the update", "waiting for the update before it"]
    expected = [(step, name) for step in range(1, STEPS + 1) for name in turn]
    last = ["waiting for the update", "saving", "waiting for the last save"]
    assert watchdog.told == expected + [(STEPS, name) for name in last]
