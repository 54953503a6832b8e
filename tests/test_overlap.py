"""crfr train --trace and benchmarks/overlap.py: a profile of the loop, and what it tells."""

import itertools
import json
import os
import signal
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_loop import Nowhere, Silent
from test_train import small

from benchmarks import overlap
from crfr import commands
from crfr.data.batches import AHEAD
from crfr.data.faces import Faces
from crfr.errors import InputError
from crfr.train import loop, sharding
from crfr.train.finite import FiniteCheck
from crfr.train.state import State
from crfr.train.tracing import BEFORE, DISPATCHING, READING, WAITING, Trace, steps_to_trace
from crfr.train.watchdog import Watchdog

pytestmark = pytest.mark.usefixtures("one_device")
MS = 1_000_000  # ns


def test_intervals_are_those_of_a_count_of_every_moment():
    rng = np.random.default_rng(0)

    def moments(intervals):
        held = np.zeros(80, bool)
        for start, end in intervals:
            held[start:end] = True
        return held

    for _ in range(200):
        drawn = [
            [
                (int(s), int(s + n))
                for s, n in zip(*rng.integers(1, (60, 15), (c, 2)).T, strict=True)
            ]
            for c in rng.integers(0, 9, 2)
        ]
        first, second = map(overlap.union, drawn)
        held = [moments(intervals) for intervals in drawn]
        for merged, own in zip((first, second), held, strict=True):
            assert merged == sorted(merged)
            assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))
            assert np.array_equal(moments(merged), own)
            assert overlap.length(merged) == own.sum()
            if own.any():
                span = slice(*np.flatnonzero(own)[[0, -1]] + [0, 1])
                assert overlap.length(overlap.gaps(merged)) == (~own[span]).sum()
        assert np.array_equal(moments(overlap.common(first, second)), held[0] & held[1])


def test_figures_by_hand():
    """Three updates of 10 ms: the second waits 4 ms for its batch and 1 for its dispatch; the third
    begins 2 ms after the second, which a slow start costs, for it was dispatched long before.
    """
    ms = [
        (READING, 0, 1), (DISPATCHING, 1, 2), (WAITING, 2, 2.1),
        (READING, 10, 16), (DISPATCHING, 16, 17), (WAITING, 17, 17.1),
        (READING, 17.1, 18.1), (DISPATCHING, 18.1, 19), (WAITING, 19, 27),
        (AHEAD, 11, 15), (AHEAD, 13, 17),
    ]  # fmt: skip
    # before the first kernel nothing is known; one of 0.5 ms stands between two of an update
    kernels = [(2, 6), (6.5, 12), (10, 11), (17, 27), (29, 39)]
    annotations = {
        name: [(s * MS, e * MS) for n, s, e in ms if n == name]
        for name in (READING, DISPATCHING, WAITING, AHEAD)
    }
    found = overlap.measure([(s * MS, e * MS) for s, e in kernels], annotations)
    assert found == {
        "steps": 3,
        "span_ms": 37,
        "busy_share": round(29.5 / 37, 5),
        "reading_ms": 7,
        "reading_share_while_busy": round(3 / 7, 5),
        "reading_share_during_an_update": round(3 / 7, 5),
        "reading_ahead_ms": 8,
        "reading_ahead_share_while_busy": round(1 / 8, 5),
        "reading_ahead_share_during_an_update": round(2 / 8, 5),
        "waiting_for_the_update_ms": 8.2,
        "longest_gap_ms": 5,
        "waits_for_the_input": round(4 / 37, 5),
        "waits_for_the_loop_else": round(1 / 37, 5),
    }


def test_an_update_that_is_under_way_waits_for_no_input():
    """Its kernels stand apart, and the loop reads and dispatches the next one in such a gap."""
    kernels = [(0, 4), (5, 10), (10, 14), (16, 20)]
    annotations = {
        READING: [(4.2, 4.5)],
        DISPATCHING: [(4.5, 4.6)],
        WAITING: [(4.6, 10)],
        AHEAD: [],
    }
    assert overlap.measure(kernels, annotations)["waits_for_the_input"] == 0
    annotations[WAITING] = [(4.6, 4.7)]
    assert overlap.measure(kernels, annotations)["waits_for_the_input"] == round(0.3 / 20, 5)


def plane(name, **lines):
    """As ProfileData gives it; an event is a name, a start, an end and stats."""
    return SimpleNamespace(
        name=name,
        lines=[
            SimpleNamespace(
                name=line.replace("_", " "),
                events=[
                    SimpleNamespace(
                        name=name, start_ns=start, duration_ns=end - start, stats=stats.items()
                    )
                    for name, start, end, stats in events
                ],
            )
            for line, events in lines.items()
        ],
    )


