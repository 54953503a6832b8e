"""Models that are not crfr's: ONNX files whose embeddings are known by hand, and functions."""

import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from crfr.data.images import decode
from crfr.data.unpickle import unpickle
from crfr.errors import InputError
from crfr.evaluate.encoders import load_encoder
from crfr.evaluate.foreign import as_embeddings

FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
NCHW, NHWC = ["n", 3, 112, 112], ["n", 112, 112, 3]


def load(spec):
    def build(config):
        raise AssertionError("no config is read for a model that is not crfr's")

    return load_encoder(str(spec), build)


def save(path, nodes, *, shape=NCHW, kind=FLOAT, outputs=(("e", ["n", "d"]),), **graph):
    """An ONNX file with the input "x"."""
    inputs = [helper.make_tensor_value_info("x", kind, shape), *graph.pop("inputs", [])]
    infos = [helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in outputs]
    made = helper.make_graph(nodes, "g", inputs, infos, **graph)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def means(path, layout="nchw", **options):
    """A model whose embedding is the mean of each channel."""
    axes = [2, 3] if layout == "nchw" else [1, 2]
    nodes = [helper.make_node("ReduceMean", ["f"], ["e"], axes=axes, keepdims=0)]
    cast = helper.make_node("Cast", ["x"], ["f"], to=FLOAT)
    shape = options.pop("shape", NCHW if layout == "nchw" else NHWC)
    return save(path, [cast, *nodes], shape=shape, **options)


def flat(path, shape):
    """A model whose embedding is its whole input."""
    return save(path, [helper.make_node("Flatten", ["x"], ["e"], axis=1)], shape=shape)


def faces(*colours):
    return np.stack([np.full((112, 112, 3), c, np.float32) for c in colours])


COLOUR = (10, 20, 40)  # red, green, blue


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("mean=0,std=1", COLOUR),
        ("mean=0,std=1,color=bgr", COLOUR[::-1]),
        ("mean=10,std=2", (0, 5, 15)),
        ("mean=1;2;3,std=2;4;5", (4.5, 4.5, 7.4)),
        ("mean=1;2;3,std=2;4;5,color=bgr", (7.4, 4.5, 4.5)),  # in the order of red, green, blue
    ],
)
def test_the_input_is_made_as_the_settings_say(tmp_path, layout, settings, expected):
    path = means(tmp_path / "m.onnx", layout)
    for spec in (f"{path}:{settings}", f"{path}:layout={layout},{settings}"):
        encoder = load(spec)
        assert (encoder.model, encoder.step, encoder.method) == (spec, None, "onnx")
        assert (encoder.precision, encoder.pixels) == ("model", "float32")
        got = encoder.function(faces(COLOUR, (0, 0, 0)))
        assert got.dtype == np.float32
        assert got.shape == (2, 3)
        np.testing.assert_allclose(got[0], expected, rtol=1e-4)


def test_presets(tmp_path):
    path = means(tmp_path / "m.onnx")
    scaled = (np.array(COLOUR) - 127.5) / 127.5
    for settings, expected in [
        ("preset=opencv", COLOUR),
        ("preset=insightface", scaled),
        ("preset=insightface,color=bgr", scaled[::-1]),
        ("preset=insightface,std=1", scaled * 127.5),
    ]:
        got = load(f"{path}:{settings}").function(faces(COLOUR))[0]
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    nhwc = means(tmp_path / "nhwc.onnx", "nhwc")
    with pytest.raises(InputError, match=r"\[n 112 112 3\] is not nchw; give layout=nhwc"):
        load(f"{nhwc}:preset=opencv")
    got = load(f"{nhwc}:preset=opencv,layout=nhwc").function(faces(COLOUR))[0]
    np.testing.assert_allclose(got, COLOUR)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_every_pixel_lies_where_the_layout_says(tmp_path, layout):
    path = flat(tmp_path / "m.onnx", NCHW if layout == "nchw" else NHWC)
    images = np.random.default_rng(0).uniform(0, 255, (2, 112, 112, 3)).astype(np.float32)
    got = load(f"{path}:mean=0,std=1").function(images)
    expected = images.transpose(0, 3, 1, 2) if layout == "nchw" else images
    np.testing.assert_array_equal(got, expected.reshape(2, -1))  # not rounded either


