"""Putting models to use: specs -> models and files -> the functions of crfr/use; one a command."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crfr import environment
from crfr.data.benchmarks import load_benchmarks
from crfr.data.recordio import require_file
from crfr.errors import InputError, unknown
from crfr.evaluate.encoders import Encoder, load_encoder
from crfr.networks import build_for_evaluation
from crfr.train import sharding
from crfr.use.calibrate import calibrate as measure_thresholds
from crfr.use.detect import load_detector
from crfr.use.folder import embed_folder
from crfr.use.index import check_ending, read_index, write_index
from crfr.use.model import Model, make_model
from crfr.use.search import search_index
from crfr.use.text import (
    decision_json,
    decision_lines,
    face_line,
    hit_lines,
    hits_json,
    path_text,
)
from crfr.use.thresholds import BEST, read_calibration, table_path
from crfr.views.degrade import VARIANTS, check_resolutions


def load(path: str | os.PathLike, *, calibration: str | os.PathLike | None = None) -> Model:
    """A model, to embed and compare faces of any size.

    Args:
      path: WORKDIR[@STEP|@best] of a training run, FILE.onnx[:KEY=VALUE,...]
        (docs/evaluation.md), an ONNX or StableHLO file of `crfr export`, or a Python function
        module:function.  Not a SavedModel of `crfr export`, which is for TensorFlow alone.
      calibration: the file of `crfr calibrate`; by default the one beside the model, which need
        not be there.

    Raises:
      InputError: a path that names no model or a SavedModel, a calibration that is not there.

    >>> import crfr
    >>> model = crfr.load("runs/tiny")
    >>> model.encoder.method, model.encoder.step
    ('baseline', 1)
    """
    if calibration is not None:
        require_file(calibration)
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
    if out is not None:
        _check_writable(out)
    benchmarks = load_benchmarks(benchmark)
    encoder = load_encoder(model, build_for_evaluation)
    if out is None:
        out = table_path(encoder.model, encoder.step)
        if out is None:
            message = f"{model}: has no place beside it for thresholds; give --out=FILE.json"
            raise InputError(message)
        _check_writable(out)
    if others := _owner_of_others(out, encoder):
        print(f"{out}: replaces the thresholds of {others}")
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


def _owner_of_others(out: Path, encoder: Encoder) -> str | None:
    """Whose thresholds, of another model, step or setting, lie where new ones go; None if none."""
    try:
        found = read_calibration(out)
    except InputError:  # nothing that could be of use
        return None
    return None if found.about["model_fingerprint"] == encoder.fingerprint else found.owner


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
        print(json.dumps(decision_json(decision, faces)))
    else:
        print("\n".join([face_line(faces, 0), face_line(faces, 1), *decision_lines(decision)]))
    return decision.same


def embed(model: str, images: Path, out: Path, *, detector: str | None) -> None:
    """Write an index of the faces in a folder's images; what cannot be read is listed.

    A killed call leaves `OUT.partial`, from which the same call again goes on.
    """
    check_ending(out)
    _check_writable(out)
    found = load_detector(detector) if detector else None
    loaded = load(model)
    work = out.with_name(f"{out.name}.partial")
    work.mkdir(exist_ok=True)
    with environment.locked(work, f"{work}: another crfr embed is writing there; wait for it"):
        try:
            faces, unreadable, others = embed_folder(loaded, images, found, work)
            about = {
                "model": loaded.encoder.model,
                "step": loaded.encoder.step,
                "model_fingerprint": loaded.encoder.fingerprint,
                "detector_fingerprint": found.fingerprint if found else None,
                "folder": path_text(images),
                "unreadable": [{"path": path_text(p), "error": e} for p, e in unreadable.items()],
                "others": [path_text(path) for path in others],
                "time": environment.now(),
                **environment.made_with(),
            }
            write_index(out, faces, about)
            shutil.rmtree(work)
        finally:
            with contextlib.suppress(OSError):  # gone, or parts are kept in it
                work.rmdir()
    for path, error in unreadable.items():
        print(f"left out: {path_text(path)}: {error}", file=sys.stderr)
    if others:
        print(f"left out: {len(others)} files that are not called like images", file=sys.stderr)
    several = int((faces.found > 1).sum())
    if several:
        print(f"{several} photos with several faces, of which the largest is taken")
    print(f"{out}: {len(faces):,} faces, {len(unreadable)} unreadable")


def _check_writable(out: Path) -> None:
    """InputError, before the work and not behind it, where `out` cannot be written."""
    if out.is_dir():
        raise InputError(f"--out={out}: is a folder; name the file in it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise InputError(f"--out={out}: {error.strerror}; choose a writable place") from error


def search(
    model: str,
    query: str,
    index: Path,
    *,
    detector: str | None,
    calibration: str | None,
    top: int,
    far: float | None,
    faiss: bool,
    as_json: bool,
) -> None:
    """Print the faces of an index that are nearest to that of an image."""
    held = read_index(index)
    found = load_detector(detector) if detector else None
    held.check_detector(found.fingerprint if found else None, index)
    loaded = load(model, calibration=calibration)
    held.check_model(loaded.encoder, index)
    table = None
    if calibration or far or loaded.calibrated:
        table = loaded.calibration
        table.objective(far)
    face = loaded.embed(query, align=detector)
    hits = search_index(face, held, table, top, far=far, faiss=faiss)
    if as_json:
        print(json.dumps(hits_json(hits, face)))
    else:
        print("\n".join([face_line(face), *hit_lines(hits)]))
