"""The config: the paper's recipe as the default of every key, and the arguments of config files."""

import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict, config_dict

from crfr.errors import InputError, unknown
from crfr.views.methods import parse_method

Config = Any  # a ConfigDict, whose keys no type checker knows


def recipe() -> Config:
    """Every key with the paper's value (section 3.1) where it states one.

    Keys under `run` may change between two starts of one run; all others are part of what it is.
    """
    config = ConfigDict(
        {
            "method": "baseline",  # baseline, bt-R, bt-m, st-R, st-m1, st-m2
            "seed": 0,
            "data": "faces",  # a source spec
            "init": {"weights": ""},  # start from these (docs/finetune.md); empty: at random
            "batch": 128,  # images a step, over all devices
            "epochs": 16.0,
            "distance_weight": config_dict.placeholder(float),  # unset: the method's (25 or 3)
            "model": {
                "name": "resnet50",  # resnet50, resnet18, iresnet18|34|50|100, tiny
                "version": "v1",  # of ResNet-50.  v1: stride in the first 1x1; v1.5: in the 3x3
                "width": config_dict.placeholder(
                    int
                ),  # channels of the first stage; unset: the name's
                "head": "E",  # E: BN-dropout-flatten-dense-BN; plain: flatten-dropout-dense
                "embedding": 512,
                "dropout": 0.5,
                "dtype": "bfloat16",  # of activations; parameters and statistics are float32
                "input_mean": (127.5, 127.5, 127.5),
                "input_std": (127.5, 127.5, 127.5),
                "bn_group": 128,  # images that share BatchNorm statistics; 0: the whole batch
                "bn_epsilon": 1e-5,
                "bn_momentum": 0.9,
                "bn_frozen": False,  # keep the running statistics and train with them
            },
            "margin": {
                "name": "arcface",  # arcface, cosface
                "scale": 64.0,
                "margin": config_dict.placeholder(
                    float
                ),  # unset: 0.5 for ArcFace, 0.35 for CosFace
                "gradient": "true",  # true, straight-through (InsightFace's)
            },
            "softmax": {  # docs/scaling.md
                "sample": 1.0,  # the part of the classes that takes part in a step
                "chunk": 0,  # classes whose logits are held at a time; 0: all of a device
            },
            "augment": {"crop": 128, "flip": True, "brightness": 0.4, "saturation": 0.4},
            "optimizer": {
                "name": "sgd",  # sgd, adamw
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "decay_norm_and_bias": False,
                # factors of the learning rate of each part; 0 freezes it.  trunk: up to the
                # features; head: the layers that make the embedding; classes: the class matrix
                "rates": {"trunk": 1.0, "head": 1.0, "classes": 1.0},
            },
            "schedule": {
                "kind": "steps",  # steps, cosine
                "learning_rate": 0.01,
                "drops": (9, 13),  # epochs, of the kind "steps"
                "factor": 0.1,  # at each drop
                "warmup_epochs": 0.0,
            },
            "run": {
                "log_every": 50,  # steps
                "save_every": 1.0,  # epochs; 0: only at the end
                "checkpoints": "",  # their folder, local or in a bucket; empty: WORKDIR's
                "keep": 3,  # the latest checkpoints, and besides them:
                "keep_every": 0.0,  # epochs: the first at or after each multiple, for ever; 0: none
                "keep_best": 0,  # the most accurate on `benchmark`; 0: none
                "benchmark": "",  # a benchmark spec, verified at 112 px during training (fig. 15)
                "verify_every": 1.0,  # epochs
                "threads": 4,  # that read and decode whole batches ahead
                "workers": 0,  # processes that do so instead, each with `threads` threads
                "skip_unreadable": 0,  # images that may fail to be read
                "eval_batch": 256,
                "tensorboard": False,
                "on_nan": "stop",  # stop, skip: a step whose loss or gradients are not finite
                "hang_after": 1800.0,  # seconds in one phase of a step, then exit code 75; 0: never
            },
        }
    )
    return config.lock()  # a key that is not above cannot be set


