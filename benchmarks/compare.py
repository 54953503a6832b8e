"""crfr's training step beside PyTorch's, in turns, on one device: a table with ratios.

    python benchmarks/compare.py --out=compare.json --budget=540

Every row is a method and a batch.  For each a process of crfr and one of every PyTorch form
compile, one after the other, as each tries algorithms on the device, and wait; then they time steps
in a row in turns, several rounds, one at a time.
Rows come in the order of their weight, and none begins that is not expected to end within the
budget (seconds).  What is measured is written and printed after every row, and on SIGTERM.  A
process that ends early is left out of its row; where it is crfr's, the exit code is 1.
"""

import argparse
import contextlib
import json
import math
import os
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from crfr import environment

HERE = Path(__file__).resolve().parent
# method, batch, PyTorch's forms; those without are there for the views a second.  What the goals
# ask for comes first: tuning PyTorch may take all the time that is left.  ST comes behind the
# baseline of as many views, whose convolutions are its own and are tuned once for both.
ROWS = [
    ("baseline", 128, ("peers", "reduce-overhead")),
    ("baseline", 256, ()),
    ("st-m1", 128, ()),
    ("baseline", 640, ()),
    ("st-m2", 128, ()),
    ("baseline", 1024, ("peers", "reduce-overhead")),
    ("baseline", 128, ("max-autotune",)),
    ("st-m1", 128, ("reduce-overhead",)),
    ("st-m2", 128, ("reduce-overhead",)),
    ("baseline", 512, ("reduce-overhead",)),
    ("st-m1", 512, ("reduce-overhead",)),
]
USUAL = ("peers", "reduce-overhead")  # of rows that name no form
LEAST = 60.0  # seconds that a process is expected to compile until one like it has
AWAY = 0.1  # FLOPs that differ by more are not those of one step


class Server:
    """A process that has compiled a step and times it when asked.

    What it does not do raises RuntimeError (it ended, or not in time), OSError or ValueError.
    """

    def __init__(self, name, command, variables):
        self.name = name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
        )
        self.about, self.seconds, self.loss = {}, [], None
        self.started = self.heard = time.monotonic()
        self.lines = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self.process.stdout as lines:
            for line in lines:
                self.lines.put((time.monotonic(), line))
        self.lines.put((time.monotonic(), None))

    def line(self, until):
        try:
            self.heard, line = self.lines.get(timeout=max(until - time.monotonic(), 0))
        except queue.Empty:
            self.heard = time.monotonic()
            self.process.kill()
            raise RuntimeError("not done in time") from None
        if line is None:
            raise RuntimeError("it has ended")
        return line

    def ready(self, until):
        """When it has compiled; what it prints before that it says is passed on."""
        while not (line := self.line(until)).startswith("ready "):
            print(f"  {self.name}: {line.rstrip()}", file=sys.stderr)
        self.about = json.loads(line.removeprefix("ready "))

    def time(self, count, until):
        """Seconds a step of `count` in a row."""
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = json.loads(self.line(until))
        self.loss = answer["loss"]
        return answer["seconds"]

    def close(self):
        """Ask it to end."""
        with contextlib.suppress(OSError):  # of a pipe that nobody reads
            self.process.stdin.close()

    def end(self, seconds):
        """Its exit code; it is killed where it does not end in time."""
        self.close()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def serve(flags):
    """crfr's side of the conversation: the very update that trains."""
    import jax

    from crfr.bench.step import count_flops, count_program, prepare_step
    from crfr.bench.timing import row
    from crfr.recipe import recipe
    from crfr.train import sharding
    from crfr.views.methods import parse_method

    environment.keep_programs()
    config = recipe()
    config.method, config.batch = flags.serve, flags.batch
    config.model.name, config.model.dtype = flags.name, flags.dtype
    config.model.bn_group = min(flags.batch, config.model.bn_group)
    flops = count_flops(config, flags.classes)
    step = prepare_step(config, flags.classes, sharding.make_mesh(1))
    row(step.call, 3)
    about = {
        "bench": "crfr step",
        "config": {"method": config.method, "model": flags.name, "batch": flags.batch},
        "views": len(parse_method(config.method).views),
        "dtype": flags.dtype,
        "classes": flags.classes,
        "gflop": round(flops / 1e9, 3),
        **count_program(step),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    print("ready " + json.dumps(about), flush=True)
    for line in sys.stdin:
        seconds = row(step.call, int(line))
        loss = float(step.call()["loss"])
        print(json.dumps({"seconds": seconds, "loss": loss}), flush=True)


def commands(flags, method, batch, forms):
    """{name of a server: (its command, variables of its environment)} of a row."""
    common = ["--batch", str(batch), "--classes", str(flags.classes)]
    common += ["--name", flags.name, "--dtype", flags.dtype]
    ours = [sys.executable, str(HERE / "compare.py"), f"--serve={method}", *common]
    # memory as it is needed, so that the others fit beside it
    found = {"crfr": (ours, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})}
    for form in forms:
        theirs = [sys.executable, str(HERE / "torch_resnet.py"), "--serve", *common]
        found[f"torch {form}"] = ([*theirs, "--method", method, "--form", form], {})
    return found


