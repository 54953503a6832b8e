"""Weights of other frameworks: layer by layer against their definitions in NumPy, block by block
against torch's, and what is refused.
"""

import json
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import readings

from crfr.data.images import decode
from crfr.data.records import open_source
from crfr.errors import InputError
from crfr.model import resnet, weight_files
from crfr.model.iresnet import IRBlock, PReLU
from crfr.model.norm import BatchNorm
from crfr.model.resnet import Block
from crfr.model.weights import fill, load_backbone, save_backbone, weight_settings

WIDTH = 4
REAL = "weights/resnet50_imagenet_keras_notop_fp16.h5"
IMAGES = np.random.default_rng(7).integers(0, 256, (2, 112, 112, 3)).astype(np.float32)


def write_h5(path, arrays, *, chunks=False, inside=None, dtype=np.float32):
    """As Keras writes: a group a layer, their names in attributes, the weights' in each group."""
    h5py = pytest.importorskip("h5py")
    layers = list(dict.fromkeys(name.split("/")[0] for name in arrays))
    layers.insert(1, "relu")  # a layer without weights
    with h5py.File(path, "w") as file:
        root = file.create_group(inside) if inside else file
        if chunks:
            for i in range(0, len(layers), 50):
                root.attrs[f"layer_names{i // 50}"] = np.array(layers[i : i + 50], "S")
        else:
            root.attrs["layer_names"] = np.array(layers, "S")
        for layer in layers:
            group = root.create_group(layer)
            names = [name for name in arrays if name.split("/")[0] == layer]
            # 2015's names, which say nothing of what they are
            called = [f"{layer}/{layer}_{'WbXY'[i]}_1:0" for i in range(len(names))]
            group.attrs["weight_names"] = np.array(called, "S")
            for name, dataset in reversed(list(zip(names, called, strict=True))):
                group[dataset] = arrays[name].astype(dtype)
    return path


def network_of(path, name="resnet50", **settings):
    settings = {"width": WIDTH, "embedding": 16} | weight_settings(path, name) | settings
    return resnet.build(name, **settings)


def is_compared(module, _):
    return isinstance(module, Block | IRBlock | BatchNorm | PReLU)


