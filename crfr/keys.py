"""What every key of a config means, where its default comes from, and which numbers it takes."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

# key: (what it is, where its default comes from)
MEANINGS = {
    "method": ("baseline, bt-R, bt-m, st-R, st-m1 or st-m2, R in px", "sections 5, 6.2"),
    "seed": ("of all that is drawn", ""),
    "data": ("a source spec ([data.md](data.md))", ""),
    "init.weights": ("start from these ([finetune.md](finetune.md)); empty: at random", ""),
    "batch": ("images a step, over all devices", "section 3.1"),
    "epochs": ("passes over the data", "section 3.1"),
    "distance_weight": (
        "of the siamese methods; unset: the method's, 25 or 3",
        "eq. 7, section 6.2",
    ),
    "model.name": (
        "resnet50, resnet18, iresnet18, iresnet34, iresnet50, iresnet100 or tiny",
        "section 3.1",
    ),
    "model.version": (
        "of ResNet-50: v1 has its strides in the first 1x1, v1.5 in the 3x3",
        "Keras",
    ),
    "model.width": ("channels of the first stage; unset: the name's", "ResNet"),
    "model.head": (
        "E: BN, dropout, flatten, dense, BN; plain: flatten, dropout, dense",
        "ArcFace, option E; the paper's text is plain",
    ),
    "model.embedding": ("numbers an embedding", "section 3.1"),
    "model.dropout": ("rate of the head's dropout", "section 3.1"),
    "model.dtype": (
        "of activations: bfloat16, float32 or float64; parameters and statistics are float32",
        "",
    ),
    "model.input_mean": ("of R, G, B: a pixel enters as (x - mean) / std", "ArcFace"),
    "model.input_std": ("of R, G, B", "ArcFace"),
    "model.bn_group": ("images that share BatchNorm statistics; 0: the whole batch", "section 3.1"),
    "model.bn_epsilon": ("added to the variance", "PyTorch"),
    "model.bn_momentum": ("share of the running statistics that is kept", "PyTorch"),
    "model.bn_frozen": ("keep the running statistics and train with them", ""),
    "margin.name": ("arcface or cosface", "section 3.1"),
    "margin.scale": ("s, which multiplies the cosines", "ArcFace"),
    "margin.margin": ("m; unset: 0.5 rad for ArcFace, 0.35 for CosFace", "ArcFace, CosFace"),
    "margin.gradient": ("of ArcFace: true, or straight-through (InsightFace's)", ""),
    "softmax.sample": ("the part of the classes in a step ([scaling.md](scaling.md))", ""),
    "softmax.chunk": ("classes whose logits are held at a time; 0: all of a device", ""),
    "augment.crop": (
        "px of the grid of which 112 are cropped; 112: no crop",
        "section 3.1, no number",
    ),
    "augment.flip": ("mirror half of the images", "section 3.1"),
    "augment.brightness": (
        "added, up to this part of the range, both ways",
        "section 3.1, no number",
    ),
    "augment.saturation": ("factor 1 - s to 1 + s", "section 3.1, no number"),
    "optimizer.name": ("sgd (L2 before momentum) or adamw", "section 3.1"),
    "optimizer.momentum": ("of SGD; of AdamW's first moment", "ArcFace"),
    "optimizer.weight_decay": ("of kernels and the class matrix", "section 3.1"),
    "optimizer.decay_norm_and_bias": ("of BatchNorm and biases too", ""),
    "optimizer.rates.trunk": ("factor of the rate up to the features; 0 freezes them", ""),
    "optimizer.rates.head": ("factor of the rate of the layers that make the embedding", ""),
    "optimizer.rates.classes": ("factor of the rate of the class matrix", ""),
    "schedule.kind": ("steps or cosine", "section 3.1"),
    "schedule.learning_rate": ("before any drop", "section 3.1"),
    "schedule.drops": ("epochs after which the rate drops, of the kind steps", "section 3.1"),
    "schedule.factor": ("at each drop", "section 3.1"),
    "schedule.warmup_epochs": ("of a linear rise", ""),
    "run.log_every": ("steps", ""),
    "run.save_every": ("epochs; 0: only at the end", ""),
    "run.checkpoints": ("folder of the checkpoints, local or in a bucket; empty: WORKDIR's", ""),
    "run.keep": ("the latest checkpoints, and besides them:", ""),
    "run.keep_every": ("epochs: the first at or after each multiple, for ever; 0: none", ""),
    "run.keep_best": ("the most accurate on run.benchmark; 0: none", ""),
    "run.benchmark": ("a benchmark spec, verified at 112 px during training", "fig. 15"),
    "run.verify_every": ("epochs; 0: only at the end", "fig. 15"),
    "run.threads": ("that read and decode whole batches ahead", ""),
    "run.workers": ("processes that do so instead, each with run.threads threads", ""),
    "run.skip_unreadable": ("images that may fail to be read", ""),
    "run.eval_batch": ("images at a time in the verification", ""),
    "run.tensorboard": ("write its files too (extra tensorboard)", ""),
    "run.on_nan": (
        "stop, or skip steps whose loss or gradients are not finite "
        "([reliability.md](reliability.md))",
        "",
    ),
    "run.hang_after": ("seconds in one phase of a step, then exit code 75; 0: never", ""),
}


def _whole(low: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: v is None or v >= low, f"{low} or more"


def _between(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    end = f"{high:,}" if isinstance(high, int) else f"{high:g}"
    text = f"{low} or more" if high == math.inf else f"{low} to below {end}"
    return lambda v: v is None or low <= v < high, text


_POSITIVE = (lambda v: v is None or 0 < v < math.inf, "a positive number")
_THREE = (
    lambda v: len(v) == 3 and all(isinstance(e, int | float) for e in v),
    "three numbers, of R, G and B",
)
# key: (whether it takes a value, which it takes, in words)
LIMITS = {
    "seed": _between(0, 2**32),
    "batch": _whole(1),
    "epochs": _POSITIVE,
    "distance_weight": _between(0, math.inf),
    "model.width": _whole(1),
    "model.embedding": _whole(1),
    "model.input_mean": _THREE,
    "model.input_std": (lambda v: _THREE[0](v) and min(v) > 0, "three positive numbers"),
    "model.bn_group": _whole(0),
    "model.bn_epsilon": _POSITIVE,
    "model.bn_momentum": _between(0, 1),
    "margin.scale": _POSITIVE,
    "margin.margin": _between(0, math.pi),
    "softmax.sample": (lambda v: 0 < v <= 1, "a number above 0, to 1"),
    "softmax.chunk": _whole(0),
    "optimizer.momentum": _between(0, 1),
    "optimizer.weight_decay": _between(0, math.inf),
    "optimizer.rates.trunk": _between(0, math.inf),
    "optimizer.rates.head": _between(0, math.inf),
    "optimizer.rates.classes": _between(0, math.inf),
    "schedule.learning_rate": _POSITIVE,
    "schedule.drops": (
        lambda v: all(isinstance(e, int | float) and 0 < e < math.inf for e in v),
        "epochs above 0, as (9, 13), or () for none",
    ),
    "schedule.factor": _POSITIVE,
    "schedule.warmup_epochs": _between(0, math.inf),
    "run.log_every": _whole(1),
    "run.save_every": _between(0, math.inf),
    "run.keep": _whole(1),
    "run.keep_every": _between(0, math.inf),
    "run.keep_best": _whole(0),
    "run.verify_every": _between(0, math.inf),
    "run.threads": _whole(1),
    "run.workers": _whole(0),
    "run.skip_unreadable": _whole(0),
    "run.eval_batch": _whole(1),
    "run.on_nan": (lambda v: v in ("stop", "skip"), "stop or skip"),
    "run.hang_after": _between(0, math.inf),
    "run.checkpoints": (
        lambda v: not v or v.startswith(("/", "gs://")),
        "an absolute path, gs://BUCKET/FOLDER, or nothing for WORKDIR/checkpoints",
    ),
}


def key_table(values: Mapping[str, Any]) -> str:
    """A Markdown table of every key: its value, what it takes, what it is, and its source."""
    rows = ["| key | default | takes | what | from |", "|---|---|---|---|---|"]
    for key, (meaning, source) in MEANINGS.items():
        value = values[key]
        takes = LIMITS[key][1] if key in LIMITS else ""
        rows.append(f"| `{key}` | `{_shown(value)}` | {takes} | {meaning} | {source} |")
    return "\n".join(rows)


def key_lines(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """`KEY = VALUE  what it is`, a line each; those that are not the default's begin with *."""
    lines = []
    for key, (meaning, _) in MEANINGS.items():
        mark = " " if values[key] == defaults[key] else "*"
        plain = re.sub(r"\[.*?\]\((.*?)\)", r"docs/\1", meaning)
        lines.append(f"{mark} {f'{key} = {_shown(values[key])}':<44}  {plain}")
    return lines


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else '""'
