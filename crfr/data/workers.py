"""The threads of `crfr convert`, which write the shards of one conversion."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from crfr import environment
from crfr.data.records import Source, Unreadable, read_example
from crfr.data.selection import Selection
from crfr.data.writers import WRITERS
from crfr.errors import InputError


class Stopped(Exception):
    """Another shard has failed."""


class _Fetched:
    """A source that reads each image once, though both its bytes and its pixels are asked for."""

    def __init__(self, source: Source, index: int):
        self.example, self.classes = source[index], source.classes
        self.where, self.identity = source.where, source.identity

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        return self.example


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("no object")
        return value
    except ValueError as error:
        raise InputError(
            f"{path}: not JSON ({error}); delete the folder and convert again"
        ) from error


class Shards:
    """All shards of one conversion, written by several threads."""

    def __init__(
        self,
        source: Source,
        selection: Selection,
        out: Path,
        format: str,
        shard_images: int,
        unreadable: Unreadable,
    ):
        self._source, self._selection, self._unreadable = source, selection, unreadable
        self._out, self._writer = out, WRITERS[format]
        indices = selection.indices
        self._pieces = np.split(indices, range(shard_images, len(indices), shard_images))
        self._stop, self._lock = threading.Event(), threading.Lock()

    def write(self, workers: int) -> list[dict[str, Any]]:
        """Write what is missing; of each shard {"count", "files", "encodings", "unreadable"}."""
        done = {number: self._finished(number) for number in range(len(self._pieces))}
        for shard in filter(None, done.values()):
            self._unreadable.found |= {e["index"]: e["error"] for e in shard["unreadable"]}
        found, limit = len(self._unreadable.found), self._unreadable.limit
        if found > limit:
            raise InputError(
                f"{self._out}: its finished shards lack {found} unreadable images, more than the "
                f"{limit} to tolerate; go on with --skip-unreadable={found} or delete the folder"
            )
        missing = [number for number, shard in done.items() if shard is None]
        total = len(self._selection.indices)
        with (
            tqdm(
                total=total,
                initial=total - sum(len(self._pieces[number]) for number in missing),
                desc=f"writing {self._out}",
                unit=" images",
                disable=None,
            ) as self._progress,
            ThreadPoolExecutor(workers) as pool,
        ):
            futures = {pool.submit(self._write, number): number for number in missing}
            try:
                for future in as_completed(futures):
                    done[futures[future]] = future.result()
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
        return [shard for shard in done.values() if shard]

    def _sidecar(self, number: int) -> Path:
        return self._out / f"shard-{number:05d}-of-{len(self._pieces):05d}.json"

    def _finished(self, number: int) -> dict[str, Any] | None:
        """What an earlier call has noted of a shard, if its files are whole."""
        if not self._sidecar(number).is_file():
            return None
        shard = read_json(self._sidecar(number))
        for file in shard["files"].values():
            path = self._out / file["name"]
            if not path.is_file() or path.stat().st_size != file["bytes"]:
                return None
        return shard

    def _write(self, number: int) -> dict[str, Any]:
        writer = self._writer(self._out, number, len(self._pieces))
        unreadable = []
        try:
            for index in self._pieces[number].tolist():
                if self._stop.is_set():
                    raise Stopped
                try:
                    fetched = _Fetched(self._source, index)
                    image = read_example(fetched, index)["image"]
                    label = self._label(fetched, index)
                except InputError as error:
                    self._unreadable.add(index, error)
                    unreadable.append({"index": index, "error": str(error)})
                else:
                    writer.add(fetched.example["image"], image, label)
                with self._lock:
                    self._progress.update()
            files = writer.finish()
        except BaseException:
            writer.discard()
            raise
        shard = {
            "count": len(self._pieces[number]) - len(unreadable),
            "files": files,
            "encodings": dict(writer.encodings),
            "unreadable": unreadable,
        }
        environment.write_json(self._sidecar(number), shard)
        return shard

    def _label(self, fetched: _Fetched, index: int) -> int:
        label = int(self._selection.labels[fetched.example["label"]])
        if label < 0:
            raise InputError(
                f"{fetched.where(index)}: label {fetched.example['label']} was not among the "
                "labels read before; do not change the source while it is converted"
            )
        return label
