"""The loop as a user runs it: resume, refusals, failing disks, signals."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from hosts import FAST
from ml_collections import ConfigDict

from crfr import commands
from crfr.data.faces import Faces
from crfr.errors import BusyError, InputError
from crfr.evaluate.encoders import load_encoder
from crfr.recipe import defaults, recipe, shrink
from crfr.train.checkpoint import Checkpoints
from crfr.train.finite import DivergedError
from crfr.workdir import latest_step, open_workdir

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def source():
    return Faces(identities=8, images=6)  # 48 images: 3 steps an epoch of 16


def small(method="st-m1", **changes) -> ConfigDict:
    config = recipe()
    config.method = method
    config = shrink(config)
    config.update(
        {
            "batch": 16,
            "epochs": 2.0,
            "model": {"embedding": 16, "width": 4, "bn_group": 16},
            "schedule": {"warmup_epochs": 0.0},
            "run": {"log_every": 1, "save_every": 1.0, "benchmark": "", "threads": 2},
        }
    )
    config.update_from_flattened_dict(changes)
    return config


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def weights(workdir):
    return load_encoder(str(workdir), commands.build_for_evaluation)


def interrupted_after(config, workdir, source, step):
    """A run that a signal stops after `step` steps, by asking from inside the log."""
    from crfr.train import log

    write = log.Log.write

    def write_and_ask(self, row, line):
        write(self, row, line)
        if row["step"] == step - 1:  # the scalars come one step late
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log.Log, "write", write_and_ask)
        with pytest.raises(SystemExit) as stopped:
            commands.train(config, workdir, source=source)
    assert stopped.value.code == 128 + signal.SIGTERM
    return max(int(name) for name in os.listdir(workdir / "checkpoints"))


def test_six_steps_equal_three_and_a_resume_and_three_bit_for_bit(tmp_path, source, capsys):
    config = small()
    assert commands.train(config, tmp_path / "whole", source=source) == 6
    assert interrupted_after(config, tmp_path / "parts", source, 2) == 2
    assert "the same command goes on" in capsys.readouterr().out
    assert commands.train(config, tmp_path / "parts", source=source) == 6
    assert "goes on from step 2 of 6" in capsys.readouterr().out
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, whole.variables, parts.variables)
    assert whole.fingerprint == parts.fingerprint
    measured = ("step", "epoch", "loss", "cross_entropy", "distance", "accuracy", "learning_rate")
    assert [[r[k] for k in measured] for r in rows(tmp_path / "whole")] == [
        [r[k] for k in measured] for r in rows(tmp_path / "parts")
    ]
    starts = json.loads((tmp_path / "parts/run.json").read_text())
    assert [s["step"] for s in starts] == [0, 2]
    assert starts[0]["images"] == 48
    assert starts[0]["classes"] == 8
    assert starts[0]["versions"]["jax"] == jax.__version__
    # a finished run is left alone
    assert commands.train(config, tmp_path / "whole", source=source) == 6
    assert "finished at step 6" in capsys.readouterr().out
    assert len(rows(tmp_path / "whole")) == 6


TWICE = """
import os, signal, sys, time
import crfr.train.stops as stops
from crfr.train.sharding import make_mesh
nohup = "nohup" in sys.argv  # a suite in the background ignores signals too
signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
with stops.Stops(make_mesh()) as asked:
    try:
        for word in sys.argv[1 + nohup:]:
            os.kill(os.getpid(), getattr(signal, word))
            print(asked.agreed(), flush=True)
    finally:
        time.sleep(60 * sys.argv.count("SIGINT"))  # what an orderly end would wait for
"""


def test_a_second_ctrl_c_ends_at_once_and_other_signals_do_not():
    def send(*words):
        command = [sys.executable, "-c", TWICE, *words]
        result = subprocess.run(command, capture_output=True, text=True, timeout=40)
        return result.returncode, result.stdout.split(), result.stderr

    assert send("SIGTERM", "SIGTERM", "SIGHUP") == (0, ["15", "15", "15"], "")
    assert send("SIGHUP", "SIGINT") == (130, ["1"], "")
    assert send("nohup", "SIGHUP") == (0, ["0"], "")


def test_a_run_of_an_older_crfr_goes_on(tmp_path):
    """A key that it did not have is as if it had the recipe's value."""
    config = json.loads(small().to_json())
    old = {name: value for name, value in config.items() if name != "softmax"}
    (tmp_path / "checkpoints/5").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(old))
    with open_workdir(tmp_path, config, defaults()):
        pass
    (tmp_path / "config.json").write_text(json.dumps(old))
    config["softmax"]["chunk"] = 8
    refused = pytest.raises(InputError, match=r"softmax.chunk \(was 0, now 8\); go on with the old")
    with refused, open_workdir(tmp_path, config, defaults()):
        pass