def ask(servers, call):
    """{server: its answer} of those that answer; the others are ended, and said to be left out."""
    answers = {}
    for server in servers:
        try:
            answers[server] = call(server)
        except (RuntimeError, OSError, ValueError) as error:
            code = server.end(1)
            print(f"  {server.name} is left out: {error} (exit code {code})", flush=True)
    return answers


def measure(flags, batch, commands, until, waited):
    """{name of a server: its figures} of those that answered in every round, until a moment of the
    monotonic clock; `waited` gets the seconds that each took to be ready, or not.
    """
    compiled = until - timing_seconds(flags, commands)
    servers, left = [], []

    def ready(server):
        try:
            server.ready(compiled)
        finally:
            waited[server.name] = max(waited.get(server.name, 0), server.heard - server.started)
        print(f"  {server.name}: ready after {server.heard - server.started:.0f} s", flush=True)

    try:
        for name, command in commands.items():
            if time.monotonic() >= compiled:
                print(f"  {name} is left out: those before it took all the time", flush=True)
                continue
            servers.append(Server(name, *command))
            left += ask(servers[-1:], ready)
        left = ask(left, lambda server: server.time(1, until))
        count = max(1, min(200, round(flags.seconds / max(left.values(), default=1.0))))
        for _ in range(flags.rounds):
            left = ask(left, lambda server: server.time(count, until))
            for server, seconds in left.items():
                server.seconds.append(seconds)
    except BaseException:  # SIGTERM's: what compiles would not hear that it is to end
        for server in servers:
            server.process.kill()
        raise
    finally:
        for server in servers:
            server.close()
        for server in servers:
            server.end(10)
    return {server.name: figures(server, batch, count) for server in left}


def figures(server, batch, count):
    """What is reported of a server that timed `count` steps in every round."""
    median = statistics.median(server.seconds)
    return {
        **server.about,
        "seconds": [round(s, 7) for s in server.seconds],
        "steps": count,
        "images_per_second": round(batch / median, 1),
        "step_ms": round(1e3 * median, 4),
        "step_ms_spread": round(1e3 * (max(server.seconds) - min(server.seconds)), 4),
        "loss": server.loss if math.isfinite(server.loss) else None,
    }


def timing_seconds(flags, commands):
    """What the rounds of a row take, about, with the warm-up before them."""
    return (flags.rounds + 1) * flags.seconds * len(commands)


def table(rows):
    head = ("method", "batch", "who", "images/s", "ms a step", "+-", "GFLOP", "crfr is")
    lines = ["{:<10}{:>6}  {:<22}{:>10}{:>11}{:>9}{:>10}{:>9}".format(*head)]
    for row in rows:
        ours = row["figures"].get("crfr", {}).get("step_ms")
        for name, f in row["figures"].items():
            ratio = f"{f['step_ms'] / ours:.2f}x" if ours else ""
            lines.append(
                f"{row['method']:<10}{row['batch']:>6}  {name:<22}{f['images_per_second']:>10.0f}"
                f"{f['step_ms']:>11.3f}{f['step_ms_spread']:>9.3f}{f['gflop']:>10.1f}{ratio:>9}"
            )
    return "\n".join([*lines, *beside_the_baseline(rows), *unequal(rows)])