def test_open_dimensions_need_a_layout(tmp_path):
    path = means(tmp_path / "m.onnx", shape=["n", "c", "h", "w"])
    with pytest.raises(InputError, match=r"\[n c h w\] leaves the layout open; add layout=nchw"):
        load(f"{path}:mean=0,std=1")
    got = load(f"{path}:mean=0,std=1,layout=nchw").function(faces(COLOUR))
    np.testing.assert_allclose(got, [COLOUR])


@pytest.mark.parametrize("images", [1, 4, 10])
def test_a_fixed_batch_is_filled_up_and_cut(tmp_path, images):
    path = means(tmp_path / "m.onnx", shape=[4, 3, 112, 112], outputs=[("e", [4, 3])])
    colours = np.arange(3 * images).reshape(images, 3)
    got = load(f"{path}:mean=0,std=1").function(faces(*colours))
    np.testing.assert_allclose(got, colours)


def test_a_model_of_uint8_gets_uint8(tmp_path):
    path = means(tmp_path / "m.onnx", "nhwc", kind=UINT8)
    encoder = load(path)  # nothing to choose: it normalises its input itself
    assert encoder.pixels == "uint8"
    np.testing.assert_allclose(encoder.function(faces(COLOUR).astype(np.uint8)), [COLOUR])
    assert load(f"{path}:mean=0,std=1,color=bgr").pixels == "uint8"
    with pytest.raises(InputError, match=r"takes uint8 pixels.*give mean=0,std=1"):
        load(f"{path}:mean=127.5,std=127.5")


def test_a_model_of_float16_gets_normalised_pixels_in_float16(tmp_path):
    path = means(tmp_path / "m.onnx", kind=TensorProto.FLOAT16)
    encoder = load(f"{path}:preset=insightface")
    assert encoder.pixels == "float32"
    got = encoder.function(faces(COLOUR))
    np.testing.assert_allclose(got, [(np.array(COLOUR) - 127.5) / 127.5], rtol=1e-3)


def test_of_several_outputs_the_only_flat_one_or_the_named_one(tmp_path):
    node = helper.make_node
    mean = node("ReduceMean", ["x"], ["e"], axes=[2, 3], keepdims=0)
    twice = node("Add", ["e", "e"], ["double"])
    wide = node("ReduceMean", ["x"], ["wide"], axes=[2, 3], keepdims=1)
    outputs = [("wide", ["n", 3, 1, 1]), ("e", ["n", 3])]
    one = save(tmp_path / "one.onnx", [mean, wide], outputs=outputs)
    np.testing.assert_allclose(load(f"{one}:preset=opencv").function(faces(COLOUR)), [COLOUR])
    two = save(tmp_path / "two.onnx", [mean, twice], outputs=[("e", ["n", 3]), ("double", [1, 3])])
    with pytest.raises(InputError, match=r"\(e \[n 3\], double \[1 3\]\); add output=NAME"):
        load(f"{two}:preset=opencv")
    got = load(f"{two}:preset=opencv,output=double").function(faces(COLOUR, COLOUR))
    np.testing.assert_allclose(got[1], np.array(COLOUR) * 2)
    with pytest.raises(InputError, match=r"unknown output of .*'duoble': did you mean 'double'"):
        load(f"{two}:preset=opencv,output=duoble")
    with pytest.raises(InputError, match=r"output 'wide': returned shape \[1, 3, 1, 1\] for 1"):
        load(f"{one}:preset=opencv,output=wide").function(faces(COLOUR))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "add preset=insightface, preset=opencv, or mean=M,std=S"),
        (":", "add preset=insightface"),
        (":layout=nchw,color=rgb", "add preset=insightface"),
        (":mean=127.5", "add preset=insightface"),
        (":preset=arcface", "unknown preset of .*m.onnx 'arcface'.*insightface, opencv"),
        (":layuot=nchw", "unknown setting of .*m.onnx 'layuot': did you mean 'layout'"),
        (":layout=chw", "unknown layout of .*'chw'"),
        (":color=gray", "unknown color of .*'gray'"),
        (":mean=,std=1", "mean has no value; write mean=VALUE"),
        (":mean=0,std=1,mean=2", "gives mean twice"),
        (":mean=0;1,std=1", "mean=0;1 is neither a number nor three"),
        (":mean=nan,std=1", "mean=nan is neither"),
        (":mean=0,std=grey", "std=grey is neither"),
        (":mean=0,std=0", "std=0 divides the pixels"),
        (":mean=0,std=1,layout=nhwc", "is not nhwc; give layout=nchw"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, message):
    path = means(tmp_path / "m.onnx")
    with pytest.raises(InputError, match=message):
        load(f"{path}{settings}")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (["n", 3, 160, 160], r"of shape \[n 3 160 160\], but a face is \[n 3 112 112\]"),
        (["n", 1, 112, 112], r"\[n 1 112 112\]"),
        (["n", 112, 112, 1], r"\[n 112 112 1\]"),
        (["n", 3, 112, 96], r"\[n 3 112 96\]"),
        ([3, 112, 112], r"\[3 112 112\]"),
        (["n", 3, 1, 112, 112], r"\[n 3 1 112 112\]"),
    ],
)
def test_inputs_that_are_no_faces_are_refused(tmp_path, shape, message):
    path = save(
        tmp_path / "m.onnx", [helper.make_node("Flatten", ["x"], ["e"], axis=1)], shape=shape
    )
    with pytest.raises(InputError, match=message):
        load(f"{path}:mean=0,std=1")


