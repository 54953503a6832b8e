"""Scenarios by hand with a fake encoder's embeddings, and the sweep of a trained model."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from crfr import commands
from crfr.data.benchmarks import Benchmark, load_benchmark
from crfr.errors import InputError
from crfr.evaluate import sweep as sweeping
from crfr.evaluate.embed import compile_embed, embed_images
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.protocols import scenario_distances
from crfr.evaluate.sweep import scenario_rows, sweep
from crfr.model import resnet
from crfr.train import sharding
from crfr.views.degrade import degrade

SPEC = "faces:identities=5,images=4"


def at(degrees):
    angle = np.deg2rad(np.asarray(degrees, np.float32))
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def test_scenarios_by_hand():
    full, low = at([0, 60, 90]), at([30, 60, 180])
    pairs = np.array([[0, 1], [2, 0]], np.int32)
    found = scenario_distances(low, full, pairs)
    cos = lambda d: 1 - np.cos(np.deg2rad(d))  # noqa: E731
    np.testing.assert_allclose(found["CR_A"], [cos(30), cos(180)], atol=1e-6)
    np.testing.assert_allclose(found["CR_B"], [cos(60), cos(60)], atol=1e-6)
    np.testing.assert_allclose(found["ER"], [cos(30), cos(150)], atol=1e-6)


def test_rows_of_a_resolution_by_hand():
    same = np.arange(40) % 2 == 0
    distances = {
        "CR_A": np.where(same, 0.2, 0.8),  # perfect, threshold 0.5
        "CR_B": np.where(same, 0.8, 0.2),  # reversed: calling all one class is best
        "ER": np.where(same, 0.1, 0.3),
    }
    common = {"schema": 1, "model": "m"}
    rows = {r["scenario"]: r for r in scenario_rows(common, 7, distances, same, "exact")}
    assert rows["CR_A"]["accuracy"] == 1.0
    assert rows["CR_B"]["accuracy"] == 0.5
    assert rows["CR"]["accuracy"] == 0.75
    assert rows["CR"]["threshold"] == (rows["CR_A"]["threshold"] + rows["CR_B"]["threshold"]) / 2
    assert rows["CR"]["positive_distance"] == pytest.approx(0.5)
    assert rows["ER"]["threshold"] == pytest.approx(0.2)
    assert rows["ER"]["negative_distance"] == pytest.approx(0.3)
    assert {r["pairs"] for r in rows.values()} == {40}
    assert all(r["resolution"] == 7 and r["model"] == "m" for r in rows.values())


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark(SPEC)


@pytest.fixture(scope="module")
def encoder():
    import jax

    network = resnet.build("tiny", width=4, embedding=16)
    variables = network.init(jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    return Encoder("untrained", 3, "baseline", network, variables, "abc")


def run(encoder, benchmark, out, resolutions=(7, 112), **settings):
    mesh = sharding.make_mesh()
    return sweep(encoder, benchmark, list(resolutions), out, mesh=mesh, batch=16, **settings)


def test_embeddings_are_those_of_degraded_images_one_by_one(encoder, benchmark):
    """Padding, sharding over eight devices and one compiled function change nothing."""
    mesh = sharding.make_mesh()
    embed = compile_embed(encoder.network, mesh)
    for resolution in (9, 112):
        got = embed_images(
            embed, encoder.variables, benchmark.images, resolution, mesh=mesh, batch=12
        )
        assert got.shape == (len(benchmark.images), 16)
        plain = encoder.network.apply(encoder.variables, degrade(benchmark.images, resolution))
        plain /= np.linalg.norm(plain, axis=1, keepdims=True)
        np.testing.assert_allclose(got, plain, atol=2e-5)
    assert embed._cache_size() == 1


def test_flip_adds_the_mirror_image(encoder, benchmark):
    mesh = sharding.make_mesh()
    embed = compile_embed(encoder.network, mesh, flip=True)
    images = benchmark.images[:8]
    got = embed_images(embed, encoder.variables, images, 112, mesh=mesh, batch=8)
    pixels = jnp.asarray(images, jnp.float32)
    both = encoder.network.apply(encoder.variables, pixels)
    both += encoder.network.apply(encoder.variables, pixels[:, :, ::-1])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(got, both, atol=2e-5)


def test_a_sweep_writes_what_the_docs_say(encoder, benchmark, tmp_path):
    rows = run(encoder, benchmark, tmp_path)
    written = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert written == rows
    assert [(r["resolution"], r["scenario"]) for r in rows] == [
        (r, s) for r in (112, 7) for s in ("CR", "CR_A", "CR_B", "ER")
    ]
    for row in rows:
        assert row["schema"] == 1
        assert (row["model"], row["step"], row["method"]) == ("untrained", 3, "baseline")
        assert (row["degradation"], row["precision"]) == ("bicubic", "float32")
        assert (row["thresholds"], row["flip"], row["benchmark"]) == ("exact", False, SPEC)
        assert row["pairs"] == len(benchmark.pairs)
        assert 0 <= row["accuracy"] <= 1
    full = {r["scenario"]: r["accuracy"] for r in rows if r["resolution"] == 112}
    assert len(set(full.values())) == 1  # at full resolution nothing is degraded
    summary = json.loads((tmp_path / "sweep.json").read_text())
    assert summary["images"] == len(benchmark.images)
    assert summary["pairs"] == len(benchmark.pairs)
    assert {p.name for p in (tmp_path / "samples").iterdir()} == {"7.png", "112.png"}


def test_every_distinct_image_is_embedded_once_a_resolution(
    encoder, benchmark, tmp_path, monkeypatch
):
    seen = []
    embed = sweeping.embed_images

    def counted(function, variables, images, resolution, **settings):
        seen.append((resolution, len(images)))
        return embed(function, variables, images, resolution, **settings)

    monkeypatch.setattr(sweeping, "embed_images", counted)
    run(encoder, benchmark, tmp_path, (5, 7))
    assert seen == [(112, 20), (7, 20), (5, 20)]


def test_a_stopped_sweep_goes_on_and_equals_an_unbroken_one(
    encoder, benchmark, tmp_path, monkeypatch
):
    whole = run(encoder, benchmark, tmp_path / "whole", (5, 7, 112))
    write = sweeping.write_samples

    def stop_at_seven(folder, benchmark, resolution, variant):
        if resolution == 7:
            raise KeyboardInterrupt
        write(folder, benchmark, resolution, variant)

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "write_samples", stop_at_seven)
        with pytest.raises(KeyboardInterrupt):
            run(encoder, benchmark, tmp_path / "parts", (5, 7, 112))
    assert len((tmp_path / "parts/rows.jsonl").read_text().splitlines()) == 4
    assert run(encoder, benchmark, tmp_path / "parts", (5, 7, 112)) == whole


def test_the_summary_tells_of_the_calls_that_added_rows(encoder, benchmark, tmp_path, monkeypatch):
    def calls():
        return json.loads((tmp_path / "sweep.json").read_text())["calls"]

    def stop_at_seven(folder, benchmark, resolution, variant):
        if resolution == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "write_samples", stop_at_seven)
        with pytest.raises(KeyboardInterrupt):
            run(encoder, benchmark, tmp_path, (7, 112))
    (first,) = calls()
    assert first["seconds"] > 0
    assert first["versions"]["jax"]
    run(encoder, benchmark, tmp_path, (7, 112))
    assert len(calls()) == 2
    before = calls()
    run(encoder, benchmark, tmp_path, (7, 112))  # nothing to do
    assert calls() == before


def test_a_foreign_sweep_is_refused(encoder, benchmark, tmp_path):
    import dataclasses

    run(encoder, benchmark, tmp_path)
    with pytest.raises(InputError, match=r"step=3, not 4.*choose another --out"):
        run(dataclasses.replace(encoder, step=4), benchmark, tmp_path)
    with pytest.raises(InputError, match="thresholds='exact', not 'knoche'"):
        run(encoder, benchmark, tmp_path, thresholds="knoche")
    with pytest.raises(InputError, match="model_fingerprint"):
        run(dataclasses.replace(encoder, fingerprint="other"), benchmark, tmp_path)
    fewer = Benchmark(SPEC, benchmark.images, benchmark.pairs[:20], benchmark.same[:20])
    with pytest.raises(InputError, match="benchmark_fingerprint"):
        run(encoder, fewer, tmp_path)


def test_embeddings_that_are_not_finite_are_refused(encoder, benchmark, tmp_path):
    import dataclasses

    import jax

    broken = jax.tree.map(lambda a: a * np.nan, encoder.variables)
    with pytest.raises(InputError, match=r"20 of 20 embeddings at 112 px are not finite"):
        run(dataclasses.replace(encoder, variables=broken), benchmark, tmp_path)


def test_bad_models_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        commands.sweep(str(tmp_path), "faces:identities=5,images=4", [7], tmp_path / "out")
    with pytest.raises(InputError, match="the step after @ is not a number"):
        commands.sweep("run@last", "faces:identities=5,images=4", [7], tmp_path / "out")
    with pytest.raises(InputError, match="resolution 120 px"):
        commands.sweep("run", "faces", [120], tmp_path / "out")
