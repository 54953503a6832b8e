"""The model card of a trained network: what it is, what it was made of, how well it does.

In the form of Mitchell et al., *Model Cards for Model Reporting* (2019), with the header that
Hugging Face reads.  What crfr has on record is stated; what only the owner can know is left to be
filled in, and says so.
"""

import json
from dataclasses import dataclass
from typing import Any

from crfr.report.breaks import break_sentences
from crfr.report.models import Model
from crfr.report.paper import display
from crfr.report.resolutions import chosen
from crfr.report.rows import PROTOCOLS, Row
from crfr.report.tables import MISSING, interval, percent
from crfr.use.statements import CITATION, CONSENT, CONTACT, FILL, GENERAL, LICENCE, USE
from crfr.views.degrade import SIDE

MOST = 10  # resolutions that a table shows


@dataclass(frozen=True)
class Subject:
    """What a card is of.

    config: with the names of its data and weights alone, without their folders.
    differences: keys of it -> (the paper's value, this run's).  starts: run.json.
    parameters: numbers in the backbone, which is the embedding network.  calibrated: whether
    thresholds lie beside it.
    """

    name: str
    step: int
    fingerprint: str
    config: dict[str, Any]
    differences: dict[str, tuple[Any, Any]]
    starts: list[dict[str, Any]]
    parameters: int
    calibrated: bool


def make_card(subject: Subject, model: Model, places: tuple[str, ...]) -> str:
    """The Markdown of a card; `model`: the sweeps of the subject, `places`: their benchmarks."""
    parts = [
        _header(subject, model, places),
        f"# {subject.name}",
        _details(subject),
        _data(subject),
        _recipe(subject),
        _provenance(subject),
        _results(model, places),
        _limits(model, places),
        USE,
        CONSENT,
        LICENCE,
        CITATION,
        CONTACT,
    ]
    return "\n\n".join(parts) + "\n"


def _header(subject: Subject, model: Model, places: tuple[str, ...]) -> str:
    """YAML, whose strings are written as JSON's."""
    lines = [
        "---",
        "license: unknown  # to be filled in by the owner",
        "library_name: crfr",
        "tags: [face-recognition, face-verification, cross-resolution, jax]",
        "model-index:",
        f"- name: {json.dumps(subject.name)}",
        "  results:",
    ]
    for place in places:
        lines += [
            "  - task: {type: face-verification}",
            f"    dataset: {{name: {json.dumps(place)}, type: {json.dumps(place)}}}",
            "    metrics:",
        ]
        curve = model.curve(place, "CR")
        for r in chosen(list(curve), MOST):
            name = json.dumps(f"cross-resolution accuracy at {r} px")
            value = f"{curve[r].accuracy:.4f}"
            lines.append(f"    - {{type: accuracy, name: {name}, value: {value}}}")
        for name in PROTOCOLS:
            if row := model.protocol(place, name):
                value = f"{row.accuracy:.4f}"
                lines.append(f"    - {{type: accuracy, name: {json.dumps(name)}, value: {value}}}")
    return "\n".join([*lines, "---"])


def _details(subject: Subject) -> str:
    settings = subject.config["model"]
    kept = "lie beside it (calibration.json)" if subject.calibrated else "have not been calibrated"
    return f"""## Model details

A face embedding network: an aligned face of 112 x 112 px gives {settings["embedding"]} numbers, and
the cosine distance of two embeddings says how unlike two faces are. It was trained with crfr, which
studies how recognition falls with the resolution of the images.

| | |
|---|---|
| method | {display(subject.config["method"])} |
| network | {settings["name"]}, {subject.parameters:,} parameters |
| input | RGB 0..255, normalised as (x - {_numbers(settings["input_mean"])}) / {_numbers(settings["input_std"])} |
| step | {subject.step} |
| fingerprint of the weights | `{subject.fingerprint}` |
| thresholds | {kept} |"""  # noqa: E501


def _numbers(values: list[float]) -> str:
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else f"[{', '.join(texts)}]"


def _data(subject: Subject) -> str:
    last = subject.starts[-1]
    weights = subject.config["init"]["weights"]
    from_them = f"from `{_cell(weights)}` (fingerprint `{subject.starts[0]['weights']}`)"
    return f"""## Training data

| | |
|---|---|
| source | `{_cell(subject.config["data"])}` |
| images | {last["images"]:,} |
| identities | {last["classes"]:,} |
| weights at the start | {from_them if weights else "drawn at random"} |

Who collected these images, with whose consent and under which terms: {FILL}.
How the people in them are spread over age, sex and origin: unknown, {FILL}."""


