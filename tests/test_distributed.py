"""Several processes as one: the same losses and rows, one end for all, and errors that end all.

tests/hosts.py has the longer runs.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import hosts
import jax
import numpy as np
import pytest

from benchmarks import overlap
from crfr import agreement, distributed, main
from crfr.errors import InputError
from crfr.train import sharding
from crfr.workdir import flat, see_config

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "pgrep"))), reason="needs bash and pgrep"
)
BENCHMARK = "faces:identities=4,images=4"


def test_two_processes_are_one(tmp_path):
    """Training, stopping one of them, going on in two processes and in one, and the sweep: bit for
    bit what one process with as many devices does.

    All in processes of their own: in this one, which has eight devices, two of them give a loss of
    step 1 that differs by 3e-7.
    """

    def run(processes, *words, stop=None):
        devices = 2 // processes
        return hosts.finish(hosts.launch(tmp_path, processes, *words, devices=devices), stop)

    words = ["train", *hosts.SMALL, "--config.epochs=3"]  # 9 steps
    code, output = run(1, *words, f"--workdir={tmp_path / 'whole'}")
    assert code == 0, output
    whole = hosts.measured(tmp_path / "whole")
    assert [row["step"] for row in whole] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert whole[-1]["benchmark"] == BENCHMARK

    two = f"--workdir={tmp_path / 'two'}"
    code, output = run(2, *words, two, stop=("step 2/", 1, signal.SIGTERM))
    assert code == 128 + signal.SIGTERM, output
    (step,) = hosts.saved(tmp_path / "two")
    assert f"stopped by signal 15: saved step {step};" in output
    assert 2 < step < 9
    assert output.count("step 1/9") == 1  # one of them talks
    assert hosts.measured(tmp_path / "two") == whole[:step]

    shutil.copytree(tmp_path / "two", tmp_path / "one")
    for processes, name in ((1, "one"), (2, "two")):
        code, output = run(processes, *words, f"--workdir={tmp_path / name}")
        assert code == 0, output
        assert f"goes on from step {step} of 9" in output
        assert hosts.measured(tmp_path / name) == whole

    words = ["sweep", f"--model={tmp_path / 'two'}", f"--benchmark={BENCHMARK}"]
    words += ["--resolutions=7,56", "--scenarios=CR,matrix", "--batch=12"]
    for processes in (1, 2):
        code, output = run(processes, *words, f"--out={tmp_path / f'by-{processes}'}")
        assert code == 0, output
    files = [p.relative_to(tmp_path / "by-1") for p in (tmp_path / "by-1").rglob("*.*")]
    assert len(files) > 8
    for file in files:
        if file.name != "sweep.json":  # has when and for how long
            one, two = (tmp_path / by / file for by in ("by-1", "by-2"))
            assert two.read_bytes() == one.read_bytes(), file


def test_two_processes_on_one_host_trace_into_files_of_their_own(tmp_path):
    words = ["train", *hosts.SMALL, "--config.epochs=3", "--trace=2", f"--workdir={tmp_path}"]
    code, output = hosts.finish(hosts.launch(tmp_path, 2, *words))
    assert code == 0, output
    assert output.count("traced from step 6 on, to step 7: ") == 1  # one of them talks
    rows = overlap.overlap(tmp_path / "traces")
    starts, processes = zip(*(row["profile"].split("-process-") for row in rows), strict=True)
    assert [row["steps"] for row in rows] == [2, 2]
    assert len(set(starts)) == 1
    assert [process[:2] for process in processes] == ["0/", "1/"]


# Joins, differs in what the mode says, and says so; then process 1 fails or waits to be killed.
PROCESS = """
import os, sys, time
import jax
from crfr import agreement, distributed
from crfr.errors import InputError
number, port, mode, folder = int(sys.argv[1]), *sys.argv[2:]
place = (None, None, None) if mode in ("fails", "breaks") else ("127.0.0.1:" + port, 2, number)
with distributed.joined(*place, connect_timeout=100, lost_after=600):
    for facts in ({"seed": 1, "data": number}, {"jax": "1"} | ({"commit": "x"} if number else {})):
        try:
            agreement.require_same(facts)
        except InputError as error:
            print(error, file=sys.stderr)
    def act():
        if number:
            raise InputError("no such file")
    for together in (agreement.together, agreement.on_leader):
        try:
            together(act)
        except InputError as error:
            print(error, file=sys.stderr)
    assert agreement.gather("é" * 700 * number) == ["", "é" * 700]
    print("alike", number, flush=True)
    if mode == "fails":  # a save, in process 1; process 0 waits for it, in the thread that saves
        import jax.numpy as jnp
        from crfr.train.checkpoint import Checkpoints, Sealed
        from crfr.train import sharding
        place, written = sharding.by_example(sharding.make_mesh()), Sealed.async_save
        class Full:
            def result(self, timeout=None):
                raise OSError(28, "No space left on device")
        async def full(*words, **named):
            return [*(await written(*words, **named)), *([Full()] if number else [])]
        Sealed.async_save = full
        with Checkpoints(folder, lambda steps, _: {*steps}) as checkpoints:
            checkpoints.save(1, {"a": jax.jit(lambda: jnp.ones(4), out_shardings=place)()})
    if mode == "breaks" and number:
        raise KeyError("surprise")
    while True:
        agreement.gather("still there")
        time.sleep(0.1)
