"""The model card: its figures are the sweep's and the run's, and the rest is left to the owner."""

import json

import numpy as np
import pytest
from sweeps import CALL, write_lines, write_sweep

from crfr import environment, main, publish
from crfr.errors import InputError
from crfr.evaluate.encoders import Encoder
from crfr.model import resnet
from crfr.recipe import recipe

ACCURACY = {7: 0.705, 14: 0.91, 112: 0.965}  # in CR; in ER one point more below 112 px
START = {
    "started": "2026-03-01T09:30:00+00:00",
    "step": 0,
    "command": "crfr train --config=configs/bt_m.py --workdir=runs/bt-m",
    "commit": "0123abc",
    "versions": CALL["versions"],
    "devices": {"count": 2, "kind": "NVIDIA H100"},
    "classes": 85742,
    "images": 5822653,
    "weights": None,
}


def sweep_of(folder, method="bt-m", benchmarks=("lfw",), **settings):
    """A sweep whose accuracies are known by hand, with intervals of one point to both sides."""
    write_sweep(folder, method, resolutions=tuple(ACCURACY), protocols={"published": 1},
                benchmarks=benchmarks, samples=False, side=False, **settings)  # fmt: skip
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        value = ACCURACY.get(row["resolution"], 0.8)
        value += 0.01 * (row["scenario"] == "ER" and row["resolution"] < 112)
        row |= {"accuracy": value, "accuracy_low": value - 0.01, "accuracy_high": value + 0.01}
    write_lines(folder / "rows.jsonl", rows)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A work directory, and its model as it would be loaded."""
    workdir = tmp_path / "my-run"
    workdir.mkdir()
    config = recipe()
    config.method, config.data = (
        "bt-m",
        "/home/me/ms1m/train.rec+https://me:s3cret@host/b|c.rec?k=1",
    )
    config.batch, config.margin.margin = 64, 0.3
    environment.write_json(workdir / "config.json", json.loads(config.to_json()))
    environment.write_json(workdir / "run.json", [START, START | {"step": 500, "commit": None}])
    params = {"a": np.zeros((300, 4)), "b": np.zeros(34)}
    network, digest = resnet.build("tiny"), "fedcbt-mruns/bt-m"  # that of the made-up sweep
    encoder = Encoder(str(workdir), 2000, "bt-m", network, {"params": params}, digest)
    monkeypatch.setattr(publish, "load_encoder", lambda spec, build: encoder)
    return workdir


def card_of(run, tmp_path, *sweeps):
    out = tmp_path / "cards/MODEL_CARD.md"
    named = ",".join(map(str, sweeps))
    main.run(["card", f"--model={run}", f"--sweep={named}", f"--out={out}"])
    return out.read_text()


def section(card, title):
    return card.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0].strip()


def test_the_card_line_by_line(run, tmp_path, capsys):
    card = card_of(run, tmp_path, sweep_of(tmp_path / "sweep"))
    assert card.split("\n\n# my-run\n")[0] == """---
license: unknown  # to be filled in by the owner
library_name: crfr
tags: [face-recognition, face-verification, cross-resolution, jax]
model-index:
- name: "my-run"
  results:
  - task: {type: face-verification}
    dataset: {name: "lfw", type: "lfw"}
    metrics:
    - {type: accuracy, name: "cross-resolution accuracy at 7 px", value: 0.7050}
    - {type: accuracy, name: "cross-resolution accuracy at 14 px", value: 0.9100}
    - {type: accuracy, name: "cross-resolution accuracy at 112 px", value: 0.9650}
    - {type: accuracy, name: "low_res", value: 0.8000}
    - {type: accuracy, name: "mid_res", value: 0.8000}
    - {type: accuracy, name: "high_res", value: 0.8000}
    - {type: accuracy, name: "all_res", value: 0.8000}
