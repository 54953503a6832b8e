"""Runs of crfr in several processes, for tests/test_distributed.py; and by itself the long form:

    python tests/hosts.py [FOLDER]

trains on 1, 2 and 4 processes, stops one of two by a signal and goes on with 1, 2 and 4, kills one,
and cuts one off in a network namespace of its own (as root on Linux).  It prints what
docs/distributed.md says, and fails where a loss differs.  Minutes, on two cores.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
# XLA's flags for tests: a small network compiles in half the CPU time, for slower code; without the
# fusion emitters, which no longer has a flag from jaxlib 0.11.1 on, in a sixth
EMITTERS = tuple(map(int, re.findall(r"\d+", version("jaxlib"))[:3])) < (0, 11, 1)
FAST = "--xla_backend_optimization_level=0" + " --xla_cpu_use_fusion_emitters=false" * EMITTERS
SMALL = [
    "--config=configs/baseline.py:quick",
    "--config.data=faces:identities=8,images=6",  # 48 images: 3 steps an epoch of 16
    "--config.run.benchmark=faces:identities=4,images=4",
    "--config.batch=16",
    "--config.model.bn_group=4",
    "--config.model.width=4",
    "--config.model.embedding=16",
    "--config.schedule.warmup_epochs=0",
    "--config.run.verify_every=0",  # at the end
    "--config.run.log_every=1",
    "--config.run.threads=1",
]


def variables(folder: Path, devices: int) -> dict[str, str]:
    """The environment of a process with that many devices, with `crfr` on its PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    crfr = folder / "crfr"
    crfr.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m crfr.main "$@"\n')
    crfr.chmod(0o755)
    return os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{FAST} --xla_force_host_platform_device_count={devices}",
    }


def launch(folder: Path, processes: int, *arguments: str, devices: int = 1) -> subprocess.Popen:
    """`launch/local.sh`, under way; its output and errors come in one stream."""
    return subprocess.Popen(
        [str(ROOT / "launch/local.sh"), str(processes), *arguments],
        env=variables(folder / "bin", devices),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: subprocess.Popen, stop: tuple[str, int, int] | None = None) -> tuple[int, str]:
    """(exit code, output).  `stop`: when a line begins like this, send this process the signal."""
    output, target = "", 0
    with run:  # which closes the pipe and waits
        for line in run.stdout or ():
            output += line
            if stop and not target:
                target = process_of(run, stop[1])
            if stop and line.startswith(stop[0]):
                os.kill(target, stop[2])
                stop = None
    return run.returncode, output