def beside_the_baseline(rows):
    """crfr's other methods against its baseline, at as many images and at as many views a step.

    Of rows of the same method and batch the first counts.
    """
    ours = {}
    for row in rows:
        if "crfr" in row["figures"]:
            ours.setdefault((row["method"], row["batch"]), row["figures"]["crfr"])
    for (method, batch), f in ours.items():
        same, equal = ours.get(("baseline", batch)), ours.get(("baseline", batch * f["views"]))
        if method != "baseline" and same:
            times = f["step_ms"] / same["step_ms"]
            yield f"{method} at {batch}: {times:.2f} times the baseline's step"
        if f["views"] > 1 and equal:
            share = equal["step_ms"] / f["step_ms"]
            yield (
                f"{method} at {batch}: {share:.3f} of the views a second of the baseline at "
                f"{batch * f['views']}, an equal number of views a step"
            )


def unequal(rows):
    """What stands beside crfr and has other FLOPs: no comparison of one step."""
    for row in rows:
        ours = row["figures"].get("crfr", {}).get("gflop")
        for name, f in row["figures"].items():
            if ours and abs(f["gflop"] / ours - 1) > AWAY:
                yield (
                    f"!!! {row['method']} {row['batch']}: NOT THE SAME STEP, {name} has "
                    f"{f['gflop']:.1f} GFLOP and crfr {ours:.1f}"
                )


def chosen(text):
    """Rows of --rows=METHOD:BATCH[:FORM+FORM],...; `METHOD:BATCH:` is crfr alone."""
    rows = []
    for word in text.split(","):
        method, batch, *forms = word.split(":")
        named = tuple(form for form in forms[0].split("+") if form) if forms else USUAL
        rows.append((method, int(batch), named))
    return rows


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("compare.json"))
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--rows", default="", help="METHOD:BATCH[:FORM+FORM],...; empty: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one timing")
    parser.add_argument("--classes", type=int, default=85742)
    parser.add_argument("--name", default="resnet50")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--batch", type=int, default=128, help=argparse.SUPPRESS)
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    return parser


def compare(flags, rows):
    """Measure the rows that are asked for into `rows`, as the time allows."""
    end, waited = time.monotonic() + flags.budget, {}
    for method, batch, forms in chosen(flags.rows) if flags.rows else ROWS:
        now, servers = time.monotonic(), commands(flags, method, batch, forms)
        need = sum(waited.get(name, LEAST) for name in servers) + timing_seconds(flags, servers)
        # a form that tunes for ever costs two thirds of the budget at most
        most = min(end - now, flags.budget * 2 / 3)
        if most < need:
            print(f"{method} {batch}: left out, {end - now:.0f} s are left", flush=True)
            continue
        print(f"{method} {batch}, {end - now:.0f} s are left", flush=True)
        found = measure(flags, batch, servers, now + most, waited)
        rows.append({"method": method, "batch": batch, "figures": found})
        about = {"cores": environment.cores(), "time": environment.now()}
        everything = {"bench": "compare", "rows": rows, **about, **environment.made_with()}
        environment.write_json(flags.out, everything)
        print(table(rows), flush=True)


def main(arguments=None):
    """The exit code: 1 where crfr itself was left out of a row."""
    flags = make_parser().parse_args(arguments)
    if flags.serve:
        serve(flags)
        return 0
    # a second call goes on with what the first one compiled; JAX's folder is keep_programs'
    inductor = environment.cache_folder() / "inductor"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(inductor))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows = []
    try:
        compare(flags, rows)
    except SystemExit:
        print(f"stopped; what was measured before:\n{table(rows)}", flush=True)
        raise
    return 0 if all("crfr" in row["figures"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
