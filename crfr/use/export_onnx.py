"""A network as an ONNX model: preprocessing, folded layers and the unit norm in one graph.

| stage | nodes |
|---|---|
| pixels [b h w 3], RGB 0..255 | Cast (of uint8), Transpose, Resize (cubic, antialias, a = -0.5, borders renormalised) to 112 px, Clip to 0..255, Sub, Div |
| network, [b c h w] | Conv, Relu or PRelu, MaxPool, Add; Mul and Add in front of IR blocks |
| embedding [b d] | Flatten, Gemm, and a division by the norm |

The dense layer's rows are put into the order in which [c h w] is flattened.  The bytes are a
function of the arguments.
"""  # noqa: E501

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np

from crfr.errors import InputError
from crfr.evaluate.exported import KEY
from crfr.model.losses import SMALLEST
from crfr.model.resnet import ResNet
from crfr.views.degrade import SIDE

OPSET = 18  # the first whose Resize is antialiased
IR_VERSION = 8  # that opset's
INPUT, OUTPUT = "images", "embedding"

Tree = Any  # a nested dict of arrays


@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes and weights of a graph that is being made; a node's name is that of its output."""

    onnx: Any  # the package
    nodes: list[Any] = dataclasses.field(default_factory=list)
    weights: list[Any] = dataclasses.field(default_factory=list)

    def add(
        self,
        kind: str,
        name: str,
        inputs: list[str],
        arrays: dict[str, np.ndarray] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str:
        """Add a node that takes `inputs`, then `arrays`; returns its name."""
        named = {f"{name}.{key}": value for key, value in (arrays or {}).items()}
        for key, value in named.items():
            value = value if value.dtype == np.int64 else value.astype(np.float32)
            array = np.ascontiguousarray(value)
            self.weights.append(self.onnx.numpy_helper.from_array(array, key))
        node = self.onnx.helper.make_node(
            kind, [*inputs, *named], [name], name=name, **(attributes or {})
        )
        self.nodes.append(node)
        return name


def import_onnx() -> Any:
    """The onnx package; InputError where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise InputError(
            f"--format=onnx: onnx cannot be imported ({error}); pip install 'crfr[onnx]'"
        ) from error
    return onnx


def make_onnx(network: ResNet, variables: Tree, pixels: str, metadata: dict[str, Any]) -> bytes:
    """The ONNX model of a folded network: `images` [b h w 3] of the type `pixels` ("uint8" or
    "float32") -> `embedding` float32 [b d].  `metadata` go in as exported.py reads them.
    """
    onnx = import_onnx()
    assert network.folded
    params = variables["params"]
    graph = Graph(onnx)
    features = _network(graph, network, params, _pixels(graph, network, pixels == "uint8"))
    _embedding(graph, network, params["dense"], features)
    types = onnx.TensorProto
    kind = types.UINT8 if pixels == "uint8" else types.FLOAT
    value_info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        graph.nodes,
        "crfr",
        [value_info(INPUT, kind, ["b", "h", "w", 3])],
        [value_info(OUTPUT, types.FLOAT, ["b", network.embedding])],
        graph.weights,
    )
    model = onnx.helper.make_model(
        made,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="crfr",
    )
    digest = hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest()
    about = metadata | {"opset": OPSET, "sha256": digest}
    onnx.helper.set_model_props(model, {KEY: json.dumps(about, allow_nan=False)})
    return model.SerializeToString(deterministic=True)


def _pixels(graph: Graph, network: ResNet, whole: bool) -> str:
    x = INPUT
    if whole:
        x = graph.add("Cast", "pixels", [x], attributes={"to": graph.onnx.TensorProto.FLOAT})
    x = graph.add("Transpose", "planes", [x], attributes={"perm": [0, 3, 1, 2]})
    resize = {
        "mode": "cubic",
        "antialias": 1,
        "cubic_coeff_a": -0.5,
        "exclude_outside": 1,
        "coordinate_transformation_mode": "half_pixel",
        "axes": [2, 3],
    }
    x = graph.add("Resize", "resized", [x, "", ""], {"sizes": np.array([SIDE, SIDE])}, resize)
    x = graph.add("Clip", "clipped", [x], {"low": np.array(0.0), "high": np.array(255.0)})
    for kind, name, numbers in (
        ("Sub", "centred", network.input_mean),
        ("Div", "normalised", network.input_std),
    ):
        x = graph.add(kind, name, [x], {"numbers": _channels(np.array(numbers, np.float32))})
    return x


def _channels(values: np.ndarray) -> np.ndarray:
    """[c] -> [c 1 1], which goes with [b c h w]."""
    return values[:, None, None]


def _conv(graph: Graph, name: str, tree: Tree, x: str, stride: int) -> str:
    kernel = tree["kernel"].transpose(0, 3, 1, 2)
    size = kernel.shape[-1]
    attributes = {
        "kernel_shape": [size, size],
        "strides": [stride, stride],
        "pads": [size // 2] * 4,
    }
    return graph.add("Conv", name, [x], {"kernel": kernel, "bias": tree["bias"]}, attributes)


def _prelu(graph: Graph, name: str, tree: Tree, x: str) -> str:
    return graph.add("PRelu", name, [x], {"slope": _channels(tree["slope"])})


def _network(graph: Graph, network: ResNet, params: Tree, x: str) -> str:
    """The layers of `ResNet` up to the features."""
    improved = network.block == "iresnet"
    x = _conv(graph, "conv_stem", params["conv_stem"], x, 1 if improved else 2)
    if improved:
        x = _prelu(graph, "prelu_stem", params["prelu_stem"], x)
    else:
        x = graph.add("Relu", "relu_stem", [x])
        pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
        x = graph.add("MaxPool", "pool_stem", [x], attributes=pool)
    for stage, blocks in enumerate(network.stages):
        for number in range(blocks):
            name = f"stage{stage}_block{number}"
            stride = 2 if number == 0 and (stage > 0 or improved) else 1
            block = _ir_block if improved else _block
            x = block(graph, network, name, params[name], x, stride)
    return x


def _block(graph: Graph, network: ResNet, name: str, params: Tree, x: str, stride: int) -> str:
    """`resnet.Block`"""
    if network.block == "bottleneck":
        strides = [stride, 1, 1] if network.stride_first else [1, stride, 1]
    else:
        strides = [stride, 1]
    y = x
    for i, step in enumerate(strides):
        y = _conv(graph, f"{name}.conv{i}", params[f"conv{i}"], y, step)
        if i < len(strides) - 1:
            y = graph.add("Relu", f"{name}.relu{i}", [y])
    total = _add_input(graph, name, params, x, y, stride)
    return graph.add("Relu", f"{name}.relu", [total])


def _ir_block(graph: Graph, network: ResNet, name: str, params: Tree, x: str, stride: int) -> str:
    """`iresnet.IRBlock`"""
    del network
    norm = params["norm0"]
    y = graph.add("Mul", f"{name}.scaled", [x], {"scale": _channels(norm["scale"])})
    y = graph.add("Add", f"{name}.shifted", [y], {"bias": _channels(norm["bias"])})
    y = _conv(graph, f"{name}.conv0", params["conv0"], y, 1)
    y = _prelu(graph, f"{name}.prelu", params["prelu"], y)
    y = _conv(graph, f"{name}.conv1", params["conv1"], y, stride)
    return _add_input(graph, name, params, x, y, stride)


def _add_input(graph: Graph, name: str, params: Tree, x: str, y: str, stride: int) -> str:
    if "conv_shortcut" in params:
        x = _conv(graph, f"{name}.conv_shortcut", params["conv_shortcut"], x, stride)
    return graph.add("Add", f"{name}.sum", [x, y])


def _embedding(graph: Graph, network: ResNet, dense: Tree, x: str) -> None:
    widened = 4 if network.block == "bottleneck" else 1
    channels = network.width * 2 ** (len(network.stages) - 1) * widened
    kernel = dense["kernel"]
    places = kernel.reshape(-1, channels, network.embedding)  # rows are of [h w c]
    rows = places.transpose(1, 0, 2).reshape(kernel.shape)  # of [c h w]
    x = graph.add("Flatten", "features", [x])
    x = graph.add("Gemm", "dense", [x], {"kernel": rows, "bias": dense["bias"]})
    # `losses.unit`
    squares = graph.add("Mul", "squares", [x, x])
    axes = {"axes": np.array([1])}
    total = graph.add("ReduceSum", "total", [squares], axes, {"keepdims": 1})
    floor = graph.add("Max", "floored", [total], {"least": np.array(SMALLEST)})
    norm = graph.add("Sqrt", "norm", [floor])
    graph.add("Div", OUTPUT, [x, norm])
