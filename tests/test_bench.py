"""crfr bench: what it times is what train uses; its figures are there and make sense."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crfr import main
from crfr.bench import input as bench
from crfr.data.records import open_source, read_example
from crfr.errors import InputError

DATA = "--data=faces:identities=8,images=4"


def test_input_says_which_is_the_bottleneck(tmp_path, capsys):
    out = tmp_path / "input.json"
    words = ["bench", "input", DATA, "--batch=8", "--seconds=0.1", "--threads=1,2"]
    main.run([*words, "--need=1", f"--out={out}"])
    assert "the device is the bottleneck" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [(row["threads"], row["workers"]) for row in rows] == [(1, 0), (2, 0)]
    assert all(row["images_per_second"] > 1 for row in rows)
    step = tmp_path / "step.json"
    step.write_text(json.dumps({"images_per_second": 1e9}))
    main.run([*words, f"--step={step}"])
    assert "the input is the bottleneck" in capsys.readouterr().out
    step.write_text("[]")
    with pytest.raises(InputError, match="not a file of crfr bench step"):
        main.run([*words, f"--step={step}"])


BURN = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"


def test_cpu_seconds_count_children_while_they_run():
    with subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        before = bench.cpu_seconds()
        assert child.stdout
        child.stdout.readline()
        assert 0.4 < bench.used_since(before) < 5
        before = bench.cpu_seconds()
        assert before[child.pid] > 0.4
        child.communicate(b"\n")
    # a child that has ended takes its time with it: the sum falls, what is used does not
    assert sum(bench.cpu_seconds().values()) < sum(before.values())
    assert 0 <= bench.used_since(before) < 0.4


def test_workers(tmp_path):
    """Rows of worker processes: their CPU time counts, and each row's is its own."""
    out = tmp_path / "input.json"
    words = ["bench", "input", DATA, "--batch=8", "--seconds=0.2", "--threads=1", "--workers=2"]
    main.run([*words, f"--out={out}"])
    rows = json.loads(out.read_text())["rows"]
    assert [(row["threads"], row["workers"]) for row in rows] == [(1, 0), (1, 2)]
    for row in rows:
        assert row["images_per_second"] > 1
        assert row["images_per_second_spread"] > 0
        # of one core's second no row has more than a stream that does nothing but read
        assert 1 < row["images_per_second_per_core"] < 1e6


def test_torch(tmp_path, capsys):
    pytest.importorskip("torch", reason="for --torch alone")
    out = tmp_path / "input.json"
    words = ["bench", "input", DATA, "--batch=8", "--seconds=0.2", "--threads=1", "--torch"]
    main.run([*words, f"--out={out}"])
    rows = json.loads(out.read_text())["rows"]
    spec = DATA.removeprefix("--data=")
    assert [row["reader"] for row in rows] == [f"crfr {spec}", f"torch DataLoader {spec}"]
    assert all(row["images_per_second"] > 1 for row in rows)
    assert "the device" in capsys.readouterr().out


def test_torch_reads_the_same_images():
    pytest.importorskip("torch", reason="for --torch alone")
    source = open_source(DATA.removeprefix("--data="))
    images, labels = zip(*itertools.islice(bench.torch_batches(source, 8, 0, 0), 4), strict=True)
    found = sorted(zip(np.concatenate(labels), np.concatenate(images).tolist(), strict=True))
    examples = (read_example(source, index) for index in range(32))
    assert found == sorted((e["label"], e["image"].tolist()) for e in examples)


def test_missing_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"--torch needs torch, .*: pip install torch"):
        next(bench.torch_batches(open_source(DATA.removeprefix("--data=")), 8, 0, 0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data is missing"),
        ([DATA, "--threads=0"], "1 or more"),
        ([DATA, "--threads=x"], "not a whole number"),
        ([DATA, "--batch=64"], "32 images are less than a batch of 64"),
    ],
)
def test_bad_flags(words, message):
    with pytest.raises(InputError, match=message):
        main.run(["bench", "input", *words])


