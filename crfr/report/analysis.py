"""Reading a dataset analysis (`crfr dataset`): what reducing does to a benchmark's images."""

import math
from dataclasses import dataclass
from pathlib import Path

from crfr import environment
from crfr.errors import InputError
from crfr.report.rows import read_object

KINDS = {"degradation": str, "resolutions": list[int], "benchmarks": dict}
AGAIN = "run `crfr dataset` again"


@dataclass(frozen=True)
class Analysis:
    """A directory of `crfr dataset`; resolutions in px, falling, differences in grey levels."""

    path: Path
    degradation: str
    resolutions: tuple[int, ...]
    images: dict[str, int]  # by benchmark
    differences: dict[str, dict[int, float]]  # mean absolute difference by benchmark, resolution

    def folder(self, benchmark: str) -> Path:
        return self.path / environment.file_name(benchmark)


def read_analysis(path: Path, fingerprints: dict[str, str], degradation: str) -> Analysis:
    """A dataset analysis, checked against the sweeps that it stands beside."""
    where = path / "dataset.json"
    if not where.is_file():
        raise InputError(f"{where} is missing: give --dataset what `crfr dataset` wrote")
    about = read_object(where, 1, KINDS, AGAIN)
    if about["degradation"] != degradation:
        raise InputError(
            f"{where}: degradation {about['degradation']!r}, but the sweeps have {degradation!r}: "
            "report them apart"
        )
    resolutions = tuple(sorted(about["resolutions"], reverse=True))
    images, differences = {}, {}
    for name, benchmark in about["benchmarks"].items():
        try:
            images[name] = int(benchmark["images"])
            means = benchmark["mean_absolute_difference"]
            differences[name] = {r: float(means[str(r)]) for r in resolutions}
            fingerprint = benchmark["fingerprint"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: {name!r} is damaged ({error!r}): {AGAIN}") from error
        if not all(math.isfinite(value) for value in differences[name].values()):
            raise InputError(f"{where}: differences of {name!r} are not finite: {AGAIN}")
        if fingerprints.get(name, fingerprint) != fingerprint:
            raise InputError(
                f"{where}: {name!r} has other images than the sweeps' (fingerprint {fingerprint}): "
                f"{AGAIN} on the benchmark of the sweeps"
            )
    return Analysis(path, about["degradation"], resolutions, images, differences)
