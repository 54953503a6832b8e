"""The network and the optimizer of a config."""

from typing import Any

import optax
from ml_collections import ConfigDict

from crfr.model import resnet
from crfr.recipe import Config
from crfr.train.state import make_optimizer


def build(config: Config, span: int, rate: optax.Schedule) -> tuple[Any, Any]:
    """(network, optimizer) of a config; `span` is the number of devices a BatchNorm group spans."""
    settings = {n: value for n, value in config.model.items() if n not in ("bn_group", "bn_frozen")}
    network = resnet.build(**settings, bn_span=span)
    return network, make_optimizer(learning_rate=rate, **config.optimizer.to_dict())


def build_for_evaluation(values: dict[str, Any]) -> Any:
    """The network of a saved config, in float32 whatever it was trained in."""
    config: Config = ConfigDict(values)
    config.model.dtype = "float32"
    return build(config, 1, lambda _: 0.0)[0]