def outputs_of(network, pretrained, images=IMAGES):
    """The output of every block, BatchNorm (BLOCK/LAYER in a block) and PReLU, and the embedding,
    of a network filled with weights.

    Not compiled as a whole: that would take longer than all of its layers one by one.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0), images[:1])
    fresh = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    variables = jax.tree.map(jnp.asarray, fill(fresh, pretrained.variables))
    images = jnp.asarray(images)
    embedding, state = network.apply(variables, images, capture_intermediates=is_compared)
    found = {"embedding": embedding}
    for name, part in state["intermediates"].items():
        for layer, inner in {"": part, **part}.items():
            if "__call__" in inner:
                found[f"{name}/{layer}".rstrip("/")] = inner["__call__"][0]
    return found


def largest_difference(found, expected):
    """Of all outputs, relative to the largest value of each."""
    assert set(expected) <= set(found)
    differences = {n: np.abs(found[n] - e).max() / np.abs(e).max() for n, e in expected.items()}
    assert all(found[n].shape == e.shape for n, e in expected.items())
    assert min(np.asarray(e).std() for e in expected.values()) > 1e-2  # there is something to see
    return max(differences.values())


HEAD = {
    ("params", "norm_features", "scale"), ("params", "norm_features", "bias"),
    ("params", "dense", "kernel"), ("params", "norm_embedding", "scale"),
    ("params", "norm_embedding", "bias"), ("batch_stats", "norm_features", "mean"),
    ("batch_stats", "norm_features", "var"), ("batch_stats", "norm_embedding", "mean"),
    ("batch_stats", "norm_embedding", "var"),
}  # fmt: skip


# --- Keras ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["new", "old"])
def keras(request, tmp_path_factory):
    """(file, outputs) of a narrow ResNet-50 with random weights."""
    get = readings.Drawn()
    expected = readings.keras_resnet50(get, IMAGES, WIDTH, request.param)
    path = tmp_path_factory.mktemp("keras") / f"{request.param}.h5"
    return write_h5(path, get), expected, get


def test_keras_resnet50(keras):
    path, expected, _ = keras
    pretrained = load_backbone(path, network_of(path))
    assert set(pretrained.absent) == HEAD
    assert largest_difference(outputs_of(network_of(path), pretrained), expected) < 1e-5


def test_keras_files_of_other_shapes(keras, tmp_path, capsys):
    """Names in several attributes, a whole model, half precision, a classifier."""
    path, _, arrays = keras
    expected = load_backbone(path, network_of(path)).variables
    assert capsys.readouterr().err == ""
    more = dict(arrays) | {"predictions/kernel": np.ones((8, 3)), "predictions/bias": np.ones(3)}
    other = write_h5(tmp_path / "w.h5", more, chunks=True, inside="model_weights")
    found = load_backbone(other, network_of(other)).variables
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    half = write_h5(tmp_path / "h.h5", arrays, dtype=np.float16)
    found = load_backbone(half, network_of(half)).variables
    assert capsys.readouterr().err == (
        f"crfr: {half}: half precision (float16), up-cast to float32\n"
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3, rtol=2e-3)  # noqa: E731
    jax.tree.map(close, found, expected)


def test_the_real_imagenet_file_on_real_faces(shared_data, capsys):
    path = shared_data / REAL
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as file:

        def get(name, shape):
            layer, part = name.split("/")
            value = np.asarray(file[layer][layer][f"{part}:0"], np.float64)
            assert value.shape == shape
            return value

        source = open_source(str(shared_data / "pins90/train.rec"))
        images = np.stack([decode(source[i]["image"], str(i)) for i in (0, 5000, 12000)])
        images = images.astype(np.float32)
        expected = readings.keras_resnet50(get, images)
    network = network_of(path, width=64)
    found = outputs_of(network, load_backbone(path, network), images)
    assert "half precision (float16)" in capsys.readouterr().err
    assert found["stage3_block2"].shape == (3, 4, 4, 2048)
    assert largest_difference(found, expected) < 1e-5


# --- torchvision, timm, InsightFace, without torch -----------------------------------------------


def write_safetensors(path, arrays):
    pytest.importorskip("safetensors")
    weight_files.write_safetensors(path, {n: np.ascontiguousarray(a) for n, a in arrays.items()})
    return path


@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
def test_torchvision_resnets(name, tmp_path):
    get = readings.Drawn()
    expected = readings.torchvision_resnet(get, IMAGES, name, WIDTH)
    get["bn1.num_batches_tracked"] = np.array(3, np.int64)
    path = write_safetensors(tmp_path / "w.safetensors", get)
    network = network_of(path, name)
    pretrained = load_backbone(path, network)
    assert set(pretrained.absent) == HEAD
    assert largest_difference(outputs_of(network, pretrained), expected) < 1e-5


@pytest.mark.parametrize("name", ["iresnet18", "iresnet34", "iresnet50", "iresnet100"])
def test_insightface_iresnets_in_and_out(name, tmp_path):
    get = readings.Drawn()
    expected = readings.insightface_iresnet(get, IMAGES, name, WIDTH, 16)
    path = write_safetensors(tmp_path / "w.safetensors", {f"module.{n}": a for n, a in get.items()})
    network = network_of(path, name)
    pretrained = load_backbone(path, network)
    assert pretrained.absent == ()
    assert largest_difference(outputs_of(network, pretrained), expected) < 1e-5

    out = tmp_path / "out.safetensors"
    save_backbone(out, pretrained.variables, network)
    again = load_backbone(out, network).variables
    jax.tree.map(np.testing.assert_array_equal, again, pretrained.variables)
    written = weight_files.read_arrays(out)
    assert set(get) <= set(written)
    rest = set(written) - set(get)
    assert rest == {
        n.replace("running_var", "num_batches_tracked") for n in get if "running_var" in n
    }
    reread = readings.insightface_iresnet(
        lambda n, shape: written[n].reshape(shape).astype(np.float64), IMAGES, name, WIDTH, 16
    )
    assert largest_difference(reread, expected) < 1e-6


def test_bfloat16_is_up_cast(tmp_path, capsys):
    import ml_dtypes

    pytest.importorskip("safetensors")
    get = readings.Drawn()
    readings.insightface_iresnet(get, IMAGES[:1], "iresnet18", WIDTH, 16)
    header, data = {}, b""
    for name, value in get.items():
        more = value.astype(ml_dtypes.bfloat16).tobytes()
        offsets = [len(data), len(data) + len(more)]
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": offsets}
        data += more
    head = json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    found = load_backbone(path, network_of(path, "iresnet18")).variables
    assert "half precision (bfloat16), up-cast" in capsys.readouterr().err
    slope = found["params"]["prelu_stem"]["slope"]
    np.testing.assert_allclose(slope, get["prelu.weight"], rtol=2**-8)


# --- with torch ----------------------------------------------------------------------------------


@pytest.fixture
def torch_networks():
    pytest.importorskip("torch", reason="for .pth alone")
    import torch_networks

    return torch_networks


def test_torchvision_in_torch(torch_networks, tmp_path):
    import torch

    model = torch_networks.randomised(torch_networks.ResNet50())
    path = tmp_path / "resnet50.pth"
    torch.save(model.state_dict(), path)
    network = network_of(path, width=64)
    found = outputs_of(network, load_backbone(path, network))
    assert largest_difference(found, torch_networks.outputs_of(model, IMAGES)) < 1e-4


@pytest.mark.parametrize(
    ("name", "width"), [("iresnet18", 64), ("iresnet50", 16), ("iresnet100", 8)]
)
def test_insightface_in_torch_and_back(torch_networks, tmp_path, name, width):
    import torch

    model = torch_networks.randomised(torch_networks.IResNet(name, width))
    path = tmp_path / "backbone.pth"
    state = {f"module.{n}": v for n, v in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict_backbone": state}, path)
    expected = torch_networks.outputs_of(model, IMAGES)
    network = network_of(path, name, width=width, embedding=512)
    pretrained = load_backbone(path, network)
    assert largest_difference(outputs_of(network, pretrained), expected) < 1e-4

    out = tmp_path / "out.pth"
    save_backbone(out, pretrained.variables, network)
    other = torch_networks.IResNet(name, width).eval()
    other.load_state_dict(torch.load(out, weights_only=True), strict=True)
    assert largest_difference(torch_networks.outputs_of(other, IMAGES), expected) < 1e-5


def test_pth_without_torch(tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"w.pth: needs torch.*crfr\[torch\]"):
        load_backbone(path, network_of(path))


@pytest.mark.parametrize("package", ["h5py", "safetensors"])
def test_missing_packages_are_named(package, tmp_path, monkeypatch):
    path = tmp_path / "w"
    start = {"h5py": b"\x89HDF\r\n\x1a\n", "safetensors": b"\2\0\0\0\0\0\0\0{}"}
    path.write_bytes(start[package])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs {package}.*pip install crfr\["):
        load_backbone(path, network_of(path))


# --- refusals ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ir18():
    get = readings.Drawn()
    readings.insightface_iresnet(get, IMAGES[:1], "iresnet18", WIDTH, 16)
    return dict(get)


def refusal(path, name="iresnet18", **settings):
    with pytest.raises(InputError) as error:
        load_backbone(path, network_of(path, name, **settings))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    return str(error.value)


def test_another_architecture(ir18, tmp_path):
    path = write_safetensors(tmp_path / "w.safetensors", ir18)
    text = refusal(path, "resnet18")
    # a third BatchNorm and a PReLU in 8 blocks, a shortcut in the first, the stem's PReLU, bn2 and
    # features: 8 x (4 + 1) + 5 + 1 + 4 + 4
    assert " 54 unexpected (" in text
    assert "(conv1.weight (4, 3, 3, 3) instead of (4, 3, 7, 7), " in text
    assert "it looks like model.name=iresnet18" in text
    text = refusal(path, "iresnet34")
    missing = 8 * 15  # blocks that the shallower network has not, and the arrays of each
    assert f"{missing} missing (" in text
    assert text.split("missing (")[1].split(")")[0].count(",") == 10  # ten names and an ellipsis
    assert "looks like model.name=iresnet18" in text


def test_another_architecture_is_named_before_settings_of_the_wrong_one(keras, ir18, tmp_path):
    """With a network's defaults: the settings of another family would not make these fit."""
    path = write_safetensors(tmp_path / "w.safetensors", ir18)
    for name in ("resnet50", "resnet18", "tiny"):
        with pytest.raises(InputError) as error:
            load_backbone(path, resnet.build(name, width=WIDTH))
        assert "weights of another network" in str(error.value)
        assert "it looks like model.name=iresnet18" in str(error.value)
        assert "--config.model.input_mean" not in str(error.value)
    _, _, arrays = keras
    less = {name: array for name, array in arrays.items() if "conv5" not in name[:5]}
    less = {name: array for name, array in less.items() if not name.startswith(("res5", "bn5"))}
    with pytest.raises(InputError, match=" missing "):
        load_backbone(write_h5(tmp_path / "w.h5", less), resnet.build("resnet50", width=WIDTH))


