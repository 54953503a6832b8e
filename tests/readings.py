"""Other frameworks' networks, read from their definitions in plain NumPy and float64.

Each takes `get(name, shape)`, which gives the array of a name in its framework's file, and images
[n 112 112 3], RGB 0..255; it returns {crfr's name of a block, or BLOCK/LAYER of a BatchNorm (with
the ReLU behind it, as crfr's has it) or PReLU: its output [n h w c]}, with the embedding where
there is one.  With a `Drawn` for `get`, a reading makes the weights that it asks for.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

DEPTHS = {
    "resnet50": (3, 4, 6, 3),
    "resnet18": (2, 2, 2, 2),
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}


class Drawn(dict):
    """Random arrays by name, with running statistics that are not those of a fresh network."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def __call__(self, name, shape):
        if name not in self:
            part = name.replace(".", "/").split("/")[-1]
            if len(shape) > 1:
                fan_in = np.prod(shape[:-1] if "/" in name else shape[1:])
                value = self.rng.normal(0, np.sqrt(2 / fan_in), shape)
            elif part in ("moving_variance", "running_var"):
                value = self.rng.uniform(0.5, 2, shape)
            elif part in ("gamma", "weight"):  # of PReLU too
                value = self.rng.uniform(0.2, 1, shape)
            else:
                value = self.rng.normal(0, 0.3, shape)
            self[name] = value.astype(np.float32)
        assert self[name].shape == shape
        return self[name].astype(np.float64)


def relu(x):
    return np.maximum(x, 0)


def windows(x, size, stride, pad, fill=0.0):
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill)
    return sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]


def convolve(x, kernel, stride, pad):
    """`kernel` [height width in out]."""
    return np.tensordot(windows(x, len(kernel), stride, pad), kernel, ((4, 5, 3), (0, 1, 2)))


# --- Keras: applications/resnet.py, ResNet50 with its weights for "caffe" images -----------------


