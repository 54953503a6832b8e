"""Exported models: the same embeddings in another runtime, what they say of themselves, and what
is refused.
"""

import hashlib
import io
import json
import os
import pickle
import re
import sys
import zipfile
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import export as jax_export
from PIL import Image
from test_fold import NETWORKS, made, relative

import crfr
from crfr import environment, main, publish
from crfr.errors import InputError
from crfr.evaluate.embed import compile_embed
from crfr.evaluate.encoders import load_encoder
from crfr.evaluate.exported import read_onnx_metadata, unpack
from crfr.model.fold import fold
from crfr.model.losses import unit
from crfr.networks import build, build_for_evaluation
from crfr.recipe import recipe, shrink
from crfr.train.checkpoint import Checkpoints
from crfr.train.sharding import make_mesh
from crfr.train.state import init_state
from crfr.use import export, export_check, export_jax
from crfr.use.export_onnx import make_onnx
from crfr.views.degrade import resize_matrix
from crfr.workdir import record_start

pytestmark = pytest.mark.usefixtures("one_device")
STEP = 3
SHAPES = ((3, 112, 112), (2, 28, 20))


def blocks(images):
    """Images of large patches, no two alike: uint8 [n 112 112 3]."""
    small = np.random.default_rng(2).integers(0, 256, (images, 7, 7, 3), dtype=np.uint8)
    return small.repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a small network whose weights and statistics are drawn, at step 3."""
    folder = tmp_path_factory.mktemp("export") / "run"
    config = recipe()
    config.method = "bt-m"
    config = shrink(config)
    config.update({"model": {"width": 4, "embedding": 16}})
    config.data = "https://me:s3cret@host/home/me/faces/train.rec?sig=s3cret+faces:identities=2"
    config.init.weights = "/home/me/weights/r50.pth"
    values = json.loads(config.to_json())
    network, tx = build(config, 1, lambda _: 0.0)
    state = jax.jit(partial(init_state, network, 2, tx))(jax.random.key(0))
    # statistics of its own features, so that embeddings differ as a trained network's do
    variables = {"params": state.params["backbone"], "batch_stats": state.batch_stats}
    apply = jax.jit(lambda x: network.apply(variables, x, train=True, mutable=["batch_stats"]))
    stats = apply(jnp.asarray(blocks(16), jnp.float32))[1]["batch_stats"]
    folder.mkdir()
    environment.write_json(folder / "config.json", values)
    record_start(folder, step=0, weights=None, classes=2, images=8)
    with Checkpoints(folder / "checkpoints", lambda steps, _: {*steps}) as checkpoints:
        checkpoints.save(STEP, state.replace(step=jnp.asarray(STEP), batch_stats=stats))
    return folder


@pytest.fixture(scope="module")
def native(workdir):
    return load_encoder(str(workdir), build_for_evaluation)


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def quicken(patch, drawn=True):
    """The check on fewer shapes and on drawn faces, and one timed call."""
    patch.setattr(publish, "REPEATS", 1)
    if drawn:
        patch.setattr(publish, "load_benchmark", lambda spec: SimpleNamespace(images=blocks(8)))
    patch.setattr(export_check, "SHAPES", SHAPES)
    patch.setattr(export_check, "BATCHES", (1,))


@pytest.fixture
def quick(monkeypatch):
    quicken(monkeypatch)


@pytest.fixture(scope="module")
def files(workdir, tmp_path_factory):
    """The run exported by the command, by the ends of the files' names."""
    folder = tmp_path_factory.mktemp("files")
    for name, *more in (
        ("a.onnx",),
        ("float.onnx", "--input=float32"),
        ("a.stablehlo",),
    ):
        form = name.split(".")[1]
        with pytest.MonkeyPatch.context() as patch:
            quicken(patch)
            main.run(["export", f"--model={workdir}", f"--format={form}",
                      f"--out={folder / name}", *more])  # fmt: skip
    return folder


def resized(images):
    """To 112 px in float64, as the degradation does."""
    rows, columns = (resize_matrix(size, 112) for size in images.shape[1:3])
    found = np.einsum("oh,bhwc,pw->bopc", rows, images.astype(np.float64), columns, optimize=True)
    return np.clip(found, 0, 255).astype(np.float32)


