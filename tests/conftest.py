"""Fixtures that every test may ask for."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hosts import FAST

# Eight virtual devices for the tests of sharding, which have to be said before JAX starts
os.environ["XLA_FLAGS"] = f"{FAST} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs compiled once serve both workers, and the processes that tests start: a third less time.
# The workers inherit the folder of the process that starts them.
CACHE = "JAX_COMPILATION_CACHE_DIR"
OURS = CACHE not in os.environ
if OURS:
    os.environ[CACHE] = tempfile.mkdtemp(prefix="crfr-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


def pytest_unconfigure():
    if OURS:
        shutil.rmtree(os.environ[CACHE], ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data (lfw/, pins90/, ...), which is no part of the repository."""
    beside = Path(__file__).parents[1] / "../shared/data"
    folder = Path(os.environ.get("CRFR_SHARED_DATA", beside)).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist; set CRFR_SHARED_DATA")
    return folder


@pytest.fixture
def one_device(monkeypatch):
    """Commands run in this process see one device, as most users' machines have."""
    from crfr.train import sharding

    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda devices=None: make_mesh(devices or 1))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A folder with `runs/tiny`, an untrained tiny network calibrated on procedural faces."""
    from functools import partial

    import jax

    from configs.baseline import get_config
    from crfr import apply, environment
    from crfr.networks import build
    from crfr.train.checkpoint import Checkpoints
    from crfr.train.state import init_state

    folder = tmp_path_factory.mktemp("use")
    workdir = folder / "runs/tiny"
    workdir.mkdir(parents=True)
    config = get_config("quick")
    config.model.update({"width": 4, "embedding": 16})
    environment.write_json(workdir / "config.json", config.to_dict())
    environment.write_json(workdir / "run.json", [{"classes": 3}])
    network, tx = build(config, 1, lambda _: 0.0)
    with Checkpoints(workdir / "checkpoints", lambda steps, _: {*steps}) as checkpoints:
        checkpoints.save(1, jax.jit(partial(init_state, network, 3, tx))(jax.random.key(0)))
    apply.calibrate(
        str(workdir),
        "faces:identities=10,images=4",
        [7, 28, 112],
        None,
        fars=[0.4, 0.01],
        degradation="quantize",
        batch=8,
    )
    return folder