"""


MODES = ("fails", "breaks", "killed")


def start_pair(mode: str, folder: Path) -> list[subprocess.Popen]:
    """Two of PROCESS: one pair in what looks like a Slurm step, one like Open MPI's, one told."""
    port = str(20000 + (os.getpid() * 3 + MODES.index(mode)) % 10000)
    common = {"PYTHONPATH": str(hosts.ROOT), "XLA_FLAGS": hosts.FAST, "JAX_COORDINATOR_PORT": port}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pair = []
    for i in range(2):
        slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost,node[2-3]"}
        slurm |= {"SLURM_NTASKS": "2", "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}
        mpi = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1,10.148.0.1:34911"}
        mpi |= {f"OMPI_COMM_WORLD_{n}": str(i) for n in ("RANK", "LOCAL_RANK")}
        mpi |= {"OMPI_COMM_WORLD_SIZE": "2"}
        around = {"fails": slurm, "breaks": mpi}.get(mode, {})
        command = [sys.executable, "-c", PROCESS, str(i), port, mode, str(folder)]
        pair.append(subprocess.Popen(command, env=os.environ | common | around, **pipes))
    return pair


def test_errors_end_all_processes(tmp_path):
    """Those of one process by themselves are told to the other, a killed one is missed."""
    pairs = {mode: start_pair(mode, tmp_path) for mode in MODES}
    for line in pairs["killed"][0].stdout:
        if line.startswith("alike"):
            break
    time.sleep(0.3)
    pairs["killed"][1].kill()
    # long before heartbeats would tell
    ends = {mode: [p.communicate(timeout=300)[1] for p in pair] for mode, pair in pairs.items()}
    codes = {mode: [p.returncode for p in pair] for mode, pair in pairs.items()}

    told = "process 0 of 2: ends, for process 1 has failed:"
    for errors in ends["fails"]:
        assert "process 1 of 2 differs from process 0 in data (1, not 0); give all" in errors
        assert "process 1 of 2 differs from process 0 in commit ('x', not absent)" in errors
        assert errors.count("process 1 of 2: no such file\n") == 1  # on_leader runs it in 0 alone
    assert codes["fails"] == [2, 2]
    full = f"{tmp_path}: the checkpoint could not be saved ([Errno 28] No space left on device)"
    assert f"crfr: {told} {full}" in ends["fails"][0]
    assert f"crfr: process 1 of 2: {full}" in ends["fails"][1].splitlines()[-1]
    assert codes["breaks"] == [1, 1]
    assert f"crfr: {told} KeyError: 'surprise'\n" in ends["breaks"][0]
    assert "Traceback" in ends["breaks"][1]
    assert codes["killed"] == [75, -signal.SIGKILL]
    assert "crfr: process 0 of 2: has lost another process (" in ends["killed"][0]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


LATE = jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out. Id: save:9")
COMMIT = TimeoutError("Timed out while waiting for async_commit_complete barrier.")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (jax.errors.JaxRuntimeError("Gloo: Connection reset by peer"), 75, "has lost another proc"),
        (LATE, 75, "has lost another process"),
        (caused(COMMIT, LATE), 75, "has lost another process (Timed out while waiting for async"),
        (InputError("https://h/x.rec: Connection reset by peer"), 2, "https://h/x.rec: Connection"),
        (PermissionError(13, "Permission denied", "/x"), 2, "'/x'; make room or choose another pl"),
        (KeyError("barrier"), 1, "KeyError: 'barrier'"),
    ],
)
def test_what_an_error_of_one_process_is(error, code, text, monkeypatch, capsys):
    """And where it comes of another one's end, the watcher may learn why before it is reported."""
    told, slept, ending = [], [], threading.Lock()
    client = SimpleNamespace(key_value_set=lambda *words: told.append(words))
    monkeypatch.setattr(distributed, "_client", lambda: client)
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append((seconds, ending.locked())))
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        distributed._leave(error, ending)
    assert ended.value.code == code
    assert text in capsys.readouterr().err
    assert len(told) == (code != 75)
    assert slept[0] == (2 * distributed.WATCHING, code != 75)  # the watcher may act meanwhile