def test_checkpoints_in_a_bucket_from_outside(tmp_path, monkeypatch):
    """Its file system may not be installed, and a save is complete with its last file."""
    config = small(**{"run.checkpoints": "gs://bucket/run"})
    (tmp_path / "config.json").write_text(config.to_json())

    class NotInstalled:
        def __init__(self, _):
            raise ImportError("gcsfs")

    with monkeypatch.context() as patch:
        patch.setattr("crfr.workdir.epath.Path", NotInstalled)
        for look in (lambda: latest_step(tmp_path), lambda: Checkpoints("gs://bucket/run")):
            with pytest.raises(InputError, match=r"gs://bucket/run: needs the extra: pip install"):
                look()
    monkeypatch.setattr("crfr.workdir.checkpoint_path", lambda _: tmp_path / "there")
    assert latest_step(tmp_path) == 0
    for step in ("5", "10"):
        (tmp_path / "there" / step).mkdir(parents=True)
    (tmp_path / "there/5/commit_success.txt").touch()
    assert latest_step(tmp_path) == 5


def test_a_second_start_does_not_share_the_work_directory(tmp_path, source):
    """One would delete what the other is about to save."""
    busy = "another crfr train works there; wait until it has ended"
    values = json.loads(small("baseline").to_json())
    with open_workdir(tmp_path, values, {}), pytest.raises(BusyError, match=busy):
        commands.train(small(), tmp_path, source=source)
    assert json.loads((tmp_path / "config.json").read_text())["method"] == "baseline"


def test_metrics_verification_and_retention(tmp_path, source):
    config = small("baseline", **{"run.keep": 1, "run.verify_every": 1.0})
    config.run.benchmark = "faces:identities=4,images=4"
    commands.train(config, tmp_path / "run", source=source)
    assert os.listdir(tmp_path / "run/checkpoints") == ["6"]
    found = rows(tmp_path / "run")
    training = [r for r in found if "loss" in r]
    verification = [r for r in found if "verification_accuracy" in r]
    assert [r["step"] for r in training] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in verification] == [3, 6]
    assert verification[0]["benchmark"] == "faces:identities=4,images=4"
    assert training[2]["epoch"] == 1.0
    assert all(r["distance"] == 0 for r in training)
    seconds = [r["seconds"] for r in found]
    assert seconds == sorted(seconds)
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert saved["method"] == "baseline"


def test_checkpoints_elsewhere(tmp_path, source, capsys):
    """They go to the folder that the config names, which is this run's alone; the model's best step
    can be named, and a damaged one is passed over by whoever reads it.
    """
    place = tmp_path / "bucket"
    config = small("baseline", **{"run.verify_every": 1.0, "run.checkpoints": str(place)})
    config.run.benchmark = "faces:identities=4,images=4"
    commands.train(config, tmp_path / "run", source=source)
    assert sorted(os.listdir(place)) == ["3", "6"]
    assert not (tmp_path / "run/checkpoints").exists()
    accuracies = [r["verification_accuracy"] for r in rows(tmp_path / "run") if "benchmark" in r]
    manifests = [json.loads((place / f"{s}/default/manifest.json").read_text()) for s in (3, 6)]
    assert [m["verification"]["accuracy"] for m in manifests] == accuracies
    best = load_encoder(f"{tmp_path}/run@best", commands.build_for_evaluation)
    assert best.step == (3 if accuracies[0] > accuracies[1] else 6)
    with pytest.raises(InputError, match=r"holds checkpoints of another run \(steps \[3, 6\]\)"):
        commands.train(config, tmp_path / "other", source=source)
    moved = small("baseline", **{"run.checkpoints": ""})
    moved.run.benchmark = config.run.benchmark
    with pytest.raises(InputError, match=r"another config: run.checkpoints \(was '/.*now ''\)"):
        commands.train(moved, tmp_path / "run", source=source)
    (place / "6/default/_METADATA").unlink()
    assert load_encoder(f"{tmp_path}/run", commands.build_for_evaluation).step == 3
    with pytest.raises(InputError, match="6: is damaged"):
        load_encoder(f"{tmp_path}/run@6", commands.build_for_evaluation)
    # the training goes on from the one before, and makes the damaged one anew
    assert commands.train(config, tmp_path / "run", source=source) == 6
    assert "goes on from step 3 of 6" in capsys.readouterr().out
    assert sorted(os.listdir(place)) == ["3", "6", "6.damaged-1"]
    assert load_encoder(f"{tmp_path}/run", commands.build_for_evaluation).step == 6


