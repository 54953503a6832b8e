"""Embedding and the sweep: every image once, what is kept, what is refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import FAST

import crfr.evaluate.embed
from crfr import environment, measure
from crfr.data.benchmarks import Benchmark, load_benchmark
from crfr.errors import InputError
from crfr.evaluate import passes, store
from crfr.evaluate.embed import compile_embed, embed_work, make_embed
from crfr.evaluate.encoders import Encoder
from crfr.evaluate.protocols import PROTOCOLS, draw_protocols
from crfr.evaluate.sweep import sweep
from crfr.model import resnet
from crfr.model.fold import fold
from crfr.train import sharding
from crfr.views.degrade import degrade

SPEC = "faces:identities=5,images=4"
FOLDER = "faces%3Aidentities%3D5%2Cimages%3D4"


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark(SPEC)


@pytest.fixture(scope="module")
def encoder():
    network = resnet.build("tiny", width=4, embedding=16)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    return Encoder("untrained", 3, "baseline", network, variables, "abc")


def fake(function, pixels="uint8"):
    """An encoder that is no network of ours."""
    return Encoder("module:fake", None, "callable", None, None, "abc", "model", pixels, function)


def colours(pixels):
    """Not normalised: the mean colour of each quarter."""
    halves = pixels.astype(np.float32).reshape(len(pixels), 2, 56, 2, 56, 3)
    return halves.mean((2, 4)).reshape(len(pixels), 12) - 100


def run(encoder, benchmark, out, resolutions=(7, 112), **settings):
    benchmarks = benchmark if isinstance(benchmark, list) else [benchmark]
    settings = {"mesh": sharding.make_mesh(), "batch": 16} | settings
    return sweep(encoder, benchmarks, list(resolutions), out, **settings)


def read(out):
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def contents(out):
    """Every file of a sweep but for its record of calls."""
    paths = {p.relative_to(out): p for p in out.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name.name != "sweep.json"}


@pytest.mark.parametrize("flip", [False, True])
def test_embeddings_are_those_of_degraded_images_one_by_one(encoder, benchmark, flip):
    """Padding, sharding, batches of mixed resolutions and one compiled function change nothing."""
    mesh = sharding.make_mesh()
    compiled = compile_embed(encoder.network, mesh, flip=flip)
    which, sizes = np.arange(20).repeat(2), np.tile([112, 9], 20)
    parts = embed_work(
        lambda images, r: compiled(encoder.variables, images, r),
        benchmark.images,
        which,
        sizes,
        mesh=mesh,
        batch=12,
    )
    places, found = zip(*parts, strict=True)
    assert [(p.start, p.stop) for p in places] == [(0, 16), (16, 32), (32, 40)]
    pixels = degrade(benchmark.images[which], sizes)
    plain = encoder.network.apply(encoder.variables, pixels)
    if flip:
        plain += encoder.network.apply(encoder.variables, pixels[:, :, ::-1])
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(np.concatenate(found), plain, atol=2e-5)
    assert compiled._cache_size() == 1


def test_a_batch_is_copied_once_on_the_host(benchmark, monkeypatch):
    """Copying is nearly all that the host does where the devices hold no images."""
    which, mesh = np.arange(20).repeat(20), sharding.make_mesh(1)
    monkeypatch.setattr("crfr.evaluate.embed.HELD", 0)
    tracemalloc.start()
    try:
        parts = embed_work(
            lambda images, r: np.zeros((len(images), 2), np.float32),
            benchmark.images,
            which,
            np.full(len(which), 112),
            mesh=mesh,
            batch=len(which),
        )
        assert sum(len(found) for _, found in parts) == len(which)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * len(which) * benchmark.images[0].nbytes


@pytest.mark.parametrize(("devices", "last"), [(1, 12), (8, 16)])
def test_images_of_a_sweep_go_to_the_devices_once(benchmark, monkeypatch, devices, last):
    """Where they fit; else, and where each is wanted once, they go batch by batch.  The pixels that
    are embedded are the same."""
    sent, mesh, images = [], sharding.make_mesh(devices), benchmark.images[:20]
    spread = crfr.evaluate.embed._spread
    which = np.random.default_rng(0).permutation(np.arange(20).repeat(3))

    def pixels_of(which, limit):
        sent.clear()
        monkeypatch.setattr("crfr.evaluate.embed.HELD", limit)
        sizes, given = np.full(len(which), 112), {"mesh": mesh, "batch": 16, "pad": False}
        parts = embed_work(lambda x, r: x.reshape(len(x), -1), images, which, sizes, **given)
        return np.concatenate([part for _, part in parts]).reshape(-1, *images.shape[1:])

    monkeypatch.setattr(
        "crfr.evaluate.embed._spread", lambda x, place: sent.append(len(x)) or spread(x, place)
    )
    np.testing.assert_array_equal(pixels_of(which, images.nbytes), images[which])
    assert sent == [20, 16, 16, 16, last]  # images, then resolutions
    np.testing.assert_array_equal(pixels_of(which, images.nbytes - 1), images[which])
    assert sent == [16, 16, 16, 16, 16, 16, last, last]
    pixels_of(np.arange(20), images.nbytes)
    assert sent[0] == 16


def test_bfloat16_is_of_the_products_alone(encoder, benchmark):
    """The degradation stays float32, the embedding is close, and the row's word is meant."""
    mesh, which, sizes = sharding.make_mesh(), np.arange(16), np.tile([112, 7], 8)
    network = encoder.network.clone(dtype=np.dtype("bfloat16"))
    half = dataclasses.replace(encoder, network=network, precision="bfloat16")
    found = {}
    for name, made in (("float32", encoder), ("bfloat16", half)):
        embed = make_embed(made, mesh)
        ((_, found[name]),) = embed_work(embed, benchmark.images, which, sizes, mesh=mesh, batch=16)
    distance = 1 - (found["float32"] * found["bfloat16"]).sum(1)
    assert 1e-7 < distance.mean() < 1e-3
    folded, weights = fold(network, encoder.variables)
    by_hand = np.asarray(folded.apply(weights, degrade(benchmark.images[which], sizes)))
    by_hand = by_hand / np.linalg.norm(by_hand, axis=1, keepdims=True)
    # XLA keeps some of bfloat16's sums in float32 where it joins operations
    assert (1 - (by_hand * found["bfloat16"]).sum(1)).mean() < distance.mean() / 4