def crfr(*words: str) -> subprocess.Popen:
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("SLURM", "OMPI"))}
    return subprocess.Popen(
        [sys.executable, "-m", "crfr.main", "train", "--config=configs/baseline.py:quick",
         "--workdir=/nowhere", "--distributed", *words],
        cwd=hosts.ROOT, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_start_that_fails_says_why():
    import socket

    with socket.socket() as taken:  # and nothing that listens, at first
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        place = (f"--coordinator=127.0.0.1:{port}", "--processes=2", "--connect-timeout=4")
        runs = {
            "finds no Slurm step (srun), Open MPI, Kubernetes job or TPU pod here; give "
            "--coordinator=HOST:PORT --processes=N --process=I": crfr(),
            f"after 4 s the coordinator 127.0.0.1:{port} cannot be reached (Connection refused)":
                crfr(*place, "--process=1"),
        }  # fmt: skip
        errors = {message: run.communicate(timeout=60)[1] for message, run in runs.items()}
        taken.listen()
        message = "the coordinator's port is taken"
        runs[message] = crfr(*place, "--process=0")
        errors[message] = runs[message].communicate(timeout=60)[1]
    message = "after 4 s not all of the 2 processes have come"
    runs[message] = crfr(*place, "--process=0")
    errors[message] = runs[message].communicate(timeout=60)[1]
    for message, run in runs.items():
        (line,) = [text for text in errors[message].splitlines() if text.startswith("crfr: ")]
        assert line.startswith(f"crfr: --distributed: {message}")
        assert run.returncode == (75 if message.startswith("after") else 2)
        assert "Traceback" not in errors[message]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--process=0"], "--process is for several processes; add --distributed"),
        (["--distributed", "--process=0"], "--coordinator and --processes missing"),
        (["--distributed", "--coordinator=x", "--processes=2", "--process=0"], "not HOST:PORT"),
        (["--distributed", "--coordinator=x:1", "--processes=2", "--process=2"], "are 0 to N - 1"),
    ],
)
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_wrong_places_are_refused(command, words, message, tmp_path):
    needed = {
        "train": ["--config=configs/baseline.py:quick", f"--workdir={tmp_path}"],
        "sweep": ["--model=x", "--benchmark=faces", f"--out={tmp_path}"],
    }
    with pytest.raises(InputError, match=message):
        main.run([command, *needed[command], *words])


def test_a_process_by_itself_agrees_with_itself():
    assert agreement.leader()
    assert agreement.gather("text") == ["text"]
    agreement.require_same({"seed": 1})
    with pytest.raises(InputError, match="its own words") as raised:
        agreement.on_leader(lambda: main.folder("its own words", "gs://x"))
    assert not isinstance(raised.value, agreement.SharedError)


def test_a_workdir_that_is_not_shared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("crfr.workdir.SHARED_WITHIN", 0.3)
    with pytest.raises(InputError, match=r"not seen by this one after 0\.3 s; choose a folder of"):
        see_config(tmp_path, {"seed": 1})
    (tmp_path / "config.json").write_text('{"seed": 2}')
    with pytest.raises(InputError, match="not seen"):
        see_config(tmp_path, {"seed": 1})
    (tmp_path / "config.json").write_text('{"seed": 1}')
    see_config(tmp_path, {"seed": 1})
    assert flat({"a": {"b": 1}, "c": 2}, "config.") == {"config.a.b": 1, "config.c": 2}


