"""Made-up sweep directories and dataset analyses, for the tests of the report.

Distances of pairs are drawn from a plausible model of how methods fall with resolution, and the
rows are computed from them (accuracies at the best threshold, without folds), so that rows and side
files agree.
"""

import json
import math
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

RESOLUTIONS = (5, 7, 14, 28, 56, 112)
FIVE = ("lfw", "agedb_30", "cfp_fp", "calfw", "cplfw")
PROTOCOLS = {"low_res": (5, 10), "mid_res": (11, 39), "high_res": (40, 112), "all_res": (5, 112)}
MODES = ("exact", "insightface", "knoche")
# method: CR accuracy at 112 px, what is lost towards guessing at the lowest resolutions, and where
# half of that is lost (px)
SHAPES = {
    "baseline": (0.985, 0.97, 11.0),
    "bt-7": (0.975, 0.60, 5.5),
    "bt-m": (0.983, 0.65, 6.0),
    "st-7": (0.955, 0.55, 5.0),
    "st-m1": (0.968, 0.50, 5.2),
    "st-m2": (0.952, 0.55, 5.6),
    "onnx": (0.992, 0.985, 13.0),
}
CALL = {
    "started": "2026-03-01T12:30:00Z",
    "command": "crfr sweep --model=runs/x --out=sweeps/x",
    "commit": "0123abc",
    "versions": {"crfr": "0.1.0", "jax": "0.10.2", "flax": "0.12.7", "numpy": "2.4.1"},
    "devices": {"count": 1, "kind": "NVIDIA H100"},
    "seconds": 754.0,
}
IMAGES = 12669  # of the training set
FARS = ("0.1", "0.01", "0.001", "0.0001")


def accuracy(method: str, resolution: float) -> float:
    """The accuracy in CR that the distances are drawn for."""
    top, lost, middle = SHAPES.get(method, SHAPES["bt-m"])
    kept = 1 - lost / (1 + (resolution / middle) ** 3)
    return 0.5 + (top - 0.5) * kept


def _normal(probability: float) -> float:
    """The point of the normal distribution that this share lies below."""
    low, high = -6.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(-middle / 2**0.5) < probability else (low, middle)  # fmt: skip  # noqa: E501
    return low


def draw_distances(method: str, value: float, same: np.ndarray, rng) -> np.ndarray:
    """Distances [p] whose best threshold judges about a share `value` of the pairs rightly."""
    apart = 2 * _normal(min(max(value, 0.5), 0.995))  # standard deviations between the two kinds
    spread, middle = (0.09, 0.95) if not method.startswith("st") else (0.05, 0.55)
    noise = rng.standard_normal(len(same))
    return np.clip(middle + spread * (noise - apart * same), 0, 2).astype(np.float32)


