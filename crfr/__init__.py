"""crfr: cross-resolution face recognition in JAX.

The public names are imported when first used: `import crfr` costs no JAX start-up.
"""

import importlib

_PUBLIC = {
    "degrade": "crfr.views.degrade",
    "arcface_logits": "crfr.model.margin",
    "kfold_accuracy": "crfr.evaluate.verification",
    "open_source": "crfr.data.records",
    "load_benchmark": "crfr.data.benchmarks",
    "load": "crfr.apply",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'crfr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
