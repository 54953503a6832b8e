"""benchmarks/torch_resnet.py: what crfr is timed against does what crfr does, step for step."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from updates import FLOAT64, KEY, begin, sgd

from configs.st_m1 import get_config
from crfr.bench.step import count_flops
from crfr.model import resnet
from crfr.views.augment import Augmentation, draw, view_bank
from crfr.views.methods import draw_resolutions, parse_method

torch = pytest.importorskip("torch", reason="the network is compared with one in torch")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import torch_resnet  # noqa: E402

# torch 2.13 imports what it has itself deprecated, once its compiler is asked for
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

BATCH, CLASSES, STEPS, WIDTH = 8, 20, 3, 16
RATE = 0.001
DECAY = 2.0  # so much that a step without it would be another one


def load(network, variables):
    """crfr's parameters into torch's, by the names they share."""
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    with torch.no_grad():
        own = dict(network.named_parameters())
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
            *parts, kind = (part.key for part in path)
            value = torch.tensor(np.asarray(leaf))
            value = {4: lambda v: v.permute(0, 3, 1, 2), 2: lambda v: v.T}.get(
                value.ndim, lambda v: v
            )(value)
            own.pop(".".join([*parts, names[kind]])).copy_(value)
        assert not own


@pytest.fixture
def float64():
    """Rounding in float32 grows a thousandfold in a step, through BatchNorm over eight images."""
    with jax.enable_x64(True):
        yield


@pytest.mark.usefixtures("float64")
def test_three_steps_have_the_losses_of_crfr():
    """Views, network, margin, loss, SGD with its decay and momentum: the losses of three steps."""
    network = resnet.build(
        "tiny", embedding=WIDTH, dropout=0.0, dtype="float64", param_dtype="float64"
    )
    method, augmentation = parse_method("st-m1"), Augmentation()
    tx = sgd(RATE, weight_decay=DECAY)
    _, state, update, constants = begin(network, tx, CLASSES, method.name, rate=lambda _: RATE)
    key = jax.random.key(KEY)
    training = torch_resnet.Training(
        name="tiny",
        method=method.name,
        classes=CLASSES,
        embedding=WIDTH,
        dropout=0.0,
        scale=16.0,
        margin=0.3,
        form="eager",
        dtype=torch.float64,
        head=torch.float64,
        matrices=view_bank(method.resolutions, augmentation.crop).astype(np.float64),
        resolutions=method.resolutions,
        rate=RATE,
        decay=DECAY,
        device="cpu",
    )
    constants = constants[0], constants[1].astype(jnp.float64)
    load(training.network, state.params["backbone"])
    before = np.asarray(state.params["classes"][:CLASSES])
    with torch.no_grad():
        training.centres.copy_(torch.tensor(before))
    compiled = None
    for step in range(STEPS):
        rng = np.random.default_rng(step)
        coarse = rng.uniform(0, 255, (BATCH, 8, 8, 3))
        images = coarse.repeat(14, 1).repeat(14, 2).astype(np.uint8)
        label = rng.integers(0, CLASSES, BATCH).astype(np.int32)
        # what update draws, by its own keys
        drawn, view_key, _ = jax.random.split(jax.random.fold_in(key, step + 1), 3)
        which = draw_resolutions(method, drawn, BATCH)
        draws = (which, *draw(augmentation, view_key, BATCH))
        arguments = state, jnp.asarray(images), jnp.asarray(label), *constants
        compiled = compiled or update.lower(*arguments).compile(FLOAT64)
        state, scalars = compiled(*arguments)
        theirs = training.step(
            torch.tensor(images),
            torch.tensor(label).long(),
            tuple(torch.tensor(np.asarray(d)) for d in draws),
        )
        np.testing.assert_allclose(float(theirs), float(scalars["loss"]), rtol=1e-9)
    # how far the class matrix has moved: the gradient, decay and momentum of three steps
    moved = np.asarray(state.params["classes"][:CLASSES]) - before
    found = training.centres.detach().numpy() - before
    np.testing.assert_allclose(found, moved, atol=1e-8 * np.abs(moved).max())


def test_flops_are_those_of_the_shapes():
    """What is counted for the comparison, by PyTorch's counter, by the shapes and by XLA."""
    training = torch_resnet.Training(
        name="tiny", method="st-m1", classes=CLASSES, form="eager", dtype=torch.float32,
        head=torch.float32, matrices=view_bank((7, 14, 28, 56, 112), 128),
        resolutions=(7, 14, 28, 56, 112), device="cpu",
    )  # fmt: skip
    counted = torch_resnet.count_flops(training, *torch_resnet.random_batch(4, CLASSES, "cpu"))
    assert counted == torch_resnet.analytic_flops(training, 4)
    config = get_config("quick")
    config.batch = config.model.bn_group = 4
    # XLA leaves out the products with border zeros and has sums besides; compare.py says aloud
    # what differs by more
    assert count_flops(config, CLASSES) == pytest.approx(counted, rel=0.1)


class HostValues(torch.overrides.TorchFunctionMode):
    """Notes what makes a tensor of Python's numbers or Python's numbers of a tensor: on CUDA each
    has the host wait for the device."""

    names = ("tensor", "as_tensor", "from_numpy", "item", "tolist", "cpu", "numpy", "__bool__")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in self.names:
            self.seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


def test_a_step_has_nothing_from_the_host():
    training = torch_resnet.Training(
        name="tiny", method="st-m1", classes=CLASSES, form="eager", dtype=torch.float32,
        head=torch.float32, matrices=view_bank((7, 14, 28, 56, 112), 128),
        resolutions=(7, 14, 28, 56, 112), device="cpu",
    )  # fmt: skip
    batch = torch_resnet.random_batch(4, CLASSES, "cpu")
    with HostValues() as noted:
        loss = training.step(*batch)
    assert noted.seen == []
    with HostValues() as noted:
        float(torch.tensor(loss.item()))
    assert {"item", "tensor"} <= set(noted.seen)
    # drawn from those of its own view: 112 px first, then one of the low ones
    which, *_ = torch_resnet.draw(training.choices, 200, "cpu")
    assert [set(w.tolist()) for w in which] == [{4}, {0, 1, 2, 3}]


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes how many numbers the largest tensor has that an operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not out._is_view():
            self.numbers = max(self.numbers, out.numel())
        return out


def test_views_make_nothing_larger_than_the_images():
    """A product that is broadcast copies an image's matrix for every row of its pixels."""
    images, _ = torch_resnet.random_batch(4, CLASSES, "cpu")
    matrices = torch.tensor(view_bank((7, 112), 128))
    draws = torch_resnet.draw([torch.tensor([1]), torch.tensor([0])], 4, "cpu")
    with Largest() as noted:
        torch_resnet.make_views(images, *draws, matrices, torch.tensor(torch_resnet.LUMA))
    assert noted.numbers == images.numel()
