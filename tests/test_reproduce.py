"""crfr reproduce: what it leaves, that it goes on after anything, what it refuses beforehand."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from crfr import commands, environment, estimate, main, measure, planning, reproduce
from crfr.errors import InputError
from crfr.evaluate.embed import check_embeddings
from crfr.evaluate.encoders import load_encoder
from crfr.train.finite import DivergedError
from crfr.views.methods import parse_method
from crfr.workdir import open_workdir

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("one_device")
WORDS = [
    "reproduce",
    "--config=configs/paper.py:quick",
    "--data=faces:identities=8,images=6",  # 3 steps an epoch
    "--benchmarks=faces:identities=5,images=4",
    "--methods=bt-14,bt-7",
    "--seeds=0,1",
    "--resolutions=7,112",
    "--scenarios=CR,ER",
    *(
        f"--config.{word}"
        for word in (
            *("batch=16", "epochs=1", "model.bn_group=16", "model.width=4", "model.embedding=16"),
            *("schedule.warmup_epochs=0", "run.log_every=1", "run.save_every=0.34"),
            *("run.eval_batch=16", "run.threads=2"),
        )
    ),
]
RUNS = ["bt-7-seed-0", "bt-14-seed-0", "bt-7-seed-1", "bt-14-seed-1"]  # in their order


def words(place, **changes):
    """The command's arguments, some flags with other values."""
    kept = [word for word in WORDS if word.partition("=")[0].lstrip("-") not in changes]
    flags = [f"--{name}={value}" for name, value in changes.items()]
    return [*kept, *flags, f"--out={place}"]


def starts(out, run):
    return json.loads((out / "train" / run / "run.json").read_text())


def fingerprint(out, run):
    return load_encoder(str(out / "train" / run), commands.build_for_evaluation).fingerprint


def rows(out, run):
    lines = (out / "sweep" / run / "rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(what an uninterrupted command left, the sweeps of each page that it wrote, its output)"""
    from crfr.train import sharding

    out, pages, make_mesh = tmp_path_factory.mktemp("whole") / "out", [], sharding.make_mesh
    write, compile_embed = reproduce.write_report, estimate.compile_embed

    def compile_measured(network, mesh):
        assert network.folded  # as sweeps have it
        return compile_embed(network, mesh)

    def write_last(sweeps, page):
        pages.append([sweep.name for sweep in sweeps])
        if len(sweeps) == len(RUNS):
            write(sweeps, page)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "make_mesh", lambda devices=None: make_mesh(1))
        patch.setattr(reproduce, "write_report", write_last)
        patch.setattr(estimate, "READ_SECONDS", 0.1)
        patch.setattr(estimate, "compile_embed", compile_measured)
        main.run(words(out))
    return out, pages


@pytest.fixture
def unmeasured(monkeypatch):
    """No time for measuring; the list gets what would have been measured."""
    measured = []

    def kind(config, methods, source, mesh):
        measured.append(methods)
        return estimate.Kind(methods, estimate.views_of(config), 0.5, 0.1, 8.0, 10**6)

    def embedding(config, mesh):
        measured.append("embedding")
        return estimate.Embedding(0.001, 4.0)

    monkeypatch.setattr(estimate, "measure_kind", kind)
    monkeypatch.setattr(estimate, "measure_embedding", embedding)
    return measured


@pytest.fixture
def stubs(monkeypatch, unmeasured):
    """Nothing is trained or swept: (what would have been, in its order; the pages' sweeps)."""
    order, pages = [], []

    def train(config, workdir, **_):
        with open_workdir(workdir, json.loads(config.to_json()), {}):
            order.append(workdir.name)

    monkeypatch.setattr(commands, "train", train)
    monkeypatch.setattr(measure, "sweep", lambda model, b, r, out, **_: order.append(out))
    monkeypatch.setattr(measure, "finished", lambda out, *_, **__: out in order)
    monkeypatch.setattr(reproduce, "latest_step", lambda workdir: 3 * (workdir.name in order))
    monkeypatch.setattr(reproduce, "write_report", lambda sweeps, page: pages.append(sweeps))
    return order, pages


