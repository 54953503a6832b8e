"""Models handed on: exported for other runtimes, and described on a card."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from crfr import environment
from crfr.data.benchmarks import load_benchmark
from crfr.errors import InputError, unknown
from crfr.evaluate.encoders import Encoder, load_encoder
from crfr.networks import build_for_evaluation
from crfr.recipe import recipe
from crfr.report.models import read_report
from crfr.urls import public
from crfr.use import export as exporting
from crfr.use.card import Subject, make_card
from crfr.use.statements import FILL
from crfr.use.thresholds import read_calibration, table_path
from crfr.workdir import flat, read_config, read_starts

FACES = "faces:identities=4,images=4"  # for the check, where no benchmark is given
CHECKED = 64  # images of a benchmark that may be taken for it
REPEATS = 20  # timed calls


def export(model: str, format: str, out: Path, *, pixels: str, benchmark: str) -> None:
    """Write a crfr model for another runtime, check it there, and print the report.

    `benchmark`: a spec of real images for the check; procedural faces where it is empty.
    InputError for a model without weights, as `use.export.export`, and for thresholds beside the
    model that are another's.
    """
    if format not in exporting.FORMATS:
        raise unknown("--format", format, exporting.FORMATS)
    if pixels not in exporting.PIXELS:
        raise unknown("--input", pixels, exporting.PIXELS)
    exporting.check_place(format, out)
    encoder = load_encoder(model, build_for_evaluation)
    if encoder.network is None:
        raise InputError(
            f"--model={model}: gives embeddings, not weights, so there is nothing to export; name "
            "a training run, WORKDIR[@STEP]"
        )
    images = load_benchmark(benchmark or FACES).images
    which = np.linspace(0, len(images) - 1, min(CHECKED, len(images))).astype(int)
    report = exporting.export(
        encoder.network,
        encoder.variables,
        _metadata(encoder),
        images[which],
        out,
        format=format,
        pixels=pixels,
        source=without_folders(benchmark or FACES),
        repeats=REPEATS,
    )
    print(f"{out}: {encoder.model} at step {encoder.step}, {format}\n{exporting.describe(report)}")


def card(model: str, sweeps: list[Path], out: Path) -> None:
    """Write the model card of a crfr model from its work directory and its sweeps.

    InputError for a model that is none of crfr's, for sweeps of another model or step, and where
    `out` cannot be written.
    """
    encoder = load_encoder(model, build_for_evaluation)
    if encoder.network is None:
        raise InputError(
            f"--model={model}: nothing is known of its training; name a run, WORKDIR[@STEP]"
        )
    report = read_report(sweeps)
    for sweep in report.sweeps:
        if sweep.about["model_fingerprint"] != encoder.fingerprint:
            raise InputError(
                f"{sweep.path}: is the sweep of another model or step than {model}; sweep that one"
            )
    first, *others = report.models
    if others:
        labels = ", ".join(found.sweeps[0].about["model"] for found in report.models)
        raise InputError(
            f"--sweep: the directories name the model differently ({labels}); sweep into one"
        )
    workdir = Path(encoder.model)
    config = read_config(workdir)
    paper, here = flat(json.loads(recipe().to_json())), flat(config)
    apart = ("run.", "init.")
    subject = Subject(
        name=workdir.resolve().name,
        step=encoder.step or 0,
        fingerprint=encoder.fingerprint,
        config=_without_places(config),
        differences={
            key: (value, here.get(key))
            for key, value in paper.items()
            if value != here.get(key)
            and not key.startswith(apart)
            and key not in ("method", "data")
        },
        starts=read_starts(workdir),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(encoder.variables["params"])),
        calibrated=_calibration(encoder) is not None,
    )
    text = make_card(subject, first, report.benchmarks)
    environment.make_folder(out.parent, f"--out={out}", "choose another place")
    environment.write_atomically(out, text)
    print(f"{out}: {text.count(FILL)} places are left for the owner to fill in")


def _metadata(encoder: Encoder) -> dict[str, Any]:
    """What an exported file says of the model that it holds."""
    workdir = Path(encoder.model)
    config = read_config(workdir)
    return {
        "model": workdir.resolve().name,
        "fingerprint": encoder.fingerprint,
        "step": encoder.step,
        "method": encoder.method,
        "config": {k: v for k, v in _without_places(config).items() if k != "run"},
        "versions": environment.versions(),
        "commit": environment.commit(),
        "calibration": _calibration(encoder),
    }


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A config with the names of its data and weights alone."""
    weights = without_folders(config["init"]["weights"])
    return config | {
        "data": without_folders(config["data"]),
        "init": config["init"] | {"weights": weights},
    }


def without_folders(spec: str) -> str:
    """A path or a SPEC of data without the folders in it, which are nobody's business.

    >>> without_folders("/home/me/faces_emore/train.rec+faces:seed=1+https://host/a/b.rec?key=1")
    'train.rec+faces:seed=1+b.rec'
    """
    return "+".join(part.rstrip("/").rpartition("/")[2] for part in public(spec).split("+"))


def _calibration(encoder: Encoder) -> dict[str, Any] | None:
    """The thresholds beside a model, without what they say of the machine; None where there are
    none.  InputError where they are damaged, or another model's.
    """
    path = table_path(encoder.model, encoder.step)
    if path is None or not path.is_file():
        return None
    read_calibration(path).check_model(encoder)
    content = json.loads(path.read_text())
    content["model"] = Path(encoder.model).resolve().name
    return {key: value for key, value in content.items() if key != "command"}