def test_models_that_are_none_are_refused(tmp_path):
    node = helper.make_node
    with pytest.raises(InputError, match=r"n.onnx: no such file; check the path"):
        load(f"{tmp_path}/n.onnx:mean=0,std=1")
    text = tmp_path / "text.onnx"
    for content in ("", "not a model"):
        text.write_text(content)
        with pytest.raises(InputError, match=r"text.onnx: onnxruntime cannot load it"):
            load(f"{text}:mean=0,std=1")
    whole = flat(tmp_path / "whole.onnx", NCHW)
    text.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"text.onnx: onnxruntime cannot load it"):
        load(f"{text}:mean=0,std=1")
    two = save(
        tmp_path / "two.onnx",
        [node("Flatten", ["x"], ["a"], axis=1), node("Mul", ["a", "y"], ["e"])],
        inputs=[helper.make_tensor_value_info("y", FLOAT, [1])],
    )
    with pytest.raises(InputError, match=r"takes 2 inputs \(x, y\)"):
        load(f"{two}:mean=0,std=1")
    whole_numbers = means(tmp_path / "int.onnx", kind=TensorProto.INT32)
    with pytest.raises(InputError, match=r"input 'x' is a tensor\(int32\); export it with"):
        load(f"{whole_numbers}:mean=0,std=1")
    deep = save(tmp_path / "deep.onnx", [node("Relu", ["x"], ["e"])], outputs=[("e", NCHW)])
    with pytest.raises(InputError, match=r"returns e \[n 3 112 112\], not one embedding an image"):
        load(f"{deep}:mean=0,std=1")


def test_a_model_that_loses_rows_or_fails_is_refused(tmp_path):
    node = helper.make_node
    shape = lambda *numbers: numpy_helper.from_array(np.array(numbers, np.int64), "s")  # noqa: E731
    joined = save(
        tmp_path / "joined.onnx", [node("Reshape", ["x", "s"], ["e"])], initializer=[shape(1, -1)]
    )
    with pytest.raises(InputError, match=r"returned shape \[1, 75264\] for 2 images"):
        load(f"{joined}:mean=0,std=1").function(faces(COLOUR, COLOUR))
    single = save(
        tmp_path / "single.onnx",
        [node("Reshape", ["x", "s"], ["e"])],
        initializer=[shape(1, 3 * 112 * 112)],
        outputs=[("e", [1, 3 * 112 * 112])],
    )
    with pytest.raises(InputError, match=r"single.onnx: fails on 2 images: .*Reshape"):
        load(f"{single}:mean=0,std=1").function(faces(COLOUR, COLOUR))


