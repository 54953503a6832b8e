"""Sweeps of trainings with several seeds whose every figure is known by hand.

400 pairs, half of one person.  At a resolution pairs of one person are `near` apart and pairs of
two `far`, but for a share of all pairs, which are of one person and wrongly 0.1 farther than `far`:
the accuracy is 1 - share in every scenario, the threshold (near + far) / 2 in every fold.
"""

import json
from pathlib import Path

import numpy as np
from sweeps import figures, make_metrics, mean_of, write_lines, write_sweep

PAIRS = 400
SAME = np.arange(PAIRS) % 20 < 10
NEAR, FAR = 0.2, 0.8


def config_of(method: str, seed: int, **changes) -> dict:
    return {"method": method, "seed": seed, "batch": 128, "run": {"threads": seed}} | changes


def wrong_pairs(share: float) -> np.ndarray:
    """The pairs of one person that are wrong; those of a larger share include a smaller one's.

    They are scattered over the folds, so that none lacks the pairs that make its threshold.
    """
    scattered = np.flatnonzero(SAME)[np.arange(PAIRS // 2) * 73 % (PAIRS // 2)]
    return scattered[: round(share * PAIRS)]


def distances(share: float, near: float, far: float) -> np.ndarray:
    values = np.where(SAME, near, far)
    values[wrong_pairs(share)] = far + 0.1
    return values.astype(np.float32)


def write_known(
    root: Path,
    method: str,
    seed: int,
    wrong: dict[int, float],
    *,
    equal: dict[int, float] | None = None,
    apart: dict[int, tuple[float, float]] | None = None,
    config: dict | None = None,
    **about,
) -> Path:
    """A sweep of a training on LFW.  `wrong` is the share by resolution in CR and, but for `equal`,
    in ER; `apart` has other (near, far)."""
    path = root / f"{method}-seed-{seed}"
    training = {
        "config": config or config_of(method, seed),
        "run": [{"images": 200}],
        "seconds": 60.0,
    }
    options = {"changes": {"model": f"runs/{path.name}"}, "training": training} | about
    few = {"resolutions": (112,), "pairs": PAIRS, "samples": False, "side": False}
    write_sweep(path, method, benchmarks=("lfw",), **few, **options)
    template = json.loads((path / "rows.jsonl").read_text().splitlines()[0])
    rows, arrays = [], {"same": SAME, "resolutions": np.array(sorted(wrong, reverse=True))}
    for r in sorted(wrong, reverse=True):
        found = {}
        for scenario in ("CR_A", "CR_B", "ER"):
            share = (equal or {}).get(r, wrong[r]) if scenario == "ER" else wrong[r]
            values = distances(share, *(apart or {}).get(r, (NEAR, FAR)))
            arrays.setdefault(scenario, []).append(values)
            found[scenario] = figures(values, SAME)
        found["CR"] = mean_of([found["CR_A"], found["CR_B"]])
        rows += [template | {"scenario": s, "resolution": r} | row for s, row in found.items()]
    write_lines(path / "rows.jsonl", rows)
    write_lines(path / "metrics.jsonl", make_metrics(method, steps=160, every=10))
    (path / "pairs").mkdir()
    np.savez(path / "pairs" / "lfw.npz", **arrays)
    return path