---"""  # fmt: skip
    assert section(card, "Model details").splitlines()[4:] == [
        "| | |",
        "|---|---|",
        "| method | BT-M |",
        "| network | resnet50, 1,234 parameters |",
        "| input | RGB 0..255, normalised as (x - 127.5) / 127.5 |",
        "| step | 2000 |",
        "| fingerprint of the weights | `fedcbt-mruns/bt-m` |",
        "| thresholds | have not been calibrated |",
    ]
    assert section(card, "Training data").splitlines()[:6] == [
        "| | |",
        "|---|---|",
        "| source | `train.rec+b\\|c.rec` |",
        "| images | 5,822,653 |",
        "| identities | 85,742 |",
        "| weights at the start | drawn at random |",
    ]
    assert section(card, "Training").splitlines()[2:] == [
        "| key | paper | here |",
        "|---|---|---|",
        "| `batch` | `128` | `64` |",
        "| `margin.margin` | unset | `0.3` |",
    ]
    assert section(card, "Provenance").splitlines()[2:4] == [
        "| 2026-03-01T09:30:00+00:00 | 0 | 2 x NVIDIA H100 | `0123abc` | "
        "crfr 0.1.0, jax 0.10.2, flax 0.12.7 |",
        "| 2026-03-01T09:30:00+00:00 | 500 | 2 x NVIDIA H100 | unknown | "
        "crfr 0.1.0, jax 0.10.2, flax 0.12.7 |",
    ]
    assert section(card, "Provenance").endswith("flax 0.12.7 |")
    for private in ("/home", "s3cret", "--workdir"):
        assert private not in card
    results = section(card, "Results")
    assert "(exact thresholds)" in results
    assert results.partition("### ")[2].splitlines() == [
        "lfw, 600 pairs",
        "",
        "| resolution | CR | ER |",
        "|---|---|---|",
        "| 112 px | 96.50 (95.50–97.50) | 96.50 (95.50–97.50) |",
        "| 14 px | 91.00 (90.00–92.00) | 92.00 (91.00–93.00) |",
        "| 7 px | 70.50 (69.50–71.50) | 71.50 (70.50–72.50) |",
        "",
        "| protocol, 112 px against | accuracy | whose draw, draws |",
        "|---|---|---|",
        *(
            f"| {n} | 80.00 (79.00–81.00) | published, 1 |"
            for n in ("low_res", "mid_res", "high_res", "all_res")
        ),
    ]
    assert section(card, "Limits").splitlines()[:3] == [
        "- On lfw it decides 3.50 % of the pairs wrongly, with both images at 112 px.",
        "- Against 112 px, the accuracy of the model in CR on lfw falls by 1 point or more below "
        "112 px, by 5 points or more below 112 px and by 10 points or more below 14 px (as far as "
        "the measured resolutions tell).",
        "- It stays above guessing down to 7 px.",
    ]
    for title in ("Intended use", "Consent and bias", "Licence", "How to cite", "Contact"):
        assert "*to be filled in by the owner*" in section(card, title)
    assert "surveillance" in section(card, "Out of scope").lower()
    left = card.count("*to be filled in by the owner*")
    assert f"{left} places are left for the owner to fill in" in capsys.readouterr().out


def test_what_else_may_be_on_record(run, tiny, tmp_path):
    """Several benchmarks, thresholds beside the model, other weights, the recipe unchanged."""
    config = json.loads((run / "config.json").read_text())
    config["init"]["weights"] = "/home/me/a.pth"
    config["optimizer"]["name"] = "sgd|adamw"
    config["batch"], config["margin"]["margin"] = 128, None
    config["model"]["input_mean"] = [1.5, 2, 3]
    environment.write_json(run / "config.json", config)
    environment.write_json(run / "run.json", [START | {"weights": "abc"}])
    table = json.loads((tiny / "runs/tiny/calibration.json").read_text())
    table |= {"model_fingerprint": "fedcbt-mruns/bt-m"}
    (run / "calibration.json").write_text(json.dumps(table))
    sweep = sweep_of(tmp_path / "s", benchmarks=("lfw", "cfp: fp"), changes={"flip": True})
    rewritten = json.loads((sweep / "sweep.json").read_text()) | {"flip": True}
    (sweep / "sweep.json").write_text(json.dumps(rewritten))
    card = card_of(run, tmp_path, sweep)
    assert "weights at the start | from `a.pth` (fingerprint `abc`)" in card
    assert "thresholds | lie beside it (calibration.json)" in card
    assert "(x - [1.5, 2, 3]) / 127.5" in card
    assert section(card, "Training").splitlines()[4:] == [
        "| `model.input_mean` | `[127.5, 127.5, 127.5]` | `[1.5, 2, 3]` |",
        '| `optimizer.name` | `"sgd"` | `"sgd\\|adamw"` |',
    ]
    assert 'dataset: {name: "cfp: fp", type: "cfp: fp"}' in card
    assert [line for line in card.splitlines() if line.startswith("### ")] == [
        "### lfw, 600 pairs",
        "### cfp: fp, 600 pairs",
    ]
    assert "embeddings of an image and its mirror image added" in " ".join(card.split())
    for change in ({"model_fingerprint": "other"}, {"objectives": {}}):
        (run / "calibration.json").write_text(json.dumps(table | change))
        with pytest.raises(InputError, match=r"calibration\.json: .*again with crfr calibrate"):
            card_of(run, tmp_path, sweep)


def test_bad_input(run, tmp_path, monkeypatch):
    mine, other = sweep_of(tmp_path / "mine"), sweep_of(tmp_path / "other", "bt-7")
    with pytest.raises(InputError, match=r"other: is the sweep of another model or step"):
        card_of(run, tmp_path, mine, other)
    with pytest.raises(InputError, match=r"rows.jsonl is missing \(no such directory\)"):
        card_of(run, tmp_path, tmp_path / "nothing")
    renamed = sweep_of(tmp_path / "renamed", changes={"model": "./runs/bt-m"})
    about = json.loads((renamed / "sweep.json").read_text())
    about |= {"model": "./runs/bt-m", "model_fingerprint": "fedcbt-mruns/bt-m"}
    (renamed / "sweep.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"differently \(runs/bt-m, \./runs/bt-m\)"):
        card_of(run, tmp_path, mine, renamed)
    (tmp_path / "cards").write_text("a file")
    with pytest.raises(InputError, match=r"--out=.*choose another place"):
        card_of(run, tmp_path, mine)
    foreign = Encoder("m.onnx", None, "onnx", None, None, "abc")
    monkeypatch.setattr(publish, "load_encoder", lambda spec, build: foreign)
    with pytest.raises(InputError, match="nothing is known of its training; name a run"):
        card_of(run, tmp_path, mine)
    with pytest.raises(InputError, match="--sweep is missing"):
        main.run(["card", f"--model={run}"])
