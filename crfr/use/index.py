"""An index of faces on disk: what `crfr embed` leaves and `crfr search` reads.

`FILE.npz` needs nothing but NumPy; `FILE.parquet` (with pyarrow) is for other programs.  Both hold
the same columns and the same record of how they were made (docs/architecture.md, "An index").
Names of files are bytes, and need not be UTF-8: the columns have them as text with \\xNN in the
place of what is not, and as bytes where that matters.
"""

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from crfr import environment
from crfr.data.recordio import require_file
from crfr.errors import InputError, one_line, printable
from crfr.evaluate.encoders import Encoder
from crfr.use.faces import Faces

SCHEMA = 1
ENDINGS = (".npz", ".parquet")
COLUMNS = ("embedding", "resolution", "found", "path", "path_bytes", "notes")
AGAIN = "make it again with crfr embed"
# what NumPy and pyarrow (whose errors are of these too) raise; an encrypted or strangely packed zip
# archive is a RuntimeError or a NotImplementedError
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Index:
    """paths: of the images.  about: the record of how it was made."""

    embedding: Float32[np.ndarray, "n d"]
    resolution: Float32[np.ndarray, " n"]  # px
    paths: list[bytes]
    about: dict[str, Any]

    def check_model(self, encoder: Encoder, file: Path) -> None:
        """InputError where another model made it: its distances would mean nothing."""
        theirs = self.about["model_fingerprint"]
        if theirs != encoder.fingerprint:
            step = f"@{self.about['step']}" if self.about["step"] is not None else ""
            raise InputError(
                f"{file}: was made by another model ({self.about['model']}{step}, fingerprint "
                f"{theirs}, not {encoder.fingerprint}); search it with that one, or {AGAIN}"
            )

    def check_detector(self, fingerprint: str | None, file: Path) -> None:
        """InputError where its faces were found by another detector (None: by none) than that of
        `fingerprint`: two crops of one face do not embed alike.
        """
        theirs = self.about.get("detector_fingerprint")
        if theirs == fingerprint:
            return
        if fingerprint is None:
            raise InputError(
                f"{file}: was made with a detector (fingerprint {theirs}), and the query is not to "
                "be: give that one by --detector=FILE"
            )
        if theirs is None:
            raise InputError(
                f"{file}: was made without a detector, of aligned crops, and the query is a photo: "
                f"give an aligned crop without --detector, or {AGAIN} --detector=FILE"
            )
        raise InputError(
            f"{file}: was made with another detector (fingerprint {theirs}, not {fingerprint}); "
            f"give that one by --detector=FILE, or {AGAIN}"
        )


def check_ending(file: Path) -> None:
    """InputError for a name that no index has, and for a parquet without pyarrow."""
    if file.suffix not in ENDINGS:
        raise InputError(f"{file}: an index is called FILE.npz or FILE.parquet")
    if file.suffix == ".parquet":
        _pyarrow(file)


def shown(path: bytes) -> str:
    """A file's name as text that can be written anywhere, in one line."""
    return printable(path.decode(errors="backslashreplace"))


def write_index(file: Path, faces: Faces, about: dict[str, Any]) -> None:
    """Write faces, named by their paths, and the record `about` of how they were made."""
    paths = [os.fsencode(name) for name in faces.names]
    texts = [shown(path) for path in paths]
    notes = ["; ".join(note) for note in faces.notes]
    record = json.dumps({"schema": SCHEMA, **about})
    with environment.replacing(file) as stream:
        if file.suffix == ".npz":
            np.savez(
                stream,
                embedding=faces.embedding,
                resolution=faces.resolution,
                found=faces.found,
                path=np.array(texts),
                # one block and the ends in it: bytes in an array of NumPy lose their final zeros
                path_bytes=np.frombuffer(b"".join(paths), np.uint8),
                path_ends=np.cumsum([len(path) for path in paths], dtype=np.int64),
                notes=np.array(notes),
                about=np.array(record),
            )
            return
        pyarrow, parquet = _pyarrow(file)
        width = faces.embedding.shape[1]
        flat = pyarrow.array(faces.embedding.ravel())
        columns = {
            "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, width),
            "resolution": pyarrow.array(faces.resolution),
            "found": pyarrow.array(faces.found),
            "path": pyarrow.array(texts),
            "path_bytes": pyarrow.array(paths, pyarrow.binary()),
            "notes": pyarrow.array(notes),
        }
        table = pyarrow.table(columns).replace_schema_metadata({"crfr": record})
        parquet.write_table(table, stream)


def read_index(file: Path) -> Index:
    """InputError for a file that is missing, damaged or no index."""
    require_file(file)
    check_ending(file)
    try:
        found = _read_npz(file) if file.suffix == ".npz" else _read_parquet(file)
        about = json.loads(found.pop("about"))
        sound = about["schema"] == SCHEMA and {"model", "step", "model_fingerprint"} <= {*about}
        index = Index(found["embedding"], found["resolution"], found["paths"], about)
        sound &= index.embedding.ndim == 2 and index.embedding.dtype == np.float32
        sound &= index.resolution.shape == (len(index.embedding),) == (len(index.paths),)
        sound = sound and bool(np.isfinite(index.resolution).all() and index.resolution.min() > 0)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{file}: is no index ({one_line(error)}); {AGAIN}") from error
    if not sound:
        raise InputError(f"{file}: its columns do not fit together; {AGAIN}")
    return index


def _read_npz(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        block, ends = arrays["path_bytes"].tobytes(), arrays["path_ends"].tolist()
        return {
            "embedding": arrays["embedding"],
            "resolution": arrays["resolution"],
            "paths": [block[a:b] for a, b in zip([0, *ends], ends, strict=False)],
            "about": str(arrays["about"]),
        }


def _read_parquet(file: Path) -> dict[str, Any]:
    _, parquet = _pyarrow(file)
    table = parquet.read_table(str(file), memory_map=True)
    embedding = table.column("embedding").combine_chunks()
    return {
        "embedding": embedding.flatten().to_numpy().reshape(len(table), -1),
        "resolution": table.column("resolution").to_numpy(),
        "paths": table.column("path_bytes").to_pylist(),
        "about": (table.schema.metadata or {})[b"crfr"],
    }


def _pyarrow(file: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{file}: Parquet needs pyarrow, which cannot be imported ({error}); pip install "
            "'crfr[parquet]', or take FILE.npz"
        ) from error
    return pyarrow, pyarrow.parquet
