"""The report from made-up sweep directories: the page must say what the rows say, and nothing else."""

import json
import math
from pathlib import Path

from PIL import Image

RESOLUTIONS = (5, 7, 14, 28, 56, 112)
# method: CR accuracy at 112 px, what is lost towards guessing at the lowest resolutions, and where
# half of that is lost (px)
SHAPES = {
    "baseline": (0.985, 0.97, 11.0),
    "bt-7": (0.975, 0.60, 5.5),
    "bt-m": (0.983, 0.65, 6.0),
    "st-7": (0.955, 0.55, 5.0),
    "st-m1": (0.968, 0.50, 5.2),
    "st-m2": (0.952, 0.55, 5.6),
}


def accuracy(method: str, resolution: int) -> float:
    top, lost, middle = SHAPES[method]
    kept = 1 - lost / (1 + (resolution / middle) ** 3)
    return 0.5 + (top - 0.5) * kept


def make_rows(method="baseline", benchmark="lfw", resolutions=RESOLUTIONS, **changes) -> list[dict]:
    """Rows as `crfr sweep` writes them, with accuracies of a plausible course."""
    rows = []
    for r in resolutions:
        for scenario, shift in (("CR_A", 0.002), ("CR_B", -0.002), ("CR", 0.0), ("ER", 0.01)):
            shift = 0.0 if r == 112 else shift
            value = round(accuracy(method, r) + shift, 6)
            rows.append(
                {
                    "schema": 1,
                    "model": f"runs/{method}",
                    "step": 2000,
                    "method": method,
                    "benchmark": benchmark,
                    "degradation": "bicubic",
                    "precision": "highest",
                    "thresholds": "exact",
                    "flip": False,
                    "scenario": scenario,
                    "resolution": r,
                    "accuracy": value,
                    "accuracy_std": 0.006,
                    "threshold": round(0.6 - 0.3 * (1 - value), 4),
                    "positive_distance": round(0.3 + (1 - value), 4),
                    "negative_distance": 0.98,
                    "pairs": 6000,
                }
                | changes
            )
    return rows


def make_metrics(method: str, steps: int = 2000, every: int = 20) -> list[dict]:
    lines = []
    for step in range(every, steps + 1, every):
        done, siamese = step / steps, method.startswith("st")
        entropy = (2 if siamese else 1) * (14 * math.exp(-4 * done) + 0.8 + 0.3 * math.sin(step))
        distance = 0.25 * math.exp(-3 * done) + 0.03 if siamese else 0.0
        line = {"step": step, "epoch": 16 * done, "loss": entropy + 25 * distance}
        line |= {"cross_entropy": entropy, "distance": distance, "accuracy": done**0.3 * 0.97}
        line |= {"learning_rate": 0.01 * 0.1 ** ((done > 9 / 16) + (done > 13 / 16))}
        lines.append(line | {"images_per_second": 900.0, "seconds": step * 0.14})
    for epoch in range(1, 17):
        top = accuracy(method, 112)
        line = {"step": steps * epoch // 16, "epoch": epoch, "benchmark": "lfw"}
        line |= {"verification_accuracy": top - 0.3 * math.exp(-epoch / 2)}
        lines.append(line | {"verification_std": 0.01, "verification_threshold": 0.6, "seconds": 1.0})
    return sorted(lines, key=lambda line: line["step"])


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_sweep(path: Path, rows: list[dict] | None = None, *, method="baseline", **about) -> Path:
    """A sweep directory as docs/architecture.md describes it; `about` changes its sweep.json."""
    rows = make_rows(method) if rows is None else rows
    (path / "samples").mkdir(parents=True)
    write_lines(path / "rows.jsonl", rows)
    write_lines(path / "metrics.jsonl", make_metrics(method))
    versions = {"crfr": "0.1.0", "jax": "0.10.2", "flax": "0.12.7", "numpy": "2.4.1"}
    start = {
        "started": "2026-03-01T09:30:00Z",
        "step": 0,
        "command": f"crfr train --config=paper --method={method} --workdir=runs/{method}",
        "commit": "0123abc",
        "versions": versions,
        "python": "3.11.9",
        "devices": {"count": 1, "kind": "NVIDIA H100"},
        "classes": 90,
        "images": 12669,
    }
    config = {"method": method, "seed": 17, "optimizer": {"learning_rate": 0.01, "momentum": 0.9}}
    content = {
        "schema": 1,
        **{name: rows[0][name] for name in ("model", "step", "method", "benchmark")},
        "command": f"crfr sweep --model=runs/{method} --out={path.name}",
        "commit": "0123abc",
        "versions": versions,
        "devices": {"count": 1, "kind": "NVIDIA H100"},
        "images": 7701,
        "pairs": 6000,
        "seconds": 754.0,
        "training": {"config": config, "run": [start], "seconds": 7384.0},
    }
    (path / "sweep.json").write_text(json.dumps(content | about))
    for r in RESOLUTIONS:
        small = Image.linear_gradient("L").resize((r, r)).convert("RGB")
        strip = Image.new("RGB", (4 * 112, 112))
        for i in range(4):
            strip.paste(small.resize((112, 112)), (112 * i, 0))
        strip.save(path / "samples" / f"{r}.png")
    return path