def test_the_peers_loops_decide_as_our_modes_do():
    """What is timed against is the peers' procedure: its results are those of the named modes."""
    from crfr.bench import peers
    from crfr.evaluate.verification import insightface_val, kfold_accuracy

    rng = np.random.default_rng(0)
    same = np.arange(200) % 2 == 0
    first = rng.standard_normal((200, 16))
    second = np.where(same[:, None], first, 0) + rng.standard_normal((200, 16))
    first, second = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (first, second))
    first, second = first.astype(np.float32), second.astype(np.float32)
    squared = np.sum(np.square(first - second), 1)
    accuracy, tar = peers.insightface(first, second, same)
    assert accuracy == pytest.approx(kfold_accuracy(squared / 2, same, thresholds="insightface")[0])
    assert tar == pytest.approx(insightface_val(squared / 2, same)[0])
    cosine = 1 - np.sum(first * second, axis=1)
    assert peers.knoche(first, second, same) == pytest.approx(
        kfold_accuracy(cosine, same, thresholds="knoche")[0]
    )


def test_bench_sweep_times_both_ways(tmp_path, capsys, one_device):
    """The ratio is far smaller than at LFW's size, but no longer one if ours went a grid's way."""
    arguments = ["--images=80", "--pairs=600", "--embedding=8", "--resolutions=112,7,5", "--matrix"]
    arguments += ["--repeats=1", "--benchmark=faces:identities=5,images=4", "--swept=112"]
    arguments += ["--precision=bfloat16", "--batch=8", "--noscripts"]
    out = tmp_path / "sweep.json"
    main.run(["bench", "sweep", *arguments, f"--out={out}"])
    figures = json.loads(out.read_text())
    assert figures["evaluations"] == 9
    assert len(figures["matrix_seconds"]) == 1
    assert {n: len(figures[f"{n}_seconds"]) for n in ("insightface", "knoche")} == {
        "insightface": 3,
        "knoche": 3,
    }
    assert min(figures["insightface_ratio"], figures["knoche_ratio"]) > 5
    assert figures["end_to_end_slots"] == 2 * 40
    assert figures["end_to_end_encoder"] == "tiny, bfloat16"
    assert figures["end_to_end_batch"] == 8
    assert figures["end_to_end_embedding_seconds"] > 0
    assert "end_to_end_ratio" not in figures
    assert "times cr_er" in capsys.readouterr().out
    for flag, message in [
        ("--swept=200", "resolution 200 px"),
        ("--network=resnet5", "unknown --network 'resnet5': did you mean 'resnet50'"),
        ("--precision=float16", "unknown --precision 'float16'"),
    ]:
        with pytest.raises(InputError, match=message):
            main.run(["bench", "sweep", flag])


def test_memory_of_the_compiled_step(tmp_path, capsys):
    """What it says of eight devices: arguments are the state and a batch, byte for byte."""
    words = ["bench", "memory", "--config=configs/large.py:quick", "--classes=2000", "--devices=8"]
    words += ["--config.batch=32", "--config.model.bn_group=4", "--config.model.width=2"]
    words += ["--config.model.embedding=16", "--config.optimizer.name=sgd"]
    main.run([*words, f"--out={tmp_path}/memory.json"])
    figures = json.loads((tmp_path / "memory.json").read_text())
    assert "2,000 identities on 8 x cpu" in capsys.readouterr().out
    assert figures["devices"]["count"] == 8
    compiled, formula = figures["compiled"], figures["formula"]
    assert formula["class matrix"] == 256 * 16 * 4
    assert formula["gradients"] == formula["parameters"] + 32 * 16 * 4  # 32 of 256: the batch
    assert formula["logits"] == 2 * 32 * 32 * 4
    assert formula["sampled rows"] == 2 * 32 * 16 * 4  # and their momentum
    assert formula["rows of a chunk"] == 0
    # parameters and momentum alike; the counters of the steps, those of the optimizer among them
    state = 2 * (formula["parameters"] + formula["class matrix"]) + formula["statistics"]
    assert state <= compiled["aliased"] <= state + 32
    # images and labels of a device, the matrices of 17 crops at 112 px, the key
    batch = 4 * (112 * 112 * 3 + 4) + 17 * 112 * 112 * 4 + 8
    assert compiled["arguments"] - compiled["aliased"] == batch
    assert formula["view matrices"] == 17 * 112 * 112 * 4
    whole = compiled["arguments"] + compiled["outputs"] - compiled["aliased"]
    assert compiled["peak"] == whole + compiled["temporaries"]
    gathered = 32 * 16 * 4
    assert gathered <= figures["communication"]["all-gather"] < 3 * gathered


