"""Pictures for the report: a few pairs of a benchmark at each resolution, as the network sees them.

samples/FILE/R.png is a strip of tiles of 112 px, A0 B0 A1 B1 ..., samples/FILE/pairs.json says
which pairs these are.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from crfr import environment
from crfr.data.benchmarks import Benchmark
from crfr.views.degrade import degrade

PAIRS = 3  # of one person, and as many of two people


def sample_pairs(benchmark: Benchmark) -> list[int]:
    """Pairs of one person and of two in turn, spread evenly over the benchmark."""
    chosen = []
    for truth in (True, False):
        places = np.flatnonzero(benchmark.same == truth)
        even = np.linspace(0, len(places) - 1, min(PAIRS, len(places))).astype(int)
        chosen.append(places[even].tolist())
    return [pair for pairs in zip(*chosen, strict=False) for pair in pairs]


def write_samples(folder: Path, benchmark: Benchmark, resolutions: list[int], variant: str) -> None:
    """The strips of the resolutions (px) that `folder` has not yet, and the list of pairs."""
    chosen = sample_pairs(benchmark)
    images = benchmark.images[benchmark.pairs[chosen].ravel()]
    folder.mkdir(parents=True, exist_ok=True)
    for resolution in resolutions:
        path = folder / f"{resolution}.png"
        if path.exists():
            continue
        faces = np.asarray(degrade(images, resolution, variant=variant))
        strip = np.concatenate(list(np.clip(np.round(faces), 0, 255).astype(np.uint8)), axis=1)
        buffer = io.BytesIO()
        Image.fromarray(strip).save(buffer, "PNG")
        environment.write_atomically(path, buffer.getvalue())
    listed = [{"pair": pair, "same": bool(benchmark.same[pair])} for pair in chosen]
    environment.write_json(folder / "pairs.json", listed)