def _whole(low: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: v is None or v >= low, f"{low} or more"


def _between(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    return lambda v: v is None or low <= v < high, f"{low} to below {high:g}"


_POSITIVE = (lambda v: v is None or 0 < v < math.inf, "a positive number")
_THREE = (
    lambda v: len(v) == 3 and all(isinstance(e, int | float) for e in v),
    "three numbers, of R, G and B",
)
_LIMITS = {
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
        lambda v: not v or v.startswith(("/", "gs://", "s3://")),
        "an absolute path, gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, or nothing for WORKDIR's own",
    ),
}


def check_config(config: Config) -> None:
    """Raises InputError for keys that are not the recipe's, numbers out of range, and keys that
    would do nothing; most names are checked where they are used.
    """
    if set(getattr(config, "keys", tuple)()) != set(recipe().keys()):
        raise InputError(
            f"--config: returns no config of crfr.recipe ({type(config).__name__}); begin with "
            "config = crfr.recipe.recipe(), as configs/bt_m.py"
        )
    for key, (allowed, text) in _LIMITS.items():
        value = config
        for name in key.split("."):
            value = value[name]
        if not allowed(value):
            raise InputError(f"--config.{key}={value}: give {text}")
    if not any(config.optimizer.rates.values()):
        raise InputError("--config.optimizer.rates: all are 0, so nothing would be trained")
    if config.model.bn_frozen and not config.init.weights:
        raise InputError(
            "--config.model.bn_frozen=True: there are no statistics to keep without "
            "--config.init.weights"
        )
    method, s = parse_method(config.method), config.schedule
    if config.distance_weight is not None and len(method.views) == 1:
        raise InputError(
            f"--config.distance_weight={config.distance_weight}: {config.method} has no distance "
            "term; leave it unset"
        )
    if s.kind == "steps" and s.drops and max(s.drops) >= config.epochs:
        raise InputError(
            f"--config.schedule.drops={s.drops}: those from epoch {config.epochs:g} on never come; "
            "give drops within the training, or () for none"
        )


def shrink(config: Config) -> Config:
    """The `quick` form of a config: the tiny network on a small set, for a CPU and a few minutes.

    Short training wants a gentler margin and an optimizer that needs no long schedule: ArcFace with
    s = 16 and m = 0.3, AdamW with a cosine.  Cross-entropy shrinks with s, and so does the weight
    of the distance, which the paper chose to balance it: a quarter of the method's.
    """
    method = parse_method(config.method)
    if len(method.views) > 1:
        config.distance_weight = method.distance_weight / 4
    config.update(
        {
            "batch": 64,
            "epochs": 12.0,
            "model": {"name": "tiny", "dtype": "float32", "dropout": 0.2, "bn_group": 64},
            "margin": {"scale": 16.0, "margin": 0.3},
            "augment": {"brightness": 0.1, "saturation": 0.2},
            "optimizer": {"name": "adamw", "weight_decay": 0.05},
            "schedule": {"kind": "cosine", "learning_rate": 3e-3, "warmup_epochs": 1.0},
            "run": {"benchmark": "faces", "verify_every": 3.0, "save_every": 3.0, "log_every": 25},
        }
    )
    return config


def parse_argument(file: str, argument: str | None, **defaults: int | bool | str) -> dict[str, Any]:
    """What follows the colon of `--config=FILE:ARGUMENT`: comma-separated `name=VALUE` or a flag's
    name.

    `defaults` are the names the file knows, each with a value of its type: a whole number, a text
    or a flag.  Raises InputError for any other.

    >>> parse_argument("bt.py", "r=5,quick", r=7, quick=False)
    {'r': 5, 'quick': True}
    """
    values, seen = dict(defaults), set()
    for part in filter(None, (argument or "").split(",")):
        name, equals, value = part.partition("=")
        if name not in defaults:
            raise unknown(f"argument of {file}", name, defaults)
        if name in seen:
            raise InputError(f"{file}:{argument}: {name} is given twice")
        seen.add(name)
        if isinstance(defaults[name], bool):
            if equals:
                raise InputError(f"{file}:{part}: {name} takes no value")
            values[name] = True
        elif isinstance(defaults[name], str):
            if not value:
                raise InputError(
                    f"{file}:{part}: {name} takes a value, as in {name}={defaults[name]}"
                )
            values[name] = value
        elif not (value.isascii() and value.isdecimal()):
            raise InputError(f"{file}:{part}: {name} takes a whole number, as in {name}=7")
        else:
            values[name] = int(value)
    return values
