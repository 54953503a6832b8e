"""Putting models to use: specs -> models and files -> the functions of crfr/use; one a command."""

import os
from pathlib import Path

from crfr.evaluate.encoders import load_encoder
from crfr.networks import build_for_evaluation
from crfr.train import sharding
from crfr.use.model import Model, make_model
from crfr.use.thresholds import table_path


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
