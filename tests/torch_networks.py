"""torchvision's ResNet-50 and InsightFace's IResNet in torch, as those projects define them; each
`forward` returns {block: its output [n c h w]}, with the embedding where there is one.
"""

import torch
from readings import DEPTHS
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inplanes != planes * 4:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes * 4, 1, stride, bias=False), nn.BatchNorm2d(planes * 4)
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + identity)


class IBasicBlock(nn.Module):
    def __init__(self, inplanes, planes, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inplanes, eps=1e-05)
        self.conv1 = nn.Conv2d(inplanes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes, eps=1e-05)
        self.prelu = nn.PReLU(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes, eps=1e-05)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False),
                nn.BatchNorm2d(planes, eps=1e-05),
            )

    def forward(self, x):
        out = self.conv1(self.bn1(x))
        out = self.conv2(self.prelu(self.bn2(out)))
        return self.bn3(out) + (x if self.downsample is None else self.downsample(x))


def layers_of(make, expansion, depths, width, strides):
    inplanes, layers = width, []
    for stage, (blocks, stride) in enumerate(zip(depths, strides, strict=True)):
        planes, made = width * 2**stage, []
        for block in range(blocks):
            made.append(make(inplanes, planes, 1 if block else stride))
            inplanes = planes * expansion
        layers.append(nn.Sequential(*made))
    return layers


def through(network, x, outputs):
    for stage in range(4):
        for block, layer in enumerate(getattr(network, f"layer{stage + 1}")):
            x = outputs[f"stage{stage}_block{block}"] = layer(x)
    return x


class ResNet50(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        layers = layers_of(Bottleneck, 4, DEPTHS["resnet50"], width, (1, 2, 2, 2))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.fc = nn.Linear(width * 32, 1000)

    def forward(self, images):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip  # noqa: E501
        x = torch.relu(self.bn1(self.conv1((images / 255 - mean) / std)))
        outputs = {}
        through(self, nn.functional.max_pool2d(x, 3, 2, 1), outputs)
        return outputs


class IResNet(nn.Module):
    def __init__(self, name, width=64, num_features=512):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=1e-05)
        self.prelu = nn.PReLU(width)
        layers = layers_of(IBasicBlock, 1, DEPTHS[name], width, (2, 2, 2, 2))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.bn2 = nn.BatchNorm2d(width * 8, eps=1e-05)
        self.dropout = nn.Dropout(p=0, inplace=True)
        self.fc = nn.Linear(width * 8 * 7 * 7, num_features)
        self.features = nn.BatchNorm1d(num_features, eps=1e-05)
        self.features.weight.requires_grad = False

    def forward(self, images):
        outputs = {}
        x = self.prelu(self.bn1(self.conv1((images / 255 - 0.5) / 0.5)))
        x = self.bn2(through(self, x, outputs))
        outputs["embedding"] = self.features(self.fc(self.dropout(torch.flatten(x, 1))))
        return outputs


def randomised(network):
    """With random weights and running statistics, in evaluation."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif value.ndim > 1:
                value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("weight"):
                value.uniform_(0.2, 1, generator=generator)
            elif value.ndim == 1:
                value.normal_(0, 0.3, generator=generator)
    return network.eval()


def outputs_of(network, images):
    """{block: its output [n h w c]} of images [n h w c], RGB 0..255."""
    with torch.no_grad():
        found = network(torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2))
    return {n: (v.permute(0, 2, 3, 1) if v.ndim == 4 else v).numpy() for n, v in found.items()}