@pytest.mark.parametrize("kind", NETWORKS)
def test_onnx_gives_the_network_s_embeddings(kind):
    """Every kind of layer, in onnxruntime, of images of several sizes."""
    network, variables, _ = made(kind, "float32")
    network, weights = fold(network, variables)
    content = make_onnx(network, weights, "uint8", {})
    assert content == make_onnx(network, weights, "uint8", {})
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content)
    assert session.get_inputs()[0].shape == ["b", "h", "w", 3]
    assert session.get_outputs()[0].shape == ["b", 16]
    apply = jax.jit(lambda x: unit(jnp.asarray(network.apply(weights, x))))
    rng = np.random.default_rng(1)
    for shape in ((2, 112, 112, 3), (2, 9, 9, 3), (2, 150, 64, 3)):
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        (found,) = session.run(None, {"images": images})
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
        assert relative(found, np.asarray(apply(resized(images)))) < 2e-5


@pytest.mark.parametrize("size", [(112, 112), (1, 5), (33, 90), (250, 113)])
def test_the_resize_of_a_symbolic_size_is_jax_s(size):
    images = np.random.default_rng(0).uniform(0, 255, (1, *size, 3)).astype(np.float32)
    found = np.asarray(jax.jit(export_jax.resize)(images))
    np.testing.assert_allclose(found, resized(images), atol=5e-3)  # grey levels
    peer = jax.image.resize(images, (1, 112, 112, 3), "cubic", antialias=True)
    np.testing.assert_allclose(found, np.clip(peer, 0, 255), atol=5e-3)
    if size == (112, 112):
        np.testing.assert_array_equal(found, images)


def test_a_small_image_is_what_the_quantized_degradation_makes_of_a_large_one(native, files):
    """An exported model takes the small image itself; a sweep enlarges it first."""
    faces = blocks(4)
    down = resize_matrix(112, 14)
    small = np.einsum("oh,bhwc,pw->bopc", down, faces.astype(float), down, optimize=True)
    small = np.round(np.clip(small, 0, 255)).astype(np.uint8)
    embed = compile_embed(native.network, make_mesh(1), variant="quantize")
    expected = np.asarray(embed(native.variables, faces, np.full(len(faces), 14, np.int32)))
    for name in ("a.onnx", "a.stablehlo"):
        found = load_encoder(str(files / name), build_for_evaluation).function(small)
        assert relative(found, expected) < 1e-4
    cosines = expected @ expected.T
    assert cosines.min() < 0.9  # the images are far apart


def test_batches_of_any_length_in_both_runtimes(native, files):
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    for name in ("a.onnx", "a.stablehlo"):
        embed = load_encoder(str(files / name), build_for_evaluation).function
        whole = embed(images)
        np.testing.assert_allclose(embed(images[3:4]), whole[3:4], atol=1e-6)
    # without crfr, as docs/export.md says
    with zipfile.ZipFile(files / "a.stablehlo") as archive:
        program = jax_export.deserialize(bytearray(archive.read("model.stablehlo")))
    assert program.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_allclose(program.call(images), whole, atol=1e-6)


def test_what_the_files_say(workdir, native, files):
    config = json.loads((workdir / "config.json").read_text())
    shared = {
        "schema": 1,
        "model": "run",
        "fingerprint": native.fingerprint,
        "step": STEP,
        "method": "bt-m",
        "config": {key: value for key, value in config.items() if key != "run"}
        | {"data": "train.rec+faces:identities=2", "init": {"weights": "r50.pth"}},
        "versions": environment.versions(),
        "calibration": None,
        "output": {"shape": ["b", 16], "type": "float32", "norm": 1},
    }
    for name, own in (
        ("a.onnx", {"format": "onnx", "opset": 18}),
        ("float.onnx", {"format": "onnx", "opset": 18}),
        ("a.stablehlo", {"format": "stablehlo", "platforms": ["cpu", "cuda", "tpu"]}),
    ):
        path = files / name
        found = unpack(path)[1] if path.suffix == ".stablehlo" else read_onnx_metadata(path)
        assert shared | own == {key: found[key] for key in shared | own}
        pixels = "float32" if name == "float.onnx" else "uint8"
        assert found["input"]["shape"] == ["b", "h", "w", 3]
        assert found["input"]["type"] == pixels
        assert load_encoder(str(path), build_for_evaluation).pixels == pixels
        assert str(workdir).encode() not in path.read_bytes()
    assert onnx.load(files / "a.onnx").opset_import[0].version == 18
    assert sorted(p.name for p in files.iterdir()) == sorted(
        f"{name}{end}" for name in ("a.onnx", "float.onnx", "a.stablehlo") for end in ("", ".json")
    )