def keras_resnet50(get, images, width=64, names="new"):
    """`names` "old": as the files of 2015 to 2018 call their layers."""
    x = images[..., ::-1] - np.array([103.939, 116.779, 123.68])

    def layer(x, conv, bn, filters, size, stride, pad):
        x = convolve(x, get(f"{conv}/kernel", (size, size, x.shape[-1], filters)), stride, pad)
        x = x + get(f"{conv}/bias", (filters,))
        gamma, beta, mean, variance = (
            get(f"{bn}/{part}", (filters,))
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / np.sqrt(variance + 1.001e-5) + beta

    new = names == "new"
    stem = ("conv1_conv", "conv1_bn") if new else ("conv1", "bn_conv1")
    outputs = {"norm_stem": relu(layer(x, *stem, width, 7, 2, 3))}
    x = windows(outputs["norm_stem"], 3, 2, 1).max((-2, -1))
    for stage, blocks in enumerate(DEPTHS["resnet50"]):
        filters = width * 2**stage
        for block in range(blocks):

            def called(number, stage=stage, block=block):
                if new:
                    name = f"conv{stage + 2}_block{block + 1}_{number}"
                    return f"{name}_conv", f"{name}_bn"
                name = f"{stage + 2}{'abcdef'[block]}_branch" + ["1", "2a", "2b", "2c"][number]
                return f"res{name}", f"bn{name}"

            stride, name = 2 if stage and not block else 1, f"stage{stage}_block{block}"
            outputs[f"{name}/norm0"] = y = relu(layer(x, *called(1), filters, 1, stride, 0))
            outputs[f"{name}/norm1"] = y = relu(layer(y, *called(2), filters, 3, 1, 1))
            outputs[f"{name}/norm2"] = y = layer(y, *called(3), 4 * filters, 1, 1, 0)
            if not block:
                x = layer(x, *called(0), 4 * filters, 1, stride, 0)
                outputs[f"{name}/norm_shortcut"] = x
            outputs[name] = x = relu(x + y)
    return outputs


# --- torch ---------------------------------------------------------------------------------------


def torch_layers(get):
    """(convolution, BatchNorm) that read torch's names."""

    def conv(x, name, filters, size, stride=1):
        kernel = get(f"{name}.weight", (filters, x.shape[-1], size, size))
        return convolve(x, kernel.transpose(2, 3, 1, 0), stride, size // 2)

    def bn(x, name):
        weight, bias, mean, var = (
            get(f"{name}.{part}", x.shape[-1:])
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return weight * (x - mean) / np.sqrt(var + 1e-5) + bias

    return conv, bn


def torchvision_resnet(get, images, name="resnet50", width=64):
    """models/resnet.py: a bottleneck strides in its 3x3 ("ResNet V1.5")."""
    conv, bn = torch_layers(get)
    x = (images / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    outputs = {"norm_stem": relu(bn(conv(x, "conv1", width, 7, 2), "bn1"))}
    x = windows(outputs["norm_stem"], 3, 2, 1, -np.inf).max((-2, -1))
    for stage, blocks in enumerate(DEPTHS[name]):
        for block in range(blocks):
            at, planes = f"layer{stage + 1}.{block}", width * 2**stage
            stride, here = 2 if stage and not block else 1, f"stage{stage}_block{block}"
            sizes = (1, 3, 1) if name == "resnet50" else (3, 3)
            y, strided = x, len(sizes) - 2  # the 3x3 strides: the first of two, the second of three
            for i, size in enumerate(sizes):
                filters = 4 * planes if i == 2 else planes
                y = conv(y, f"{at}.conv{i + 1}", filters, size, stride if i == strided else 1)
                y = bn(y, f"{at}.bn{i + 1}")
                outputs[f"{here}/norm{i}"] = y = relu(y) if i < len(sizes) - 1 else y
            if x.shape != y.shape:
                x = conv(x, f"{at}.downsample.0", y.shape[-1], 1, stride)
                outputs[f"{here}/norm_shortcut"] = x = bn(x, f"{at}.downsample.1")
            outputs[here] = x = relu(x + y)
    get("fc.weight", (10, x.shape[-1]))  # the classifier, which no reader wants
    get("fc.bias", (10,))
    return outputs


def insightface_iresnet(get, images, name="iresnet18", width=64, embedding=512):
    """recognition/arcface_torch/backbones/iresnet.py."""
    conv, bn = torch_layers(get)

    def prelu(x, name):
        return np.where(x >= 0, x, get(f"{name}.weight", x.shape[-1:]) * x)

    x = (images / 255 - 0.5) / 0.5
    outputs = {"norm_stem": bn(conv(x, "conv1", width, 3), "bn1")}
    outputs["prelu_stem"] = x = prelu(outputs["norm_stem"], "prelu")
    for stage, blocks in enumerate(DEPTHS[name]):
        for block in range(blocks):
            at, planes, stride = f"layer{stage + 1}.{block}", width * 2**stage, 1 if block else 2
            here = f"stage{stage}_block{block}"
            outputs[f"{here}/norm0"] = y = bn(x, f"{at}.bn1")
            outputs[f"{here}/norm1"] = y = bn(conv(y, f"{at}.conv1", planes, 3), f"{at}.bn2")
            outputs[f"{here}/prelu"] = y = prelu(y, f"{at}.prelu")
            y = bn(conv(y, f"{at}.conv2", planes, 3, stride), f"{at}.bn3")
            outputs[f"{here}/norm2"] = y
            if not block:
                x = conv(x, f"{at}.downsample.0", planes, 1, stride)
                outputs[f"{here}/norm_shortcut"] = x = bn(x, f"{at}.downsample.1")
            outputs[here] = x = x + y
    outputs["norm_features"] = bn(x, "bn2")
    flat = outputs["norm_features"].transpose(0, 3, 1, 2).reshape(len(x), -1)
    y = flat @ get("fc.weight", (embedding, flat.shape[1])).T + get("fc.bias", (embedding,))
    outputs["embedding"] = bn(y, "features")
    return outputs