def test_layout(whole):
    out, pages = whole
    assert {path.name for path in out.iterdir()} == {
        *("train", "sweep", "plan.json", "report.html", "report_files")
    }
    for run in RUNS:
        method, _, seed = run.partition("-seed-")
        config = json.loads((out / "train" / run / "config.json").read_text())
        assert (config["method"], config["seed"]) == (method, int(seed))
        assert config["run"]["benchmark"] == "faces:identities=5,images=4"
        assert (out / "train" / run / "checkpoints/3").is_dir()
        assert {(row["scenario"], row["resolution"]) for row in rows(out, run)} == {
            (s, r) for s in ("CR", "CR_A", "CR_B", "ER") for r in (7, 112)
        }
    # a page after each run but the last, and one at the end: seed by seed, in the paper's order
    by_method = [run for method in ("bt-7", "bt-14") for run in RUNS if run.startswith(method)]
    assert [len(page) for page in pages] == [1, 2, 3, 4]
    assert [sorted(page) for page in pages] == [sorted(RUNS[:n]) for n in (1, 2, 3, 4)]
    assert sorted(by_method) == sorted(pages[-1])
    assert len({fingerprint(out, run) for run in RUNS}) == 4

    plan = json.loads((out / "plan.json").read_text())
    assert plan["asked"]["methods"] == ["bt-7", "bt-14"]
    assert plan["asked"]["seeds"] == [0, 1]
    assert [left["run"] for left in plan["left"]] == [
        run.replace("-seed-", ", seed ") for run in RUNS
    ]
    (kind,) = plan["trainings"]  # both see an image once
    assert kind["methods"] == ["bt-7", "bt-14"]
    assert kind["views"] == 1
    assert 0 < kind["read_seconds"] < 5
    # six steps and the compilation, as measured; and not a tenth of it or ten times as much
    took = json.loads((out / "sweep" / RUNS[1] / "sweep.json").read_text())["training"]["seconds"]
    planned = plan["left"][1]["training"]
    assert took / 20 < planned < 20 * took
    assert plan["devices"] == {"count": 1, "kind": "cpu"}
    assert {"versions", "commit", "command"} <= plan.keys()


def test_done_runs_are_left_alone(whole, unmeasured, monkeypatch, capsys):
    out, _ = whole
    pages = []
    before = {run: (out / "sweep" / run / "sweep.json").stat().st_mtime_ns for run in RUNS}
    monkeypatch.setattr(commands, "train", None)  # a call would fail
    monkeypatch.setattr(measure, "sweep", None)
    monkeypatch.setattr(reproduce, "write_report", lambda sweeps, page: pages.append(sweeps))
    main.run(words(out))
    assert unmeasured == []
    assert [len(starts(out, run)) for run in RUNS] == [1, 1, 1, 1]
    assert before == {run: (out / "sweep" / run / "sweep.json").stat().st_mtime_ns for run in RUNS}
    assert [len(page) for page in pages] == [4]
    output = capsys.readouterr().out
    assert "4 of them are done" in output
    assert "has nothing of" not in output


def test_other_recipes_data_and_benchmarks_are_refused_before_anything(whole, unmeasured):
    out, _ = whole
    for changes, message in [
        ({"config.epochs": 3}, rf"{out}/train/bt-7-seed-0: .*another config: epochs \(was 1"),
        ({"data": "faces:identities=8,images=7"}, r"bt-7-seed-0: .*data \(was 'faces"),
        ({"benchmarks": "faces:identities=5,images=4,seed=2"}, None),  # another one: adds
    ]:
        arguments = [*words(out, **changes), "--plan"]
        if message is None:
            main.run(arguments)
            assert unmeasured == ["embedding"]
        else:
            with pytest.raises(InputError, match=message):
                main.run(arguments)
            assert unmeasured == []