def test_the_same_bytes_every_time_and_no_path_of_this_machine(native):
    network, weights = fold(native.network, jax.tree.map(np.asarray, native.variables))

    def program():
        return export_jax.make_stablehlo(export_jax.make_inference(network, weights), "uint8")[0]

    first = program()
    assert first == program()
    assert not re.search(rb"[\w-]+\.py", first)
    limit = jax.config.jax_traceback_in_locations_limit
    assert limit > 0  # as it was


def test_the_report(files, native):
    report = json.loads((files / "a.onnx.json").read_text())
    assert report["bytes"] == (files / "a.onnx").stat().st_size
    assert report["original_bytes"] == sum(a.nbytes for a in jax.tree.leaves(native.variables))
    assert report["runtime"] == "onnxruntime CPUExecutionProvider"
    checked = report["checked"]
    assert (checked["images"], checked["pairs"]) == (10, 45)  # of noise and of faces
    assert max(checked["difference"], checked["distance"]) < 1e-5 < checked["most"] == 1e-4
    assert [row["images"] for row in report["latency"]] == [1]
    assert all(row["original_ms"] > 0 and row["exported_ms"] > 0 for row in report["latency"])
    text = export.describe(report | {"original_bytes": 2_000_000, "bytes": 1_500_000} | {
        "latency": [{"images": 1, "repeats": 5, "original_ms": 2.0, "exported_ms": 1.25}],
        "checked": checked | {"difference": 3e-7},
    })  # fmt: skip
    assert text.splitlines() == [
        "checked in onnxruntime CPUExecutionProvider on 10 images, noise and faces of "
        "faces:identities=4,images=4, of 112 x 112, 28 x 20 px: distances of 45 pairs differ by at "
        "most 3.0e-07 (1e-04 is allowed)",
        "",
        "                size        1 image",
        "original      2.0 MB         2.0 ms",
        "exported      1.5 MB         1.2 ms",
        "median of 5 calls each, in turns; original: the network's weights alone, run by jax cpu",
    ]


def test_the_report_names_the_faces_of_the_check(workdir, tmp_path, monkeypatch, capsys):
    """And the faces are those."""
    quicken(monkeypatch, drawn=False)
    images = blocks(25)[5:]
    encoded = [png(image) for image in images]
    (tmp_path / "real.bin").write_bytes(pickle.dumps((encoded, [True, False] * 5)))
    fed, check_images = [], export_check.check_images

    def spy(faces, pixels):
        fed.append(faces)
        return check_images(faces, pixels)

    monkeypatch.setattr(export_check, "check_images", spy)
    out = tmp_path / "m.stablehlo"
    main.run(command(workdir, "stablehlo", out, f"--check-benchmark={tmp_path}/real.bin"))
    np.testing.assert_array_equal(fed[0], images)
    assert json.loads((tmp_path / "m.stablehlo.json").read_text())["checked"]["faces"] == "real.bin"
    assert "on 10 images, noise and faces of real.bin, of 112 x 112" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_both_are_timed_on_the_cpu(workdir, tmp_path, monkeypatch):
    """Another device stands for a GPU here, and one that onnxruntime would take comes first."""
    other = jax.devices()[3]
    places = []

    def timed(original, exported, faces, repeats):
        places.append(jnp.zeros(1).devices())
        return time_both(original, exported, faces, repeats)

    def opened(path, options, providers):
        places.append(providers)
        return session(path, options, providers=["CPUExecutionProvider"])

    time_both, session = export_check.time_both, onnxruntime.InferenceSession
    monkeypatch.setattr(export_check, "time_both", timed)
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    with jax.default_device(other):
        main.run(command(workdir, "onnx", tmp_path / "m.onnx"))
    assert places == [[("CPUExecutionProvider", {})], {jax.devices("cpu")[0]}]
    report = json.loads((tmp_path / "m.onnx.json").read_text())
    assert report["original_runtime"] == "jax cpu"


