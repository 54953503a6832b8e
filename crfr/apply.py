"""Putting models to use: specs -> models and files -> the functions of crfr/use; one a command."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crfr.data.benchmarks import load_benchmarks
from crfr.errors import InputError, unknown
from crfr.evaluate.encoders import load_encoder
from crfr.networks import build_for_evaluation
from crfr.train import sharding
from crfr.use.calibrate import calibrate as measure_thresholds
from crfr.use.decide import Decision
from crfr.use.model import Model, make_model
from crfr.use.thresholds import BEST, table_path
from crfr.views.degrade import VARIANTS, check_resolutions


def load(path: str | os.PathLike, *, calibration: str | os.PathLike | None = None) -> Model:
    """A model, to embed and compare faces of any size.

    Args:
      path: WORKDIR[@STEP] of a training run, FILE.onnx[:KEY=VALUE,...] (docs/evaluation.md), or a
        Python function module:function.
      calibration: the file of `crfr calibrate`; by default the one beside the model, which need
        not be there.

    Raises:
      InputError: a path that names no model.

    >>> import crfr
    >>> model = crfr.load("runs/tiny")
    >>> model.encoder.method, model.encoder.step
    ('baseline', 1)
    """
    encoder = load_encoder(os.fspath(path), build_for_evaluation)
    table = table_path(encoder.model, encoder.step) if calibration is None else Path(calibration)
    return make_model(encoder, sharding.make_mesh(), table)


def calibrate(
    model: str,
    benchmark: str,
    resolutions: Sequence[int],
    out: Path | None,
    *,
    fars: Sequence[float],
    degradation: str,
    batch: int,
) -> None:
    """Write a model's thresholds at every two resolutions (px), by default beside it."""
    if degradation not in VARIANTS:
        raise unknown("--degradation", degradation, VARIANTS)
    check_resolutions(np.asarray(resolutions))
    if len(resolutions) < 2:
        raise InputError(
            f"--resolutions={resolutions[0]}: give two or more; thresholds hold between them"
        )
    benchmarks = load_benchmarks(benchmark)
    encoder = load_encoder(model, build_for_evaluation)
    out = out or table_path(encoder.model, encoder.step)
    if out is None:
        raise InputError(f"{model}: has no place beside it for thresholds; give --out=FILE.json")
    try:
        content = measure_thresholds(
            encoder,
            benchmarks,
            resolutions,
            out,
            mesh=sharding.make_mesh(),
            batch=batch,
            fars=fars,
            variant=degradation,
        )
    except OSError as error:
        raise InputError(f"--out={out}: {error.strerror}; choose a writable place") from error
    for name, table in content["objectives"].items():
        title = "best accuracy" if name == BEST else f"FAR {name}"
        print(f"{title}: threshold, and accuracy in %, of equal resolutions and with the largest")
        for row, resolution in enumerate(content["resolutions"]):
            threshold, accuracy = table["threshold"][row], table["accuracy"][row]
            shown = [f"{threshold[to]:.4f}  {100 * accuracy[to]:5.1f}" for to in (row, -1)]
            print(f"{resolution:5d} px   {'   '.join(shown)}")
    for reason in content["declined"].values():
        print(f"declined: {reason}")
    print(out)


def verify(
    model: str,
    a: str,
    b: str,
    *,
    detector: str | None,
    calibration: str | None,
    far: float | None,
    as_json: bool,
) -> bool | None:
    """Print whether two images show one person; the decision, None where it is declined."""
    loaded = load(model, calibration=calibration)
    loaded.calibration.objective(far)  # before anything is embedded
    faces = loaded.embed([a, b], align=detector)
    decision = loaded.verify(faces[0], faces[1], far=far)
    if as_json:
        about = {"a": _shown(a), "b": _shown(b), "notes": faces.notes, **decision.to_json()}
        print(json.dumps(about | {"model": loaded.encoder.model}))
    else:
        for path, resolution, notes in zip((a, b), faces.resolution, faces.notes, strict=True):
            print("   ".join([f"{path}   {resolution:.4g} px", *notes]))
        print(_described(decision))
    return decision.same


def _shown(path: str) -> str:
    """A path as text that can be written anywhere, bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _described(decision: Decision) -> str:
    distance = f"distance   {decision.distance:.4f}"
    if decision.same is None:
        return f"{distance}\ndeclined   {decision.reason}"
    assert decision.threshold is not None
    at = "best accuracy" if decision.objective == BEST else f"FAR {decision.objective}"
    lines = [
        distance,
        f"threshold  {decision.threshold:.4f}   ({at})",
        f"decision   {'same' if decision.same else 'different'}",
    ]
    for name, rate in (
        ("accuracy", decision.accuracy),
        ("far", decision.far),
        ("frr", decision.frr),
    ):
        assert rate is not None
        low, high = 100 * rate.low, 100 * rate.high
        lines.append(f"{name:10} {100 * rate.value:.2f} %   ({low:.2f} to {high:.2f})")
    return "\n".join(lines)
