"""The training step of crfr in PyTorch, to be timed beside it: as strong as PyTorch gets, and as
peers ship it.

The same network (names of layers are crfr's), views (crop, flip, colour and degradation by gathered
matrices, on the device), margin, loss and SGD.  What differs is how PyTorch does things: a branch
is a forward pass of its own, BatchNorm's group is the whole batch, autocast picks the types.

    python benchmarks/torch_resnet.py --method=st-m1 --batch=128

times the step and prints one JSON object.  benchmarks/compare.py talks to it (`--serve`).
"""

import argparse
import json
import math
import statistics
import sys
import time
import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

SIDE = 112
LUMA = (0.299, 0.587, 0.114)
LOW = (7, 14, 28, 56)
# the paper's augmentation: places of a crop of 128 px, most change of brightness and saturation
OFFSETS, COLOUR = 17, (0.4, 0.4)
METHODS = {  # the resolutions (px) each view draws from, the weight of the distance
    "baseline": (((SIDE,),), 0.0),
    "bt-m": (((*LOW, SIDE),), 0.0),
    "st-m1": (((SIDE,), LOW), 25.0),
    "st-m2": (((SIDE,), *((r,) for r in reversed(LOW))), 3.0),
}
NETWORKS = {
    "resnet50": ((3, 4, 6, 3), 64, True),
    "resnet18": ((2, 2, 2, 2), 64, False),
    "tiny": ((1, 1, 1, 1), 8, False),
}
# name -> memory format, torch.compile's mode (None: eager)
FORMS = {
    "max-autotune": (torch.channels_last, "max-autotune"),
    "reduce-overhead": (torch.channels_last, "reduce-overhead"),
    "default": (torch.channels_last, "default"),
    "eager": (torch.channels_last, None),
    "peers": (torch.contiguous_format, None),  # what peers' repositories do: NCHW, eager
}


class Block(nn.Module):
    """crfr's Block of a ResNet v1, which strides in the first convolution."""

    def __init__(self, entering, channels, stride, bottleneck):
        super().__init__()
        if bottleneck:
            layers = [(1, stride, 1), (3, 1, 1), (1, 1, 4)]
        else:
            layers = [(3, stride, 1), (3, 1, 1)]
        self.count, before = len(layers), entering
        for i, (size, step, widen) in enumerate(layers):
            conv = nn.Conv2d(before, channels * widen, size, step, size // 2, bias=False)
            before = channels * widen
            self.add_module(f"conv{i}", conv)
            self.add_module(f"norm{i}", nn.BatchNorm2d(before))
        self.conv_shortcut = None
        if stride != 1 or entering != before:
            self.conv_shortcut = nn.Conv2d(entering, before, 1, stride, bias=False)
            self.norm_shortcut = nn.BatchNorm2d(before)
        self.leaving = before

    def forward(self, x):
        y = x
        for i in range(self.count):
            y = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count - 1:
                y = F.relu(y)
        if self.conv_shortcut is not None:
            x = self.norm_shortcut(self.conv_shortcut(x))
        return F.relu(x + y)


class Network(nn.Module):
    """Pixels [n 3 h w] in 0..255 -> embeddings [n d] by head E, not yet of unit norm."""

    def __init__(self, name, embedding, dropout):
        super().__init__()
        stages, width, bottleneck = NETWORKS[name]
        self.conv_stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.norm_stem = nn.BatchNorm2d(width)
        self.blocks, before = [], width
        for stage, blocks in enumerate(stages):
            for i in range(blocks):
                stride = 2 if stage and i == 0 else 1
                block = Block(before, width * 2**stage, stride, bottleneck)
                before = block.leaving
                self.add_module(f"stage{stage}_block{i}", block)
                self.blocks.append(f"stage{stage}_block{i}")
        self.norm_features = nn.BatchNorm2d(before)
        self.dropout = dropout
        self.dense = nn.Linear(before * 16, embedding, bias=False)
        self.norm_embedding = nn.BatchNorm1d(embedding)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x):
        x = (x - 127.5) / 127.5
        x = F.max_pool2d(F.relu(self.norm_stem(self.conv_stem(x))), 3, 2, 1)
        for name in self.blocks:
            x = getattr(self, name)(x)
        x = F.dropout(self.norm_features(x), self.dropout, self.training)
        # channels last, as in crfr; where memory is so too, this moves nothing
        return self.norm_embedding(self.dense(x.permute(0, 2, 3, 1).flatten(1)))


