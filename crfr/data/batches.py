"""The stream of training batches: a pure function of (seed, step), on Grain.

Shuffle, repeat, then batch: an epoch is a permutation of all images, batches cross epoch ends and
no tail is lost.  Any number of processes reads the same global batches, and a run resumes at any
step with no state.
"""

from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int32, UInt8

from crfr.data.records import Source, read_example
from crfr.errors import InputError

Batch = dict[str, UInt8[np.ndarray, "b h w c"] | Int32[np.ndarray, " b"]]


class _Examples:
    """A source with its images decoded and checked."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict:
        example = read_example(self.source, index)
        return {"image": example["image"], "label": np.int32(example["label"])}


def train_batches(
    source: Source,
    *,
    batch: int,
    seed: int,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    threads: int = 4,
) -> Iterator[Batch]:
    """An endless stream of this process's part of each global batch, from step `start` + 1 on.

    Args:
      source: the images and labels.
      batch: the size of the global batch; every process yields batch / processes examples a step.
      seed: of the shuffling; every epoch has a permutation of its own, over the whole source.
      start: finished steps to pass over, at no cost.
      threads: readers that decode ahead, in this process.

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
    examples = grain.MapDataset.source(_Examples(source)).shuffle(seed=seed).repeat()
    batches = examples.batch(batch // processes, drop_remainder=True)[process::processes][start:]
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(batches.to_iter_dataset(reading))
