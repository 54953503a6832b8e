"""crfr's training step beside PyTorch's, in turns, on one device: a table with ratios.

    python benchmarks/compare.py --out=compare.json --budget=540

Every row is a method and a batch.  For each a process of crfr and one of every PyTorch form compile
and wait; then they time steps in a row in turns, several rounds, one at a time.  Rows come in the
order of their weight, and none begins that is not expected to end within the budget (seconds); what
is measured is written after every row.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# method, batch, PyTorch's forms; the first is the strongest that compiles in a minute or two
ROWS = [
    ("baseline", 128, ("reduce-overhead", "peers")),
    ("st-m1", 128, ("reduce-overhead",)),
    ("st-m2", 128, ("reduce-overhead",)),
    ("baseline", 1024, ("reduce-overhead", "peers")),
    ("baseline", 512, ("reduce-overhead",)),
    ("st-m1", 512, ("reduce-overhead",)),
    ("baseline", 128, ("max-autotune",)),
]


class Server:
    """A process that has compiled a step and times it when asked."""

    def __init__(self, name, command, environment):
        self.name = name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.about, self.seconds, self.loss = {}, [], None

    def ready(self):
        """Whether it compiled; what it prints before that it says is passed on."""
        for line in self.process.stdout:
            if line.startswith("ready "):
                self.about = json.loads(line.removeprefix("ready "))
                return True
            print(f"  {self.name}: {line.rstrip()}", file=sys.stderr)
        return False

    def time(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} has ended")
        answer = json.loads(line)
        self.seconds.append(answer["seconds"])
        self.loss = answer["loss"]

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(flags):
    """crfr's side of the conversation: the very update that trains."""
    import jax

    from crfr.bench.step import count_flops, count_program, prepare_step
    from crfr.bench.timing import row
    from crfr.recipe import recipe
    from crfr.train import sharding

    config = recipe()
    config.method, config.batch = flags.serve, flags.batch
    config.model.name, config.model.dtype = flags.name, flags.dtype
    config.model.bn_group = min(flags.batch, config.model.bn_group)
    step = prepare_step(config, flags.classes, sharding.make_mesh(1))
    row(step.call, 3)
    about = {
        "bench": "crfr step",
        "config": {"method": config.method, "model": flags.name, "batch": flags.batch},
        "dtype": flags.dtype,
        "classes": flags.classes,
        "gflop": round(count_flops(config, flags.classes) / 1e9, 3),
        **count_program(step),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    print("ready " + json.dumps(about), flush=True)
    for line in sys.stdin:
        seconds = row(step.call, int(line))
        loss = float(step.call()["loss"])
        print(json.dumps({"seconds": seconds, "loss": loss}), flush=True)


def measure(flags, method, batch, forms):
    """One row: {name of a server: its figures}."""
    common = ["--batch", str(batch), "--classes", str(flags.classes)]
    common += ["--name", flags.name, "--dtype", flags.dtype]
    ours = [sys.executable, str(HERE / "compare.py"), f"--serve={method}", *common]
    # memory as it is needed, so that the others fit beside it
    commands = {"crfr": (ours, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})}
    for form in forms:
        theirs = [sys.executable, str(HERE / "torch_resnet.py"), "--serve", *common]
        theirs += ["--method", method, "--form", form]
        commands[f"torch {form}"] = (theirs, {})
    servers, count = [], 0
    try:
        for name, (command, environment) in commands.items():
            started = time.monotonic()
            server = Server(name, command, environment)
            servers.append(server)
            if not server.ready():
                print(f"  {name}: ended with {server.process.wait()}", flush=True)
                servers.remove(server)
                continue
            print(f"  {name}: ready after {time.monotonic() - started:.0f} s", flush=True)
        for server in servers:
            server.time(1)
        longest = max((server.seconds.pop() for server in servers), default=1.0)
        count = max(1, min(200, round(flags.seconds / longest)))
        for _ in range(flags.rounds):
            for server in servers:
                server.time(count)
    except RuntimeError as error:
        print(f"  {error}", flush=True)
    finally:
        for server in servers:
            server.end()
    return {
        server.name: {
            **server.about,
            "seconds": [round(s, 7) for s in server.seconds],
            "steps": count,
            "images_per_second": round(batch / statistics.median(server.seconds), 1),
            "step_ms": round(1e3 * statistics.median(server.seconds), 4),
            "step_ms_spread": round(1e3 * (max(server.seconds) - min(server.seconds)), 4),
            "loss": server.loss,
        }
        for server in servers
        if server.seconds
    }


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
    base = {
        r["batch"]: r["figures"]["crfr"]["step_ms"]
        for r in rows
        if r["method"] == "baseline" and "crfr" in r["figures"]
    }
    for row in rows:
        if row["method"] != "baseline" and row["batch"] in base and "crfr" in row["figures"]:
            times = row["figures"]["crfr"]["step_ms"] / base[row["batch"]]
            lines.append(
                f"{row['method']} at {row['batch']}: {times:.2f} times the baseline's step"
            )
    return "\n".join(lines)


def chosen(text):
    """Rows of --rows=METHOD:BATCH[:FORM+FORM],..."""
    rows = []
    for word in text.split(","):
        method, batch, *forms = word.split(":")
        rows.append((method, int(batch), tuple(forms[0].split("+")) if forms else ROWS[0][2]))
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


def main():
    flags = make_parser().parse_args()
    if flags.serve:
        serve(flags)
        return
    started, rows, longest = time.monotonic(), [], 60.0
    for method, batch, forms in chosen(flags.rows) if flags.rows else ROWS:
        left = flags.budget - (time.monotonic() - started)
        # a form that tunes takes longest to compile
        need = longest * (2 if "max-autotune" in forms else 1)
        if left < need:
            print(f"{method} {batch}: left out, {left:.0f} s are left", flush=True)
            continue
        print(f"{method} {batch}, {left:.0f} s are left", flush=True)
        began = time.monotonic()
        figures = measure(flags, method, batch, forms)
        longest = max(longest, time.monotonic() - began)
        rows.append({"method": method, "batch": batch, "figures": figures})
        flags.out.write_text(json.dumps({"rows": rows, "command": sys.argv}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