def make_views(images, which, top, left, flip, shift, saturation, matrices, luma):
    """[r] views [b 3 h w] of uint8 images [b h w c]: crfr's make_views."""
    pixels = images.to(matrices.dtype)
    views = []
    for index in which:
        rows, columns = matrices[index, top], matrices[index, left]
        columns = torch.where(flip[:, None, None], columns.flip(1), columns)
        found = torch.einsum("noh,nhwc->nowc", rows, pixels)
        found = torch.einsum("npw,nowc->nopc", columns, found) + shift[:, None, None, None]
        grey = (found * luma).sum(-1, keepdim=True)
        found = (grey + saturation[:, None, None, None] * (found - grey)).clamp(0, 255)
        views.append(found.permute(0, 3, 1, 2))
    return views


def draw(choices, batch, device):
    """(index of each view's resolution [r b], top, left, flip, shift, saturation) at random; of
    each view the indices that it is drawn from.
    """
    brightness, saturation = COLOUR
    which = [c[torch.randint(0, len(c), (batch,), device=device)] for c in choices]
    return (
        torch.stack(which),
        torch.randint(0, OFFSETS, (batch,), device=device),
        torch.randint(0, OFFSETS, (batch,), device=device),
        torch.rand(batch, device=device) < 0.5,
        (torch.rand(batch, device=device) * 2 - 1) * 255 * brightness,
        1 + (torch.rand(batch, device=device) * 2 - 1) * saturation,
    )


def arcface(cosine, label, scale, margin):
    """ArcFace logits [b k] with the true gradient: crfr's arcface_logits."""
    target = cosine.gather(1, label[:, None]).clamp(-1, 1)
    floor = torch.finfo(target.dtype).eps
    sine = (1 - target * target).clamp(min=floor).sqrt()
    cos, sin = math.cos(margin), math.sin(margin)
    moved = torch.where(target >= -cos, target * cos - sine * sin, target - margin * sin)
    return scale * cosine.scatter(1, label[:, None], moved)


class Training:
    """A network, its class matrix and optimizer; `step` does one update and returns the loss."""

    def __init__(
        self,
        *,
        name="resnet50",
        method="baseline",
        classes=85742,
        embedding=512,
        dropout=0.5,
        scale=64.0,
        margin=0.5,
        rate=0.01,
        decay=5e-4,
        form="default",
        dtype=torch.bfloat16,
        head=torch.bfloat16,
        matrices,
        resolutions,
        device="cuda",
    ):
        memory, mode = FORMS[form]
        self.views, self.weight = METHODS[method]
        self.device, self.memory = device, memory
        self.network = Network(name, embedding, dropout)
        # of parameters, logits and losses; autocast takes bfloat16 where it may
        self.wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.network = self.network.to(device, self.wide, memory_format=memory).train()
        centres = torch.randn(classes, embedding, device=device, dtype=self.wide)
        self.centres = nn.Parameter(0.01 * centres)
        self.matrices = torch.as_tensor(matrices, device=device)
        # all that a step needs is on the device: a copy from the host would have it wait
        self.luma = torch.tensor(LUMA, device=device, dtype=self.matrices.dtype)
        places = {resolution: index for index, resolution in enumerate(resolutions)}
        self.choices = [torch.tensor([places[r] for r in v], device=device) for v in self.views]
        self.scale, self.margin = scale, margin
        self.dtype, self.head = dtype, head
        decayed = [self.centres, *(p for p in self.network.parameters() if p.ndim > 1)]
        plain = [p for p in self.network.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0}]
        fast = {"fused": True} if device == "cuda" else {"foreach": True}
        self.optimizer = torch.optim.SGD(groups, rate, momentum=0.9, **fast)
        self.loss = torch.compile(self.loss_of, mode=mode) if mode else self.loss_of

    def autocast(self, dtype):
        return torch.autocast(self.device, dtype, enabled=dtype == torch.bfloat16)

    def loss_of(self, images, label, draws):
        with torch.no_grad():
            views = make_views(images, *draws, self.matrices, self.luma)
        embeddings = []
        for view in views:
            with self.autocast(self.dtype):
                embedding = self.network(view.contiguous(memory_format=self.memory))
            embeddings.append(F.normalize(embedding.to(self.wide), eps=1e-12))
        everything = torch.cat(embeddings)
        with self.autocast(self.head):
            cosine = F.linear(everything, F.normalize(self.centres, eps=1e-12))
        logits = arcface(cosine.to(self.wide), label.repeat(len(views)), self.scale, self.margin)
        loss = F.cross_entropy(logits, label.repeat(len(views))) * len(views)
        for low in embeddings[1:]:
            loss = loss + self.weight * (1 - (embeddings[0] * low).sum(1)).mean()
        return loss

    def step(self, images, label, draws=None):
        if draws is None:
            draws = draw(self.choices, len(images), self.device)
        torch.compiler.cudagraph_mark_step_begin()
        loss = self.loss(images, label, draws)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def count_flops(training, images, label):
    """FLOPs of the products of a step, forward and backward, by PyTorch's counter (eager)."""
    compiled, training.loss = training.loss, training.loss_of
    with FlopCounterMode(display=False) as counter:
        training.step(images, label)
    training.loss = compiled
    return counter.get_total_flops()


