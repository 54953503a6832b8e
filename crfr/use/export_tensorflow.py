"""A network as a TensorFlow SavedModel, by JAX's own bridge (jax.experimental.jax2tf)."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from crfr.errors import InputError
from crfr.evaluate.foreign import Foreign, as_embeddings
from crfr.use.export_jax import PLATFORMS, SIZES, Inference

INPUT, OUTPUT = "images", "embedding"
EXTRA = "assets.extra"  # the folder of a SavedModel that TensorFlow leaves alone
SERVED = "serving_default"


def import_tensorflow() -> tuple[Any, Any]:
    """(tensorflow, jax2tf); InputError where one of them is not there."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells of itself at length
    try:
        import tensorflow
        from jax.experimental import jax2tf
    except ImportError as error:
        raise InputError(
            f"--format=saved_model: needs TensorFlow and JAX's jax2tf ({error}); pip install "
            "tensorflow-cpu, or export --format=onnx, which needs neither"
        ) from error
    return tensorflow, jax2tf


def write_saved_model(
    embed: Inference, embedding: int, pixels: str, metadata: dict[str, Any], folder: Path
) -> None:
    """Write `embed` as a SavedModel: `images` [b h w 3] -> `embedding` float32 [b d], under the
    signature serving_default; the metadata lie in assets.extra/metadata.json.
    """
    tensorflow, jax2tf = import_tensorflow()
    converted = jax2tf.convert(
        embed,
        polymorphic_shapes=[SIZES],
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )
    kind = tensorflow.TensorSpec([None, None, None, 3], np.dtype(pixels), INPUT)

    def serve(images: Any) -> dict[str, Any]:
        return {OUTPUT: tensorflow.ensure_shape(converted(images), [None, embedding])}

    module = tensorflow.Module()
    module.serve = tensorflow.function(serve, autograph=False, input_signature=[kind])
    tensorflow.saved_model.save(module, str(folder), signatures={SERVED: module.serve})
    (folder / EXTRA).mkdir()
    (folder / EXTRA / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")


def load_saved_model(folder: Path, pixels: str) -> Foreign:
    """The embeddings of a SavedModel of crfr, run by TensorFlow."""
    tensorflow, _ = import_tensorflow()
    loaded = tensorflow.saved_model.load(str(folder))
    function = loaded.signatures[SERVED]

    def embed(images: np.ndarray) -> Float32[np.ndarray, "b d"]:
        result = function(**{INPUT: tensorflow.constant(images)})[OUTPUT].numpy()
        return as_embeddings(str(folder), result, len(images))

    digest = hashlib.sha256((folder / "saved_model.pb").read_bytes()).hexdigest()[:16]
    return Foreign(embed, pixels, digest, f"TensorFlow {tensorflow.__version__}")
