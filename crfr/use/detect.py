"""Faces and their five landmarks in photos, found by YuNet in OpenCV (cv2.FaceDetectorYN).

The model is a file that the user brings (OpenCV Zoo: face_detection_yunet_2023mar.onnx).  YuNet
sees faces of some 10 to 300 px.  A photo is therefore shown to it reduced to SIDES[0] px, where a
face that fills it has the right size, and only if none is found there at the larger SIDES.
"""

import functools
import hashlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from crfr.data.recordio import require_file
from crfr.errors import InputError, one_line

SIDES = (640, 1600, 4000)  # px of the longer side
YUNET = "take face_detection_yunet_2023mar.onnx of the OpenCV Zoo"
LEAST_SCORE, OVERLAP, MOST = 0.6, 0.3, 5000  # of cv2.FaceDetectorYN; two boxes over OVERLAP are one


class Found(NamedTuple):
    points: Float64[np.ndarray, "5 2"]  # (x, y) in px of the photo, in the template's order
    count: int  # faces found at the scale of this one, which is the largest of them


@dataclass(frozen=True)
class Detector:
    """A YuNet model; safe to share among threads, which wait for each other."""

    path: Path
    fingerprint: str  # of the file
    net: Any = field(repr=False)
    lock: Any = field(repr=False)


def load_detector(path: str | os.PathLike) -> Detector:
    """YuNet from its ONNX file; InputError where there is none, or no OpenCV."""
    file = require_file(path)
    about = file.stat()
    return _load(file, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=2)
def _load(file: Path, *_: int) -> Detector:
    """Once for a file as it is, however often it is named."""
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"{file}: finding faces needs OpenCV, which cannot be imported ({error}); pip install "
            "'crfr[align]', or give aligned crops"
        ) from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    try:
        logging.setLogLevel(logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns of its own settings
        net = cv2.FaceDetectorYN.create(str(file), "", (320, 320), LEAST_SCORE, OVERLAP, MOST)
        detector = Detector(file, digest, net, threading.Lock())
        _detect(detector, np.zeros((320, 320, 3), np.uint8), 320)  # other networks fail only here
    except cv2.error as error:
        raise InputError(
            f"{file}: OpenCV {cv2.__version__} cannot load it as a YuNet detector "
            f"({one_line(error)}); {YUNET}"
        ) from error
    finally:
        logging.setLogLevel(level)
    return detector


def find_face(detector: Detector, photo: UInt8[np.ndarray, "h w 3"], where: str) -> Found:
    """The landmarks of the largest face (by the area of its box); InputError without any.

    Of the first scale that shows a face: smaller ones, which a larger scale would show, are not
    counted.
    """
    for side in SIDES:
        boxes = _detect(detector, photo, side)
        if len(boxes):
            largest = boxes[np.argmax(boxes[:, 2] * boxes[:, 3])]
            return Found(largest[4:14].reshape(5, 2), len(boxes))
        if max(photo.shape[:2]) <= side:
            break
    height, width = photo.shape[:2]
    raise InputError(
        f"{where}: no face found ({width} x {height} px); give a photo with a face of 10 px or "
        "more, its landmarks, or an aligned crop without a detector"
    )


def _detect(
    detector: Detector, photo: UInt8[np.ndarray, "h w 3"], side: int
) -> Float64[np.ndarray, "m 15"]:
    """x, y, width, height, five points (x, y) and score a face, in px of the photo reduced to
    `side`, brought back to the photo's own.
    """
    import cv2  # pyright: ignore[reportMissingImports]

    height, width = photo.shape[:2]
    share = min(1.0, side / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    reduced = photo
    if share < 1:
        reduced = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    with detector.lock:
        try:
            detector.net.setInputSize(size)
            found = detector.net.detect(np.ascontiguousarray(reduced[..., ::-1]))[1]  # takes BGR
        except cv2.error as error:
            raise InputError(
                f"{detector.path}: OpenCV {cv2.__version__} cannot find faces by it in "
                f"{size[0]} x {size[1]} px ({one_line(error)}); {YUNET}"
            ) from error
    if found is None:
        return np.zeros((0, 15))
    boxes = found.astype(np.float64)
    scale = np.array([width / size[0], height / size[1]])
    boxes[:, 0:4] *= np.tile(scale, 2)
    boxes[:, 4:14] = (boxes[:, 4:14] + 0.5) * np.tile(scale, 5) - 0.5
    return boxes[np.isfinite(boxes).all(1)]