def test_precision_is_for_models_of_crfr(encoder, benchmark, tmp_path, one_device):
    common = {"resolutions": [112], "out": tmp_path, "precision": "bfloat16"}
    with pytest.raises(InputError, match="module:fake: has its own precision; leave out"):
        measure.sweep(fake(colours), [benchmark], **common)
    with pytest.raises(InputError, match="did you mean 'float32'"):
        measure.sweep(encoder, [benchmark], **common | {"precision": "float23"})


@pytest.mark.parametrize("pixels", ["uint8", "float32"])
def test_other_encoders_get_degraded_pixels_of_their_type(benchmark, pixels):
    mesh, seen = sharding.make_mesh(), []

    def record(images):
        seen.append(images)
        return colours(images)

    which, sizes = np.arange(10), np.full(10, 9)
    embed = make_embed(fake(record, pixels), mesh, flip=True)
    ((_, found),) = embed_work(embed, benchmark.images, which, sizes, mesh=mesh, batch=16)
    wanted = np.asarray(degrade(benchmark.images[:10], 9))
    wanted = np.round(wanted).astype(np.uint8) if pixels == "uint8" else wanted
    assert [images.dtype for images in seen] == [pixels, pixels]
    np.testing.assert_allclose(seen[0][:10], wanted, atol=1e-3 if pixels == "float32" else 0)
    np.testing.assert_array_equal(seen[1], seen[0][:, :, ::-1])
    both = colours(wanted) + colours(wanted[:, :, ::-1])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(found, both, atol=1e-5)


