"""The flags of the commands that hand a model on: export, card."""

from pathlib import Path

from crfr.arguments import Flags, folder, need, parse, string


def export(arguments: list[str]) -> None:
    """Write a model for another runtime: ONNX, StableHLO or a SavedModel."""

    def define(values: Flags) -> None:
        string(values, "model", None, "WORKDIR[@STEP].")
        string(values, "format", None, "onnx, stablehlo or saved_model.")
        string(values, "out", None, "FILE.onnx, FILE.stablehlo, or a new folder.")
        string(values, "input", "uint8", "Type of the pixels that it takes: uint8 or float32.")
        text = "Check on images of this benchmark; by default on procedural faces."
        string(values, "check-benchmark", "", text)

    values = parse("export", arguments, define)
    need("export", values, "model", "format", "out", "input")
    from crfr import publish

    publish.export(
        values.model,
        values.format,
        folder("out", values.out),
        pixels=values.input,
        benchmark=values["check-benchmark"].value or "",
    )


def card(arguments: list[str]) -> None:
    """Write the model card of a trained model from its sweeps."""

    def define(values: Flags) -> None:
        string(values, "model", None, "WORKDIR[@STEP].")
        string(values, "sweep", None, "Folders of its sweeps, DIR[,DIR...].")
        string(values, "out", "MODEL_CARD.md", "The card.")

    values = parse("card", arguments, define)
    need("card", values, "model", "sweep", "out")
    sweeps = [Path(name) for name in values.sweep.split(",")]
    from crfr import publish

    publish.card(values.model, sweeps, folder("out", values.out))