def process_of(run: subprocess.Popen, number: int) -> int:
    """The process id of one of the processes that local.sh has started."""
    found = subprocess.run(
        ["pgrep", "-P", str(run.pid), "-f", "--", f"--process={number}$"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(found.stdout)


def measured(workdir: Path) -> list[dict]:
    """metrics.jsonl without what is timed."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def saved(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


@contextlib.contextmanager
def two_networks() -> Iterator[tuple[list[list[str]], list[str]]]:
    """(what to put before a command to run it on host 0 or 1, the command that cuts host 1 off).

    Two network namespaces, 10.99.0.1 and 10.99.0.2, joined by a cable.  PermissionError where this
    is not allowed.
    """
    names = [f"crfr-{os.getpid()}-{i}" for i in range(2)]
    ends = [f"cr{os.getpid() % 10**6}-{i}" for i in range(2)]
    made = []

    def ip(*words: str) -> None:
        try:
            subprocess.run(["ip", *words], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise PermissionError(f"ip {' '.join(words)}: {error}") from error

    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("link", "add", ends[0], "netns", names[0], "type", "veth",
               "peer", "name", ends[1], "netns", names[1])  # fmt: skip
            prefixes = []
            for i, (name, end) in enumerate(zip(names, ends, strict=True)):
                ip("-n", name, "address", "add", f"10.99.0.{i + 1}/24", "dev", end)
                ip("-n", name, "link", "set", end, "up")
                ip("-n", name, "link", "set", "lo", "up")
                # each host's own name leads to its address, as it has to for gloo
                hosts = Path(folder, f"hosts-{i}")
                hosts.write_text(f"127.0.0.1 localhost\n10.99.0.{i + 1} {os.uname().nodename}\n")
                script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
                prefixes.append(["ip", "netns", "exec", name, "sh", "-c", script, "sh"])
            yield prefixes, ["ip", "-n", names[1], "link", "set", ends[1], "down"]
        finally:
            for name in made:
                subprocess.run(["ip", "netns", "del", name], check=False)


def cut_off(folder: Path, lost_after: int) -> list[tuple[int, float, str]]:
    """Train on two hosts, of which the second is cut off; of each process its exit code, how long
    after the cut it ended, in seconds, and its errors.
    """
    with two_networks() as (prefixes, cut):
        runs = []
        for number, prefix in enumerate(prefixes):
            words = ["train", *SMALL, "--config.epochs=10000", f"--workdir={folder / 'cut'}"]
            words += ["--distributed", "--coordinator=10.99.0.1:29500", "--processes=2"]
            words += [f"--process={number}", f"--lost-after={lost_after}"]
            with open(folder / f"errors-{number}", "w") as errors:
                runs.append(subprocess.Popen(
                    [*prefix, str(folder / "bin/crfr"), *words], cwd=ROOT, text=True,
                    env=variables(folder / "bin", 1), stdout=subprocess.PIPE, stderr=errors,
                ))  # fmt: skip
        try:
            for line in runs[0].stdout or ():
                if line.startswith("step 3/"):
                    break
            subprocess.run(cut, check=True)
            began, ended = time.monotonic(), {}
            while len(ended) < 2 and time.monotonic() - began < lost_after + 120:
                for number, run in enumerate(runs):
                    if number not in ended and run.poll() is not None:
                        ended[number] = time.monotonic() - began
                time.sleep(0.1)
        finally:
            for run in runs:
                run.kill()
                run.communicate()
        return [
            (run.returncode, ended.get(i, float("inf")), (folder / f"errors-{i}").read_text())
            for i, run in enumerate(runs)
        ]


def _losses(workdir: Path) -> list[float]:
    return [row["loss"] for row in measured(workdir) if "loss" in row]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="crfr-hosts-"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
    # 12 steps at a low rate: gloo adds up four gradients in another order than one process does,
    # and at the recipe's rate the 3e-7 of step 2 are 6e-3 at step 10
    steps = [*SMALL, "--config.epochs=4", "--config.schedule.learning_rate=0.0001"]

    def train(name: str, processes: int, stop: tuple[str, int, int] | None = None) -> list[float]:
        words = ["train", *steps, f"--workdir={folder / name}"]
        code, output = finish(launch(folder, processes, *words, devices=4 // processes), stop)
        assert code == (143 if stop else 0), output
        return _losses(folder / name)

    print("four devices, losses of 12 steps and the verification after them:", flush=True)
    whole = {n: train(f"whole-{n}", n) for n in (1, 2, 4)}
    for n in (2, 4):
        off = [abs(a / b - 1) for a, b in zip(whole[n], whole[1], strict=True)]
        print(f"  {n} processes against 1: relative difference {off[0]:.1g} at step 1, "
              f"{off[4]:.1g} at step 5, at most {max(off):.1g}")  # fmt: skip
        assert off[0] < 1e-5
        assert max(off) < 1e-3
    print(f"  4 processes against 2: the same bits: {whole[4] == whole[2]}")

    train("stopped", 2, ("step 4/", 1, signal.SIGTERM))
    at = saved(folder / "stopped")[-1]
    print(
        f"SIGTERM to process 1 of 2 after step 4: both ended with 143, saved step {at}", flush=True
    )
    for n in (1, 2, 4):
        shutil.copytree(folder / "stopped", folder / f"on-{n}", dirs_exist_ok=True)
        losses = train(f"on-{n}", n)
        worst = max(abs(a / b - 1) for a, b in zip(losses, whole[n], strict=True))
        print(f"  resumed with {n}: relative difference to the whole run with {n}: at most "
              f"{worst:.1g}, the same bits: {losses == whole[n]}", flush=True)  # fmt: skip
        assert worst < 1e-3

    words = ["train", *SMALL, "--config.epochs=10000", f"--workdir={folder / 'killed'}"]
    run = launch(folder, 2, *words)
    for line in run.stdout or ():
        if line.startswith("step 3/"):
            break
    os.kill(process_of(run, 1), signal.SIGKILL)
    began = time.monotonic()
    output = run.communicate()[0]
    print(f"kill -9 of process 1 of 2: the other ended {time.monotonic() - began:.1f} s later")
    print("  " + next(line for line in output.splitlines() if "has lost" in line), flush=True)

    for lost_after in (10, 60):
        try:
            found = cut_off(folder, lost_after)
        except PermissionError as error:
            print(f"no network namespaces: {error}")
            return
        for number, (code, seconds, errors) in enumerate(found):
            print(f"--lost-after={lost_after}, cable cut: process {number} ended with {code} "
                  f"after {seconds:.0f} s")  # fmt: skip
            print("  " + " ".join(re.findall(r"(?:crfr: .*|absl::Status: .*)", errors))[:300])


if __name__ == "__main__":
    main()
