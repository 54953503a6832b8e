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
import numpy as np
import pytest
from hosts import FAST

from crfr import environment
from crfr.bench import kills, works
from crfr.bench.kills import bench_kills
from crfr.data.convert import convert
from crfr.errors import InputError
from crfr.evaluate import store
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
    monkeypatch.setenv("XLA_FLAGS", FAST)
    bench_kills(2, ["train", "convert"], tmp_path / "kills", seed=5, epochs=1)
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


class Grey:
    """40 images of two people, a Source; a process that gets to image `end` is killed."""

    classes = 2

    def __init__(self, end: int | None):
        self.end = end

    def __len__(self):
        return 40

    def __getitem__(self, index):
        late = self.end is not None and index >= self.end
        if late and threading.current_thread() is not threading.main_thread():
            raise KeyboardInterrupt
        return {"image": np.full((112, 112, 3), index, np.uint8), "label": index % 2}

    def where(self, index):
        return f"image {index}"

    def identity(self, label):
        return "ab"[label]


@pytest.mark.parametrize("loss", ["", "deleted", "written again"])
def test_bench_kills_sees_what_a_process_made_anew(tmp_path, monkeypatch, loss):
    """Conversions in this process: whole, killed at 17, at 29 and ended, 4 images a shard."""
    ends = iter([None, 17, 29, None])

    def run_until(work, folder, cache, delay):
        end, before = next(ends), work.progress(folder)
        if before == 4 and loss:
            file = folder / "images-00002-of-00010.raw"
            content = file.read_bytes()
            file.unlink()
            if loss == "written again":
                environment.write_atomically(file, content)
        folder.with_suffix(".log").touch()
        try:
            convert(Grey(end), "grey", folder, format="raw", shard_images=4, workers=1)
        except KeyboardInterrupt:
            return True, 0.1, before
        return False, 0.1, before

    monkeypatch.setattr(kills, "run_until", run_until)
    if loss:
        told = r"convert-1: had 4, went on from 3 \(gone or written again: 00002-of-00010\)"
        with pytest.raises(InputError, match=told):
            bench_kills(2, ["convert"], tmp_path / "kills", seed=0)
        return
    bench_kills(2, ["convert"], tmp_path / "kills", seed=0)
    found = json.loads((tmp_path / "kills/kills.json").read_text())["kills"]
    assert [(kill["before"], kill["saved"], kill["went_on_from"]) for kill in found] == [
        (0, 4, 4),
        (4, 7, 7),
    ]


def test_an_embedding_written_again_is_no_kept_one(tmp_path):
    work, folder = works.sweeping(tmp_path), tmp_path / "embeddings/faces"
    for resolution in (112, 111, 110):
        store.add(folder, resolution, 2, np.arange(2), np.ones((2, 3), np.float32))
    before = work.files(tmp_path)
    assert work.progress(tmp_path) == work.went_on("", before, before) == 3
    store.add(folder, 109, 2, np.arange(2), np.ones((2, 3), np.float32))
    assert work.went_on("", before, work.files(tmp_path)) == 3
    store.add(folder, 111, 2, np.arange(2), np.ones((2, 3), np.float32))
    (folder / "110.npy").unlink()
    after = work.files(tmp_path)
    assert work.went_on("", before, after) == 1
    assert works.changed(before, after) == ["110.npy", "111.npy"]
