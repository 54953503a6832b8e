"""Starting from other weights: another run's, or a file's."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image
from readings import Drawn, torchvision_resnet
from safetensors.numpy import save_file

from crfr import main
from crfr.errors import InputError
from crfr.evaluate.encoders import load_encoder
from crfr.model import resnet
from crfr.model.weights import weight_settings
from crfr.networks import build, build_for_evaluation
from crfr.recipe import recipe, shrink
from crfr.starting import find_weights, is_file, start_from
from crfr.train.sharding import make_mesh, state_sharding
from crfr.train.state import init_state

SMALL = ["--config.batch=8", "--config.model.bn_group=8", "--config.model.width=4"]
SMALL += ["--config.epochs=1", "--config.schedule.warmup_epochs=0.5", "--config.run.benchmark="]
pytestmark = pytest.mark.usefixtures("one_device")


def train(config, data, workdir, *more):
    main.run(["train", f"--config=configs/{config}", f"--config.data={data}",
              f"--workdir={workdir}", *SMALL, *more])  # fmt: skip


def variables(workdir, step=None):
    spec = f"{workdir}@{step}" if step is not None else str(workdir)
    found = load_encoder(spec, build_for_evaluation).variables
    return jax.tree.map(np.asarray, found)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run of twelve steps on eight identities."""
    from crfr.train import sharding

    workdir = tmp_path_factory.mktemp("base") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda devices=None: make_mesh(1))
        train("baseline.py:quick", "faces:identities=8,images=4", workdir)
    return workdir


def test_fine_tuning_starts_from_a_run_under_new_identities(base, tmp_path, capsys):
    """With every rate but the class matrix's at 0, the backbone stays the other run's, bit for
    bit, and BatchNorm's statistics with it."""
    rates = ["--config.optimizer.rates.trunk=0.0", "--config.optimizer.rates.head=0.0"]
    start = f"--config.init.weights={base}"
    data = "faces:identities=5,images=4,seed=3"
    train("finetune.py:quick", data, tmp_path / "run", start, *rates)
    assert f"starts from {base}; made anew: the class matrix" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, variables(base), variables(tmp_path / "run"))
    (begun,) = json.loads((tmp_path / "run/run.json").read_text())
    assert begun["classes"] == 5
    assert begun["weights"]
    train("finetune.py:quick", data, tmp_path / "tuned", start)
    tuned, before = variables(tmp_path / "tuned"), variables(base)
    jax.tree.map(np.testing.assert_array_equal, before["batch_stats"], tuned["batch_stats"])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), tuned, before)["params"]
    assert 0 < max(jax.tree.leaves(moved["stage0_block0"])) < 0.1
    assert max(jax.tree.leaves(moved["dense"])) > 0


def test_weights_fill_what_they_have_and_leave_the_rest(tmp_path):
    """ImageNet's weights have no head: it stays as it was drawn."""
    config = recipe()
    words = ["resnet18", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)]
    config.model.name, config.model.input_mean, config.model.input_std = words
    config.model.embedding = 8
    network, tx = build(config, 1, lambda _: 0.0)
    state = jax.jit(partial(init_state, network, 3, tx))(jax.random.key(0))
    place = state_sharding(state, make_mesh(1))
    state = jax.device_put(state, place)
    drawn = Drawn()
    torchvision_resnet(drawn, np.zeros((1, 112, 112, 3)), "resnet18")
    path = tmp_path / "resnet18.safetensors"
    save_file(dict(drawn), path)
    started, _ = start_from(str(path), find_weights(str(path), network), state)
    stem = drawn["conv1.weight"].transpose(0, 2, 3, 1)
    backbone, before = started.params["backbone"], state.params["backbone"]
    np.testing.assert_array_equal(backbone["conv_stem"]["kernel"], stem)
    np.testing.assert_array_equal(backbone["dense"]["kernel"], before["dense"]["kernel"])
    np.testing.assert_array_equal(started.params["classes"], state.params["classes"])
    # a file is known by its first bytes, as the readers know it, and not by its name
    renamed = path.rename(tmp_path / "pytorch_model.bin")
    again, _ = start_from(str(renamed), find_weights(str(renamed), network), state)
    np.testing.assert_array_equal(again.params["backbone"]["conv_stem"]["kernel"], stem)


