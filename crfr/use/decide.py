"""One person or two?  A distance and two resolutions -> a decision, and how often it is wrong."""

from dataclasses import asdict, dataclass
from typing import Any

from crfr.use.thresholds import Calibration, Rate


@dataclass(frozen=True)
class Decision:
    """distance: 1 - cos.  resolution: px, of the two faces.  threshold: at these resolutions; the
    two are one person iff distance < threshold.  same: None where nothing is decided, and `reason`
    says why.  accuracy, far, frr: what to expect at this threshold and these resolutions: shares
    of right decisions, of two people called one, of one person called two.  objective: "accuracy",
    or the false accept rate that the threshold was chosen for.  benchmarks, negatives, degradation:
    what the rates were measured on, its pairs of two people, and how it was reduced.
    """

    distance: float
    resolution: tuple[float, float]
    same: bool | None
    threshold: float | None
    objective: str
    benchmarks: tuple[str, ...]
    negatives: int
    degradation: str
    reason: str | None = None
    accuracy: Rate | None = None
    far: Rate | None = None
    frr: Rate | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def decide(
    calibration: Calibration,
    distance: float,
    resolution: tuple[float, float],
    far: float | None = None,
) -> Decision:
    """The decision by a calibration's threshold; InputError for a FAR that it has not."""
    objective = calibration.objective(far)
    about = calibration.about
    measured = tuple(about["benchmarks"]), about["negatives"], about["degradation"]
    reason = calibration.outside(resolution)
    if reason is not None:
        return Decision(distance, resolution, None, None, objective, *measured, reason)
    point = calibration.at(*resolution, objective)
    return Decision(
        distance,
        resolution,
        distance < point.threshold,
        point.threshold,
        objective,
        *measured,
        None,
        point.accuracy,
        point.far,
        point.frr,
    )
