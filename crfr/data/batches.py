"""The stream of training batches: a pure function of (seed, step), on Grain.

Shuffle, repeat, then batch: an epoch is a permutation of all images (of the whole set, not of a
window), batches cross epoch ends and no tail is lost.  Any number of processes and threads reads
the same global batches, and a run resumes at any step with no state.

Grain counts the batches and runs the threads; a thread draws the indices of a whole batch and reads
it.  (Grain's own shuffle() and batch() yield the same indices one by one and keep the interpreter's
lock meanwhile, for a tenth of the time that a JPEG takes.)  Threads suffice, because file reads,
libjpeg and copies run without the lock: `crfr bench input` measures them against processes.
Memory: 37.6 kB an image, times batch, times the `2 * threads + 1` batches that are read ahead or
being read.
"""

import hashlib
from collections.abc import Iterator

import grain
import numpy as np
from grain.experimental import index_shuffle
from jax.profiler import TraceAnnotation
from jaxtyping import Int, Int32, UInt8

from crfr.data.records import Source, Unreadable, read_batch
from crfr.errors import InputError

ENDLESS = 2**40  # steps
SAMPLE = 16  # images that stand for a source
AHEAD = "reading a batch ahead"  # as the readers' work is called in a profile
Batch = dict[str, UInt8[np.ndarray, "b h w c"] | Int32[np.ndarray, " b"]]


def shuffled(count: int, seed: int, start: int, stop: int) -> Int[np.ndarray, " b"]:
    """The indices at the places `start` to `stop` - 1 of all epochs behind one another, each a
    permutation of 0..count - 1 of its own.
    """
    places = (divmod(place, count) for place in range(start, stop))
    drawn = [
        index_shuffle(place, max_index=count - 1, seed=(seed + epoch) % 2**32, rounds=4)
        for epoch, place in places
    ]
    return np.array(drawn, np.int64)


def sample_digest(source: Source, skip_unreadable: int = 0) -> str:
    """What tells a source from another one, by the counts and a few images and labels: a hash."""
    indices = np.linspace(0, len(source) - 1, min(SAMPLE, len(source))).astype(np.int64)
    images, labels = read_batch(source, indices, Unreadable(skip_unreadable))
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16]
    return f"{len(source)} images, {source.classes} identities, {digest}"


class _Reader:
    """The number of a batch -> the batch; a class, so that it can be sent to a process."""

    def __init__(self, source: Source, batch: int, seed: int, skip_unreadable: int):
        self.arguments = source, batch, seed, skip_unreadable
        self.unreadable = Unreadable(skip_unreadable)

    def __call__(self, number: int) -> Batch:
        source, batch, seed, _ = self.arguments
        indices = shuffled(len(source), seed, number * batch, (number + 1) * batch)
        with TraceAnnotation(AHEAD):
            images, labels = read_batch(source, indices, self.unreadable)
        return {"image": images, "label": labels}

    def __reduce__(self) -> tuple:
        return _Reader, self.arguments


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
      process, processes: which of how many this is.
      threads: readers of whole batches ahead, in this process.
      workers: processes that read instead, each with `threads` threads; 0 is none.
      skip_unreadable: images that may fail to be read (a worker counts its own); the next one that
        can be read stands in.

    Yields:
      {"image": uint8 [b h w 3] RGB, "label": int32 [b]}

    Raises:
      InputError: the batch does not divide by the processes, or the source holds fewer images than
        a batch; while reading, an image that does not decode or has the wrong size.
    """
    if batch % processes:
        raise InputError(f"batch {batch} does not divide by {processes} processes: give a multiple")
    if len(source) < batch:
        raise InputError(
            f"{len(source)} images are less than a batch of {batch}: give a smaller batch"
        )
    first = start * processes + process
    numbers = grain.MapDataset.range(first, first + ENDLESS * processes, processes)
    read = numbers.map(_Reader(source, batch // processes, seed, skip_unreadable))
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    stream = read.to_iter_dataset(ahead)
    if workers:
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(stream)