def test_embeddings_that_are_not_finite_or_zero_are_handed_on(tmp_path):
    """They are counted and refused where it is known whose they are."""
    path = save(
        tmp_path / "m.onnx",
        [
            helper.make_node("ReduceMean", ["x"], ["a"], axes=[2, 3], keepdims=0),
            helper.make_node("Sqrt", ["a"], ["e"]),
        ],
    )
    embed = load(f"{path}:mean=100,std=1").function
    # above the mean, at it, and below it, where the square root is none
    got = embed(faces((200, 200, 200), (100, 100, 100), (0, 0, 0)))
    np.testing.assert_allclose(got, [[10] * 3, [0] * 3, [np.nan] * 3], rtol=1e-4)
    assert np.isinf(as_embeddings("m", np.array([[1e300]]), 1)).all()  # too large for float32


def test_a_model_that_normalises_its_input_is_not_given_insightfaces_mean(tmp_path):
    node = helper.make_node
    numbers = [numpy_helper.from_array(np.float32(v), n) for n, v in (("m", 127.5), ("s", 0.01))]
    path = save(
        tmp_path / "m.onnx",
        [
            node("Sub", ["x", "m"], ["a"], name="_minusscalar0"),
            node("Mul", ["a", "s"], ["b"], name="_mulscalar0"),
            node("Flatten", ["b"], ["e"], axis=1),
        ],
        initializer=numbers,
    )
    message = r"it begins with Sub, Mul, Flatten.*give it mean=0,std=1"
    with pytest.raises(InputError, match=message):
        load(f"{path}:preset=insightface")
    for settings in ("mean=0,std=1", "preset=insightface,mean=0,std=1", "preset=opencv"):
        got = load(f"{path}:{settings}").function(faces(COLOUR))
        np.testing.assert_allclose(got[0, 0], (10 - 127.5) * 0.01, rtol=1e-4)


def test_fingerprints_tell_files_and_settings_apart(tmp_path):
    path = means(tmp_path / "m.onnx")
    different = [
        "mean=0,std=1",
        "mean=0,std=2",
        "mean=1,std=1",
        "mean=0;0;1,std=1",
        "mean=0,std=1,color=bgr",
        "preset=insightface",
    ]
    found = {load(f"{path}:{settings}").fingerprint for settings in different}
    assert len(found) == len(different)
    same = load(f"{path}:preset=opencv,layout=nchw").fingerprint
    assert same == load(f"{path}:mean=0,std=1").fingerprint
    other = means(tmp_path / "other.onnx", "nhwc")
    assert load(f"{other}:mean=0,std=1").fingerprint != same
    (tmp_path / "copy.onnx").write_bytes(path.read_bytes())
    assert load(f"{tmp_path}/copy.onnx:mean=0,std=1").fingerprint == same


@pytest.mark.parametrize("constant", [False, True])
def test_external_tensors_are_part_of_the_fingerprint(tmp_path, constant):
    node = helper.make_node
    weight = numpy_helper.from_array(np.full((3, 4), 2, np.float32), "w")
    nodes = [
        node("ReduceMean", ["x"], ["a"], axes=[2, 3], keepdims=0),
        node("MatMul", ["a", "w"], ["e"]),
    ]
    if constant:
        nodes.insert(0, node("Constant", [], ["w"], value=weight))
    path = save(tmp_path / "m.onnx", nodes, initializer=[] if constant else [weight])
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    spec = f"{path}:mean=0,std=1"
    before = load(spec)
    np.testing.assert_allclose(before.function(faces(COLOUR)), np.full((1, 4), 140.0))
    weights = tmp_path / "weights.bin"
    weights.write_bytes(np.full((3, 4), 3, np.float32).tobytes())
    after = load(spec)
    np.testing.assert_allclose(after.function(faces(COLOUR)), np.full((1, 4), 210.0))
    assert after.fingerprint != before.fingerprint
    weights.unlink()
    with pytest.raises(InputError, match=r"cannot load it.*external data beside it"):
        load(spec)