def test_a_sweep_writes_what_the_docs_say(encoder, benchmark, tmp_path):
    protocols = {SPEC: draw_protocols(benchmark, 2, 0)}
    rows = run(encoder, benchmark, tmp_path, scenarios=["CR", "ER", "matrix"], protocols=protocols)
    written = read(tmp_path)
    assert written == rows
    assert [(r["resolution"], r["scenario"]) for r in rows] == [
        *((r, s) for r in (112, 7) for s in ("CR", "CR_A", "CR_B", "ER")),
        *((None, name) for name in PROTOCOLS),
    ]
    for row in rows:
        assert row["schema"] == 2
        assert (row["model"], row["step"], row["method"]) == ("untrained", 3, "baseline")
        assert (row["degradation"], row["precision"]) == ("bicubic", "float32")
        assert (row["pixels"], row["thresholds"], row["flip"]) == ("float32", "exact", False)
        assert (row["benchmark"], row["average_of"]) == (SPEC, None)
        assert row["pairs"] == len(benchmark.pairs)
        assert 0 <= row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] <= 1
        assert row["drawn"] == ("seeded" if row["resolution"] is None else None)
        assert row["draws"] == (2 if row["resolution"] is None else 1)
    full = {r["scenario"]: r["accuracy"] for r in rows if r["resolution"] == 112}
    assert len(set(full.values())) == 1  # at full resolution nothing is degraded

    summary = json.loads((tmp_path / "sweep.json").read_text())
    about = summary["benchmarks"][SPEC]
    assert (about["images"], about["pairs"]) == (20, len(benchmark.pairs))
    assert summary["model_fingerprint"] == "abc"
    with np.load(tmp_path / f"pairs/{FOLDER}.npz") as file:
        pairs = dict(file)
    assert pairs["resolutions"].tolist() == [112, 7]
    np.testing.assert_array_equal(pairs["same"], benchmark.same)
    for name in ("CR_A", "CR_B", "ER"):
        assert pairs[name].shape == (2, len(benchmark.pairs))
    assert pairs["low_res"].shape == (2, len(benchmark.pairs))
    np.testing.assert_array_equal(pairs["low_res_resolutions"], protocols[SPEC][0].resolutions)
    with np.load(tmp_path / f"matrix/{FOLDER}-exact.npz") as file:
        assert file["accuracy"].shape == (2, 2)
        by = {(r["resolution"], r["scenario"]): r["accuracy"] for r in rows}
        wanted = [[full["ER"], by[7, "CR_B"]], [by[7, "CR_A"], by[7, "ER"]]]
        # a distance that rounds otherwise may turn one verdict
        np.testing.assert_allclose(file["accuracy"], wanted, atol=1.01 / len(benchmark.pairs))
    samples = tmp_path / "samples" / FOLDER
    assert {p.name for p in samples.iterdir()} == {"7.png", "112.png", "pairs.json"}
    listed = json.loads((samples / "pairs.json").read_text())
    assert [p["same"] for p in listed] == [bool(benchmark.same[p["pair"]]) for p in listed]


def test_the_encoder_sees_each_needed_image_and_resolution_once(benchmark, tmp_path, one_device):
    """The images that a recording encoder is given are the distinct ones that the rows need.  On
    one device no batch is filled up."""
    seen = []
    protocols = draw_protocols(benchmark, 1, 0)[:1]
    wanted = {(i, r) for i in range(20) for r in (112, 7)}
    drawn = protocols[0].resolutions[0]
    for pair, sizes in zip(benchmark.pairs, drawn, strict=True):
        wanted |= {(int(i), int(r)) for i, r in zip(pair, sizes, strict=True)}

    def record(pixels):
        seen.extend(pixels)
        return np.abs(colours(pixels)) + 1

    run(fake(record), benchmark, tmp_path, [7], protocols={SPEC: protocols})
    # after them some of the lowest resolution and of the highest again, alone
    lowest = sum(r == min(r for _, r in wanted) for _, r in wanted)
    probed = min(passes.PROBES, lowest) + passes.PROBES
    assert len(seen) == len(wanted) + probed
    # falling resolutions, rising images; a grey level may round otherwise in another program
    images, sizes = np.array(sorted(wanted, key=lambda work: (-work[1], work[0]))).T
    expected = np.round(np.asarray(degrade(benchmark.images[images], sizes)))
    np.testing.assert_allclose(np.array(seen[: len(wanted)], int), expected, atol=1)
    seen.clear()
    run(fake(record), benchmark, tmp_path, [7, 9], protocols={SPEC: protocols})
    new = {(i, 9) for i in range(20)} - wanted
    assert len(seen) == len(new) + probed