def test_memory_of_tpus_that_are_not_attached(tmp_path, monkeypatch):
    """Arguments are the state and a batch, but for a TPU's tiles, which small arrays do not fill:
    0.4 % of all here.  Needs no TPU; takes half a minute where libtpu is installed."""
    pytest.importorskip("libtpu", reason="no libtpu: pip install 'crfr[tpu]'")
    # another process, of the other worker or of a user, may have loaded it: no TPU is fought over
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    words = ["bench", "memory", "--config=configs/large.py:quick", "--classes=1000000"]
    words += ["--topology=v5e:2x4", "--config.batch=32", "--config.model.bn_group=4"]
    words += ["--config.model.width=2", "--config.model.embedding=128"]
    main.run([*words, f"--out={tmp_path}/memory.json"])
    figures = json.loads((tmp_path / "memory.json").read_text())
    assert figures["devices"] == {"count": 8, "kind": "TPU v5 lite", "platform": "tpu"}
    formula = figures["formula"]
    state = sum(formula[part] for part in ("parameters", "class matrix", "statistics", "optimizer"))
    batch = 4 * (112 * 112 * 3 + 4) + formula["view matrices"]
    assert 1 <= figures["compiled"]["arguments"] / (state + batch) < 1.01


def test_memory_for_devices_that_are_not_there(monkeypatch):
    called = []

    def run(command, env):
        called.append((command, env))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    words = ["bench", "memory", "--config=configs/large.py:quick"]
    with pytest.raises(SystemExit) as stopped:
        main.run([*words, "--devices=16"])
    assert stopped.value.code == 3
    ((command, env),) = called
    assert command[1:] == ["-m", "crfr.main", *words, "--devices=16"]
    assert env["JAX_PLATFORMS"] == "cpu"
    assert env["XLA_FLAGS"].endswith("--xla_force_host_platform_device_count=16")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=16")
    with pytest.raises(InputError, match="gives 8 devices in spite of"):
        main.run([*words, "--devices=16"])
    with pytest.raises(InputError, match="leave --devices out"):
        main.run([*words, "--devices=16", "--topology=v5e:2x4"])
    with pytest.raises(InputError, match="batch 64 does not divide by 7 devices"):
        main.run([*words, "--devices=7"])
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match=r"topology=v5e:9x9: JAX has no such topology here"):
        main.run([*words, "--topology=v5e:9x9"])


def test_the_model_of_speed_by_hand_and_in_the_docs():
    from benchmarks import scaling

    # 8 devices of 125,000 classes, 40 M parameters: 6 x 1024 x 512 x 125,000 FLOP at 200 T
    found = scaling.times(8, 1024, 125_000, 512, 160_000_000, chunked=False)
    assert found.backbone == pytest.approx(128 * 6.2e9 / 200e12)
    assert found.head == pytest.approx(1.966e-3, rel=1e-3)
    # 280 MB of gradients, 1.835 MB of embeddings, twice as much of their gradient, and 33 kB
    assert found.communication == pytest.approx((280e6 + 3 * 1.835e6 + 33e3) / 50e9, rel=1e-4)
    assert scaling.times(1, 128, 1, 512, 160_000_000, chunked=True).communication < 1e-7
    text = Path(scaling.__file__).parents[1].joinpath("docs/scaling.md").read_text()
    for size, form in ((scaling.SIZES[0], "plain"), (scaling.SIZES[-1], "sampled")):
        assert scaling.row(*size, form) in text