def test_another_width_and_embedding(ir18, tmp_path):
    path = write_safetensors(tmp_path / "w.safetensors", ir18)
    text = refusal(path, width=5)
    assert "conv1.weight (4, 3, 3, 3) instead of (5, 3, 3, 3)" in text
    assert "compare model.width and model.embedding" in text
    assert "missing" not in text
    text = refusal(path, embedding=32)
    assert "fc.weight (16, 1568) instead of (32, 1568)" in text
    assert "fc.bias (16,) instead of (32,)" in text


def test_what_is_no_finite_float(ir18, tmp_path):
    kernel = ir18["layer2.0.conv1.weight"].copy()
    kernel[0, 0, 0, 0] = np.nan
    cases = {
        "layer2.0.conv1.weight": (kernel, "layer2.0.conv1.weight holds NaN"),
        "fc.bias": (np.full(16, np.inf, np.float32), "fc.bias holds NaN or infinite"),
        "bn1.weight": (np.ones(4, np.int8), "bn1.weight is int8; give floats"),
        "bn1.bias": (np.full(4, 1e300), "bn1.bias holds NaN or infinite values, in float32"),
        "bn1.running_var": (-np.ones(4, np.float32), "bn1.running_var has variances below 0"),
    }
    for name, (value, message) in cases.items():
        path = write_safetensors(tmp_path / "w.safetensors", ir18 | {name: value})
        assert message in refusal(path)