def test_frozen_batch_norm_needs_the_statistics_of_every_layer(tmp_path):
    """ImageNet's weights have none of the head's: those it would begin with, 0 and 1, are no
    statistics to keep.  Without BatchNorm in the head nothing lacks.
    """
    drawn = Drawn()
    torchvision_resnet(drawn, np.zeros((1, 112, 112, 3)), "resnet18", 4)
    path = tmp_path / "resnet18.safetensors"
    save_file(dict(drawn), path)
    words = weight_settings(path, "resnet18") | {"width": 4, "embedding": 8}
    with pytest.raises(InputError, match=r"no statistics of norm_embedding, norm_features") as said:
        find_weights(str(path), resnet.build("resnet18", **words), bn_frozen=True)
    assert "--config.model.bn_frozen=False, or --config.model.head=plain" in str(said.value)
    assert find_weights(str(path), resnet.build("resnet18", **words), bn_frozen=False)[1]
    plain = resnet.build("resnet18", **words, head="plain")
    assert find_weights(str(path), plain, bn_frozen=True)[1] == ["dense"]
    # before anything is made
    data = "faces:identities=5,images=4"
    settings = [f"--config.model.{key}={value}" for key, value in words.items()]
    with pytest.raises(InputError, match="no statistics of"):
        train("finetune.py:quick", data, tmp_path / "run", f"--config.init.weights={path}",
              "--config.model.name=resnet18", *settings)  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_which_weights_are_those_of_a_file(tmp_path):
    for name in ("pytorch_model.bin", "w", "m.onnx", "m.stablehlo", "f.py"):
        (tmp_path / name).touch()
    (tmp_path / "run.h5").mkdir()
    names = [
        *("pytorch_model.bin", "w", "absent.h5"),
        *("m.onnx", "m.stablehlo", "f.py", "run.h5", "absent.bin", "w@3"),
    ]
    assert [is_file(str(tmp_path / name)) for name in names] == 3 * [True] + 6 * [False]


def test_what_cannot_be_started_from_is_refused(base, tmp_path):
    def start(spec, *more):
        train("finetune.py:quick", "faces:identities=5,images=4", tmp_path / "x",
              f"--config.init.weights={spec}", *more)  # fmt: skip

    with pytest.raises(
        InputError, match=r"another network, by config\.model's embedding \(there 512"
    ):
        start(base, "--config.model.embedding=16")
    with pytest.raises(InputError, match="no checkpoint of step 99"):
        start(f"{base}@99")
    with pytest.raises(InputError, match="no config"):
        start(tmp_path / "nothing")
    with pytest.raises(InputError, match="gives embeddings, not weights"):
        start("os.path:basename")
    with pytest.raises(InputError, match=r"nothing\.h5"):
        start(tmp_path / "nothing.h5")
    with pytest.raises(InputError, match="no statistics to keep"):
        start("")
    with pytest.raises(InputError, match="all are 0"):
        start(base, *(f"--config.optimizer.rates.{p}=0.0" for p in ("trunk", "head", "classes")))
    (tmp_path / "faces/one").mkdir(parents=True)
    for number in range(8):
        face = np.full((112, 112, 3), 20 * number, np.uint8)
        Image.fromarray(face).save(tmp_path / f"faces/one/{number}.png")
    with pytest.raises(InputError, match="1 identities; training needs 2"):
        start(base, f"--config.data={tmp_path / 'faces'}")
    assert not (tmp_path / "x").exists()


def test_the_quick_form_shrinks_fine_tuning_too():
    config = recipe()
    config.init.weights = "runs/a"
    assert shrink(config).init.weights == "runs/a"