def test_compare_finds_a_turned_space_and_a_moved_image():
    rng = np.random.default_rng(0)
    unit_rows = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    before = unit_rows(rng.normal(size=(6, 4)))
    batches = [np.arange(4), np.arange(4, 6)]
    turned = before @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    found = export_check.compare(lambda b: before[b], lambda b: turned[b], batches)
    assert found["pairs"] == 15
    assert found["difference"] < 1e-12 < 0.1 < found["distance"]
    moved = before.copy()
    moved[5] = unit_rows(moved[5:] + 0.01)
    found = export_check.compare(lambda b: before[b], lambda b: moved[b], batches)
    expected = np.abs(before @ before[5] - before @ moved[5])[:5].max()
    assert found["difference"] == pytest.approx(expected)


def rows(out):
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def test_a_sweep_of_the_file_has_the_rows_of_the_run(workdir, files, tmp_path):
    """The float32 form gets the same pixels; of uint8 they are rounded, and the rows say so."""
    benchmark = "faces:identities=5,images=6,seed=4"
    found = {}
    for name in ("native", "float.onnx", "a.onnx", "a.stablehlo"):
        model = workdir if name == "native" else files / name
        main.run(["sweep", f"--model={model}", f"--benchmark={benchmark}", "--resolutions=7,112",
                  f"--out={tmp_path / name}"])  # fmt: skip
        found[name] = rows(tmp_path / name)
    for name, pixels in (("float.onnx", "float32"), ("a.onnx", "uint8"), ("a.stablehlo", "uint8")):
        for row, other in zip(found["native"], found[name], strict=True):
            assert (row["scenario"], row["resolution"]) == (other["scenario"], other["resolution"])
            assert other["pixels"] == pixels
            assert other["method"] == name.split(".")[1]
            if pixels == "float32" or row["resolution"] == 112:
                assert other["accuracy"] == pytest.approx(row["accuracy"], abs=5e-4)
                assert other["positive_distance"] == pytest.approx(
                    row["positive_distance"], abs=1e-5
                )


def command(model, form, out, *more):
    return ["export", f"--model={model}", f"--format={form}", f"--out={out}", *more]


def test_bad_input(workdir, files, tmp_path):
    out = tmp_path / "m.onnx"
    for arguments, message in (
        (command(workdir, "onx", out), "unknown --format 'onx': did you mean 'onnx'?"),
        (command(workdir, "onnx", out, "--input=float16"), "unknown --input 'float16'"),
        (command(workdir, "onnx", tmp_path / "m.bin"), "files of --format=onnx end in .onnx"),
        (command(f"{workdir}@7", "onnx", out), r"no checkpoint of step 7; there are \[3\]"),
        (command(tmp_path, "onnx", out), "no config.json there; give the --workdir"),
        (command(files / "a.onnx", "onnx", out), "embeddings, not weights"),
        (command(workdir, "onnx", files / "a.onnx" / "m.onnx"), "--out=.*choose another place"),
        (command(workdir, "saved_model", tmp_path), "TensorFlow|exists, and a SavedModel"),
        (command(workdir, "stablehlo", "gs://a/b.stablehlo"), "is a URL"),
        (["export", f"--model={workdir}", f"--out={out}"], "--format is missing"),
    ):
        with pytest.raises(InputError, match=message):
            main.run(arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("package", "form"), [("onnx", "onnx"), ("tensorflow", "saved_model")])