def test_a_host_that_is_cut_off_ends_the_run(tmp_path):
    """Two network namespaces with a cable between them, which is cut; the rest is waiting."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hosts.two_networks())
        except PermissionError as error:
            pytest.skip(f"no right to make network namespaces here: {error}")
    (code, seconds, errors), (code_1, seconds_1, _) = hosts.cut_off(tmp_path, lost_after=10)
    assert "The following tasks are unhealthy (stopped sending heartbeats):\n1\n" in errors
    assert code == code_1 == -signal.SIGABRT
    assert max(seconds, seconds_1) < 20


STUB = """#!/bin/sh
for word; do case $word in --process=*) me=${word#*=} ;; esac; done
echo "$me: $* gpus=$JAX_LOCAL_DEVICE_IDS"
trap 'echo "$me: TERM"; exit 143' TERM
trap 'echo "$me: INT"; exit 130' INT
[ "$1" = fail ] && [ "$me" = 1 ] && exit 7
[ "$1" = wait ] || { sleep 0.5; exit 0; }
while :; do sleep 0.1; done
"""


# a suite that runs in the background ignores Ctrl-C, and so would the script
HEARS = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture
def stubbed(tmp_path):
    """launch/local.sh with stand-ins for crfr and nvidia-smi, which shows four GPUs."""
    for name, text in (("crfr", STUB), ("nvidia-smi", "#!/bin/sh\nprintf 'GPU %s\\n' 0 1 2 3\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JAX_PLATFORMS": ""}
    environment.pop("CUDA_VISIBLE_DEVICES", None)

    def run(*words: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", HEARS, hosts.ROOT / "launch/local.sh", *words],
            env=environment | variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return run


def test_local_sh_deals_out_processes_and_gpus(stubbed):
    run = stubbed("2", "train", "--workdir=two words")
    lines = sorted(run.communicate(timeout=30)[0].splitlines())
    assert run.returncode == 0
    port = lines[0].partition("127.0.0.1:")[2].split()[0]
    place = f"--distributed --coordinator=127.0.0.1:{port} --processes=2 --process="
    assert lines == [
        f"{i}: train --workdir=two words {place}{i} gpus={gpus}"
        for i, gpus in enumerate(("0,1", "2,3"))
    ]
    run = stubbed("2", "train", JAX_PLATFORMS="cpu")
    assert run.communicate(timeout=30)[0].count("gpus=\n") == 2


@pytest.mark.parametrize(
    ("shown", "gpus"),
    [
        ("1,3", ["0", "1"]),
        ("1, 3", ["0", "1"]),
        ("GPU-8a2,MIG-GPU-5c1/1/0", ["0", "1"]),
        ("2,3,-1,0", ["0", "1"]),
        ("2,3,4,0", ["0", "1"]),  # of four, 4 is none
        ("-1", ["", ""]),
        ("", ["", ""]),
        ("NoDevFiles", ["", ""]),
    ],
)
def test_local_sh_counts_the_gpus_that_cuda_shows(stubbed, shown, gpus):
    """The list ends where it names none, and without any JAX takes the CPU."""
    run = stubbed("2", "train", CUDA_VISIBLE_DEVICES=shown)
    output, errors = run.communicate(timeout=30)
    assert run.returncode == 0, errors
    assert [line.partition("gpus=")[2] for line in sorted(output.splitlines())] == gpus


@pytest.mark.parametrize(("sent", "name"), [(signal.SIGTERM, "TERM"), (signal.SIGINT, "INT")])
def test_local_sh_sends_signals_to_all(stubbed, sent, name):
    run = stubbed("3", "wait", JAX_PLATFORMS="cpu")
    started = [run.stdout.readline() for _ in range(3)]
    assert sorted(line[0] for line in started) == ["0", "1", "2"]
    time.sleep(0.3)  # their traps
    run.send_signal(sent)
    output = run.communicate(timeout=30)[0]
    assert sorted(output.splitlines()) == [f"{i}: {name}" for i in range(3)]
    assert run.returncode == 128 + sent


def test_local_sh_ends_with_the_first_failure(stubbed):
    run = stubbed("2", "fail", JAX_PLATFORMS="cpu")
    run.communicate(timeout=30)
    assert run.returncode == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "local.sh: write "), (["0", "train"], "write "), (["two", "train"], "write "),
     (["2"], "write "), (["3", "train"], "4 GPUs are not to be dealt out to 3 processes")],
)  # fmt: skip
def test_local_sh_refuses(stubbed, words, message):
    run = stubbed(*words)
    errors = run.communicate(timeout=30)[1]
    assert run.returncode == 2
    assert message in errors


def test_a_mesh_is_in_the_order_of_the_processes(monkeypatch):
    """As on a TPU pod, whose network runs through the hosts in another order."""

    class Device:
        def __init__(self, process_index, id):
            self.process_index, self.id = process_index, id
            self.platform = self.device_kind = "fake"

    devices = [Device(process, id) for process, id in ((0, 0), (1, 2), (1, 3), (0, 1))]
    monkeypatch.setattr("jax.devices", lambda: devices)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    ordered = [device.id for device in sharding.make_mesh().devices]
    np.testing.assert_array_equal(ordered, [0, 1, 2, 3])