def test_nothing_is_said_of_what_could_be_tidier(tmp_path, capfd):
    unused = numpy_helper.from_array(np.ones(3, np.float32), "unused")
    path = means(tmp_path / "m.onnx", initializer=[unused], outputs=[("e", [1, 3])])
    load(f"{path}:mean=0,std=1").function(faces(COLOUR, COLOUR))
    assert capfd.readouterr() == ("", "")


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'crfr\[onnx\]'"):
        load(f"{means(tmp_path / 'm.onnx')}:mean=0,std=1")


def test_sface_as_onnxruntime_alone_runs_it(shared_data, capfd):
    import onnxruntime

    path = shared_data / "models/sface_2021dec_int8bq.onnx"
    lfw = shared_data / "lfw/lfw.bin"
    bins, _ = unpickle(str(lfw), lfw.read_bytes())  # decoding all would take seconds
    images = np.stack([decode(image, str(lfw)) for image in [*bins[:20], *bins[600:620]]])
    capfd.readouterr()
    with pytest.raises(InputError, match="normalises its input itself"):
        load(f"{path}:preset=insightface")
    encoder = load(f"{path}:preset=opencv")
    got = encoder.function(images.astype(np.float32))
    assert capfd.readouterr() == ("", "")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    fed = images.transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_array_equal(got, session.run(None, {"data": fed})[0])
    unit = got / np.linalg.norm(got, axis=1, keepdims=True)
    cosine = (unit[0::2] * unit[1::2]).sum(1)
    assert cosine[:10].min() > 0.4 > 0.35 > cosine[10:].max()  # OpenCV's threshold is 0.363


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module to the current directory, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = []

    def write(text, name="their_model"):
        names.append(name)
        sys.modules.pop(name, None)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)


GREY = faces(COLOUR, (1, 2, 3)).astype(np.uint8)


def test_a_function_is_an_encoder(module):
    name = module("""
        import numpy as np

        def embed(images):
            assert images.dtype == np.uint8 and images.flags.writeable
            found = images.mean((1, 2))
            images[:] = 0
            return found

        class Net:
            @staticmethod
            def embed(images):
                return embed(images).tolist()

            def method(self, images):
                return -embed(images)

        net = Net()
    """)
    for attribute, sign in (("embed", 1), ("Net.embed", 1), ("net.method", -1)):
        encoder = load(f"{name}:{attribute}")
        assert (encoder.model, encoder.step) == (f"{name}:{attribute}", None)
        assert (encoder.method, encoder.precision) == ("callable", "model")
        assert encoder.pixels == "uint8"
        got = encoder.function(GREY)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, [np.multiply(sign, COLOUR), np.multiply(sign, (1, 2, 3))])
    assert GREY.any()  # it got a copy


def test_a_function_may_return_arrays_of_jax(module):
    name = module("""
        import jax.numpy as jnp

        def embed(images):
            return jnp.asarray(images, jnp.bfloat16).mean((1, 2))
    """)
    np.testing.assert_allclose(load(f"{name}:embed").function(GREY), GREY[:, 0, 0])