def test_a_stopped_sweep_goes_on_and_equals_an_unbroken_one(
    encoder, benchmark, tmp_path, monkeypatch
):
    settings = {"scenarios": ["CR", "ER", "matrix"]}
    whole = run(encoder, benchmark, tmp_path / "whole", (5, 7, 112), **settings)
    add = store.add

    def stopping(at):
        def stop(folder, resolution, *rest):
            if resolution == at:
                raise KeyboardInterrupt
            add(folder, resolution, *rest)

        return stop

    with monkeypatch.context() as patch:
        for resolution in (7, 5):
            patch.setattr(store, "add", stopping(resolution))
            with pytest.raises(KeyboardInterrupt):
                run(encoder, benchmark, tmp_path / "parts", (5, 7, 112), **settings)
    assert not (tmp_path / "parts/rows.jsonl").exists()
    assert run(encoder, benchmark, tmp_path / "parts", (5, 7, 112), **settings) == whole
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_slow_resolution_is_kept_in_parts(encoder, benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "SAVE_EVERY", -1.0)  # after each batch
    kept = []
    add = store.add

    def spy(folder, resolution, images, which, embeddings):
        kept.append((resolution, which.tolist()))
        add(folder, resolution, images, which, embeddings)

    monkeypatch.setattr(store, "add", spy)
    run(encoder, benchmark, tmp_path / "parts", (7, 112))
    assert kept == [
        (112, list(range(16))),
        (112, list(range(16, 20))),
        (7, list(range(12))),
        (7, list(range(12, 20))),
    ]
    monkeypatch.undo()
    run(encoder, benchmark, tmp_path / "whole", (7, 112))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_later_calls_add_rows_and_embed_nothing_twice(encoder, benchmark, tmp_path, monkeypatch):
    def calls():
        return json.loads((tmp_path / "sweep.json").read_text())["calls"]

    first = run(encoder, benchmark, tmp_path, (7, 112), scenarios=["ER"])
    assert len(calls()) == 1
    assert calls()[0]["versions"]["jax"]
    before = contents(tmp_path)
    assert run(encoder, benchmark, tmp_path, (7, 112), scenarios=["ER"]) == first
    assert contents(tmp_path) == before
    assert len(calls()) == 1  # nothing was to do
    kept = []
    monkeypatch.setattr(store, "add", lambda *arguments: kept.append(arguments))
    both = run(encoder, benchmark, tmp_path, (7, 112), scenarios=["CR"], thresholds=["knoche"])
    assert not kept
    assert len(calls()) == 2
    assert {(r["scenario"], r["thresholds"]) for r in read(tmp_path)} == {
        *(("ER", "exact"), ("CR", "knoche"), ("CR_A", "knoche"), ("CR_B", "knoche"))
    }
    assert sorted(map(str, read(tmp_path))) == sorted(map(str, [*first, *both]))


