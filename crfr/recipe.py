"""The config: the paper's recipe as the default of every key, and the arguments of config files."""

import json
from typing import Any

from ml_collections import ConfigDict, config_dict

from crfr.errors import InputError, unknown
from crfr.keys import LIMITS
from crfr.views.methods import parse_method

Config = Any  # a ConfigDict, whose keys no type checker knows


def recipe() -> Config:
    """Every key with the paper's value (section 3.1) where it states one.

    What each key means stands in keys.py, and `crfr config` shows it.  Keys under `run` may change
    between two starts of one run; all others are part of what it is.
    """
    config = ConfigDict(
        {
            "method": "baseline",
            "seed": 0,
            "data": "faces",
            "init": {"weights": ""},
            "batch": 128,
            "epochs": 16.0,
            "distance_weight": config_dict.placeholder(float),
            "model": {
                "name": "resnet50",
                "version": "v1",
                "width": config_dict.placeholder(int),
                "head": "E",
                "embedding": 512,
                "dropout": 0.5,
                "dtype": "bfloat16",
                "input_mean": (127.5, 127.5, 127.5),
                "input_std": (127.5, 127.5, 127.5),
                "bn_group": 128,
                "bn_epsilon": 1e-5,
                "bn_momentum": 0.9,
                "bn_frozen": False,
            },
            "margin": {
                "name": "arcface",
                "scale": 64.0,
                "margin": config_dict.placeholder(float),
                "gradient": "true",
            },
            "softmax": {
                "sample": 1.0,
                "chunk": 0,
            },
            "augment": {"crop": 128, "flip": True, "brightness": 0.4, "saturation": 0.4},
            "optimizer": {
                "name": "sgd",
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "decay_norm_and_bias": False,
                "rates": {"trunk": 1.0, "head": 1.0, "classes": 1.0},
            },
            "schedule": {
                "kind": "steps",
                "learning_rate": 0.01,
                "drops": (9, 13),
                "factor": 0.1,
                "warmup_epochs": 0.0,
            },
            "run": {
                "log_every": 50,
                "save_every": 1.0,
                "checkpoints": "",
                "keep": 3,
                "keep_every": 0.0,
                "keep_best": 0,
                "benchmark": "",
                "verify_every": 1.0,
                "threads": 4,
                "workers": 0,
                "skip_unreadable": 0,
                "eval_batch": 256,
                "tensorboard": False,
                "on_nan": "stop",
                "hang_after": 1800.0,
            },
        }
    )
    return config.lock()  # a key that is not above cannot be set


def defaults() -> dict[str, Any]:
    """The recipe as a nested dict of JSON values."""
    return json.loads(recipe().to_json())


def check_config(config: Config) -> None:
    """Raises InputError for keys that are not the recipe's, numbers out of range, and keys that
    would do nothing; most names are checked where they are used.
    """
    if set(getattr(config, "keys", tuple)()) != set(recipe().keys()):
        raise InputError(
            f"--config: returns no config of crfr.recipe ({type(config).__name__}); begin with "
            "config = crfr.recipe.recipe(), as configs/bt_m.py"
        )
    for key, (allowed, text) in LIMITS.items():
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
