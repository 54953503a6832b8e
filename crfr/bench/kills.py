"""`crfr bench kills`: SIGKILL at random moments, the same command again, and nothing is lost.

Each kind of work runs once undisturbed.  Then processes that do the same work in other folders are
killed at random moments after they began to work; the same command is run again, to be killed
again or to end.  Every work that ends is compared with the undisturbed one.
"""

import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crfr import environment
from crfr.bench.works import Stamps, Work, changed, converting, sweeping, training
from crfr.errors import InputError, unknown

TICK = 0.01  # seconds between two looks at a process


def _start(words: Sequence[str], output: Path, cache: Path) -> subprocess.Popen:
    variables = {  # what was compiled once serves all; where there is a cache, it does
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "crfr.main", *words],
            env={**variables, **os.environ},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def run_until(
    work: Work, folder: Path, cache: Path, delay: float | None
) -> tuple[bool, float, int]:
    """(whether it was killed, seconds of work, progress at the start): `delay` is when to kill it,
    in seconds after it began to work; None: not at all.  InputError where it fails by itself.
    """
    output = folder.with_suffix(".log")
    before = work.progress(folder)
    process = _start(work.command(folder), output, cache)
    begun = None
    try:
        while process.poll() is None:
            now = time.monotonic()
            text = output.read_text(errors="replace") if begun is None else ""
            if begun is None and work.begun(text, before, work.progress(folder)):
                begun = now
            if begun is not None and delay is not None and now - begun >= delay:
                process.kill()
                break
            time.sleep(TICK)
    finally:
        process.kill()  # where this one is interrupted
        code = process.wait()
    killed = code == -signal.SIGKILL
    if code and not killed:
        raise InputError(f"crfr {work.command(folder)[0]} ended with code {code}; see {output}")
    return killed, time.monotonic() - (begun or time.monotonic()), before


def bench_kills(kills: int, what: Sequence[str], out: Path, seed: int, *, epochs: int = 4) -> None:
    """Kill `kills` processes of the kinds `what`, and write kills.json, after each kill anew.

    A training has `epochs` of 25 steps.  After a kill, what was finished (shards, resolutions) has
    to be as it was, size and time of writing, when the next process ends or is killed.

    Raises InputError for a folder that is not empty, for a command that fails by itself, and
    where a work that was killed ends with another result than the undisturbed one or with less
    than it had saved.
    """
    data, order = "faces:identities=40,images=10", ["convert", "train", "sweep"]
    for name in what:
        if name not in order:
            raise unknown("--what", name, order)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out={out}: is not empty; choose a new folder")
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    works = {
        "convert": converting(data),
        "train": training(out / "whole-convert", epochs),
        "sweep": sweeping(out / "whole-train"),
    }
    started, results, spans = time.monotonic(), {}, {}
    for name in order[: max(map(order.index, what)) + 1]:  # each needs what the one before it made
        folder = out / f"whole-{name}"
        _, spans[name], _ = run_until(works[name], folder, out / "cache", None)
        results[name] = works[name].result(folder)
        print(f"{name}: undisturbed, {spans[name]:.1f} s of work", flush=True)
    chance = random.Random(seed)
    records: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    counts = dict.fromkeys(what, 0)
    open_runs: dict[str, tuple[Path, dict[str, Any] | None, Stamps]] = {}

    def ended(name: str, folder: Path) -> None:
        same = works[name].result(folder) == results[name]
        runs.append({"what": name, "folder": folder.name, "identical": same})
        if not same:
            raise InputError(
                f"{folder}: ended otherwise than {out / f'whole-{name}'}; compare them"
            )
        shutil.rmtree(folder)

    def go_on(name: str, delay: float | None) -> None:
        """One process, killed or not, in the open run of a kind or in a new one."""
        work = works[name]
        if name not in open_runs:
            counts[name] += 1
            open_runs[name] = out / f"{name}-{counts[name]}", None, {}
        folder, last, files = open_runs[name]
        killed, worked, before = run_until(work, folder, out / "cache", delay)
        if last is not None:
            text = folder.with_suffix(".log").read_text(errors="replace")
            now = work.files(folder)
            last["went_on_from"] = work.went_on(text, files, now)
            if last["went_on_from"] != last["saved"]:
                said = f"had {last['saved']}, went on from {last['went_on_from']}"
                gone = ", ".join(changed(files, now)[:3])
                said += gone and f" (gone or written again: {gone})"
                raise InputError(f"{folder}: {said}; its log is beside it")
        if not killed:
            del open_runs[name]
            ended(name, folder)
            return
        reached = last_step(folder.with_suffix(".log")) if name == "train" else None
        record = {
            "what": name,
            "run": folder.name,
            "phase": work.phase(folder),
            "seconds_of_work": round(worked, 3),
            "before": before,
            "reached": reached,
            "saved": work.progress(folder),
        }
        open_runs[name] = folder, record, work.files(folder)
        records.append(record)
        save()
        print(
            f"kill {len(records)}/{kills}: {folder.name} after {worked:.2f} s of work, in a "
            f"{record['phase']}; had {before}, has {record['saved']}",
            flush=True,
        )

    def save(done: bool = False) -> None:
        about = {
            "seed": seed,
            "kills": records,
            "runs": runs,
            "done": done,
            "seconds": round(time.monotonic() - started, 1),
            "machine": f"{platform.machine()}, {environment.cores()} cores",
            **environment.made_with(),
        }
        environment.write_json(out / "kills.json", about)

    while len(records) < kills:
        name = chance.choice(list(what))
        go_on(name, chance.uniform(0, spans[name]))
    for name in list(open_runs):
        go_on(name, None)
    save(done=True)
    print(table(records, runs))
    print(f"{out / 'kills.json'}: nothing was lost, all ended as undisturbed")


def last_step(output: Path) -> int:
    """The last step that a training's output names."""
    lines = output.read_text(errors="replace").splitlines()
    return max((int(x.split()[1].split("/")[0]) for x in lines if x.startswith("step ")), default=0)


def table(records: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]) -> str:
    """Kills by what they interrupted, and the ends."""
    lines = [f"{'what':<8} {'in a':<10} {'kills':>5}"]
    for key in sorted({(r["what"], r["phase"]) for r in records}):
        count = sum((r["what"], r["phase"]) == key for r in records)
        lines.append(f"{key[0]:<8} {key[1]:<10} {count:>5}")
    for name in sorted({run["what"] for run in runs}):
        mine = [run["identical"] for run in runs if run["what"] == name]
        lines.append(
            f"{name}: {sum(mine)} of {len(mine)} ended as the undisturbed one, bit for bit"
        )
    return "\n".join(lines)
