"""What the commands say of decisions and searches, for people and as JSON."""

import os
from typing import Any

from crfr.use.decide import Decision
from crfr.use.faces import Faces
from crfr.use.index import shown
from crfr.use.search import Found
from crfr.use.thresholds import BEST


def path_text(path: str | os.PathLike) -> str:
    """A path as text that can be written anywhere, bytes that are not UTF-8 as \\xNN."""
    return shown(os.fsencode(path))


def face_line(faces: Faces, row: int = 0) -> str:
    """Where a face comes from, its resolution, what was done to it."""
    size = f"{faces.resolution[row]:.4g} px"
    return "   ".join([path_text(faces.names[row]), size, *faces.notes[row]])


def objective_text(objective: str) -> str:
    return "best accuracy" if objective == BEST else f"FAR {objective}"


def answer(same: bool | None) -> str:
    return "declined" if same is None else ("same" if same else "different")


def decision_lines(decision: Decision) -> list[str]:
    """A decision, the threshold that made it, and the rates to expect, with 95 % intervals, and on
    what they were measured.
    """
    lines = [f"distance   {decision.distance:.4f}"]
    if decision.threshold is None:
        return [*lines, f"decision   declined: {decision.reason}"]
    lines.append(f"threshold  {decision.threshold:.4f}   {objective_text(decision.objective)}")
    lines.append(f"decision   {answer(decision.same)}")
    rates = {"accuracy": decision.accuracy, "FAR": decision.far, "FRR": decision.frr}
    for name, rate in rates.items():
        if rate is not None:
            value, low, high = (100 * share for share in rate)
            lines.append(f"{name:<10} {value:.2f} %   ({low:.2f} to {high:.2f})")
    places = " + ".join(decision.benchmarks)
    return [
        *lines,
        f"measured on {places} ({decision.negatives:,} negatives), {decision.degradation}",
    ]


def decision_json(decision: Decision, faces: Faces) -> dict[str, Any]:
    names = [path_text(name) for name in faces.names]
    return {"faces": names, "notes": faces.notes, **decision.to_json()}


def hit_lines(found: Found) -> list[str]:
    """A line a hit, best first, under a line that says what the columns are."""
    lines = [f"listed by {found.ranked}" + (f": {found.reason}" if found.reason else "")]
    if found.left_out:
        lines.append(f"{found.left_out} faces are outside the calibrated range and left out")
    lines.append("rank    score  distance  threshold  decision      px  path")
    for rank, hit in enumerate(found.hits, 1):
        threshold, said = "-", "-"
        if hit.decision is not None:
            said = answer(hit.decision.same)
            if hit.decision.threshold is not None:
                threshold = f"{hit.decision.threshold:.4f}"
        lines.append(
            f"{rank:4d} {hit.score:8.3f}  {hit.distance:8.4f}  {threshold:>9}  {said:<9} "
            f"{hit.resolution:6.1f}  {shown(hit.path)}"
        )
    return lines


def hits_json(found: Found, query: Faces) -> dict[str, Any]:
    hits = [
        {
            "path": shown(hit.path),
            "resolution": hit.resolution,
            "distance": hit.distance,
            "score": hit.score,
            "threshold": hit.decision.threshold if hit.decision else None,
            "same": hit.decision.same if hit.decision else None,
        }
        for hit in found.hits
    ]
    return {
        "query": path_text(query.names[0]),
        "resolution": float(query.resolution[0]),
        "ranked": found.ranked,
        "reason": found.reason,
        "left_out": found.left_out,
        "hits": hits,
    }