def test_a_function_may_return_tensors_of_torch():
    torch = pytest.importorskip("torch")
    expected = np.array([[1.5, 2.0]], np.float32)
    for kind in (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int32):
        tensor = torch.tensor([[1.5, 2.0]], dtype=kind)
        np.testing.assert_array_equal(as_embeddings("f", tensor, 1), tensor.float().numpy())
    wanted = torch.tensor([[1.5, 2.0]], requires_grad=True)
    np.testing.assert_array_equal(as_embeddings("f", wanted, 1), expected)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros((2, 3, 1)), r"shape \[2, 3, 1\] for 2 images, not \[2 d\]"),
        (np.zeros((3, 3)), r"shape \[3, 3\]"),
        (np.zeros(2), r"shape \[2\]"),
        (np.zeros((2, 0)), r"shape \[2, 0\]"),
        (None, "a NoneType of object, not of numbers"),
        ([["a"], ["b"]], "a list of <U1, not of numbers"),
        (np.zeros((2, 3), bool), "a ndarray of bool, not of numbers"),
        (np.zeros((2, 3), complex), "a ndarray of complex128, not of numbers"),
        ([[1.0], [1.0, 2.0]], "a list that NumPy cannot read"),
    ],
)
def test_results_that_are_no_embeddings_are_refused(result, message):
    with pytest.raises(InputError, match=f"their:embed: returned {message}"):
        as_embeddings("their:embed", result, 2)
    np.testing.assert_array_equal(as_embeddings("f", jnp.ones((2, 3), jnp.int8), 2), 1)


def test_functions_that_are_not_there_or_fail_are_refused(module, tmp_path):
    name = module("""
        import math

        SIZE = 112

        def embed(images):
            return math.sqrt(
                -1)

        class Net:
            def embed(self, images):
                return images
    """)
    for spec, message in [
        ("nowhere:embed", r"no module 'nowhere' in .* or among the installed packages"),
        (f"{name}.inner:embed", rf"no module '{name}.inner'"),
        (f"{name}:embde", rf"unknown attribute of {name} 'embde': did you mean 'embed'"),
        (f"{name}:Net.embedd", rf"unknown attribute of {name}.Net 'embedd': did you mean 'embed'"),
        (f"{name}:SIZE", "cannot be called, being of type int"),
    ]:
        with pytest.raises(InputError, match=message):
            load(spec)
    with pytest.raises(
        InputError, match=rf"{name}:embed: raised ValueError \(.*\) at .*\.py:"
    ) as e:
        load(f"{name}:embed").function(GREY)
    assert type(e.value.__cause__) is ValueError
    with pytest.raises(InputError, match=r"Net.embed: raised TypeError \(.*'images'\)"):
        load(f"{name}:Net.embed").function(GREY)

    needy = module("import nowhere_to_be_found", "needy")
    with pytest.raises(InputError, match="'needy' needs 'nowhere_to_be_found', which is not inst"):
        load(f"{needy}:embed")
    # a script that ends the process ends a command no less than an error does, which is told
    ends = module("import sys\nsys.exit(0)", "ends")
    with pytest.raises(InputError, match=r"importing 'ends' raised SystemExit \(0\)"):
        load(f"{ends}:embed")
    quits = module("def embed(images):\n    raise SystemExit(3)", "quits")
    with pytest.raises(InputError, match=r"quits:embed: raised SystemExit \(3\)"):
        load(f"{quits}:embed").function(GREY)
    broken = module("def embed(:", "broken")
    with pytest.raises(InputError, match="importing 'broken' raised SyntaxError"):
        load(f"{broken}:embed")


def test_the_fingerprint_of_a_function_is_its_source_and_name(module):
    text = "def a(images):\n    return images\n\n\nb = a\n"
    name = module(text)
    first = load(f"{name}:a").fingerprint
    assert load(f"{name}:b").fingerprint != first
    assert load(f"{module(text)}:a").fingerprint == first
    assert load(f"{module(text + '# changed')}:a").fingerprint != first
    for spec in ("math:sqrt", "sys:intern"):  # a module without a source, and one without a file
        assert load(spec).fingerprint != first


def test_specs_that_are_no_model_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text("")
    for spec in ("model.py:embed", "model.py", "model.pt", "a:b:c", "mod-ule:f", ":f", "module:"):
        (tmp_path / "model.pt").write_bytes(b"")
        with pytest.raises(InputError, match=r"is none; a MODEL is WORKDIR\[@STEP"):
            load(spec)
    with pytest.raises(InputError, match=r"run: no config.json there"):
        load("run")
    (tmp_path / "a:b").mkdir()  # a folder is a work directory whatever it is called
    with pytest.raises(InputError, match=r"a:b: no config.json there"):
        load("a:b")