def test_a_benchmark_of_the_same_name_with_other_images_is_refused(whole, unmeasured, monkeypatch):
    out, _ = whole
    describe = reproduce.results.describe
    other = {"fingerprint": "0123456789abcdef"}
    monkeypatch.setattr(reproduce.results, "describe", lambda b: describe(b) | other)
    with pytest.raises(InputError, match=rf"{out}/sweep/bt-7-seed-0: holds a sweep of another"):
        main.run(words(out))
    assert unmeasured == []


def test_a_larger_request_adds_and_a_kill_costs_nothing(whole, unmeasured, tmp_path, capsys):
    """SIGKILL in the second training; then the same command, with one more resolution."""
    uninterrupted, _ = whole
    out = tmp_path / "out"
    shutil.copytree(uninterrupted, out)
    shutil.rmtree(out / "train/bt-14-seed-1")
    shutil.rmtree(out / "sweep/bt-14-seed-1")
    script = (
        "import sys; from crfr import estimate, main; from crfr.train import sharding\n"
        "make_mesh = sharding.make_mesh; sharding.make_mesh = lambda d=None: make_mesh(1)\n"
        "estimate.measure_kind = lambda c, m, *_: estimate.Kind(m, 1, 0.5, 0.1, 8.0, 10**6)\n"
        "estimate.measure_embedding = lambda *_: estimate.Embedding(0.001, 4.0)\n"
        "main.run(sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, *words(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        output = ""
        for line in process.stdout:
            output += line
            if line.startswith("step 2/3"):
                process.kill()
    assert process.returncode == -signal.SIGKILL, output
    assert "3 of them are done" in output
    assert "[4/4] bt-14, seed 1: about" in output
    assert "bt-7, seed" not in output

    main.run(words(out, seeds=1, resolutions="7,14,112"))
    assert unmeasured == [["bt-14"], "embedding"]
    assert len(starts(out, "bt-14-seed-1")) == 2
    assert len(starts(out, "bt-7-seed-1")) == 1
    for run in RUNS[2:]:
        assert fingerprint(out, run) == fingerprint(uninterrupted, run)
        assert {row["resolution"] for row in rows(out, run)} == {7, 14, 112}
        kept = [row["accuracy"] for row in rows(out, run) if row["resolution"] != 14]
        assert kept == [row["accuracy"] for row in rows(uninterrupted, run)]
    assert rows(out, RUNS[0]) == rows(uninterrupted, RUNS[0])  # of seed 0, not asked for
    assert "14" in (out / "report.html").read_text()
    told = "the page has nothing of bt-14-seed-0, bt-7-seed-0, beside them: name their methods and"
    assert told in capsys.readouterr().out


def test_plan(unmeasured, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "train", None)
    main.run([*words(tmp_path / "out", methods="bt-7,table-2", seeds="0-2"), "--plan"])
    output = capsys.readouterr().out
    # one measurement for each number of views, and of the hours of all seeds
    assert unmeasured == [
        ["baseline", "bt-5", "bt-7", "bt-m"], ["st-5", "st-m1"], ["st-m2"], "embedding",
    ]  # fmt: skip
    # 3 steps of 0.5 s, 20 images of 1 ms to verify each third epoch, 8 s to compile
    run = 3 * 0.5 + 20 * 0.001 / 3 + 8.0
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    assert [left["training"] for left in plan["left"]] == pytest.approx([run] * 21)
    # CR and ER at 7 and 112 px of 20 images
    assert [left["sweep"] for left in plan["left"]] == pytest.approx([40 * 0.001 + 4.0] * 21)
    whole = re.search(r"in all +([\d.]+)", output)
    assert whole
    assert float(whole[1]) == pytest.approx(21 * (run + 4.04) / 3600, rel=0.01)
    assert "on 1 x cpu" in output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]


