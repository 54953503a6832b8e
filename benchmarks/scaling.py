"""The model of speed of docs/scaling.md: what a step would take on devices that are not there.

    JAX_PLATFORMS=cpu python benchmarks/scaling.py

Memory is by `crfr bench memory`'s formulas, of ResNet-50 in bfloat16 (baseline, d = 512, SGD);
times are by the assumptions below, none of which is measured.  BatchNorm's groups are those of the
recipe, or a device's images where these are fewer.
"""

from typing import NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType

from crfr.bench.memory import bytes_of, formula
from crfr.commands import plan_training
from crfr.model.norm import AXIS
from crfr.model.sampling import sample_size
from crfr.recipe import recipe
from crfr.train.state import padded_classes
from crfr.train.step import view_bank

FLOPS = 200e12  # bfloat16 products a second, of the convolutions and of the head
LINK = 50e9  # bytes a second that a device sends, while it receives as many
IMAGE = 6.2e9  # FLOP of the backbone's step for an image at 112 px
CHUNK, SAMPLE = 16384, 0.1
FORMS = {"plain": (0, 1.0), "chunked": (CHUNK, 1.0), "sampled": (0, SAMPLE)}  # chunk, sample
SIZES = (  # devices, identities, images a step
    (1, 100_000, 128),
    (8, 1_000_000, 1024),
    (64, 10_000_000, 4096),
    (1024, 10_000_000, 16384),
    (1024, 100_000_000, 16384),
    (1024, 100_000_000, 8192),
)


class Times(NamedTuple):
    """Seconds of a step, one after another."""

    backbone: float
    head: float
    communication: float


def times(devices: int, batch: int, rows: int, width: int, reduced: int, chunked: bool) -> Times:
    """Of one branch, where `rows` classes of a device take part; docs/scaling.md has the bytes.

    `reduced`: bytes of the backbone's gradients and of BatchNorm's running statistics.
    """
    products = 8 if chunked else 6  # logits once more
    ring = (devices - 1) / devices
    embeddings = 4 * batch * width
    sent = 2 * ring * reduced  # all-reduce
    sent += ring * embeddings  # all-gather
    sent += (1 if chunked else 2) * ring * embeddings  # their gradient: reduce-scatter, all-reduce
    sent += 2 * ring * 16 * batch + 4 * batch  # softmax, labels
    return Times(
        IMAGE * batch / devices / FLOPS, products * batch * width * rows / FLOPS, sent / LINK
    )


def line(devices: int, classes: int, batch: int, form: str) -> tuple[float, Times]:
    """(bytes of a device, times) of a softmax of FORMS."""
    config = recipe()
    config.batch = batch
    config.model.bn_group = min(config.model.bn_group, batch // devices)
    config.softmax.chunk, config.softmax.sample = FORMS[form]
    mesh = AbstractMesh((devices,), (AXIS,), axis_types=(AxisType.Auto,))
    _, state, settings, _ = plan_training(config, classes, lambda _: 0.0, mesh)
    bank = jax.eval_shape(
        lambda: view_bank(settings.method.resolutions, settings.augmentation.crop)
    )
    memory = sum(formula(config, state, settings, bank, devices).values())
    rows = padded_classes(classes, devices) // devices
    if config.softmax.sample < 1:
        rows = sample_size(rows, config.softmax.sample, batch)
    reduced = bytes_of(state.params["backbone"]) + bytes_of(state.batch_stats)
    return memory, times(
        devices, batch, rows, config.model.embedding, reduced, bool(config.softmax.chunk)
    )


def row(devices: int, classes: int, batch: int, form: str) -> str:
    """A line of the table."""
    memory, spans = line(devices, classes, batch, form)
    shown = " | ".join(f"{1000 * span:.1f}" for span in spans)
    return (
        f"| {devices:,} | {classes:,} | {batch:,} | {form} | {memory / 2**30:.1f} | {shown} | "
        f"{batch / sum(spans):,.0f} |"
    )


def main() -> None:
    names = ("n", "k", "B", "softmax", "GiB a device", "backbone ms", "head ms")
    print(f"| {' | '.join(names)} | communication ms | images/s |")
    print("|" + "---|" * 9)
    for size in SIZES:
        for form in FORMS:
            print(row(*size, form))


if __name__ == "__main__":
    main()
