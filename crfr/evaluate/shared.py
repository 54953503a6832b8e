"""A sweep in several processes: process 0 decides what is embedded and keeps it, all embed it.

The others need the model and the benchmarks, and see nothing of the folder of results.
"""

import zlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all
from jax.sharding import Mesh
from jaxtyping import Float32, Int

from crfr.data.benchmarks import Benchmark
from crfr.evaluate.embed import Embed, embed_work

END = 0  # in the place of a batch


def embed_all(
    embed: Embed,
    benchmark: Benchmark,
    which: Int[np.ndarray, " m"],
    resolutions: Int[np.ndarray, " m"],
    *,
    mesh: Mesh,
    batch: int,
    pad: bool = True,
) -> Iterator[tuple[slice, Float32[np.ndarray, "b d"]]]:
    """As `embed_work` for images of a benchmark, with the help of the processes that `follow`."""
    if jax.process_count() > 1:
        _send(batch, _name(benchmark), which, resolutions)
    return embed_work(embed, benchmark.images, which, resolutions, mesh=mesh, batch=batch, pad=pad)


def release() -> None:
    """Let the processes that `follow` go: nothing more is to be embedded."""
    if jax.process_count() > 1:
        nothing = np.zeros(0, np.int32)
        _send(END, 0, nothing, nothing)


def follow(embed: Embed, benchmarks: Sequence[Benchmark], *, mesh: Mesh) -> None:
    """Embed whatever process 0 embeds, until it lets this process go."""
    named = {_name(benchmark): benchmark for benchmark in benchmarks}
    while True:
        batch, name, count = broadcast_one_to_all(np.zeros(3, np.int32)).tolist()
        if batch == END:
            return
        which, resolutions = broadcast_one_to_all(np.zeros((2, count), np.int32))
        for _ in embed_work(embed, named[name].images, which, resolutions, mesh=mesh, batch=batch):
            pass


def _send(batch: int, name: int, which: np.ndarray, resolutions: np.ndarray) -> None:
    broadcast_one_to_all(np.array([batch, name, len(which)], np.int32))
    if batch != END:
        broadcast_one_to_all(np.stack([which, resolutions]).astype(np.int32))


def _name(benchmark: Benchmark) -> int:
    """A number that stands for a benchmark in every process."""
    return zlib.crc32(benchmark.name.encode()) & 0x7FFFFFFF
