"""Embeddings on disk: FOLDER/R.npy, float32 [n d], of a benchmark's distinct images at R px.

Rows of NaN stand for images that nothing has asked for yet.  A file is written whole or not at all,
so that a killed sweep goes on with what it had finished.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int

from crfr import environment
from crfr.errors import InputError


def resolutions(folder: Path) -> list[int]:
    """The resolutions (px) at which embeddings are kept, rising."""
    return sorted(int(path.stem) for path in folder.glob("*.npy") if path.stem.isdecimal())


def load(folder: Path, resolution: int, images: int) -> Float32[np.ndarray, "n d"] | None:
    """The embeddings at a resolution (px), mapped from the file; None where there is none.

    InputError for a file that is no such array.
    """
    path = folder / f"{resolution}.npy"
    if not path.exists():
        return None
    try:
        kept = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: {error}; delete it: the sweep makes it again") from error
    if kept.dtype != np.float32 or kept.ndim != 2 or len(kept) != images:
        raise InputError(
            f"{path}: {kept.dtype} {list(kept.shape)}, not float32 [{images} d]; delete it: the "
            "sweep makes it again"
        )
    return kept.view(np.ndarray)  # indexing a memmap costs several times as much


def present(folder: Path, resolution: int, images: int) -> Bool[np.ndarray, " n"]:
    """Which images have an embedding at a resolution (px)."""
    kept = load(folder, resolution, images)
    return np.zeros(images, bool) if kept is None else np.isfinite(kept[:, 0])


def add(
    folder: Path,
    resolution: int,
    images: int,
    which: Int[np.ndarray, " m"],
    embeddings: Float32[np.ndarray, "m d"],
) -> None:
    """Write the embeddings of some images at a resolution (px), keeping those of the others."""
    kept = load(folder, resolution, images)
    if kept is None:
        whole = np.full((images, embeddings.shape[1]), np.nan, np.float32)
    elif kept.shape[1] != embeddings.shape[1]:
        raise InputError(
            f"{folder / f'{resolution}.npy'}: embeddings of {kept.shape[1]} numbers, the model "
            f"gives {embeddings.shape[1]}: they are another model's; choose another --out"
        )
    else:
        whole = np.array(kept)
    whole[which] = embeddings
    buffer = io.BytesIO()
    np.save(buffer, whole)
    folder.mkdir(parents=True, exist_ok=True)
    environment.write_atomically(folder / f"{resolution}.npy", buffer.getvalue())