def count_syncs(training, images, label):
    """How often a step has the host wait for the device (CUDA), which a timed step must not."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        training.step(images, label)
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing CUDA operation" in str(w.message) for w in caught)


def analytic_flops(training, batch):
    """The same by the shapes: two a multiplication; a layer's products are three, but for the first
    one, which needs no gradient of its input; views have no gradient.
    """
    network, shapes = training.network, []

    def note(layer, _, out):
        macs = out[0].numel() * layer.weight[0].numel()
        shapes.append(macs * (2 if layer is network.conv_stem else 3))

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, SIDE, SIDE, device=training.device))
        network.train()
    for hook in hooks:
        hook.remove()
    per_image = sum(shapes) + 3 * training.centres.numel()
    views = 2 * 3 * SIDE**3  # rows and columns; luma is no product to the counter
    return 2 * batch * len(training.views) * (per_image + views)


def random_batch(batch, classes, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, classes, (batch,), generator=generator)
    return images.to(device), label.to(device)


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="baseline", choices=METHODS)
    parser.add_argument("--name", default="resnet50", choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--classes", type=int, default=85742)
    parser.add_argument("--form", default="default", choices=FORMS)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--head", default="", choices=("", "bfloat16", "float32"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="in a row; 0: a third of a second")
    parser.add_argument("--threads", type=int, default=0, help="of a CPU; 0: PyTorch's choice")
    parser.add_argument("--serve", action="store_true", help="time when told to on stdin")
    return parser


def main():
    flags = make_parser().parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if flags.threads:
        torch.set_num_threads(flags.threads)
    torch.backends.cudnn.benchmark = True
    from crfr.views.augment import view_bank  # the bank is NumPy's

    resolutions = sorted({r for view in METHODS[flags.method][0] for r in view})
    training = Training(
        name=flags.name,
        method=flags.method,
        classes=flags.classes,
        form=flags.form,
        dtype=getattr(torch, flags.dtype),
        head=getattr(torch, flags.head or flags.dtype),
        matrices=view_bank(tuple(resolutions), 128),
        resolutions=resolutions,
        device=device,
    )
    images, label = random_batch(flags.batch, flags.classes, device)

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()

    def row(count):
        """(seconds a step in a row, seconds the host took to ask for one)"""
        started = time.perf_counter()
        for _ in range(count):
            loss = training.step(images, label)
        asked = time.perf_counter()
        wait()
        return (time.perf_counter() - started) / count, (asked - started) / count, float(loss)

    started = time.perf_counter()
    for _ in range(3 if device == "cuda" else 1):  # compiles, tries algorithms, records graphs
        row(1)
    compile_seconds = time.perf_counter() - started
    flops = count_flops(training, images, label)
    row(1)
    about = {
        "bench": "torch step",
        "config": {"method": flags.method, "model": flags.name, "batch": flags.batch},
        "form": flags.form,
        "dtype": flags.dtype,
        "classes": flags.classes,
        "compile_seconds": round(compile_seconds, 2),
        "gflop": round(flops / 1e9, 3),
        "gflop_analytic": round(analytic_flops(training, flags.batch) / 1e9, 3),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }
    if device == "cuda":
        about["host_syncs"] = count_syncs(training, images, label)
    if flags.serve:
        print("ready " + json.dumps(about), flush=True)
        for line in sys.stdin:
            seconds, _, loss = row(int(line))
            print(json.dumps({"seconds": seconds, "loss": loss}), flush=True)
        return
    count = flags.steps or max(1, min(100, round(0.3 / row(1)[0])))
    rows = [row(count) for _ in range(flags.repeats)]
    seconds = [r[0] for r in rows]
    median = statistics.median(seconds)
    about |= {
        "images_per_second": round(flags.batch / median, 2),
        "step_ms": round(1e3 * median, 4),
        "step_ms_spread": round(1e3 * (max(seconds) - min(seconds)), 4),
        "dispatch_ms": round(1e3 * statistics.median(r[1] for r in rows), 4),
        "loss": round(rows[-1][2], 4),
    }
    if device == "cuda":
        about["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