def test_several_benchmarks_and_their_average(encoder, benchmark, tmp_path):
    few = Benchmark("few", benchmark.images[:8], benchmark.pairs[:30] % 8, benchmark.same[:30])
    few = dataclasses.replace(few, same=np.arange(30) % 2 == 0)
    rows = run(encoder, [benchmark, few], tmp_path, [7], scenarios=["CR", "ER", "matrix"])
    assert [r["benchmark"] for r in rows] == [SPEC] * 4 + ["few"] * 4
    written = read(tmp_path)
    assert [r["benchmark"] for r in written] == [SPEC] * 4 + ["few"] * 4 + ["average"] * 4
    by = {(r["benchmark"], r["scenario"]): r for r in written}
    for scenario in ("CR", "ER"):
        parts = [by[name, scenario] for name in (SPEC, "few", "average")]
        assert parts[2]["accuracy"] == pytest.approx(
            (parts[0]["accuracy"] + parts[1]["accuracy"]) / 2
        )
        assert parts[2]["average_of"] == [SPEC, "few"]
    with np.load(tmp_path / "matrix/average-exact.npz") as file:
        assert file["accuracy"].shape == (1, 1)
        assert file["accuracy"][0, 0] == pytest.approx(by["average", "ER"]["accuracy"], abs=0.03)
    # one benchmark at a time, in any order, comes to the same
    apart = tmp_path / "apart"
    run(encoder, few, apart, [7], scenarios=["ER"])
    run(encoder, benchmark, apart, [7], scenarios=["CR", "ER", "matrix"])
    run(encoder, few, apart, [7], scenarios=["matrix", "CR"])
    found = {(r["benchmark"], r["scenario"]): r for r in read(apart)}
    assert found.keys() == by.keys()
    order = {"average_of": None, "tar_reason": None}  # of the benchmarks, in which they are named
    for name, row in found.items():
        assert row | order == by[name] | order
    # a later benchmark belongs to the average of what it has
    other = dataclasses.replace(few, name="other")
    run(encoder, other, apart, [7], scenarios=["ER"])
    averages = [r for r in read(apart) if r["benchmark"] == "average"]
    assert [(r["scenario"], r["average_of"]) for r in averages] == [("ER", ["few", SPEC, "other"])]
    with pytest.raises(InputError, match="each needs a name of its own"):
        run(encoder, [few, few], tmp_path / "twice", [7])
    average = dataclasses.replace(few, name="average")
    with pytest.raises(InputError, match="none may be called 'average'"):
        run(encoder, [average], tmp_path / "average", [7])


def test_the_average_is_of_the_benchmarks_that_have_rows(benchmark, tmp_path):
    """Of a matrix alone there are none, and a call that failed has left none."""
    two, three = (dataclasses.replace(benchmark, name=name) for name in ("two", "three"))
    encoder = fake(colours)

    def averages():
        return [r["average_of"] for r in read(tmp_path) if r["benchmark"] == "average"]

    run(encoder, [benchmark, two], tmp_path, [7], scenarios=["CR", "matrix"])
    assert averages() == [[SPEC, "two"]] * 3
    run(encoder, three, tmp_path, [7], scenarios=["matrix"])
    assert averages() == [[SPEC, "two"]] * 3
    last = dataclasses.replace(benchmark, name="last", images=benchmark.images[::-1])
    with pytest.raises(InputError, match="not finite"):
        run(fake(lambda pixels: colours(pixels) * np.nan), last, tmp_path, [9])
    run(encoder, two, tmp_path, [9], scenarios=["matrix"])
    assert averages() == [[SPEC, "two"]] * 3
    matrix = np.load(tmp_path / "matrix/average-exact.npz")
    assert matrix["resolutions"].tolist() == [7]  # that all three have
    assert matrix["average_of"].tolist() == [SPEC, "two", "three"]
    assert "last" not in json.loads((tmp_path / "sweep.json").read_text())["benchmarks"]
    # so that another one of that name, with other images, may come
    run(encoder, dataclasses.replace(two, name="last"), tmp_path, [7], scenarios=["CR"])
    assert averages() == [[SPEC, "two", "last"]] * 3