def test_programs_are_kept_before_any_is_compiled(unmeasured, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(environment, "keep_programs", lambda: seen.append(list(unmeasured)))
    main.run([*words(tmp_path / "out", methods="bt-7", seeds="0"), "--plan"])
    assert seen == [[]]
    assert unmeasured == [["bt-7"], "embedding"]


def test_what_a_step_costs_depends_on():
    def key(**changes):
        config = planning.make_configs("configs/paper.py:quick", ["bt-7"], [], data="x", weights="")
        with config["bt-7"].unlocked():
            config["bt-7"].update_from_flattened_dict(changes)
        return estimate.cost_key(config["bt-7"])

    assert key() == key(seed=3) == key(**{"run.keep": 9})
    for changed in ({"softmax.chunk": 64}, {"softmax.sample": 0.5}, {"batch": 7}):
        assert key(**changed) != key()


def test_a_run_that_another_process_has_comes_last(stubs, tmp_path, capsys):
    order, pages = stubs
    out = tmp_path / "out"
    held = out / "train" / RUNS[1]
    held.mkdir(parents=True)
    with environment.locked(held, "busy"):
        main.run(words(out))
    assert order[::2] == [RUNS[0], *RUNS[2:]]
    assert [len(page) for page in pages] == [1, 2, 3, 3]  # the last two before and after waiting
    output = capsys.readouterr().out
    assert output.count("bt-14, seed 0: another process works on it") == 2
    assert "3 of 4 runs are done" in output
    main.run(words(out))
    assert order[::2] == [RUNS[0], *RUNS[2:], RUNS[1]]
    assert len(pages[-1]) == 4


def test_a_run_that_diverges_stops_no_other(stubs, tmp_path, monkeypatch, capsys):
    order, pages = stubs
    train = commands.train

    def diverge(config, workdir, **about):
        if workdir.name in RUNS[1:3]:
            with open_workdir(workdir, json.loads(config.to_json()), {}):
                raise DivergedError(f"loss is nan at step 2 of {workdir.name}")
        train(config, workdir, **about)

    monkeypatch.setattr(commands, "train", diverge)
    with pytest.raises(InputError) as ended:
        main.run(words(tmp_path / "out"))
    assert str(ended.value) == (
        "2 of 4 runs diverged: bt-14, seed 0; bt-7, seed 1; the line of each stands above"
    )
    assert order[::2] == [RUNS[0], RUNS[3]]
    assert len(pages[-1]) == 2
    output = capsys.readouterr().out
    assert output.count("bt-14, seed 0: loss is nan at step 2 of bt-14-seed-0") == 1
    assert "2 of 4 runs are done" in output
    # the same command tries them once more, and them alone
    monkeypatch.setattr(commands, "train", train)
    main.run(words(tmp_path / "out"))
    assert order[4::2] == RUNS[1:3]


def test_the_time_left_is_by_the_runs_that_are_done(monkeypatch, capsys):
    """Runs take twice the 100 s planned; one that diverges after 1000 s says nothing of others."""
    now = [0.0]
    runs = [planning.Run(name, 0, None, Path(), Path(), 1) for name in "abcd"]
    monkeypatch.setattr(reproduce.time, "monotonic", lambda: now[0])

    def carry_out(run):
        now[0] += 1000 if run is runs[0] else 200
        if run is runs[0]:
            raise DivergedError("loss is nan")
        return True

    works = {run: estimate.Work(60, 40, 0, 0) for run in runs}
    _, diverged = reproduce._work_through(
        runs, runs, works, lambda _: False, carry_out, lambda: True
    )
    assert diverged == [runs[0]]
    told = re.findall(r"\] (\w), seed 0: about (\w+) left of (\w+)", capsys.readouterr().out)
    assert told == [
        ("a", "6m40s", "6m40s"),
        ("b", "5m00s", "21m40s"),
        ("c", "6m40s", "26m40s"),
        ("d", "3m20s", "26m40s"),
    ]


@pytest.mark.parametrize("where", ["sweep", "verification"])
def test_a_run_whose_embeddings_are_not_finite_stops_no_other(
    where, stubs, tmp_path, monkeypatch, capsys
):
    """In its sweep, or in the verification during its training, whose state may be finite."""
    order, pages = stubs
    module, name = (measure, "sweep") if where == "sweep" else (commands, "train")
    work = getattr(module, name)

    def embed(first, second, *rest, **about):
        workdir = Path(first) if where == "sweep" else second
        if workdir.name in RUNS[1:3]:
            broken = np.full((2, 4), np.nan, np.float32)
            check_embeddings(broken, np.arange(2), 7)
        work(first, second, *rest, **about)

    monkeypatch.setattr(module, name, embed)
    with pytest.raises(InputError) as ended:
        main.run(words(tmp_path / "out"))
    assert str(ended.value) == (
        "2 of 4 runs diverged: bt-14, seed 0; bt-7, seed 1; the line of each stands above"
    )
    swept = [entry.name for entry in order if isinstance(entry, Path)]
    assert swept == [RUNS[0], RUNS[3]]
    assert len(pages[-1]) == 2
    output = capsys.readouterr().out
    assert output.count("bt-14, seed 0: 2 of 2 embeddings at 7 px are not finite") == 1
    assert "2 of 4 runs are done" in output
    # the same command tries them once more, and them alone
    monkeypatch.setattr(module, name, work)
    main.run(words(tmp_path / "out"))
    assert [entry.name for entry in order if isinstance(entry, Path)][2:] == RUNS[1:3]


def test_where_nothing_is_done_no_page_is_named(stubs, tmp_path, monkeypatch, capsys):
    def diverge(config, workdir, **_):
        raise DivergedError("loss is nan at step 2")

    monkeypatch.setattr(commands, "train", diverge)
    with pytest.raises(InputError, match="4 of 4 runs diverged"):
        main.run(words(tmp_path / "out"))
    assert stubs[1] == []  # no page was written
    # nor is that of earlier runs, which are none of these
    (tmp_path / "out/report.html").write_text("earlier")
    earlier = tmp_path / "out/sweep/bt-9-seed-0"
    earlier.mkdir(parents=True)
    (earlier / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match="4 of 4 runs diverged"):
        main.run(words(tmp_path / "out"))
    output = capsys.readouterr().out
    assert output.count("0 of 4 runs are done; no page was written") == 2
    assert "report.html" not in output
    assert "bt-9" not in output


def test_a_sweep_that_cannot_be_written_stops_all(stubs, tmp_path, monkeypatch):
    """What is wrong with the folder or the request would come again with the next run."""

    def refuse(model, loaded, resolutions, out, **_):
        raise InputError(f"--out={out}: No space left on device; choose a writable folder")

    monkeypatch.setattr(measure, "sweep", refuse)
    with pytest.raises(InputError, match="No space left"):
        main.run(words(tmp_path / "out"))
    assert stubs[0] == [RUNS[0]]


def test_a_page_that_fails_stops_no_training(stubs, tmp_path, monkeypatch, capsys):
    order, _ = stubs

    def fail(sweeps, page):
        raise KeyError("a defect")

    monkeypatch.setattr(reproduce, "write_report", fail)
    with pytest.raises(KeyError):  # the last one is said aloud
        main.run(words(tmp_path / "out"))
    assert order[::2] == RUNS
    assert "not written now (KeyError: 'a defect')" in capsys.readouterr().out


def test_groups():
    bt, st = [*range(5, 23), 28, 56], [5, 6, 7, 8, 12, 14, 20, 28, 56]
    assert planning.parse_methods(["bt-r"]) == [f"bt-{r}" for r in bt]
    assert planning.parse_methods(["st-r"]) == [f"st-{r}" for r in st]
    table_1 = [f"{name}-{r}" for name in ("bt", "st") for r in (16, 32, 64)]
    assert planning.parse_methods(["table-1"]) == table_1
    table_2 = ["baseline", "bt-5", "bt-m", "st-5", "st-m1", "st-m2"]
    assert planning.parse_methods([" table-2", "bt-5"]) == table_2
    assert planning.parse_methods(["all"]) == [
        "baseline",
        *(f"bt-{r}" for r in sorted({*bt, 16, 32, 64})),
        "bt-m",
        *(f"st-{r}" for r in sorted({*st, 16, 32, 64})),
        *("st-m1", "st-m2"),
    ]
    assert estimate.short(planning.ALL) == "baseline, bt-r (22), bt-m, st-r (12), st-m1, st-m2"


KERAS, TORCH = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"


@pytest.mark.parametrize(
    ("name", "start", "settings"),
    [
        ("imagenet.h5", KERAS, ("v1", (123.68, 116.779, 103.939), (1.0, 1.0, 1.0), 1.001e-5)),
        (
            "imagenet.pth",
            TORCH,
            ("v1.5", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), 1e-5),
        ),
    ],
)
def test_weights_bring_the_settings_that_belong_to_them(name, start, settings, tmp_path):
    path = tmp_path / name
    path.write_bytes(start)

    def model_of(*overrides):
        configs = planning.make_configs(
            "configs/paper.py", ["bt-9"], list(overrides), data="faces", weights=str(path)
        )
        assert configs["bt-9"].init.weights == str(path)
        model = configs["bt-9"].model
        return model.version, model.input_mean, model.input_std, model.bn_epsilon

    assert model_of() == settings
    # an override has the last word, a frozen BatchNorm what it needs
    assert model_of("--config.model.version=v1.5", "--config.model.bn_frozen=True") == (
        "v1.5", *settings[1:]
    )  # fmt: skip