def test_a_program_for_a_gpu_needs_no_gpu(monkeypatch):
    """As far as a CPU's JAX goes: lowered for CUDA, and nothing is run on the mesh's devices."""
    from configs.baseline import get_config
    from crfr import commands
    from crfr.bench.step import trace_step
    from crfr.train import sharding

    config = get_config("quick")
    config.batch = config.model.bn_group = 4
    monkeypatch.setattr(commands, "compile_update", None)  # which puts constants there
    traced = trace_step(config, 20, sharding.make_mesh(1))
    assert "stablehlo.convolution" in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_flops_are_those_of_the_convolution_that_a_cpu_writes_otherwise():
    import jax
    import jax.numpy as jnp

    from crfr.bench import device
    from crfr.model.conv import Conv

    conv = Conv(64, 3, 1, False, jnp.dtype("float32"), jnp.dtype("float32"))
    images = jnp.zeros((4, 8, 8, 64))
    traced = jax.jit(conv.apply).trace({"params": {"kernel": jnp.zeros((64, 3, 3, 64))}}, images)
    # of a line of 8 pixels two have two of the three taps, the others all: the border is no work
    assert device.counted_flops(traced) == 2 * 4 * 64 * 64 * (2 * 2 + 6 * 3) ** 2
    assert traced.lower().cost_analysis()["flops"] < 0.6 * device.counted_flops(traced)


