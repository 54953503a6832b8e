"""A model put to use: images of any size -> embeddings, distances and decisions."""

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from crfr.environment import cores
from crfr.errors import InputError
from crfr.evaluate.embed import Embed, embed_work, make_embed
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.exported import held_calibration
from crfr.use.decide import Decision, decide
from crfr.use.detect import load_detector
from crfr.use.faces import (
    Face,
    Faces,
    Image,
    Images,
    cosine_distance,
    join,
    listed,
    pick,
    prepare,
)
from crfr.use.thresholds import Calibration, parse_calibration, read_calibration

BATCH = 64  # images at once


@dataclass(frozen=True)
class Model:
    """What `crfr.load` returns.

    encoder: what makes the embeddings.  table: where its thresholds lie (crfr calibrate), or None.
    """

    encoder: Encoder
    table: Path | None
    mesh: Mesh = field(repr=False)
    run: Embed = field(repr=False)  # float32 pixels [b 112 112 3] -> unit embeddings

    @functools.cached_property
    def _held(self) -> tuple[Path, dict] | None:
        return held_calibration(self.encoder.model)

    @property
    def calibrated(self) -> bool:
        """Whether there are thresholds."""
        return (self.table is not None and self.table.exists()) or self._held is not None

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The thresholds beside the model, or else those that an exported file brings; InputError
        where there are none, or another model's.
        """
        if self.table is None or not self.table.exists():
            if held := self._held:
                # export took them for this network alone, and the file's digest holds them to it
                return parse_calibration(*held)
            place = f" ({self.table} does not exist)" if self.table else ""
            raise InputError(
                f"{self.encoder.model}: has no thresholds{place}; make them with crfr calibrate "
                f"--model={self.encoder.model} --benchmark=..."
            )
        found = read_calibration(self.table)
        found.check_model(self.encoder)
        return found

    def embed(
        self,
        images: Images,
        *,
        align: str | os.PathLike | ArrayLike | None = None,
        resolution: ArrayLike | None = None,
    ) -> Faces:
        """Embed images of any size, each at the resolution that it has.

        Args:
          images: one or several: arrays uint8 RGB [n h w 3] or [h w 3], lists of such of different
            sizes, images of Pillow, paths of image files, lists of these.
          align: None for crops that are aligned already, which are resized to 112 px by antialiased
            bicubic.  For photos the path of a YuNet model, which finds the (largest) face, or its
            landmarks [n 5 2] (x, y) in px of the upright photo, after it is turned as its EXIF
            says: eyes, tip of the nose, corners of the mouth, left to right as seen.
          resolution: px, one or n, where it is known better than from the size: of crops that were
            enlarged before.  By default the shorter side of an aligned crop, or the side of the
            aligned square in the photo; both at most 112.

        Raises:
          InputError: an image that cannot be read, no face in a photo, a model that gives no finite
          embedding.

        >>> import crfr, numpy as np
        >>> model = crfr.load("runs/tiny")
        >>> crops = [np.full((20, 20, 3), 90, np.uint8), np.full((300, 250, 3), 160, np.uint8)]
        >>> faces = model.embed(crops)
        >>> faces.embedding.shape, faces.embedding.dtype, faces.resolution.tolist()
        ((2, 16), dtype('float32'), [20.0, 112.0])
        >>> faces.names, faces.notes[1]
        (('image 0', 'image 1'), ('250 x 300 px are not square, squeezed',))
        """
        items = listed(images)
        count = len(items)
        detector, points = None, None
        if isinstance(align, str | os.PathLike):
            detector = load_detector(align)
        elif align is not None:
            points = np.asarray(align, np.float64)
            points = points[None] if points.ndim == 2 else points
            if points.shape != (count, 5, 2):
                raise InputError(
                    f"landmarks of shape {list(points.shape)} for {count} images; give [n 5 2]"
                )
        sizes = None
        if resolution is not None:
            sizes = np.asarray(resolution, np.float64)
            if sizes.shape not in {(), (count,)}:
                raise InputError(f"{list(sizes.shape)} resolutions for {count} images; one or n")
            sizes = np.broadcast_to(sizes, count)

        def work(number: int) -> Face:
            return prepare(
                *items[number],
                detector=detector,
                points=None if points is None else points[number],
                resolution=None if sizes is None else float(sizes[number]),
            )

        parts: list[Faces] = []
        with ThreadPoolExecutor(cores()) as threads:
            for start in range(0, count, BATCH):
                faces = list(threads.map(work, range(start, min(start + BATCH, count))))
                part, failed = self.embed_faces(faces)
                for name, why in failed.items():
                    raise InputError(f"{name}: {why}")
                parts.append(part)
        if not parts:
            raise InputError("no images: give at least one")
        return join(parts)

    def embed_faces(self, faces: Sequence[Face]) -> tuple[Faces, dict[str, str]]:
        """A batch of prepared faces, embedded; those without a finite embedding are left out, and
        the second is their name -> why.
        """
        pixels = np.stack([face.pixels for face in faces])
        every = np.arange(len(faces))
        batch = min(BATCH, 1 << (len(faces) - 1).bit_length())  # few shapes, each compiled once
        results: Iterator[tuple[slice, np.ndarray]] = embed_work(
            self.run,
            pixels,
            every,
            np.full(len(faces), 112),
            mesh=self.mesh,
            batch=batch,
            pad=self.encoder.network is not None,
        )
        embedding = np.concatenate([part for _, part in results])
        length = np.linalg.norm(np.where(np.isfinite(embedding), embedding, 0), axis=1)
        good = np.flatnonzero(np.isfinite(embedding).all(1) & (length > 0))
        found = Faces(
            embedding,
            np.array([face.resolution for face in faces], np.float32),
            np.array([-1 if face.found is None else face.found for face in faces], np.int32),
            tuple(face.name for face in faces),
            tuple(face.notes for face in faces),
        )
        why = (
            f"{self.encoder.model} gives an embedding that is not finite or zero; it has diverged "
            "or is fed wrongly"
        )
        failed = {faces[row].name: why for row in np.setdiff1d(every, good)}
        return (pick(found, good.tolist()) if failed else found), failed

    def distance(
        self,
        a: Image | Faces,
        b: Image | Faces,
        *,
        align: str | os.PathLike | None = None,
    ) -> float:
        """The cosine distance 1 - cos (paper eq. 2) of two faces, in 0..2: images as `embed` takes
        them, or embedded faces.

        >>> import crfr, numpy as np
        >>> model = crfr.load("runs/tiny")
        >>> face = np.full((40, 40, 3), 90, np.uint8)
        >>> round(model.distance(face, face), 6)
        0.0
        """
        first, second = self._one(a, align), self._one(b, align)
        return cosine_distance(first.embedding[0], second.embedding[0])

    def verify(
        self,
        a: Image | Faces,
        b: Image | Faces,
        *,
        align: str | os.PathLike | None = None,
        far: float | None = None,
    ) -> Decision:
        """Whether two faces are one person's, by the threshold for their two resolutions.

        `far`: at this false accept rate, one of those that were calibrated; by default at the best
        accuracy.  Nothing is decided (`same` is None, `reason` says why) where a resolution is
        outside the calibrated range.  InputError as `embed`, and where the model has no thresholds.

        >>> import crfr, numpy as np
        >>> model = crfr.load("runs/tiny")
        >>> small, large = np.full((14, 14, 3), 90, np.uint8), np.full((112, 112, 3), 90, np.uint8)
        >>> decision = model.verify(small, large)
        >>> decision.resolution, decision.same
        ((14.0, 112.0), True)
        >>> model.verify(small[:4, :4], large).reason
        '4 px is outside the calibrated 7..112 px'
        """
        first, second = self._one(a, align), self._one(b, align)
        pair = float(first.resolution[0]), float(second.resolution[0])
        distance = cosine_distance(first.embedding[0], second.embedding[0])
        return decide(self.calibration, distance, pair, far)

    def _one(self, image: Image | Faces, align: str | os.PathLike | None) -> Faces:
        faces = image if isinstance(image, Faces) else self.embed(image, align=align)
        if len(faces) != 1:
            raise InputError(f"{len(faces)} faces where one is compared; give faces[i]")
        return faces


def make_model(encoder: Encoder, mesh: Mesh, table: Path | None = None) -> Model:
    """A model of an encoder; `table`: where its thresholds lie."""
    return Model(encoder, table, mesh, make_embed(encoder, mesh, variant=None))