def test_weights_that_do_not_fit_are_refused_before_anything(unmeasured, tmp_path):
    path = tmp_path / "other.safetensors"
    from safetensors.numpy import save_file

    save_file({"conv1.weight": np.zeros((4, 3, 3, 3), np.float32)}, path)
    with pytest.raises(InputError, match=r"other.safetensors: "):
        main.run(words(tmp_path / "out", weights=path))
    assert unmeasured == []
    assert not (tmp_path / "out").exists()


def test_the_benchmark_that_trainings_are_verified_on(stubs, tmp_path, monkeypatch):
    def verified(*more):
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                commands,
                "train",
                lambda config, workdir, source, benchmark: seen.append(
                    (config.run.benchmark, benchmark and benchmark.name)
                ),
            )
            main.run([*words(tmp_path / "out", methods="bt-m", seeds=0), *more])
        return seen[0]

    first = "faces:identities=5,images=4"
    assert verified() == (first, first)
    assert verified("--config.run.benchmark=") == ("", None)
    another = "faces:identities=4,images=4"
    assert verified(f"--config.run.benchmark={another}") == (another, another)
    from crfr.data.benchmarks import Benchmark, load_benchmark

    faces = load_benchmark(first)
    lfw = Benchmark("LFW", faces.images, faces.pairs, faces.same)
    monkeypatch.setattr(reproduce, "load_benchmarks", lambda spec: [faces, lfw])
    monkeypatch.setattr(reproduce, "split_specs", lambda spec: [first, "LFW.bin"])
    shutil.rmtree(tmp_path / "out")
    stubs[0].clear()
    assert verified() == ("LFW.bin", "LFW")