def test_kernels_of_a_gpu_are_those_of_its_streams_without_copies(monkeypatch):
    op = {"hlo_op": "fusion", "device_ordinal": 0}
    planes = [
        plane("/host:CPU", python=[(READING, 1, 2, {}), ("fusion", 1, 5, op)]),
        plane(
            "/device:GPU:0",
            Stream_7=[("fusion", 10, 20, op), ("MemcpyD2D", 20, 22, {})],
            Stream_8=[("MemcpyH2D", 30, 90, {})],
            XLA_Modules=[("jit_update", 0, 99, {})],
        ),
        plane("/device:TPU:0", XLA_Ops=[("%fusion", 3, 4, {})], Steps=[("1", 0, 99, {})]),
        plane("/device:CUSTOM:x", other=[("a", 0, 99, {})]),
    ]
    whole = SimpleNamespace(planes=planes)
    monkeypatch.setattr(overlap, "ProfileData", SimpleNamespace(from_file=lambda _: whole))
    kernels, annotations = overlap.read_profile("file")
    assert kernels == {"GPU:0": [(10, 20), (20, 22)], "TPU:0": [(3, 4)]}
    assert annotations[READING] == [(1, 2)]


def test_a_kernel_of_a_cpu_ends_where_its_threads_do():
    first, second = (
        {"hlo_op": "dot", "device_ordinal": 0, "_p": number, "_c": 9} for number in (1, 2)
    )
    lines = {
        "a": [("dot", 0, 3, first), ("end: dot", 28, 29, {"_c": 2}), ("dot", 20, 22, second)],
        "b": [("end: dot", 10, 11, {"_c": 1}), ("Execute", 0, 50, {"_p": 1})],
        "c": [("copy", 40, 45, {"hlo_op": "copy", "device_ordinal": 1, "_p": 3})],
    }
    kernels, _ = overlap.read_host(plane("/host:CPU", **lines))
    assert kernels == {"CPU:0": [(0, 10), (20, 28)], "CPU:1": [(40, 45)]}


def batches(seconds=0.0, at=None, then=None):
    """Each takes so long; before the one of step `at`, `then` is called."""
    step = 0
    while True:
        step += 1
        if step == at:
            then()
        time.sleep(seconds)
        yield {"image": np.zeros((4, 112, 112, 3), np.uint8), "label": np.zeros(4, np.int32)}


def run(folder, stream, turns, steps=4):
    """The loop, for `BEFORE + steps` steps, the last of them traced; an update multiplies matrices
    so many times.
    """

    @jax.jit
    def work(state, image):
        def turn(_, x):
            return jnp.tanh(x @ x)

        x = jax.lax.fori_loop(0, turns, turn, jnp.full((256, 256), state + image.sum() * 0))
        return x[0, 0] * 0, x[0, 0]

    def update(state, image, label):
        new, loss = work(state.step, image)
        names = ("loss", "cross_entropy", "distance", "accuracy", "learning_rate")
        return State(new, {}, {}, {}), dict.fromkeys(names, loss)

    total = BEFORE + steps
    loop.train(
        State(jnp.zeros(()), {}, {}, {}),
        update,  # pyright: ignore[reportArgumentType]
        (),
        stream,
        mesh=sharding.make_mesh(),
        start=0,
        total=total,
        batch=4,
        images=64,
        log_every=1,
        save_every=total,
        verify_every=total,
        checkpoints=Nowhere(),
        log=Silent(),
        verify=None,
        check=FiniteCheck("stop", 0),
        watchdog=Watchdog(0),
        trace=Trace(steps, folder, 0),
    )


def test_a_slow_input_is_told_from_a_slow_update(tmp_path):
    run(tmp_path / "input", batches(0.1), turns=1)
    (slow,) = overlap.overlap(tmp_path / "input")
    run(tmp_path / "update", batches(), turns=100)
    (quick,) = overlap.overlap(tmp_path / "update")
    assert slow["steps"] == quick["steps"] == 4
    assert slow["reading_ms"] > 300  # three of the four: the first lies before the first kernel
    assert slow["waits_for_the_input"] > 0.7
    assert slow["reading_share_during_an_update"] < 0.3
    assert slow["longest_gap_ms"] > 80  # a batch takes 100, less what is left of the update then
    assert quick["waits_for_the_input"] < 0.05
    assert quick["busy_share"] > 0.5
    assert quick["waiting_for_the_update_ms"] > 0.3 * quick["span_ms"]