def test_flops_are_counted_where_the_accelerator_counts_none(monkeypatch):
    """JAX has no count of what is lowered for a GPU: here all devices but the last are such."""
    import jax
    import jax.numpy as jnp

    from configs.baseline import get_config
    from crfr.bench import embed, step
    from crfr.networks import build_for_evaluation

    *gpus, cpu = jax.devices()
    counted = jax.stages.Lowered.cost_analysis

    def count(lowered):
        return counted(lowered) if list(lowered._lowering._device_list) == [cpu] else None

    def devices(backend=None):
        return [cpu] if backend == "cpu" else gpus

    config = get_config("quick")
    config.batch = config.model.bn_group = 4
    network = build_for_evaluation(config.to_dict())
    variables = network.init(jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", count)
    assert jax.jit(jnp.sin).lower(1.0).cost_analysis() is None
    assert step.count_flops(config, 20) == pytest.approx(0.433e9 / 2, rel=0.05)
    assert 4 * 0.02e9 < embed.count_flops(network, variables, 4) < 4 * 0.05e9

    def no_cpu(backend=None):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return gpus

    monkeypatch.setattr(jax, "devices", no_cpu)
    with pytest.raises(InputError, match="JAX_PLATFORMS leaves out the CPU"):
        step.count_flops(config, 20)


def test_communication_is_read_from_the_program():
    from crfr.bench.memory import communicated

    text = """
  %a = f32[2,3]{1,0} all-gather(%x), channel_id=1
  %b = (bf16[4]{0}, s8[5]) all-reduce(%x, %y), channel_id=2
  %c = f32[7]{0} all-reduce-start(%x), channel_id=3
  %d = f32[7]{0} all-reduce-done(%c)
  %e = f32[9]{0} add(%c, %c)
"""
    assert communicated(text) == {"all-gather": 24, "all-reduce": 8 + 5 + 28}


def test_programs_are_kept_on_accelerators(tmp_path, monkeypatch):
    """Where nothing else is said, and not on a CPU."""
    import jax

    from crfr.environment import keep_programs

    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path))
    try:
        for asked, backend, wanted in (
            (None, "cpu", None),
            ("elsewhere", "gpu", "elsewhere"),
            (None, "gpu", str(tmp_path / "programs")),
        ):
            jax.config.update("jax_compilation_cache_dir", asked)
            monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
            keep_programs()
            assert jax.config.jax_compilation_cache_dir == wanted
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_step_counts_and_shares(tmp_path, capsys, one_device):
    """Its figures follow from one another; a profile sees the program's kernels."""
    out, profile = tmp_path / "step.json", tmp_path / "profile"
    words = ["--config=configs/st_m1.py:quick", "--config.batch=4", "--config.model.bn_group=4"]
    words += ["--classes=20", "--repeats=2", "--steps=1", "--peak=0.5", f"--profile={profile}"]
    main.run(["bench", "step", *words, f"--out={out}"])
    figures = json.loads(out.read_text())
    assert figures["bench"] == "step"
    rate = figures["images_per_second"]
    assert rate == pytest.approx(4e3 / figures["step_ms"], abs=0.01)
    assert figures["views_per_second"] == pytest.approx(2 * rate, abs=0.02)  # rounded
    assert figures["mfu"] == pytest.approx(figures["tflops"] / 0.5, rel=0.05, abs=1e-4)
    assert sum(figures["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert sum(figures["parts_gb"].values()) == pytest.approx(figures["kernels_gb"], abs=0.01)
    assert {"views", "forward", "backward", "head", "optimizer"} <= set(figures["parts_gb"])
    # by the shapes, 8 views of the tiny network have 0.433 (tests/test_torch_step.py), all of it in
    # products; the compiler counts sums as well and leaves out the zeros at the borders
    assert figures["gflop"] == pytest.approx(0.433, rel=0.05)
    assert figures["loops"] == 0
    assert figures["profile_kernels_seen"] > figures["profile_kernels"] / 2
    assert "images_per_second" in capsys.readouterr().out


def test_what_is_timed_before_a_part_fails_is_not_lost(tmp_path, monkeypatch, capsys, one_device):
    """Nor where the time is up: the step's figures are in the file, the parts so far are shown."""
    from crfr.bench import parts

    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(parts, "time_update", fail)
    out = tmp_path / "step.json"
    words = ["--config=configs/baseline.py:quick", "--config.batch=4", "--config.model.bn_group=4"]
    words += ["--classes=20", "--repeats=2", "--steps=1", f"--out={out}"]
    with pytest.raises(RuntimeError, match="out of memory"):
        main.run(["bench", "step", *words])
    assert json.loads(out.read_text())["step_ms"] > 0
    said = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert said == ["step_ms", "views_ms", "forward_ms"]


def test_embed_times_each_precision(tmp_path, capsys, one_device):
    out = tmp_path / "embed.json"
    words = ["bench", "embed", "--repeats=2", "--steps=1", f"--out={out}"]
    config = "--config=configs/baseline.py:quick"
    main.run([*words, config, "--batches=2,4", "--precisions=float32"])
    rows = json.loads(out.read_text())["rows"]
    assert [(row["batch"], row["dtype"]) for row in rows] == [(2, "float32"), (4, "float32")]
    for row in rows:
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / row["batch_ms"], 0.01)
        assert 0.02 < row["gflop_per_image"] < 0.05
    with pytest.raises(InputError, match="give --config or --model"):
        main.run(words)
    with pytest.raises(InputError, match="unknown --precisions 'float8'"):
        main.run([*words, config, "--precisions=float8"])


PROGRAM = """HloModule m
%fused (p: bf16[2,3]) -> f32[2,3] {
  %p = bf16[2,3]{1,0} parameter(0)
  ROOT %c = f32[2,3]{1,0} convert(%p)
}
%called (q: f32[2,3]) -> f32[3] {
  %q = f32[2,3]{1,0} parameter(0)
  ROOT %r = f32[3]{0} reduce(%q), metadata={op_name="jit(update)/transpose(jvp())/vmap(ResNet)/x"}
}
ENTRY %main (a: bf16[2,3]) -> (f32[3], u8[0]) {
  %a = bf16[2,3]{1,0} parameter(0)
  %f = f32[2,3]{1,0} fusion(%a, %a), kind=kLoop, calls=%fused, metadata={op_name="jit(update)/jvp(head)/mul"}
  %k = f32[3]{0} call(%f), to_apply=%called
  ROOT %g = (f32[3]{0}, u8[0]{0}) custom-call(%k), custom_call_target="__cublas$gemm"
}
"""  # noqa: E501


def test_kernels_of_a_program_by_hand():
    from crfr.bench.program import by_part, kernels

    found = kernels(PROGRAM)
    assert [(k.name, k.kind, k.bytes) for k in found] == [
        ("f", "fusion", 12 + 24),  # its operand once
        ("r", "reduce", 24 + 12),
        ("g", "__cublas$gemm", 12 + 12),
    ]
    assert {p: v["kernels"] for p, v in by_part(found).items()} == {
        "backward": 1,
        "head": 1,
        "other": 1,
    }


def test_a_softmax_in_chunks_counts_as_the_plain_one(one_device):
    """FLOPs are of the mathematics; what the compiled program has in a loop is not summed up."""
    from configs.baseline import get_config
    from crfr.bench.step import count_flops, count_program, prepare_step
    from crfr.train import sharding

    config = get_config("quick")
    config.batch = config.model.bn_group = 4
    plain = count_flops(config, 4000)
    views = count_flops(config, 8)
    config.softmax.chunk = 128  # of 4,096 rows, in 32 turns
    chunked = count_flops(config, 4000)
    assert chunked == plain
    assert config.softmax.chunk == 128
    # forward, and two products backward, of 4 images with each row of the class matrix
    assert chunked - views > 0.9 * 3 * 2 * 4 * config.model.embedding * 4000
    figures = count_program(prepare_step(config, 4000, sharding.make_mesh()))
    assert figures["loops"] == 2  # forward and backward
    names = ("gflop_per_device", "gb_accessed", "kernels", "kernels_gb", "parts_gb")
    assert [figures[name] for name in names] == [None] * 5
    assert figures["temporary_mib"] > 0


def test_the_sweep_is_timed_without_its_compilation(one_device, monkeypatch):
    from jax import monitoring

    from crfr.bench import sweep

    compiled, during = [], []

    def listen(name, seconds, **about):
        if "backend_compile" in name:
            compiled.append(name)

    monitoring.register_event_duration_secs_listener(listen)
    seconds_of = sweep.seconds_of

    def watched(call):
        before = len(compiled)
        seconds = seconds_of(call)
        during.append(len(compiled) - before)
        return seconds

    monkeypatch.setattr(sweep, "seconds_of", watched)
    try:
        figures = sweep.end_to_end(
            "faces:identities=5,images=4", "tiny", "float32", [14, 7], 256, 2, scripts=True
        )
    finally:
        monitoring.unregister_event_duration_listener(listen)
    warming, *timed_parts = during
    assert warming > 0
    assert timed_parts == [0] * 5  # twice a sweep and its embedding; the scripts' way
    assert figures["end_to_end_ratio"] > 0
    assert figures["end_to_end_seconds_spread"] >= 0
    assert figures["end_to_end_repeats"] == 2
    assert figures["end_to_end_batch"] == figures["end_to_end_images"] == 20


def test_an_asynchronous_collective_gives_its_result_alone():
    """all-gather-start and collective-permute-start have (operands, results, ...) as their type."""
    from crfr.bench.memory import communicated

    text = """
  %a = (f32[2,3]{1,0}, f32[8,3]{1,0:T(8,128)}) all-gather-start(%x), channel_id=1
  %b = f32[8,3]{1,0} all-gather-done(%a)
  %c = ((f32[2], u8[5]), (f32[8], u8[20])) all-gather-start(%x, %y), channel_id=2
  %d = (bf16[4]{0}, bf16[4]{0}, u32[], u32[]) collective-permute-start(%z), channel_id=3
  %e = (f32[7]{0}, f32[2]{0}) all-reduce-start(%x, %y), channel_id=4
  %f = s16[3]{0} reduce-scatter(%w), channel_id=5
"""
    assert communicated(text) == {
        "all-gather": 4 * 24 + (4 * 8 + 20),
        "collective-permute": 8,
        "all-reduce": 4 * 9,
        "reduce-scatter": 6,  # 2 bytes each
    }


def test_a_profile_has_the_kernels_of_every_kind_of_device(tmp_path, monkeypatch, capsys):
    from types import SimpleNamespace as Part

    from crfr.bench import trace
    from crfr.bench.program import kernels

    def event(name, milliseconds, **stats):
        return Part(name=name, duration_ns=1e6 * milliseconds, stats=list(stats.items()))

    def plane(name, **lines):
        return Part(name=name, lines=[Part(name=n, events=events) for n, events in lines.items()])

    again = {"XLA Ops": [event("f", 50)], "XLA Modules": [event("r", 50)]}
    planes = [
        plane("/device:GPU:0", **{"Stream #1": [event("kernel", 2, hlo_op="f")]}, **again),
        plane("/device:TPU:0", **{
            "XLA Ops": [event("%r = f32[3]{0} reduce(%q)", 4), event("g", 6), event("copy", 8)],
            "XLA Modules": [event("g", 50)], "Steps": [event("f", 50)],
        }),
        plane("/host:CPU", python=[event("main", 50)], tf_XLA=[event("f", 10)]),
        plane("/host:metadata", x=[event("f", 50)]),
    ]  # fmt: skip
    monkeypatch.setattr(trace, "record", lambda *_: tmp_path)
    monkeypatch.setattr(trace, "ProfileData", Part(from_file=lambda _: Part(planes=planes)))
    figures = trace.profile(lambda: None, 2, kernels(PROGRAM), tmp_path)
    assert [(k["kernel"], k["ms"]) for k in figures["profile_dearest"]] == [
        ("f", 6.0), ("g", 3.0), ("r", 2.0),
    ]  # fmt: skip
    assert capsys.readouterr().out == ""
    planes[:] = planes[3:]
    assert trace.profile(lambda: None, 2, kernels(PROGRAM), tmp_path)["profile_kernels_seen"] == 0
    assert "has none of the program's 3 kernels" in capsys.readouterr().out


def test_peaks_of_the_data_sheets():
    from crfr.bench.device import PEAKS, peak_tflops

    def found(kind, dtype):
        return [peak_tflops(kind, dtype, highest=highest) for highest in (False, True)]

    assert found("NVIDIA H200", "bfloat16") == [989.0, 989.0]
    assert found("NVIDIA H200", "float32") == [494.0, 67.0]  # TF32 where training leaves it open
    assert found("TPU v4", "float32") == [275.0, None]
    assert found("NVIDIA H200", "float64") == [None, None]
    assert found("abacus", "bfloat16") == [None, None]
    for bfloat16, usual, true in PEAKS.values():
        assert usual <= bfloat16
        assert (true or 0) <= usual


def test_flags_that_would_go_unheard_are_refused(tmp_path, monkeypatch):
    from crfr.bench import step

    monkeypatch.setattr(bench, "bench_input", None)  # a call would fail
    monkeypatch.setattr(step, "bench_step", None)
    words = ["bench", "input", DATA, f"--step={tmp_path / 'step.json'}"]
    for value in (1, 30000):  # the default's, too
        with pytest.raises(InputError, match="--step tells what --need says; give one"):
            main.run([*words, f"--need={value}"])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "0"])
@pytest.mark.parametrize(
    ("command", "flag", "wanted"),
    [
        ("bench input --data=faces", "seconds", "of 0.1 or more"),
        ("bench input --data=faces", "need", "above 0"),
        ("bench step --config=configs/st_m1.py:quick", "peak", "above 0"),
        ("quickstart", "epochs", "above 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(command, flag, wanted, value, monkeypatch):
    from crfr import quickstart
    from crfr.bench import step

    for module, name in ((bench, "bench_input"), (step, "bench_step"), (quickstart, "quickstart")):
        monkeypatch.setattr(module, name, None)  # a call would fail
    command, *words = command.split()
    with pytest.raises(InputError, match=rf"--{flag}={value}(\.0)?: give a number {wanted}$"):
        main.run([command, *words, f"--{flag}={value}"])
