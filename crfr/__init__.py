"""crfr: cross-resolution face recognition in JAX.

The public names are imported when first used: `import crfr` costs no JAX start-up.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what the names below are, for type checkers
    from crfr.apply import load as load
    from crfr.data.benchmarks import load_benchmark as load_benchmark
    from crfr.data.records import open_source as open_source
    from crfr.evaluate.verification import kfold_accuracy as kfold_accuracy
    from crfr.model.margin import arcface_logits as arcface_logits
    from crfr.views.degrade import degrade as degrade

_PUBLIC = {
    "degrade": "crfr.views.degrade",
    "arcface_logits": "crfr.model.margin",
    "kfold_accuracy": "crfr.evaluate.verification",
    "open_source": "crfr.data.records",
    "load_benchmark": "crfr.data.benchmarks",
    "load": "crfr.apply",
}

__all__ = [
    "arcface_logits",
    "degrade",
    "kfold_accuracy",
    "load",
    "load_benchmark",
    "open_source",
]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'crfr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
