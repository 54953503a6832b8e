"""Writes small RecordIO packs and images for tests, by the format's specification and not by the
reader's code."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)


def part(flag: int, data: bytes) -> bytes:
    return MAGIC + struct.pack("<I", flag << 29 | len(data)) + data + bytes(-len(data) % 4)


def split(payload: bytes) -> bytes:
    """The record of a payload: in one part, or split where the magic stands at a multiple of 4."""
    cuts = [at for at in range(0, len(payload) // 4 * 4, 4) if payload[at : at + 4] == MAGIC]
    pieces, begin = [], 0
    for cut in cuts:
        pieces.append(payload[begin:cut])
        begin = cut + 4
    pieces.append(payload[begin:])
    if len(pieces) == 1:
        return part(0, payload)
    flags = [1] + [2] * (len(pieces) - 2) + [3]
    return b"".join(part(flag, piece) for flag, piece in zip(flags, pieces, strict=True))


def payload(body: bytes, label: float = 0.0, labels: tuple = (), key: int = 0) -> bytes:
    """A header, labels where there are several, and the body."""
    header = struct.pack("<IfQQ", len(labels), label, key, 0)
    return header + struct.pack(f"<{len(labels)}f", *labels) + body


def write_records(path: Path, payloads: dict[int, bytes]) -> Path:
    """PATH.rec and PATH.idx, in the order of `payloads`."""
    records, lines = b"", ""
    for key, data in payloads.items():
        lines += f"{key}\t{len(records)}\n"
        records += split(data)
    path.write_bytes(records)
    path.with_suffix(".idx").write_text(lines)
    return path


def write_insightface(
    folder: Path, people: list[list[bytes]], with_property: bool = True, vector: bool = False
) -> Path:
    """Images of each person in `people`, as InsightFace packs them: key 0 last in the files."""
    payloads, spans, key = {}, [], 1
    for label, images in enumerate(people):
        spans.append((key, key + len(images)))
        for image in images:
            if vector:
                payloads[key] = payload(image, labels=(label, 0.5), key=key)
            else:
                payloads[key] = payload(image, label, key=key)
            key += 1
    first = key
    for span in spans:
        payloads[key] = payload(b"", labels=span, key=key)
        key += 1
    payloads[0] = payload(b"", labels=(first, key))
    if with_property:
        (folder / "property").write_text(f"{len(people)},112,112")
    return write_records(folder / "train.rec", payloads)


def picture(seed: int, size: int = 112) -> np.ndarray:
    """uint8 [size size 3]: smooth, as JPEG likes it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def encode(image: np.ndarray, form: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, form, **options)
    return file.getvalue()


def with_magics(jpeg: bytes) -> bytes:
    """The same image with a comment that holds the magic at every alignment, twice in a row too."""
    comment = MAGIC + MAGIC + b"1" + MAGIC + b"2" + MAGIC + b"3" + MAGIC + MAGIC + b"4"
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]