def _recipe(subject: Subject) -> str:
    if not subject.differences:
        return "## Training\n\nThe recipe of the paper (crfr's defaults), unchanged."
    rows = "\n".join(
        f"| `{key}` | {_value(paper)} | {_value(here)} |"
        for key, (paper, here) in subject.differences.items()
    )
    return f"""## Training

The recipe of the paper (crfr's defaults), but for

| key | paper | here |
|---|---|---|
{rows}"""


def _value(value: Any) -> str:
    return "unset" if value in (None, "") else f"`{_cell(json.dumps(value))}`"


def _cell(text: str) -> str:
    """Text in a cell of a table, which a | would end."""
    return text.replace("|", "\\|")


def _provenance(subject: Subject) -> str:
    rows = []
    for start in subject.starts:
        packages = ("crfr", "jax", "flax")
        versions = ", ".join(f"{n} {start['versions'].get(n, 'unknown')}" for n in packages)
        devices = _cell(f"{start['devices']['count']} x {start['devices']['kind']}")
        commit = f"`{start['commit']}`" if start["commit"] else "unknown"
        rows.append(
            f"| {start['started']} | {start['step']} | {devices} | {commit} | {versions} |\n"
        )
    return f"""## Provenance

| started | from step | devices | commit of crfr | versions |
|---|---|---|---|---|
{"".join(rows).rstrip()}"""


def _results(model: Model, places: tuple[str, ...]) -> str:
    first = next(iter(model.cells.values()), None) or next(iter(model.drawn.values()))
    extra = ", embeddings of an image and its mirror image added" if first.flip else ""
    texts = [
        f"""## Results

Accuracy of verification in %, with 95 % intervals: 10 folds, the threshold that is best on nine is
scored on the tenth ({first.thresholds} thresholds). An image is reduced to the resolution and
enlarged again ({first.degradation}{extra}). CR compares it with one of 112 px, ER with one of the
same resolution."""
    ]
    for place in places:
        curves = {name: model.curve(place, name) for name in ("CR", "ER")}
        resolutions = chosen(sorted({r for curve in curves.values() for r in curve}), MOST)
        rows = [
            f"| {r} px | {_accuracy(curves['CR'].get(r))} | {_accuracy(curves['ER'].get(r))} |\n"
            for r in reversed(resolutions)
        ]
        pairs = next(row.pairs for row in _rows(model, place))
        texts.append(f"### {place}, {pairs:,} pairs")
        if rows:
            texts.append("| resolution | CR | ER |\n|---|---|---|\n" + "".join(rows).rstrip())
        drawn = [(name, model.protocol(place, name)) for name in PROTOCOLS]
        lines = [
            f"| {name} | {_accuracy(row)} | {row.drawn}, {row.draws} |\n"
            for name, row in drawn
            if row
        ]
        if lines:
            head = "| protocol, 112 px against | accuracy | whose draw, draws |\n|---|---|---|\n"
            texts.append(head + "".join(lines).rstrip())
    return "\n\n".join(texts)


def _rows(model: Model, place: str) -> list[Row]:
    return [
        row for (name, *_), row in (*model.cells.items(), *model.drawn.items()) if name == place
    ]


def _accuracy(row: Row | None) -> str:
    if row is None:
        return MISSING
    spread = interval(row.accuracy_low, row.accuracy_high)
    return f"{percent(row.accuracy)} ({spread})" if spread else percent(row.accuracy)


def _limits(model: Model, places: tuple[str, ...]) -> str:
    lines = []
    for place in places:
        curve = model.curve(place, "CR")
        if curve:
            top = max(curve)
            wrong = percent(1 - curve[top].accuracy)
            at = "with both images" if top == SIDE else f"of an image of {SIDE} px and one"
            lines.append(
                f"- On {place} it decides {wrong} % of the pairs wrongly, {at} at {top} px."
            )
            lines += [
                f"- {text}" for text in break_sentences(model, place, f"the model in CR on {place}")
            ]
    if not lines:
        lines = ["- Where accuracy falls with resolution was not measured."]
    return "\n".join(["## Limits", "", *lines, *GENERAL])