def best(distance: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """(accuracy, threshold) of the one best threshold."""
    order = np.argsort(distance)
    right = np.cumsum(np.where(same[order], 1, -1)) + np.count_nonzero(~same)
    place = int(np.argmax(right))
    after = distance[order[min(place + 1, len(order) - 1)]]
    return float(right[place]) / len(same), float(distance[order[place]] + after) / 2


def figures(distance: np.ndarray, same: np.ndarray) -> dict:
    """What a row says of distances; TAR, EER and AUC made up from the accuracy."""
    value, threshold = best(distance, same)
    half = 1.96 * math.sqrt(max(value * (1 - value), 1e-6) / len(same))
    negatives = int(np.count_nonzero(~same))
    tar = {far: max(0.0, value - 0.05 * i) for i, far in enumerate(FARS)}
    declined = [far for far in FARS if float(far) * negatives < 10]
    return {
        "accuracy": value,
        "accuracy_std": 0.006,
        "accuracy_low": max(0.0, value - half),
        "accuracy_high": min(1.0, value + half),
        "threshold": threshold,
        "positive_distance": float(np.mean(distance[same], dtype=float)),
        "negative_distance": float(np.mean(distance[~same], dtype=float)),
        "tar": {far: None if far in declined else value for far, value in tar.items()},
        "tar_reason": f"FAR {', '.join(declined)} of {negatives:,} negatives" if declined else None,
        "eer": 1 - value,
        "auc": min(1.0, value + 0.004),
    }


def mean_of(parts: list[dict]) -> dict:
    """The row of several rows: CR of its halves, an average of its benchmarks."""
    mean = {}
    for name, value in parts[0].items():
        values = [part[name] for part in parts]
        if name == "tar":
            mean[name] = {
                far: None if None in (each := [v[far] for v in values]) else sum(each) / len(each)
                for far in value
            }
        elif type(value) is float:
            mean[name] = sum(values) / len(values)
        else:
            mean[name] = value
    return mean


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def make_metrics(method: str, steps: int = 2000, every: int = 20) -> list[dict]:
    """Training lines of 16 epochs of 2 s (siamese 4 s) and a verification after each."""
    lines = []
    epoch_seconds = 4.0 if method.startswith("st") else 2.0
    pace = epoch_seconds * 16 / steps
    for step in range(every, steps + 1, every):
        done, siamese = step / steps, method.startswith("st")
        entropy = (2 if siamese else 1) * (14 * math.exp(-4 * done) + 0.8 + 0.3 * math.sin(step))
        distance = 0.25 * math.exp(-3 * done) + 0.03 if siamese else 0.0
        line = {"step": step, "epoch": 16 * done, "loss": entropy + 25 * distance}
        line |= {"cross_entropy": entropy, "distance": distance, "accuracy": done**0.3 * 0.97}
        line |= {"learning_rate": 0.01 * 0.1 ** ((done > 9 / 16) + (done > 13 / 16))}
        line |= {"images_per_second": IMAGES / epoch_seconds, "seconds": step * pace}
        lines.append(line)
    for epoch in range(1, 17):
        top = accuracy(method, 112)
        line = {"step": steps * epoch // 16, "epoch": epoch, "benchmark": "lfw"}
        line |= {"verification_accuracy": top - 0.3 * math.exp(-epoch / 2)}
        lines.append(
            line | {"verification_std": 0.01, "verification_threshold": 0.6, "seconds": 1.0}
        )
    return sorted(lines, key=lambda line: line["step"])


def face(number: int, resolution: int) -> Image.Image:
    """Something like a face, reduced and enlarged."""
    grid = np.mgrid[:112, :112] / 111 - 0.5
    y, x = grid
    rng = np.random.default_rng(number)
    skin = np.exp(-((x / 0.36) ** 4) - (y / 0.44) ** 4)
    for cx, cy, width in ((-0.15, -0.12, 0.06), (0.15, -0.12, 0.06), (0, 0.2, 0.1)):
        dark = np.exp(-(((x - cx + 0.03 * rng.normal()) / width) ** 2) - ((y - cy) / 0.04) ** 2)
        skin -= (0.5 + 0.3 * rng.random()) * dark
    tint = rng.uniform(0.4, 1.0, 3)
    pixels = np.clip(255 * skin[..., None] * tint, 0, 255).astype(np.uint8)
    small = Image.fromarray(pixels).resize((resolution, resolution), Image.Resampling.BICUBIC)
    return small.resize((112, 112), Image.Resampling.BICUBIC)


def write_samples(folder: Path, same: np.ndarray, resolutions, pairs: int = 4) -> None:
    folder.mkdir(parents=True)
    listed = [int(np.flatnonzero(same == bool(i % 2 == 0))[i // 2]) for i in range(pairs)]
    for r in resolutions:
        strip = Image.new("RGB", (2 * pairs * 112, 112))
        for i, pair in enumerate(listed):
            strip.paste(face(pair, r), (224 * i, 0))
            strip.paste(face(pair if same[pair] else pair + 1000, r), (224 * i + 112, 0))
        strip.save(folder / f"{r}.png")
    records = [{"pair": pair, "same": bool(same[pair])} for pair in listed]
    (folder / "pairs.json").write_text(json.dumps(records))


def write_sweep(
    path: Path,
    method: str = "baseline",
    *,
    benchmarks: tuple[str, ...] = ("lfw",),
    resolutions: tuple[int, ...] = RESOLUTIONS,
    pairs: int = 600,
    modes: tuple[str, ...] = ("exact",),
    protocols: dict[str, int] | None = None,
    matrix: bool = False,
    samples: bool = True,
    side: bool = True,
    seed: int = 0,
    changes: dict | None = None,
    **about,
) -> Path:
    """A sweep directory of schema 2.

    `protocols` maps how they are drawn ("published", "seeded") to a number of draws; `changes` goes
    into every row, `about` into sweep.json.
    """
    rng = np.random.default_rng([seed, *method.encode()])
    foreign = method in ("onnx", "callable")
    model = {"onnx": "models/sface.onnx", "callable": "my.models:embed"}.get(
        method, f"runs/{method}"
    )
    common = {
        "schema": 2,
        "model": model,
        "step": None if foreign else 2000,
        "method": method,
        "degradation": "bicubic",
        "pixels": "float32",
        "precision": "model" if foreign else "float32",
        "flip": False,
    } | (changes or {})
    same = np.arange(pairs) % 20 < 10  # every fold has both kinds
    rows, values = [], {}
    for number, benchmark in enumerate(benchmarks):
        arrays = {"same": same, "resolutions": np.array(sorted(resolutions, reverse=True))}
        easier = 0.02 * number
        for r in sorted(resolutions, reverse=True):
            at = accuracy(method, r) - easier
            whole = draw_distances(method, at, same, rng)
            for scenario, shift in (
                ("CR_A", 0.002),
                ("CR_B", -0.002),
                ("ER", 0.01 if r < 56 else 0.0),
            ):
                drawn = whole if r == 112 else draw_distances(method, at + shift, same, rng)
                values[benchmark, scenario, r] = figures(drawn, same)
                arrays.setdefault(scenario, []).append(drawn)
            halves = [values[benchmark, name, r] for name in ("CR_A", "CR_B")]
            values[benchmark, "CR", r] = mean_of(halves)
        for how, draws in (protocols or {}).items():
            for name, (low, high) in PROTOCOLS.items():
                drawn = rng.integers(low, high + 1, (draws, pairs))
                shares = [np.mean([accuracy(method, int(x)) for x in line[:50]]) for line in drawn]
                arrays[name] = [draw_distances(method, s - easier, same, rng) for s in shares]
                arrays[f"{name}_resolutions"] = drawn
                each = [figures(distance, same) for distance in arrays[name]]
                values[benchmark, name, how] = mean_of(each) | {
                    "draws": draws,
                    "draws_std": float(np.std([one["accuracy"] for one in each])),
                }
        if side:
            (path / "pairs").mkdir(parents=True, exist_ok=True)
            arrays = {name: np.asarray(value) for name, value in arrays.items()}
            np.savez(path / "pairs" / f"{quote(benchmark, safe='')}.npz", **arrays)
        if matrix:
            write_matrix(path, method, benchmark, resolutions, modes, easier)
        if samples:
            few = [r for r in resolutions if r in RESOLUTIONS]  # of 108 only the report's
            write_samples(path / "samples" / quote(benchmark, safe=""), same, few or resolutions)
    if len(benchmarks) > 1:
        for scenario, at in {(s, a) for _, s, a in values}:
            parts = [values[name, scenario, at] for name in benchmarks]
            values["average", scenario, at] = mean_of(parts)
    for benchmark in (*benchmarks, *(("average",) if len(benchmarks) > 1 else ())):
        for mode in modes:
            for (name, scenario, at), row in values.items():
                if name == benchmark:
                    rows.append(
                        {
                            **common,
                            "benchmark": benchmark,
                            "average_of": list(benchmarks) if benchmark == "average" else None,
                            "thresholds": mode,
                            "scenario": scenario,
                            "resolution": at if type(at) is int else None,
                            "drawn": at if type(at) is str else None,
                            "source": {"seeded": "seed 0", "published": "sha256 0"}.get(at),
                            "draws": 1,
                            "draws_std": 0.0,
                            **row,
                            "pairs": pairs,
                        }
                        | (changes or {})
                    )
    path.mkdir(parents=True, exist_ok=True)
    write_lines(path / "rows.jsonl", rows)
    if not foreign:
        write_lines(path / "metrics.jsonl", make_metrics(method))
    write_about(path, method, benchmarks, pairs, common, foreign, about)
    return path


def write_about(path, method, benchmarks, pairs, common, foreign, about) -> None:
    start = {
        "started": "2026-03-01T09:30:00Z",
        "step": 0,
        "command": f"crfr train --config=paper --method={method} --workdir=runs/{method}",
        "commit": "0123abc",
        "versions": CALL["versions"],
        "python": "3.11.9",
        "devices": CALL["devices"],
        "classes": 90,
        "images": IMAGES,
    }
    config = {"method": method, "seed": 17, "optimizer": {"learning_rate": 0.01, "momentum": 0.9}}
    training = {"config": config, "run": [start], "seconds": 7384.0}
    content = common | {
        "model_fingerprint": f"fedc{method}{common['model']}",
        "benchmarks": {
            name: {"fingerprint": f"0123{name}", "images": 7701, "pairs": pairs}
            for name in benchmarks
        },
        "calls": [CALL | {"command": f"crfr sweep --model={common['model']} --out={path.name}"}],
        "training": None if foreign else training,
    }
    (path / "sweep.json").write_text(json.dumps(content | about))


def write_matrix(path, method, benchmark, resolutions, modes, easier) -> None:
    """A matrix of smooth figures; not that of the distances."""
    falling = sorted(resolutions, reverse=True)
    pairwise = [[min(a, b) * (max(a, b) / min(a, b)) ** -0.1 for b in falling] for a in falling]
    value = np.array([[accuracy(method, r) - easier for r in line] for line in pairwise])
    arrays = {
        "accuracy": value,
        "accuracy_std": np.full_like(value, 0.006),
        "accuracy_low": value - 0.01,
        "accuracy_high": np.minimum(1.0, value + 0.01),
        "threshold": 0.9 - 0.4 * (value - 0.5),
        "eer": 1 - value,
        "auc": value,
        "positive_distance": 1.2 - 0.8 * value,
        "negative_distance": np.full_like(value, 0.98),
        "fars": np.array([0.1, 0.01, 0.001, 0.0001]),
        "tar": np.stack([value] * 4),
        "far_threshold": np.full((4, *value.shape), np.nan),
    }
    (path / "matrix").mkdir(parents=True, exist_ok=True)
    for mode in modes:
        file = path / "matrix" / f"{quote(benchmark, safe='')}-{mode}.npz"
        np.savez(file, resolutions=np.array(falling), **arrays)


def write_analysis(path: Path, benchmarks=("lfw",), **changes) -> Path:
    """A directory of `crfr dataset`."""
    resolutions = (7, 14, 28, 56)
    content = {
        "schema": 1,
        "degradation": "bicubic",
        "resolutions": list(resolutions),
        "benchmarks": {
            name: {
                "images": 7701,
                "fingerprint": f"0123{name}",
                "mean_absolute_difference": {str(r): 60.0 / r for r in resolutions},
                "max_difference": {str(r): 600.0 / r for r in resolutions},
            }
            for name in benchmarks
        },
        "command": "crfr dataset",
        "commit": "0123abc",
        "versions": {},
    }
    for number, name in enumerate(benchmarks):
        folder = path / quote(name, safe="")
        folder.mkdir(parents=True)
        face(number, 30).save(folder / "mean.png")
        face(number, 112).save(folder / "sample.png")
        for r in resolutions:
            face(number, r).save(folder / f"sample-{r}.png")
            face(number, r).convert("L").save(folder / f"difference-{r}.png")
    (path / "dataset.json").write_text(json.dumps(content | changes))
    return path