def test_a_resume_drops_the_lines_after_the_checkpoint(tmp_path, source):
    config = small("baseline", epochs=1.0)
    commands.train(config, tmp_path / "run", source=source)
    path = tmp_path / "run/metrics.jsonl"
    last = rows(tmp_path / "run")[-1]
    # as a kill between a save and the next one leaves it, with a torn last line
    path.write_text(path.read_text() + json.dumps({**last, "step": 4}) + '\n{"step": 5, "lo')
    from crfr.train.log import Log

    with Log(tmp_path / "run", 3) as log:
        log.write({"step": 4, "loss": 1.0}, "step 4")
    assert [r["step"] for r in rows(tmp_path / "run")] == [1, 2, 3, 4]
    assert rows(tmp_path / "run")[-1]["seconds"] >= last["seconds"]


def test_other_data_in_a_resume_is_refused(tmp_path, source):
    config = small("baseline", epochs=1.0, **{"run.save_every": 0.34})
    commands.train(config, tmp_path / "run", source=source)
    shutil.rmtree(tmp_path / "run/checkpoints/3")  # a finished run would be left alone
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    for other, message in [
        (
            Faces(identities=8, images=8),
            "its run has 48 images, the data now has 64; give",
        ),
        # as many images, which fit the checkpoint's padded class matrix
        (Faces(identities=6, images=8), "its run has 8 classes, the data now has 6; give"),
    ]:
        with pytest.raises(InputError, match=message):
            commands.train(config, tmp_path / "run", source=other)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_a_start_that_failed_before_a_checkpoint_does_not_bind(tmp_path, source):
    with pytest.raises(InputError, match="less than a batch of 64"):
        commands.train(small("baseline", batch=64), tmp_path / "run", source=source)
    assert commands.train(small("baseline", epochs=1.0), tmp_path / "run", source=source) == 3


def test_tensorboard_gets_the_scalars_where_asked_for(tmp_path):
    from crfr.train.log import Log

    with Log(tmp_path, 0, tensorboard=True) as log:
        log.write({"step": 7, "loss": 1.5}, "step 7")
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()


def test_tensorboard_without_the_extra_says_which(tmp_path, monkeypatch):
    from crfr.train.log import Log

    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install 'crfr\[tensorboard\]'"):
        Log(tmp_path, 0, tensorboard=True)


def test_a_contradicting_config_is_refused_with_the_keys_named(tmp_path, source):
    commands.train(small("baseline", epochs=1.0), tmp_path / "run", source=source)
    other = small("baseline", epochs=2.0, **{"margin.scale": 32.0, "run.log_every": 7})
    with pytest.raises(InputError, match=r"epochs \(was 1.0, now 2.0\), margin.scale") as refusal:
        commands.train(other, tmp_path / "run", source=source)
    assert "run.log_every" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 64}, "48 images are less than a batch of 64"),
        ({"model.bn_group": 5}, "bn_group=5 does not divide"),
        ({"epochs": 0.0}, "epochs=0"),
        ({"epochs": float("nan")}, "epochs=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"batch": 0}, "batch=0"),
        ({"model.embedding": 0}, "model.embedding=0"),
        ({"model.bn_group": -8}, "model.bn_group=-8"),
        ({"model.input_std": (1.0, 0.0, 1.0)}, "model.input_std"),
        ({"run.keep": 0}, "run.keep=0"),
        ({"run.keep_every": -1.0}, "run.keep_every=-1"),
        ({"run.keep_best": 1}, "run.keep_best=1: nothing tells which"),
        ({"run.on_nan": "ignore"}, "run.on_nan=ignore: give stop or skip"),
        ({"run.hang_after": -1.0}, "run.hang_after=-1"),
        ({"run.checkpoints": "here"}, "run.checkpoints=here: give an absolute path"),
        ({"run.checkpoints": "s3://b/f"}, "run.checkpoints=s3://b/f: give an absolute"),
        ({"schedule.factor": -1.0}, "schedule.factor=-1"),
        ({"softmax.sample": 0.0}, "softmax.sample=0.*give a number above 0, to 1"),
        ({"softmax.sample": 1.01}, "softmax.sample=1.01"),
        ({"softmax.chunk": -1}, "softmax.chunk=-1"),
        ({"augment.crop": 90}, "augment.crop=90"),
        ({"margin.name": "arc"}, "unknown margin.name"),
        ({"optimizer.name": "lion"}, "unknown optimizer.name"),
        ({"schedule.kind": "linear"}, "unknown schedule.kind"),
        ({"data": "/no/such/train.rec"}, "no such file"),
    ],
)
def test_bad_configs_are_refused(tmp_path, source, changes, message):
    config = small("baseline", **changes)
    given = None if "data" in changes else source
    with pytest.raises(InputError, match=message):
        commands.train(config, tmp_path / "run", source=given)