def test_a_missing_package_is_named_before_anything_is_loaded(
    package, form, workdir, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"pip install '?(crfr\[onnx\]|tensorflow-cpu)"):
        main.run(command(tmp_path / "nothing", form, tmp_path / f"m{export.FORMATS[form]}"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(workdir, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="make room or choose another place"):
        main.run(command(workdir, "onnx", tmp_path / "m.onnx"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
def test_a_file_that_disagrees_is_not_kept(form, workdir, tmp_path, monkeypatch):
    out = tmp_path / f"m.{form}"
    out.write_text("the one before")

    def wrong(network, variables):
        folded, weights = fold(network, variables)
        weights["params"]["dense"]["bias"] = weights["params"]["dense"]["bias"] + 0.3
        return folded, weights

    monkeypatch.setattr(export, "fold", wrong)
    with pytest.raises(InputError, match=r"not kept, .* differ by up to [\d.]+e[-+]\d+, .* 1e-04"):
        main.run(command(workdir, form, out))
    assert out.read_text() == "the one before"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_changed_onnx_graph_is_refused_but_for_settings(files, tmp_path):
    model = onnx.load(files / "float.onnx")
    bias = next(w for w in model.graph.initializer if w.name == "dense.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"has been changed since crfr exported it.*mean=0,std=1"):
        load_encoder(str(path), build_for_evaluation)
    assert load_encoder(f"{path}:mean=0,std=1", build_for_evaluation).function is not None
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(InputError, match="how its input is normalised is nowhere said"):
        load_encoder(str(path), build_for_evaluation)


@pytest.mark.usefixtures("quick")
def test_thresholds_in_a_file_are_not_those_of_other_settings(tiny, tmp_path, capsys):
    """Of a graph that was changed since, and of an input that is made otherwise."""
    path = tmp_path / "m.onnx"
    main.run(command(tiny / "runs/tiny", "onnx", path, "--input=float32"))
    image = np.random.default_rng(5).integers(0, 256, (40, 40, 3), np.uint8)
    assert crfr.load(path).calibrated
    model = onnx.load(path)
    bias = next(w for w in model.graph.initializer if w.name == "dense.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, tmp_path / "changed.onnx")
    Image.fromarray(image).save(tmp_path / "face.png")
    for spec in (f"{path}:color=bgr,mean=0,std=1", f"{tmp_path}/changed.onnx:mean=0,std=1"):
        loaded = crfr.load(spec)
        assert not loaded.calibrated
        with pytest.raises(InputError, match=r"has no thresholds .*make them with crfr calibrate"):
            loaded.verify(image, image)
        main.run(["embed", str(tmp_path), f"--model={spec}", f"--out={tmp_path}/i.npz"])
        main.run(["search", f"{tmp_path}/face.png", f"{tmp_path}/i.npz", f"--model={spec}"])
        assert "listed by distance: the model has no thresholds" in capsys.readouterr().out


def repacked(path, **content):
    """A .stablehlo file with other members."""
    file = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, content.get(name.split(".")[0], old.read(name)))
    return file.getvalue()


def test_damaged_stablehlo_files_are_refused(files, tmp_path):
    whole = (files / "a.stablehlo").read_bytes()
    program = unpack(files / "a.stablehlo")[0]
    about = json.dumps({"input": {}, "sha256": hashlib.sha256(b"no").hexdigest()})
    for content, message in (
        (b"", "no file of crfr export"),
        (whole[: len(whole) // 2], "no file of crfr export"),
        (whole.replace(program[5000:5008], b"changed!"), "no file of crfr export.*CRC"),
        (repacked(files / "a.stablehlo", model=program[:-1]), "changed since crfr exported it"),
        (repacked(files / "a.stablehlo", metadata=b"[]"), "not those of crfr export"),
        (repacked(files / "a.stablehlo", metadata=about, model=b"no"), "JAX .* cannot read it"),
    ):
        path = tmp_path / "m.stablehlo"
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load_encoder(str(path), build_for_evaluation)
    with pytest.raises(InputError, match=r"no such file; did you mean .*m\.stablehlo"):
        load_encoder(str(tmp_path / "n.stablehlo"), build_for_evaluation)


@pytest.mark.usefixtures("quick")
def test_thresholds_go_along_without_paths(native, workdir, tiny, tmp_path):
    table = json.loads((tiny / "runs/tiny/calibration.json").read_text())
    table |= {"model_fingerprint": native.fingerprint, "model": str(workdir)}
    table["command"] = "crfr calibrate --model=/private/run"
    path = workdir / "calibration.json"
    try:
        path.write_text(json.dumps(table))
        main.run(command(workdir, "onnx", tmp_path / "m.onnx"))
        about = read_onnx_metadata(tmp_path / "m.onnx")
        command_line = table.pop("command")
        assert about["calibration"] == table | {"model": "run"}
        assert about["config"]["data"] == "train.rec+faces:identities=2"
        assert about["config"]["init"]["weights"] == "r50.pth"
        written = (tmp_path / "m.onnx").read_bytes()
        for private in (str(workdir), "/home/me", "s3cret", command_line):
            assert private.encode() not in written
        for content, message in (
            (json.dumps(table | {"model_fingerprint": "other"}), "of another model "),
            ("{", "cannot be read as JSON"),
            (json.dumps(table | {"objectives": {}}), "its tables do not fit together"),
        ):
            path.write_text(content)
            with pytest.raises(InputError, match=message):
                main.run(command(workdir, "onnx", tmp_path / "m.onnx"))
    finally:
        path.unlink()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
def test_an_exported_file_verifies_by_the_thresholds_in_it(form, tiny, tmp_path):
    file = tmp_path / f"m.{form}"
    main.run(command(tiny / "runs/tiny", form, file, "--input=float32"))
    rng = np.random.default_rng(5)
    pair = [rng.integers(0, 256, (side, side, 3), np.uint8) for side in (20, 112)]
    exported, native = crfr.load(file), crfr.load(tiny / "runs/tiny")
    found, wanted = exported.verify(*pair), native.verify(*pair)
    assert (found.threshold, found.same) == (wanted.threshold, wanted.same)
    assert found.distance == pytest.approx(wanted.distance, abs=1e-4)
    # those beside the file come first, and have to be made with it
    (tmp_path / f"m.{form}.calibration.json").write_text(
        (tiny / "runs/tiny/calibration.json").read_text()
    )
    with pytest.raises(InputError, match="thresholds of another model"):
        crfr.load(file).verify(*pair)
    # and a table that is asked for is not passed over for those in the file
    with pytest.raises(InputError, match=r"nothing\.json: no such file"):
        crfr.load(file, calibration=tmp_path / "nothing.json")


@pytest.mark.usefixtures("quick")
def test_what_a_kill_has_left_is_removed_first(workdir, tmp_path, monkeypatch):
    left = tmp_path / ".partial-saved"
    left.mkdir()
    (left / "saved_model.pb").write_text("half")
    monkeypatch.setattr(export, "check_place", lambda *_: None)

    def write(folded, about, path, *rest):
        assert not path.exists()
        raise InputError("that was all")

    monkeypatch.setattr(export, "_write", write)
    with pytest.raises(InputError, match="that was all"):
        main.run(command(workdir, "saved_model", tmp_path / "saved"))


def test_a_saved_model_is_no_model_of_crfr_s(tmp_path):
    (tmp_path / "saved_model.pb").write_text("")
    with pytest.raises(InputError, match="is a SavedModel, for TensorFlow alone; name the run"):
        crfr.load(tmp_path)


@pytest.mark.usefixtures("quick")
def test_the_exported_file_is_timed_on_pixels_of_its_type(workdir, tmp_path, monkeypatch):
    """TensorFlow refuses others; onnxruntime's and JAX's callers would turn them themselves."""
    fed = []

    def wrapped(*arguments):
        made = write(*arguments)

        def function(images):
            fed.append(images.dtype)
            return made.function(images)

        return made._replace(function=function)

    write = export._write
    monkeypatch.setattr(export, "_write", wrapped)
    main.run(command(workdir, "stablehlo", tmp_path / "m.stablehlo", "--input=float32"))
    assert len(fed) == 2 * len(SHAPES) + 2
    assert {*fed} == {np.dtype("float32")}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_saved_model(kind, workdir, native, tiny, tmp_path):
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    table = json.loads((tiny / "runs/tiny/calibration.json").read_text())
    table |= {"model_fingerprint": native.fingerprint}
    path, out = workdir / "calibration.json", tmp_path / "saved"
    path.write_text(json.dumps(table))
    (tmp_path / ".partial-saved").mkdir()  # of one that was killed
    (tmp_path / ".partial-saved/saved_model.pb").write_text("half")
    try:
        main.run(command(workdir, "saved_model", out, f"--input={kind}"))
    finally:
        path.unlink()
    assert not (tmp_path / ".partial-saved").exists()
    loaded = tensorflow.saved_model.load(str(out)).signatures["serving_default"]
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    encoder = load_encoder(str(workdir), build_for_evaluation)
    expected = unit(
        jnp.asarray(encoder.network.apply(encoder.variables, jnp.asarray(resized(images))))
    )
    fed = images.astype(kind)
    assert relative(loaded(images=fed)["embedding"].numpy(), np.asarray(expected)) < 1e-4
    about = json.loads((out / "assets.extra/metadata.json").read_text())
    assert about["fingerprint"] == encoder.fingerprint
    del table["command"]
    assert about["calibration"] == table | {"model": "run"}
    with pytest.raises(InputError, match="exists, and a SavedModel is a folder"):
        main.run(command(workdir, "saved_model", out))
    with pytest.raises(InputError, match="is a SavedModel, for TensorFlow alone; name the run"):
        crfr.load(out)