def test_protocols_are_read_where_they_are_and_drawn_elsewhere(tmp_path, capsys):
    from crfr.data.benchmarks import load_benchmark
    from crfr.evaluate.protocols import write_protocols

    one, two = (load_benchmark(f"faces:identities=5,images=4,seed={seed}") for seed in (0, 1))
    write_protocols(tmp_path, one, 3)
    found = planning.find_protocols([one, two], ["CR", "protocols"], tmp_path)
    assert {name: {p.drawn for p in drawn} for name, drawn in found.items()} == {
        one.name: {"file"}, two.name: {"seeded"},
    }  # fmt: skip
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{two.name}: no ")
    assert planning.find_protocols([one], ["CR"], tmp_path) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ""}, "--data is missing"),
        ({"benchmarks": ""}, "--benchmarks is missing"),
        ({"methods": ""}, "--methods is missing"),
        ({"methods": "bt7"}, "unknown --methods 'bt7': did you mean 'bt-7'"),
        ({"methods": "baseline,table-3"}, "unknown --methods 'table-3': did you mean 'table-"),
        ({"methods": "st-112"}, "resolution 112 px is outside 1..111"),
        ({"methods": "bt-0"}, "resolution 0 px is outside 1..111"),
        ({"seeds": "-1"}, "--seeds: '-1' is not a whole number"),
        ({"resolutions": "0,7"}, "resolution"),
        ({"resolutions": "7,113"}, "resolution"),
        ({"scenarios": "CR,RE"}, "unknown --scenarios 'RE'"),
        ({"scenarios": "matrix"}, "--scenarios=matrix: the page needs rows too; add CR, ER or"),
        ({"protocols": "/no/folder", "scenarios": "CR"}, "--protocols=/no/folder"),
        ({"data": "/no/such.rec"}, "--data: /no/such.rec: no such file"),
        ({"benchmarks": "/no/lfw.bin"}, "--benchmarks: .*lfw.bin"),
        ({"protocols": "/no/folder", "scenarios": "protocols"}, "--protocols=/no/folder"),
        ({"weights": "/no/such.h5"}, "/no/such.h5: No such file"),
        ({"config": "configs/bt.py:quick"}, "reproduce needs a config of every method"),
        ({"config": "configs/papr.py"}, "did you mean 'configs/paper.py'"),
        ({"config": "configs/paper.py:quik"}, "unknown argument of paper.py 'quik'"),
        ({"config.run.benchmark": "/no/lfw.bin"}, "--config.run.benchmark: /no/lfw.bin: no such"),
        ({"config.epoch": "3"}, 'Did you mean "epochs"'),
        ({"config.data": "faces"}, "--config.data: is for crfr train; give --data"),
        ({"config.seed": "3"}, "--config.seed: .*give --seeds"),
        ({"config.batch": "64", "config.model.bn_group": "0"}, "48 images are less than a batch"),
        ({"config.model.bn_group": "5"}, "bn_group=5 does not divide"),
    ],
)
def test_bad_input_is_refused_before_anything(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "prepare_step", None)
    monkeypatch.setattr(commands, "train", None)
    arguments = words(tmp_path / "out", **changes)
    with pytest.raises(InputError, match=message) as refusal:
        main.run(arguments)
    assert len(str(refusal.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_config_that_ignores_the_method_is_refused(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    own = tmp_path / "own.py"
    own.write_text("from crfr.recipe import recipe\ndef get_config(a=None):\n    return recipe()\n")
    plain = [word for word in words(tmp_path / "out", config=own) if "--config." not in word]
    with pytest.raises(InputError, match="for method=bt-7 it gives 'baseline'"):
        main.run(plain)


@pytest.mark.parametrize(
    ("argument", "about", "share"),
    [
        ("", ("resnet50", 16.0, 5e-4), 0.08),
        (":tiny", ("tiny", 8.0, 3e-3), 0.08),
        (":quick", ("tiny", 12.0, 3e-3), 0.25),
    ],
)
def test_every_method_has_a_config_for_small_data(argument, about, share):
    """The network, epochs and rate of configs/small.py, and the share of the distance's weight."""
    file = f"configs/small.py{argument}"
    configs = planning.make_configs(file, planning.ALL, [], data="x", weights="")
    assert list(configs) == planning.ALL
    for name, config in configs.items():
        assert (config.model.name, config.epochs, config.schedule.learning_rate) == about
        assert (config.margin.scale, config.margin.margin, config.batch) == (16.0, 0.3, 64)
        method = parse_method(name)
        siamese = len(method.views) > 1
        assert config.distance_weight == (share * method.distance_weight if siamese else None)


def test_every_method_s_config_is_the_paper_s():
    configs = planning.make_configs("configs/paper.py", planning.ALL, [], data="x", weights="")
    assert list(configs) == planning.ALL
    assert all(isinstance(config, ConfigDict) for config in configs.values())
    assert {config.epochs for config in configs.values()} == {16.0}
    assert {config.run.verify_every for config in configs.values()} == {1.0}
