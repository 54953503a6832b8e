"""What `crfr bench kills` kills: a training, a conversion and a sweep, always the same ones."""

import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from crfr.environment import read_lines
from crfr.evaluate.encoders import fingerprint
from crfr.networks import build
from crfr.train import sharding
from crfr.train.checkpoint import Checkpoints
from crfr.train.state import State, init_state
from crfr.workdir import checkpoint_folder, latest_step, read_config, read_starts

TIMES = ("seconds", "images_per_second")  # of metrics.jsonl, which differ from run to run

Stamps = dict[str, list[tuple[int, int] | None]]  # name -> (bytes, mtime in ns) of its files


class Work(NamedTuple):
    """What can be killed.

    command: the words after `crfr` that do it in a folder.  progress: what of it would survive a
    kill (the last step saved, shards, resolutions).  begun: whether a process whose output is so
    far this text, and which found this progress, is at work.  phase: what a kill interrupted.
    files: what was finished, and no later process may write again.  went_on: (output of a process,
    the files before and after it) -> the progress that it kept.  result: what has to be alike in
    the end.
    """

    command: Callable[[Path], list[str]]
    progress: Callable[[Path], int]
    begun: Callable[[str, int, int], bool]
    phase: Callable[[Path], str]
    files: Callable[[Path], Stamps]
    went_on: Callable[[str, Stamps, Stamps], int]
    result: Callable[[Path], Any]


def _stamp(path: Path) -> tuple[int, int] | None:
    found = path.stat() if path.is_file() else None
    return found and (found.st_size, found.st_mtime_ns)


def changed(before: Stamps, after: Stamps) -> list[str]:
    """The names of what is gone, or was written again."""
    return [name for name, stamps in before.items() if after.get(name) != stamps]


def _kept(text: str, before: Stamps, after: Stamps) -> int:
    del text  # what a process says of what it found is no proof
    return len(before) - len(changed(before, after))


def training(data: Path, epochs: int) -> Work:
    """A training of the tiny network, which saves every four steps."""
    settings = {
        "data": data,
        "batch": 16,
        "epochs": epochs,  # of 400 images: 25 steps each
        "schedule.warmup_epochs": epochs / 4,
        "model.width": 4,
        "model.embedding": 16,
        "model.bn_group": 16,
        "run.save_every": 0.16,  # 4 steps
        "run.log_every": 1,
        "run.keep": 2,
        "run.benchmark": "",
        "run.threads": 1,
    }
    words = [f"--config.{name}={value}" for name, value in settings.items()]

    def saving(folder: Path) -> str:
        names = [path.name for path in (folder / "checkpoints").glob("*")]
        return "save" if any("tmp" in name for name in names) else "step"

    def went_on(text: str, before: Stamps, after: Stamps) -> int:
        del before, after  # older checkpoints go; this is what was restored
        said = re.search(r"(?:goes on from|finished at) step (\d+)", text)
        return int(said[1]) if said else 0

    def result(folder: Path) -> Any:
        step, state = _load_state(folder)
        lines = read_lines(folder / "metrics.jsonl")
        rows = [{n: v for n, v in line.items() if n not in TIMES} for line in lines]
        return step, fingerprint(state), rows

    return Work(
        lambda out: ["train", "--config=configs/st_m1.py:quick", *words, f"--workdir={out}"],
        latest_step,
        lambda text, before, now: "\nstep " in text,
        saving,
        lambda folder: {},
        went_on,
        result,
    )


def _load_state(workdir: Path) -> tuple[int, State]:
    """(step, the whole state) of a run at its latest sound step."""
    config = read_config(workdir)
    classes = read_starts(workdir)[-1]["classes"]
    network, tx = build(ConfigDict(config), 1, lambda _: 0.0)
    shapes = jax.eval_shape(partial(init_state, network, classes, tx), jax.random.key(0))
    place = sharding.state_sharding(shapes, sharding.make_mesh(1))
    with Checkpoints(checkpoint_folder(workdir, config)) as checkpoints:
        step = checkpoints.choose()
        return step, checkpoints.restore(step, shapes, place, classes)


def converting(data: str) -> Work:
    """A conversion into raw shards of four images."""

    def files(folder: Path) -> Stamps:
        """Of a shard whose sidecar says that it is done, or of all where the manifest does."""
        done = (folder / "manifest.json").exists()
        notes = folder.glob("images-*.raw" if done else "shard-*.json")
        names = sorted(path.stem.partition("-")[2] for path in notes)
        roles = ("images", "labels")
        return {n: [_stamp(folder / f"{role}-{n}.raw") for role in roles] for n in names}

    def result(folder: Path) -> Any:
        manifest = json.loads((folder / "manifest.json").read_text())
        files = [file for shard in manifest["shards"] for file in shard["files"].values()]
        listed = {file["name"]: file["sha256"] for file in files}
        found = {name: _sha256(folder / name) for name in listed}
        leftover = sorted({path.name for path in folder.iterdir()} - {*listed, "manifest.json"})
        return found, listed == found, leftover

    return Work(
        lambda out: [
            *("convert", f"--data={data}", f"--out={out}"),
            *("--shard-images=4", "--workers=1"),
        ],
        lambda folder: len(files(folder)),
        lambda text, before, now: now > before,
        lambda folder: "writing" if any(folder.glob(".partial-*")) else "reading",
        files,
        _kept,
        result,
    )


def sweeping(model: Path) -> Work:
    """A sweep of a trained model at all resolutions."""
    # a batch is all images at one resolution, so that a file is whole when it is written
    words = ["--benchmark=faces:identities=4,images=4", "--resolutions=all", "--batch=16"]

    def files(folder: Path) -> Stamps:
        return {path.name: [_stamp(path)] for path in sorted(folder.glob("embeddings/*/*.npy"))}

    def result(folder: Path) -> Any:
        rows = [json.dumps(row, sort_keys=True) for row in read_lines(folder / "rows.jsonl")]
        arrays = sorted(folder.glob("embeddings/*/*.npy"))
        return sorted(rows), {path.name: _sha256(path) for path in arrays}

    return Work(
        lambda out: ["sweep", f"--model={model}", *words, f"--out={out}"],
        lambda folder: len(files(folder)),
        lambda text, before, now: now > before,
        lambda folder: "embedding" if not (folder / "rows.jsonl").exists() else "rows",
        files,
        _kept,
        result,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
