"""The stream of training batches: a pure function of (seed, step), on Grain.

Shuffle, repeat, then batch: an epoch is a permutation of all images (of the whole set, not of a
window), batches cross epoch ends and no tail is lost.  Any number of processes and threads reads
the same global batches, and a run resumes at any step with no state.

What is shuffled and batched are indices; a thread then reads a whole batch.  Threads serve, for
file reads, libjpeg and copies work without the interpreter's lock: `crfr bench input` measures them
against processes.  Memory: 37.6 kB an image, times batch, times the `2 * threads + 1` batches that
are read ahead or being read.
"""

from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int32, UInt8

from crfr.data.records import Source, Unreadable, read_batch
from crfr.errors import InputError

Batch = dict[str, UInt8[np.ndarray, "b h w c"] | Int32[np.ndarray, " b"]]


class _Reader:
    """Indices -> the batch; a class, so that it can be sent to a process."""

    def __init__(self, source: Source, skip_unreadable: int):
        self.source = source
        self.skip_unreadable = skip_unreadable
        self.unreadable = Unreadable(skip_unreadable)

    def __call__(self, indices: np.ndarray) -> Batch:
        images, labels = read_batch(self.source, indices, self.unreadable)
        return {"image": images, "label": labels}

    def __reduce__(self) -> tuple:
        return _Reader, (self.source, self.skip_unreadable)


def train_batches(
    source: Source,
    *,
    batch: int,
    seed: int,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    threads: int = 4,
    workers: int = 0,
    skip_unreadable: int = 0,
) -> Iterator[Batch]:
    """An endless stream of this process's part of each global batch, from step `start` + 1 on.

    Args:
      source: the images and labels.
      batch: the size of the global batch; every process yields batch / processes examples a step.
      seed: of the shuffling; every epoch has a permutation of its own, over the whole source.
      start: finished steps to pass over, at no cost.
      threads: readers of whole batches ahead, in this process.
      workers: processes that read instead, each with `threads` threads; 0 is none.
      skip_unreadable: images that may fail to be read (a worker counts its own); the next one that
        can be read stands in.

    Yields:
      {"image": uint8 [b h w 3] RGB, "label": int32 [b]}

    Raises:
      InputError: the batch does not divide by the processes, or the source holds fewer images than
      a batch;
        while reading, an image that does not decode or has the wrong size.
    """
    if batch % processes:
        raise InputError(f"batch {batch} does not divide by {processes} processes: give a multiple")
    if len(source) < batch:
        raise InputError(
            f"{len(source)} images are less than a batch of {batch}: give a smaller batch"
        )
    indices = grain.MapDataset.range(len(source)).shuffle(seed=seed).repeat()
    batches = indices.batch(batch // processes, drop_remainder=True)[process::processes][start:]
    read = batches.map(_Reader(source, skip_unreadable))
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    stream = read.to_iter_dataset(ahead)
    if workers:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(stream)
