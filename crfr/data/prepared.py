"""Datasets that TensorFlow Datasets (TFDS) prepared, as sources.

TFDS reads their metadata: features, splits, shards.  The records are read without it, and nothing
needs TensorFlow, provided that the dataset was prepared as ArrayRecord.  Images stay encoded.
"""

import itertools
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from crfr.data.examples import Examples
from crfr.data.tfexample import DAMAGED, ExampleFiles, Shard
from crfr.errors import InputError, SpecError, one_line

# A folder with more entries is no parent of versions; one with a folder for each of 360,000
# identities must not be searched.
ENTRY_LIMIT = 100
SPEC = re.compile(r"([^:]+)(?::(\d+\.\d+\.\d+))?(?::(.+))?")


def is_prepared(path: Path) -> bool:
    """Whether TFDS prepared this folder, or versions of a dataset in it."""
    return bool(find_versions(path))


def find_versions(path: Path, depth: int = 3) -> list[Path]:
    """The folders with a dataset_info.json: `path`, or in it VERSION, CONFIG/VERSION and so on."""
    if (path / "dataset_info.json").is_file():
        return [path]
    if depth == 0 or not path.is_dir():
        return []
    with os.scandir(path) as entries:
        first = list(itertools.islice(entries, ENTRY_LIMIT + 1))
    if len(first) > ENTRY_LIMIT:
        return []
    folders = [Path(entry) for entry in first if entry.is_dir()]
    return sorted(found for folder in folders for found in find_versions(folder, depth - 1))


def open_prepared(spec: str) -> Examples:
    """The dataset of `find_prepared`, opened."""
    return open_folder(*find_prepared(spec))


def find_prepared(spec: str) -> tuple[Path, str | None]:
    """(folder, split) of a dataset that TFDS prepared as ArrayRecord.

        FOLDER                            with dataset_info.json, or the parent of one such folder
        tfds:NAME[/CONFIG][:VERSION]      in TFDS_DATA_DIR, or else ~/tensorflow_datasets
        tfds:FOLDER                       a path that begins with /, ./, ../ or ~

    After "tfds:..." may come ":SPLIT", any of TFDS's such as test or train[:80%]; the default is
    train, or the only one.  InputError says what to do where the dataset is missing.
    """
    name, version, split = spec, None, None
    if spec.startswith("tfds:"):
        match = SPEC.fullmatch(spec.removeprefix("tfds:"))
        if not match:
            raise InputError(f"{spec!r} is not tfds:NAME[:SPLIT]; write for example tfds:lfw:train")
        name, version, split = match.groups()
    named = spec.startswith("tfds:") and not name.startswith(("/", "./", "../", "~"))
    parent = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets") if named else ""
    root = Path(parent, name).expanduser()
    found = [p for p in find_versions(root) if version in (None, p.name)]
    if not found:
        where = f"{root} (set TFDS_DATA_DIR to look elsewhere)" if named else str(root)
        raise InputError(
            f"{spec}: no dataset that TFDS prepared{f', version {version},' if version else ''} in "
            f"{where}; {advice(name if named else 'NAME')}"
        )
    if len(found) > 1:
        raise InputError(
            f"{spec}: {root} holds several datasets: {', '.join(map(str, found))}; name one, as "
            f"tfds:{found[-1].resolve()}"
        )
    return found[0], split


def advice(name: str) -> str:
    """How a dataset becomes one that can be read here."""
    return (
        "prepare it once, with TensorFlow if need be: pip install 'crfr[tensorflow]', in Python "
        f"tensorflow_datasets.builder({name!r}).download_and_prepare(file_format='array_record')"
    )


def open_folder(folder: Path, split: str | None) -> Examples:
    """InputError says what to do where packages or shards are missing, or the dataset is of another
    format, or without one image and one label.
    """
    try:
        import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
        from google.protobuf.json_format import ParseError
    except ImportError as error:
        raise InputError(
            f"{folder}: reading it needs tensorflow_datasets ({error}); pip install 'crfr[tfds]'"
        ) from error
    try:
        info: Any = tfds.builder_from_directory(folder).info
        record_format = tfds.core.FileFormat.ARRAY_RECORD
        formats = info.available_file_formats()
        if record_format in formats and info.file_format != record_format:
            info.set_file_format(record_format, override=True, override_if_initialized=True)
    except ImportError as error:
        raise InputError(
            f"{folder}: its features need TensorFlow ({error}); pip install 'crfr[tensorflow]'"
        ) from error
    except (ValueError, OSError, KeyError, TypeError, ParseError) as error:
        raise InputError(
            f"{folder}: TFDS cannot read its dataset_info.json and features.json "
            f"({one_line(error):.200}); {DAMAGED}"
        ) from error
    if record_format not in formats:
        held = ", ".join(sorted(form.value for form in formats)) or "no known format"
        raise InputError(
            f"{folder}: is stored as {held}, which cannot be read by index without TensorFlow; "
            + advice(info.name)
        )
    image, label = pick_features(folder, info.features, tfds.features)
    feature = info.features[label]
    text = isinstance(feature, tfds.features.Text)
    # a ClassLabel may have been written before its classes were known
    known = isinstance(feature, tfds.features.ClassLabel) and feature.num_classes
    names = feature.names if known else None
    return Examples(open_split(folder, info.splits, split), image, label, names, text)


def pick_features(folder: Path, features: Any, kinds: Any) -> tuple[str, str]:
    """The names of the image and of the label among TFDS's `features`; `kinds` is tfds.features."""
    found = dict(features) if isinstance(features, kinds.FeaturesDict) else {"": features}

    def is_image(name: str) -> bool:
        # other pixels are not stored as 8-bit RGB or grey
        return isinstance(found[name], kinds.Image) and found[name].np_dtype == np.uint8

    def is_label(name: str) -> bool:
        feature = found[name]
        if isinstance(feature, kinds.ClassLabel):
            return True
        if name != "label" and "label" not in name.lower() and "identity" not in name.lower():
            return False
        number = feature.shape == () and np.issubdtype(feature.np_dtype, np.integer)
        return isinstance(feature, kinds.Text) or (isinstance(feature, kinds.Tensor) and number)

    chosen = []
    for default, fits in (("image", is_image), ("label", is_label)):
        names = [name for name in found if fits(name)]
        names = [default] if default in names else names
        if len(names) != 1:
            listed = ", ".join(f"{k}: {type(v).__name__}" for k, v in sorted(found.items()))
            raise InputError(
                f"{folder}: {len(names)} features may be the {default} ({listed}); needs one Image "
                "of uint8, named image or the only one, and one label: a ClassLabel, or an integer "
                "or Text with 'label' or 'identity' in its name"
            )
        chosen += names
    return chosen[0], chosen[1]


def open_split(folder: Path, splits: Any, split: str | None) -> ExampleFiles:
    """The records of a split of TFDS's `splits`, by default of train or the only one; SpecError for
    one that is not there or empty.
    """
    names = ", ".join(sorted(splits)) or "none"
    if split is None:
        split = next(iter(splits)) if len(splits) == 1 else "train"
        if split not in splits:
            whole = folder.resolve()
            raise SpecError(f"{folder}: no split train; name one of {names}: tfds:{whole}:SPLIT")
    try:
        parts = splits[split].file_instructions
    except (ValueError, KeyError) as error:
        what = one_line(error)
        raise SpecError(f"{folder}: no split {split!r} ({what:.200}); it has: {names}") from error
    if not parts:
        raise SpecError(f"{folder}: the split {split!r} is empty; it has: {names}")
    return ExampleFiles([Shard(p.filename, p.skip, p.take, p.examples_in_shard) for p in parts])