def test_a_foreign_sweep_is_refused(encoder, benchmark, tmp_path):
    run(encoder, benchmark, tmp_path)
    with pytest.raises(InputError, match=r"step=3, not 4.*choose another --out"):
        run(dataclasses.replace(encoder, step=4), benchmark, tmp_path)
    with pytest.raises(InputError, match="degradation='bicubic', not 'area'"):
        run(encoder, benchmark, tmp_path, variant="area")
    with pytest.raises(InputError, match="model_fingerprint"):
        run(dataclasses.replace(encoder, fingerprint="other"), benchmark, tmp_path)
    fewer = dataclasses.replace(benchmark, pairs=benchmark.pairs[:20], same=benchmark.same[:20])
    with pytest.raises(InputError, match="holds a sweep of another faces"):
        run(encoder, fewer, tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="no record of a sweep"):
        run(encoder, benchmark, tmp_path)
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(InputError, match=r"results but no sweep\.json"):
        run(encoder, benchmark, tmp_path)


def test_a_model_that_has_changed_behind_its_name_is_refused(benchmark, tmp_path):
    """A function's weights are no part of its fingerprint."""
    run(fake(colours), benchmark, tmp_path, [7])
    turned = fake(lambda pixels: np.roll(colours(pixels), 1, axis=1))
    with pytest.raises(InputError, match="not what the model gives now"):
        run(turned, benchmark, tmp_path, [7])
    nudged = fake(lambda pixels: colours(pixels) + 2.0)  # by a distance of about 1e-3
    with pytest.raises(InputError, match="not what the model gives now"):
        run(nudged, benchmark, tmp_path, [7])
    longer = fake(lambda pixels: np.pad(colours(pixels), [(0, 0), (0, 1)]))
    with pytest.raises(InputError, match="not what the model gives now"):
        run(longer, benchmark, tmp_path, [7])


def test_another_degradation_behind_the_same_name_is_noticed(benchmark, tmp_path, monkeypatch):
    run(fake(colours), benchmark, tmp_path, [7, 112])
    apply = crfr.evaluate.embed.apply_degradation
    monkeypatch.setattr(
        "crfr.evaluate.embed.apply_degradation", lambda x, r, _: apply(x, r, "area") * 0.8
    )
    with pytest.raises(InputError, match="at 7 px are not what the model gives now"):
        run(fake(colours), benchmark, tmp_path, [7, 9, 112])


def test_a_model_that_looks_at_the_whole_batch_is_noticed_at_once(benchmark, tmp_path):
    def batch_normalised(pixels):
        found = colours(pixels)
        return found - found.mean(0) + 0.1

    with pytest.raises(InputError, match="BatchNorm in training mode"):
        run(fake(batch_normalised), benchmark, tmp_path, [7])


def test_a_width_that_changes_is_named(benchmark, tmp_path):
    calls = []

    def growing(pixels):
        calls.append(1)
        return np.pad(colours(pixels), [(0, 0), (0, len(calls))], constant_values=1)

    with pytest.raises(InputError, match="embeddings of 13 numbers in one batch and of 14"):
        run(fake(growing), benchmark, tmp_path, [7])


def test_a_call_that_came_to_nothing_binds_nothing(benchmark, tmp_path):
    with pytest.raises(InputError, match="not finite"):
        run(fake(lambda pixels: colours(pixels) * np.nan), benchmark, tmp_path, [7])
    mended = dataclasses.replace(fake(colours), fingerprint="mended")
    run(mended, benchmark, tmp_path, [7])
    assert json.loads((tmp_path / "sweep.json").read_text())["model_fingerprint"] == "mended"


def test_one_sweep_writes_at_a_time(encoder, benchmark, tmp_path):
    with (
        environment.locked(tmp_path, "busy"),
        pytest.raises(InputError, match="another crfr sweep is writing there"),
    ):
        run(encoder, benchmark, tmp_path)
    run(encoder, benchmark, tmp_path, [7])


def test_small_batches_go_on_too(benchmark, tmp_path):
    """The kept embeddings that are made again fill several batches."""
    settings = {"mesh": sharding.make_mesh(1), "batch": 3}
    run(fake(colours), benchmark, tmp_path, [7], **settings)
    run(fake(colours), benchmark, tmp_path, [9], **settings)