def test_all_of_the_last_step_is_in_the_profile(tmp_path, monkeypatch):
    done = []

    class Result:
        def block_until_ready(self):
            done.append("last step")
            return self

    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: done.append("begun"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: done.append("written"))
    with Trace(2, tmp_path, 30) as trace:
        for step in range(31, 40):
            trace.before(step)
            done.append(step)
            trace.after(step, Result())
    assert done == [*range(31, 36), "begun", 36, 37, "last step", "written", 38, 39]


def fail():
    raise OSError("the disk is gone")


def ask():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("what", "error"), [(fail, OSError), (ask, SystemExit)])
def test_a_trace_ends_with_the_loop(tmp_path, what, error, capsys):
    with pytest.raises(error):
        run(tmp_path, batches(at=BEFORE + 3, then=what), turns=1)
    (row,) = overlap.overlap(tmp_path)
    assert row["steps"] == (2 if what is fail else 3)
    said = f"traced from step 6 on, ended before step 9: {tmp_path}/plugins/profile/"
    assert said in capsys.readouterr().out
    with jax.profiler.trace(tmp_path / "free"):  # refused while another one runs
        pass


@pytest.fixture(scope="module")
def source():
    return Faces(identities=8, images=6)


def test_a_training_is_traced_and_read(tmp_path, source, capsys):
    config = small("baseline", epochs=3.0)  # 9 steps
    commands.train(config, tmp_path, source=source, trace=3)
    (folder,) = (tmp_path / "traces/plugins/profile").iterdir()
    assert f"traced from step 6 on, to step 8: {folder}\n" in capsys.readouterr().out
    overlap.main([str(tmp_path / "traces"), f"--out={tmp_path / 'overlap.json'}"])
    *lines, verdict = capsys.readouterr().out.splitlines()
    figures = json.loads((tmp_path / "overlap.json").read_text())
    (row,) = figures["rows"]
    assert lines[0] == f"{row['profile']}, CPU:0: 3 steps in {row['span_ms']:.1f} ms"
    assert row["profile"].startswith(f"{folder.name}/")
    assert row["steps"] == 3
    assert 0 < row["busy_share"] <= 1
    assert row["reading_ahead_ms"] > 0
    waited = figures["waits_for_the_input"]
    assert waited == row["waits_for_the_input"]
    assert verdict == f"the device waits for the input {100 * waited:.2f} % of the time"


def test_too_few_steps_are_refused_and_without_the_flag_none_is_traced(
    tmp_path, source, monkeypatch, capsys
):
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: pytest.fail("traces"))
    config = small("baseline", epochs=3.0)
    with pytest.raises(
        InputError, match=r"--trace=5: .* steps 1 to 9 that leaves 4: give 4 at most"
    ):
        commands.train(config, tmp_path, source=source, trace=5)
    commands.train(config, tmp_path, source=source)
    # the same command goes on with a run that was stopped, or has ended
    assert commands.train(config, tmp_path, source=source, trace=5) == 9
    assert "--trace=5: from step 9 of 9 on, 0 are left to trace" in capsys.readouterr().out
    assert steps_to_trace(4, 0, 9) == 4
    assert steps_to_trace(4, 2, 9) == 2
    assert steps_to_trace(0, 9, 9) == 0
    with pytest.raises(InputError, match=r"--trace=1: .* leaves 0: train longer, or leave it out"):
        steps_to_trace(1, 0, 5)


def test_the_newest_start_is_read_and_what_is_no_profile_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        overlap.main([str(tmp_path)])
    assert "no profile (*.xplane.pb) there; crfr train --trace=20" in capsys.readouterr().err
    names = (
        "2026_01_02_03_04_05-process-0",
        "2026_01_02_03_04_05-process-1",
        "2025_12_31_00_00_00",
    )
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "host.xplane.pb").write_bytes(b"bad")
    assert [file.parent.name for file in overlap.profiles(tmp_path)] == list(names[:2])
    with pytest.raises(SystemExit):
        overlap.main([str(tmp_path)])
    assert "is not a profile, or not whole: trace again" in capsys.readouterr().err
    with jax.profiler.trace(tmp_path / "other"):
        pass
    with pytest.raises(SystemExit):
        overlap.main([str(tmp_path / "other")])
    assert "no steps of crfr train in it" in capsys.readouterr().err