def test_settings_of_another_family(keras, ir18, tmp_path):
    path, _, _ = keras
    text = refusal(path, "resnet50", version="v1.5", bn_epsilon=1e-5)
    assert "do not go with model.version=v1.5, model.bn_epsilon=1e-05;" in text
    assert '--config.model.version="v1" --config.model.bn_epsilon="1.001e-05"' in text
    text = refusal(path, "resnet50", input_mean=(103.939, 116.779, 123.68))
    assert '--config.model.input_mean="(123.68, 116.779, 103.939)"' in text
    path = write_safetensors(tmp_path / "w.safetensors", ir18)
    assert "model.head=plain" in refusal(path, head="plain")


def test_keras_into_another_network(keras):
    path, _, _ = keras
    for name in ("iresnet50", "resnet18"):
        with pytest.raises(InputError, match="is read into ResNet-50 alone"):
            weight_settings(path, name)
    with pytest.raises(InputError, match=r"unknown model.name 'resnet5'"):
        weight_settings(path, "resnet5")


def test_keras_of_other_shapes_and_layers(keras, tmp_path):
    _, _, arrays = keras
    stem = next(iter(arrays))
    other = dict(arrays) | {stem: np.zeros((7, 7, 3, 8)), "extra/kernel": np.zeros(2)}
    del other[list(arrays)[2]]  # a gamma: the layer's three are then called by number
    text = refusal(write_h5(tmp_path / "w.h5", other), "resnet50")
    assert "3 missing" not in text
    assert "4 missing (" in text
    assert "unexpected (" in text
    assert "1 differently shaped (" in text
    assert "(7, 7, 3, 8) instead of (7, 7, 3, 4)" in text


