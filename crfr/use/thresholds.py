"""The table of thresholds over two resolutions, as `crfr calibrate` leaves it beside a model.

Between the resolutions that were calibrated a threshold, and the rates of error at it, are
interpolated: bilinearly over the logarithms of the two resolutions, as what a network loses from 14
to 7 px is more like what it loses from 28 to 14 than from 35 to 28.  Outside of them nothing is
said.  The file is described in docs/architecture.md, "A calibration".
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from crfr.errors import InputError
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.exported import SUFFIX
from crfr.evaluate.onnx_spec import parse_onnx

SCHEMA = 1
NAME = "calibration.json"
BEST = "accuracy"  # the objective of the best accuracy; others are FARs by their names ("0.01")
RATES = ("accuracy", "far", "frr")
FIGURES = ("threshold", *RATES, *(f"{rate}_{end}" for rate in RATES for end in ("low", "high")))
ABOUT = {"model", "step", "model_fingerprint", "declined", "benchmarks", "negatives", "degradation"}
AGAIN = "make it again with crfr calibrate"


class Rate(NamedTuple):
    """A share, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Point(NamedTuple):
    threshold: float
    accuracy: Rate
    far: Rate
    frr: Rate


@dataclass(frozen=True)
class Calibration:
    """about: the file's content but for the arrays.  resolutions: px, rising.  tables: objective ->
    figure -> [s s], symmetric.  impostors: mean and std of the distances of two people [s s].
    """

    path: Path
    about: dict[str, Any]
    resolutions: Float64[np.ndarray, " s"]
    tables: dict[str, dict[str, Float64[np.ndarray, "s s"]]]
    impostors: dict[str, Float64[np.ndarray, "s s"]]

    def check_model(self, encoder: Encoder) -> None:
        """InputError where these are the thresholds of another model."""
        if self.about["model_fingerprint"] != encoder.fingerprint:
            raise InputError(
                f"{self.path}: has the thresholds of another model ({self.owner}, not "
                f"{encoder.fingerprint}); {AGAIN}"
            )

    @property
    def owner(self) -> str:
        """The model that these are the thresholds of, in words."""
        step = f"@{self.about['step']}" if self.about["step"] is not None else ""
        return f"{self.about['model']}{step}, fingerprint {self.about['model_fingerprint']}"

    def objective(self, far: float | None) -> str:
        """The name of an objective; InputError for a FAR that is not in the table."""
        name = BEST if far is None else f"{far:g}"
        if name in self.tables:
            return name
        known = ", ".join(n for n in self.tables if n != BEST) or "none"
        why = self.about["declined"].get(name)
        raise InputError(
            f"{self.path}: no thresholds at FAR {name} ({why or f'calibrated: {known}'}); "
            + ("calibrate with a larger benchmark" if why else f"calibrate with --fars={name}")
        )

    def outside(self, resolution: Sequence[float]) -> str | None:
        """Why a pair of resolutions (px) is not in the table; None where it is."""
        low, high = float(self.resolutions[0]), float(self.resolutions[-1])
        beyond = [size for size in resolution if not low <= size <= high]
        if not beyond:
            return None
        sizes = " and ".join(f"{size:.4g} px" for size in dict.fromkeys(beyond))
        verb = "is" if len({*beyond}) == 1 else "are"
        return f"{sizes} {verb} outside the calibrated {low:g}..{high:g} px"

    def at(self, first: float, second: float, objective: str = BEST) -> Point:
        """Threshold and rates at two resolutions (px) inside the table."""
        table = self.tables[objective]

        def value(name: str) -> float:
            return float(self.interpolate(table[name], first, second))

        rates = [Rate(value(r), value(f"{r}_low"), value(f"{r}_high")) for r in RATES]
        return Point(value("threshold"), *rates)

    def interpolate(
        self,
        table: Float64[np.ndarray, "s s"],
        first: float | Float[np.ndarray, "..."],
        second: float | Float[np.ndarray, "..."],
    ) -> Float64[np.ndarray, "..."]:
        """A figure at resolutions (px) inside the table, by numbers or arrays that fit together."""
        i, u = self._place(first)
        j, v = self._place(second)
        low = table[i, j] + u * (table[i + 1, j] - table[i, j])
        high = table[i, j + 1] + u * (table[i + 1, j + 1] - table[i, j + 1])
        return np.asarray(low + v * (high - low), np.float64)

    def _place(self, resolution: float | np.ndarray) -> tuple[Any, Any]:
        """(index of the calibrated resolution below, share of the way to the next) in logs."""
        grid, size = np.log(self.resolutions), np.log(np.asarray(resolution, np.float64))
        below = np.clip(np.searchsorted(grid, size, side="right") - 1, 0, len(grid) - 2)
        return below, (size - grid[below]) / (grid[below + 1] - grid[below])


def table_path(model: str, step: int | None) -> Path | None:
    """Where a model's thresholds lie: in its work directory, or beside its file; else None."""
    if step is not None:
        return Path(model) / NAME
    settings = parse_onnx(model)
    file = settings.path if settings else model
    return Path(f"{file}.{NAME}") if settings or file.endswith(SUFFIX) else None


def read_calibration(path: Path) -> Calibration:
    """The file of `crfr calibrate`; InputError for one that is missing, damaged or of another
    kind.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {AGAIN}") from error
    return parse_calibration(path, content)


def parse_calibration(path: Path, content: Any) -> Calibration:
    """The content of such a file, found in `path`; InputError for one of another kind."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise InputError(f"{path}: is no calibration of schema {SCHEMA} (schema {found}); {AGAIN}")
    content = dict(content)  # the caller's stays whole
    try:
        resolutions = np.array(content.pop("resolutions"), np.float64)
        tables = {
            name: {figure: np.array(table[figure], np.float64) for figure in FIGURES}
            for name, table in content.pop("objectives").items()
        }
        impostors = {
            name: np.array(content["impostors"][name], np.float64) for name in ("mean", "std")
        }
        del content["impostors"]
        arrays = [*impostors.values(), *(a for t in tables.values() for a in t.values())]
        size = len(resolutions)
        sound = (
            content.keys() >= ABOUT
            and isinstance(content["negatives"], int)
            and isinstance(content["declined"], dict)
            and isinstance(content["benchmarks"], dict)
            and BEST in tables
            and resolutions.shape == (size,)
            and size > 1
            and resolutions[0] >= 1  # px, of which logarithms are taken
            and bool((np.diff(resolutions) > 0).all())
            and all(array.shape == (size, size) for array in arrays)
            and all(math.isfinite(array.sum()) for array in (resolutions, *arrays))
            and bool((impostors["std"] > 0).all())  # scores are divided by it
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: lacks {error}; {AGAIN}") from error
    if not sound:
        raise InputError(f"{path}: its tables do not fit together; {AGAIN}")
    return Calibration(path, content, resolutions, tables, impostors)
