"""Training images and labels by index, whatever holds them."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from crfr.data import faces
from crfr.data.images import decode
from crfr.data.packs import Pack
from crfr.errors import InputError, unknown


@runtime_checkable
class Source(Protocol):
    classes: int  # labels are 0..classes-1

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict:
        """{"image": encoded bytes or uint8 [h w 3], "label": int}; the image is not decoded."""
        ...

    def where(self, index: int) -> str:
        """Names the item, by file and key, in error messages."""
        ...

    def identity(self, label: int) -> str:
        """The name of a label's identity: its folder's, or else the label."""
        ...


def open_source(spec: str) -> Source:
    """The source named by `spec`: a path to a `.rec`, or `faces[:identities=N,images=N,seed=S]`.

    InputError for a spec or path that names nothing, and for a pack whose files contradict each
    other.  Labels and images are checked when they are read: a pack may hold 5.8 million.
    """
    kind = spec.partition(":")[0]
    if kind == "faces":
        settings = faces.parse_faces(spec, identities=150, images=16, seed=0)
        return faces.Faces(split="train", **settings)
    if spec.endswith(".rec") or Path(spec).is_dir():
        return Pack(spec)
    if Path(spec).exists():
        raise InputError(f"{spec}: is not a pack; name its .rec file, or 'faces'")
    raise unknown("source", kind, ["faces", "a path ending in .rec"])


def read_example(source: Source, index: int, size: int = 112) -> dict:
    """{"image": uint8 [size size 3] RGB, "label": int}; InputError for any other image."""
    where, example = source.where(index), source[index]
    image = decode(example["image"], where)
    if image.shape != (size, size, 3):
        height, width = image.shape[:2]
        raise InputError(
            f"{where}: the image is {width}x{height} px (width x height), not {size}x{size}; "
            f"align the faces and crop them to {size} px before packing"
        )
    return {"image": image, "label": example["label"]}
