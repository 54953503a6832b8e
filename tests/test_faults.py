"""Disks that are slow or may not be written, and kills: what is lost, and what is said."""

import json
import shlex
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from crfr.bench.kills import bench_kills
from crfr.errors import InputError
from crfr.train import manifest
from crfr.train.checkpoint import Checkpoints
from crfr.train.retention import kept

ROOT = Path(__file__).parents[1]
STATE = {"a": jnp.arange(3000.0), "b": {"c": jnp.ones((40, 50))}}
KEEP = partial(kept, latest=3, every=0, best=0)


def state_of(step):
    return jax.tree.map(lambda leaf: leaf + step, STATE)


def test_a_slow_disk_does_not_stall_the_loop_and_a_step_appears_when_whole(tmp_path, monkeypatch):
    """The last write of a save stands still until it is let go."""
    write, disk = manifest.write, threading.Event()

    def write_slowly(folder, verification):
        assert disk.wait(60)
        write(folder, verification)

    monkeypatch.setattr(manifest, "write", write_slowly)
    with Checkpoints(tmp_path / "c", KEEP) as checkpoints:
        checkpoints.save(1, state_of(1))  # returns, and training could go on
        with Checkpoints(tmp_path / "c") as reader:
            assert reader.steps() == []
        assert not (tmp_path / "c/1").exists()
        saved = []

        def save_next():
            checkpoints.save(2, state_of(2))  # waits for the one before, and loses neither
            saved.append(sorted(path.name for path in (tmp_path / "c").iterdir()))

        second = threading.Thread(target=save_next)
        second.start()
        time.sleep(0.3)
        assert second.is_alive()
        disk.set()
        second.join(60)
        assert "1" in saved[0]
    with Checkpoints(tmp_path / "c") as reader:
        assert reader.steps() == [1, 2]
        assert reader.choose() == 2


READ_ONLY = """
import sys
from functools import partial
from pathlib import Path
import jax, jax.numpy as jnp
from crfr.errors import InputError
from crfr.train.checkpoint import Checkpoints
from crfr.train.retention import kept
from crfr.workdir import open_workdir
disk, keep = Path(sys.argv[1]), partial(kept, latest=3, every=0, best=0)
def attempt(name, call):
    try:
        print(name, "->", call(), flush=True)
    except InputError as error:
        print(name, "->", error, flush=True)
def save():
    with Checkpoints(disk / "c", keep) as checkpoints:
        checkpoints.save(9, {"a": jnp.arange(3.0)})
attempt("read", lambda: Checkpoints(disk / "c").choose())
attempt("go on", lambda: Checkpoints(disk / "damaged", keep).choose())
attempt("save", save)
attempt("new", lambda: Checkpoints(disk / "new", keep))
attempt("workdir", lambda: open_workdir(disk / "run", {}, {}).__enter__())
"""


def test_a_directory_that_may_only_be_read(tmp_path):
    """A file system mounted read only: not even root may write there."""
    with Checkpoints(tmp_path / "c", KEEP) as checkpoints:
        for step in (3, 6):
            checkpoints.save(step, state_of(step))
    damaged = shutil.copytree(tmp_path / "c", tmp_path / "damaged")
    (damaged / "6/default/_METADATA").unlink()
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs tmpfs {disk} && cp -r {tmp_path}/c {damaged} {disk}"
    lock = f"{mount} && mount -o remount,ro {disk}"
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    allowed = shutil.which("unshare") and subprocess.run([*inside, lock], capture_output=True)
    if not allowed or allowed.returncode:
        pytest.skip("no right to make a mount namespace here")
    script = shlex.join([sys.executable, "-c", READ_ONLY, str(disk)])
    result = subprocess.run(
        [*inside, f"{lock} && {script}"], cwd=ROOT, capture_output=True, text=True
    )
    said = dict(line.split(" -> ") for line in result.stdout.splitlines())
    assert said["read"] == "6", result.stderr  # a sweep needs no right to write
    assert (
        "is damaged, and cannot be renamed to 6.damaged-1 (Read-only file system)" in said["go on"]
    )
    assert said["save"].startswith(f"{disk}/c: the checkpoint could not be saved (")
    assert "Read-only file system" in said["save"]
    assert "Read-only file system; give a --workdir" in said["new"]
    assert "Read-only file system; choose a folder that can be written" in said["workdir"]


def test_a_handful_of_kills_changes_nothing(tmp_path, monkeypatch, capsys):
    """The short form of `crfr bench kills`; docs/reliability.md has the long one."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    bench_kills(2, ["train", "convert"], tmp_path / "kills", seed=5)
    found = json.loads((tmp_path / "kills/kills.json").read_text())
    assert found["done"]
    assert len(found["kills"]) == 2
    assert all(kill["went_on_from"] == kill["saved"] for kill in found["kills"])
    assert found["runs"]
    assert all(run["identical"] for run in found["runs"])
    assert "nothing was lost, all ended as undisturbed" in capsys.readouterr().out
    with pytest.raises(InputError, match="is not empty"):
        bench_kills(1, ["train"], tmp_path / "kills", 0)
    with pytest.raises(InputError, match="unknown --what 'trian'"):
        bench_kills(1, ["trian"], tmp_path / "other", 0)