def test_a_killed_process_goes_on_where_it_was(benchmark, tmp_path):
    """SIGKILL while it embeds, and again while it writes what follows; then a whole run."""
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "def embed(pixels):\n"
        "    time.sleep(0.02)\n"
        "    return pixels.reshape(len(pixels), -1, 3).mean(1) + 1.0\n"
    )
    words = [sys.executable, "-m", "crfr.main", "sweep", "--model=slow:embed", "--batch=4"]
    words += [f"--benchmark={SPEC}", "--resolutions=7-30,112", "--scenarios=CR,ER,matrix"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(tmp_path)])
    settings = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": path, "XLA_FLAGS": FAST}}
    for count in (3, 20):  # files of embeddings that are there when it is killed
        process = subprocess.Popen([*words, "--out=parts"], stdout=subprocess.DEVNULL, **settings)
        folder = tmp_path / "parts/embeddings" / FOLDER
        while process.poll() is None and len(list(folder.glob("[0-9]*.npy"))) < count:
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    for out in ("parts", "whole"):
        subprocess.run([*words, f"--out={out}"], check=True, capture_output=True, **settings)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert len(json.loads((tmp_path / "parts/sweep.json").read_text())["calls"]) == 3


def test_damaged_embeddings_are_refused(encoder, benchmark, tmp_path):
    run(encoder, benchmark, tmp_path)
    path = tmp_path / "embeddings" / FOLDER / "7.npy"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"7\.npy.*delete it"):
        run(encoder, benchmark, tmp_path)
    np.save(path, np.zeros((3, 16), np.float32))
    with pytest.raises(InputError, match=r"7\.npy: float32 \[3, 16\], not float32 \[20 d\]"):
        run(encoder, benchmark, tmp_path)
    path.unlink()
    run(encoder, benchmark, tmp_path)
    path = tmp_path / "pairs" / f"{FOLDER}.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"\.npz: .*delete it"):
        run(encoder, benchmark, tmp_path)
    path.unlink()
    (tmp_path / "rows.jsonl").write_text('{"benchmark": "x"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl: a line has no 'thresholds'"):
        run(encoder, benchmark, tmp_path)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "not finite"), (0, "zero")])
def test_embeddings_without_direction_are_counted_and_refused(
    encoder, benchmark, tmp_path, value, what
):
    broken = jax.tree.map(lambda a: a * np.nan, encoder.variables)
    if what == "not finite":
        with pytest.raises(InputError, match=r"20 of 20 embeddings at 112 px are not finite"):
            run(dataclasses.replace(encoder, variables=broken), benchmark, tmp_path)

    def some(pixels):
        found = colours(pixels)
        found[[3, 5]] = value
        return found

    with pytest.raises(
        InputError, match=rf"2 of 20 embeddings at 7 px are {what} \(of images 3, 5"
    ):
        run(fake(some), benchmark, tmp_path / "b", [7], scenarios=["ER"], batch=24)
    assert not (tmp_path / "b/embeddings").exists()


def test_bad_requests_are_refused(tmp_path):
    def ask(model="run", resolutions=(7,), **settings):
        measure.sweep(model, SPEC, resolutions, tmp_path / "out", **settings)

    with pytest.raises(InputError, match=r"no config\.json"):
        ask(str(tmp_path))
    with pytest.raises(InputError, match="the step after @ is not a number"):
        ask("run@last")
    with pytest.raises(InputError, match="resolution 120 px"):
        ask(resolutions=[120])
    with pytest.raises(InputError, match="unknown --scenarios 'CRR'"):
        ask(scenarios=["CRR"])
    with pytest.raises(InputError, match="unknown --thresholds 'best'"):
        ask(thresholds=["best"])
    with pytest.raises(InputError, match="unknown --degradation 'cubic'"):
        ask(degradation="cubic")
    with pytest.raises(InputError, match=r"low_res_focus\.csv: No such file"):
        ask(protocols=tmp_path)
    assert not (tmp_path / "out").exists()