def test_damaged_h5(keras, tmp_path):
    path, _, _ = keras
    whole = path.read_bytes()
    cut = tmp_path / "cut.h5"
    for size in (8, 100, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:size])
        assert "damaged HDF5" in refusal(cut, "resnet50")
    h5py = pytest.importorskip("h5py")
    with h5py.File(cut, "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros(3)
    assert "without Keras' layer_names" in refusal(cut, "resnet50")
    write_h5(cut, {"a/kernel": np.zeros(2)})
    with h5py.File(cut, "a") as file:
        file["a"].attrs["weight_names"] = np.array(["elsewhere"], "S")
    assert "damaged HDF5" in refusal(cut, "resnet50")


def test_damaged_safetensors(ir18, tmp_path):
    path = write_safetensors(tmp_path / "w.safetensors", ir18)
    whole = path.read_bytes()
    header = whole.replace(b'"dtype"', b'"dtyp?"', 1)
    for data in (b"", whole[:4], whole[:100], whole[:-1], header, b"\xff" * 7 + whole[7:]):
        path.write_bytes(data)
        assert "damaged .safetensors" in refusal(path)


def test_no_file_of_weights(tmp_path):
    assert "No such file" in refusal_of_settings(tmp_path / "none.h5")
    assert "Is a directory" in refusal_of_settings(tmp_path)
    path = tmp_path / "w.keras"
    path.write_bytes(b"PK\3\4")
    assert "a model of Keras 3; give the .h5" in refusal(path)
    path = tmp_path / "w.bin"
    path.write_bytes(b"some other file")
    assert "begins like no file of weights" in refusal(path)


def refusal_of_settings(path):
    with pytest.raises(InputError) as error:
        weight_settings(path, "resnet50")
    return str(error.value)


class Bomb:
    """What must never be unpickled."""

    def __reduce__(self):
        return (Bomb.explode, ())

    @staticmethod
    def explode():
        raise AssertionError("code of the file was run")


def test_pth_that_is_no_state_dict(torch_networks, tmp_path):
    import torch

    path = tmp_path / "w.pth"
    for value, message in [
        (torch.nn.Linear(2, 2), "holds Python objects"),
        ({"a": Bomb()}, "holds Python objects"),
        ([torch.ones(2)], "holds no state dict but a list"),
        (torch.ones(2), "holds no state dict but a Tensor"),
        ({}, "holds no state dict but a dict"),
        ({"state_dict": {"epoch": 3}}, "'epoch' is a int, not an array"),
        ({1: torch.ones(2)}, "1 is a Tensor, not an array"),
        ({"a": torch.ones(2, dtype=torch.float8_e4m3fn)}, "a is torch.float8_e4m3fn; give floats"),
        ({"a": torch.ones(2, 2).to_sparse()}, "a is torch.float32, torch.sparse_coo"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "a is torch.complex64"),
    ]:
        torch.save(value, path)
        assert message in refusal(path)
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"a": Bomb()}, protocol))
        refusal(path)


def test_damaged_pth(torch_networks, ir18, tmp_path):
    import torch

    path = tmp_path / "w.pth"
    for modern in (True, False):
        state = {n: torch.tensor(a) for n, a in ir18.items()}
        torch.save(state, path, _use_new_zipfile_serialization=modern)
        load_backbone(path, network_of(path, "iresnet18"))
        whole = path.read_bytes()
        for size in (4, 100, len(whole) // 2, len(whole) - 100):
            path.write_bytes(whole[:size])
            assert "damaged" in refusal(path)


def test_pth_of_bfloat16(torch_networks, ir18, tmp_path, capsys):
    import torch

    path = tmp_path / "w.pth"
    torch.save({n: torch.tensor(a).bfloat16() for n, a in ir18.items()}, path)
    found = load_backbone(path, network_of(path, "iresnet18")).variables
    assert "half precision (bfloat16), up-cast" in capsys.readouterr().err
    np.testing.assert_allclose(
        found["params"]["prelu_stem"]["slope"], ir18["prelu.weight"], rtol=2**-8
    )


def test_what_cannot_be_written(ir18, tmp_path):
    path = write_safetensors(tmp_path / "w.safetensors", ir18)
    network = network_of(path, "iresnet18")
    variables = load_backbone(path, network).variables
    for target, other, message in [
        ("w.onnx", network, "give a name that ends in .pth, .pt, .safetensors"),
        ("w.pth", resnet.build("tiny"), "only IR networks"),
        ("w.pth", resnet.build("iresnet18", bn_epsilon=1e-3), "model.bn_epsilon=0.001"),
    ]:
        with pytest.raises(InputError, match=message):
            save_backbone(tmp_path / target, variables, other)
    with pytest.raises(InputError, match="No such file"):
        save_backbone(tmp_path / "none/w.safetensors", variables, network)