def test_a_diverged_run_stops_with_the_step_named(tmp_path, source):
    config = small("baseline", **{"schedule.learning_rate": 1e30, "schedule.kind": "steps"})
    config.schedule.drops = ()
    with pytest.raises(DivergedError, match=r"loss is nan at step 2, .* between steps 1 and 2; no"):
        commands.train(config, tmp_path / "run", source=source)


def test_skipped_steps_are_logged_and_counted_over_restarts(tmp_path, source, capsys):
    """The first update throws the parameters so far off that no loss after it is finite."""
    config = small("baseline", **{"schedule.learning_rate": 1e30, "schedule.kind": "steps"})
    config.update_from_flattened_dict({"schedule.drops": (), "run.on_nan": "skip", "run.keep": 1})
    commands.train(config, tmp_path / "run", source=source)
    found = rows(tmp_path / "run")
    assert [r["skipped"] for r in found] == [0, 1, 2, 3, 4, 5]
    assert [r["loss"] is None for r in found] == [False, True, True, True, True, True]
    assert "skipped 5" in capsys.readouterr().out
    from crfr.train.log import Log

    with Log(tmp_path / "run", 3) as log:
        assert log.skipped == 2


def test_an_unwritable_workdir_is_refused(tmp_path, source):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--workdir=.*Not a directory"):
        commands.train(small(), tmp_path / "file" / "run", source=source)


TRAIN = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_train
from crfr import commands
from crfr.data.faces import Faces
from crfr.errors import InputError
limit = int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    commands.train(test_train.small("baseline", epochs=3.0), Path(sys.argv[1]),
                   source=Faces(identities=8, images=6))
except InputError as error:
    sys.exit(f"crfr: {error}")
"""


def run_apart(workdir, limit=0, stop=None):
    """(exit code, output) of training in a process of its own.

    `stop` = (start of a line, signal): what to send it when it prints that.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": FAST}
    command = [sys.executable, "-c", TRAIN, str(workdir), str(ROOT / "tests"), str(limit)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        output = ""
        for line in process.stdout:
            output += line
            if stop and line.startswith(stop[0]):
                process.send_signal(stop[1])
                stop = None
    return process.returncode, output


def saved(workdir):
    return sorted(int(name) for name in os.listdir(workdir / "checkpoints") if name.isdigit())


def test_a_save_that_fails_leaves_the_checkpoint_before_it(tmp_path):
    """A limit on the size of files stands in for a full disk: writing fails inside a save."""
    workdir = tmp_path / "run"
    code, output = run_apart(workdir, stop=("step 4/9", signal.SIGTERM))
    assert code == 128 + signal.SIGTERM, output
    assert "saved step" in output
    steps, before = saved(workdir), weights(workdir)

    code, output = run_apart(workdir, limit=20_000)
    assert code == 1, output
    assert "could not be saved" in output
    assert "those before it are whole" in output
    assert saved(workdir) == steps
    assert weights(workdir).fingerprint == before.fingerprint

    code, output = run_apart(workdir)
    assert code == 0, output
    assert weights(workdir).step == 9


@pytest.mark.parametrize(("size", "steps"), [("8k", []), ("900k", [3])])
def test_a_full_disk_leaves_whole_files(tmp_path, size, steps):
    """A real one, of a mount namespace's own: full in metrics.jsonl, or at the second save."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size={size} tmpfs {disk}"
    allowed = shutil.which("unshare") and subprocess.run([*inside, mount], capture_output=True)
    if not allowed or allowed.returncode:
        pytest.skip("no right to make a mount namespace here")
    train = [sys.executable, "-m", "crfr.main", "train", "--config=configs/baseline.py:quick"]
    train += ["--config.data=faces:identities=8,images=6", "--config.run.benchmark="]
    train += ["--config.batch=16", "--config.model.bn_group=16", "--config.model.width=4"]
    train += ["--config.model.embedding=16", "--config.epochs=3", "--config.run.save_every=1"]
    train += ["--config.run.log_every=1", f"--workdir={disk}/run"]
    result = subprocess.run(
        [*inside, f"{mount}; {shlex.join(train)}; code=$?; cp -r {disk}/run {kept}; exit $code"],
        env={**os.environ, "XLA_FLAGS": FAST}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    # TensorStore's threads may print tracebacks of their own before the one line that counts
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"crfr: {disk}/run/{'checkpoints' if steps else 'metrics'}")
    assert "make room" in last
    assert saved(kept) == steps
    if steps:
        assert weights(kept).step == 3
    for name in ("config.json", "run.json"):
        json.loads((kept / name).read_text())
