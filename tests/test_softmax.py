"""The softmax over sharded classes: plain, chunked and sampled, against NumPy and one another; what
the compiled step communicates.
"""

import json
import os
import re
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hosts import EMITTERS
from updates import EVEN, FLOAT64, begin

from crfr import main
from crfr.errors import InputError
from crfr.model import resnet
from crfr.model.sampling import draw_sample, sample_size
from crfr.model.softmax import Head, class_scores
from crfr.train import log, sharding
from crfr.train.checkpoint import Checkpoints
from crfr.train.state import State, draw_classes, init_state, make_optimizer, padded_classes
from crfr.views.methods import parse_method

MARGINS = [("arcface", "true"), ("arcface", "straight-through"), ("cosface", "true")]
# No other tensor has an axis of 1152 = 9 x 128 classes, of the 144 on each of eight devices, or of
# the 50 of a chunk.
CLASSES, ROWS, CHUNK, BATCH, WIDTH = 1100, 1152, 50, 24, 20


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def settings(name, gradient):
    return {"name": name, "scale": 16.0, "margin": 0.3, "gradient": gradient}


def problem(branches, rows=ROWS):
    """Embeddings, centres and labels; embeddings lean to their class, so that some are right."""
    rng = np.random.default_rng(branches)
    centres = np.where(np.arange(rows)[:, None] < CLASSES, rng.normal(size=(rows, WIDTH)), 0)
    label = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    label[:3] = label[3], CLASSES - 1, 0  # one class twice, the last one, the first
    embeddings = centres[label] + rng.normal(size=(branches, BATCH, WIDTH))
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True), centres, label


def by_hand(embeddings, centres, label, classes, name):
    """(cross-entropies, accuracy) in NumPy, from the angles."""
    unit = centres[:classes] / np.linalg.norm(centres[:classes], axis=1, keepdims=True)
    cosine = np.clip(embeddings @ unit.T, -1, 1)
    logits, images = 16 * cosine, np.arange(len(label))
    target = cosine[:, images, label]
    theta = np.arccos(target)
    moved = np.where(theta + 0.3 <= np.pi, np.cos(theta + 0.3), target - 0.3 * np.sin(0.3))
    logits[:, images, label] = 16 * (moved if name == "arcface" else target - 0.3)
    entropies = np.log(np.exp(logits).sum(-1)) - logits[:, images, label]
    return entropies.mean(1), (cosine.argmax(-1) == label).mean()


def scores(branches, *, devices, dtype, chunk=0, classes=CLASSES, margin=MARGINS[0]):
    """The jitted function of ((cross-entropies, accuracy), gradients of a weighted sum)."""
    mesh = sharding.make_mesh(devices)
    weight = 1.0 + jnp.arange(branches)

    def loss(embeddings, centres, label):
        real = jnp.arange(len(centres)) < classes
        head = Head(settings(*margin), mesh, chunk, dtype)
        found = class_scores(embeddings, centres, label, real, head)
        return (found[0] * weight).sum(), found

    by_branch = jax.NamedSharding(mesh, jax.P(None, sharding.AXIS))
    by_class, whole = sharding.by_example(mesh), sharding.replicated(mesh)
    return jax.jit(jax.grad(loss, (0, 1), has_aux=True), in_shardings=(by_branch, by_class, whole))


def scores_of(embeddings, *others, dtype=None, **given):
    """((cross-entropies, accuracy), gradients) over a number of devices, as arrays."""
    dtype = jnp.dtype(dtype or embeddings.dtype)
    grads, found = scores(len(embeddings), dtype=dtype, **given)(embeddings, *others)
    return jax.tree.map(np.asarray, (found, grads))


def close(got, wanted, tolerance):
    """Equal to `tolerance` of the largest magnitude of each array."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(("name", "gradient"), MARGINS)
@pytest.mark.parametrize(("branches", "devices"), [(1, 1), (5, 8)])
def test_chunks_equal_the_plain_softmax(float64, name, gradient, branches, devices):
    """Of one device, 50 classes at a time of 1,152 (24 chunks, the last begins early) and of eight,
    50 of 144; the last device's last chunk holds padding alone."""
    data = problem(branches)
    plain = scores_of(*data, devices=1, margin=(name, gradient))
    entropies, accuracy = by_hand(*data, CLASSES, name)
    np.testing.assert_allclose(plain[0][0], entropies, rtol=1e-12)
    assert plain[0][1] == pytest.approx(accuracy, abs=1e-6)  # a share of 24 or 120, in float32
    assert 0 < accuracy < 1
    chunked = scores_of(*data, devices=devices, chunk=CHUNK, margin=(name, gradient))
    close(chunked, plain, 1e-12)
    assert not chunked[1][1][CLASSES:].any()


def test_chunks_in_float32():
    """Within 1e-6 of the largest of what float64 gives, gradients too: sums of 1,100 terms."""
    data = problem(2)
    with jax.enable_x64(True):
        true = scores_of(*data, devices=1)
    rounded = [part.astype(np.float32) if part.dtype == float else part for part in data]
    close(scores_of(*rounded, devices=8, chunk=CHUNK), true, 1e-6)


@pytest.mark.parametrize(("devices", "chunk"), [(8, 0), (8, CHUNK)])
def test_a_network_in_bfloat16_rounds_the_head_alike_on_any_number_of_devices(devices, chunk):
    """Within 1 % of the largest of what float64 gives (measured: 0.5), and no more apart from one
    device than a rounding to eight bits, 0.4 %."""
    data = problem(2)
    with jax.enable_x64(True):
        true = scores_of(*data, devices=1)
    single = [part.astype(np.float32) if part.dtype == float else part for part in data]
    found = scores_of(*single, devices=devices, chunk=chunk, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}
    close(found, true, 1e-2)
    close(found, scores_of(*single, devices=1, dtype="bfloat16"), 1 / 256)


@pytest.mark.parametrize("chunk", [0, CHUNK])
def test_a_chunk_at_a_time_is_all_that_is_held_of_the_logits(chunk):
    """Forward and backward on one device: no array of the program has as many elements as the
    logits of all classes of one branch; without chunks some have, and some those of both."""
    data = [part.astype(np.float32) if part.dtype == float else part for part in problem(2)]
    function = scores(2, devices=1, chunk=chunk, dtype=np.dtype("float32"))
    shapes = re.findall(r"\w+\[([\d,]+)\]", function.lower(*data).compile().as_text())
    sizes = {int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes}
    assert 2 * BATCH * (chunk or ROWS) in sizes  # by what we read
    if chunk:
        assert max(sizes) < BATCH * ROWS  # of which the class matrix has five sixths
    else:
        assert sizes >= {2 * BATCH * ROWS, BATCH * ROWS}


@pytest.mark.parametrize(("devices", "chunk"), [(3, 0), (6, 0), (6, 40)])
def test_any_number_of_devices_gives_what_one_does(float64, devices, chunk):
    rows = padded_classes(CLASSES, devices)
    assert rows % devices == 0
    one, many = (
        scores_of(*problem(2, r), devices=d, chunk=c)
        for r, d, c in ((ROWS, 1, 0), (rows, devices, chunk))
    )
    (found, (of_embeddings, of_centres)) = many
    assert rows >= ROWS
    close((found, (of_embeddings, of_centres[:ROWS])), one, 1e-12)


@pytest.mark.parametrize("devices", [3, 6, 8])
def test_classes_start_alike_on_any_number_of_devices(devices):
    network = small_network()
    tx = optimizer("sgd")
    one, many = (
        jax.jit(partial(init_state, network, 100, tx, devices=n))(jax.random.key(1)).params
        for n in (1, devices)
    )
    np.testing.assert_array_equal(one["classes"][:100], many["classes"][:100])
    assert one["classes"].shape == (128, 16)
    assert many["classes"].shape[0] == padded_classes(100, devices)
    assert not many["classes"][100:].any()


def test_classes_are_drawn_in_less_memory_than_they_take():
    """512 columns in eight blocks, each of other numbers; the rows of eight devices are drawn where
    they lie, and are those of other padding."""

    def compiled(rows, devices):
        place = jax.NamedSharding(sharding.make_mesh(devices), jax.P(sharding.AXIS, None))
        draw = partial(draw_classes, classes=1000, rows=rows, width=512, dtype=jnp.dtype("float32"))
        return jax.jit(draw, out_shardings=place).lower(jax.random.key(1)).compile()

    eight, one = compiled(1024, 8), compiled(1280, 1)
    memory = eight.memory_analysis()
    assert memory.output_size_in_bytes == 1024 // 8 * 512 * 4
    assert memory.temp_size_in_bytes < memory.output_size_in_bytes
    classes = np.asarray(eight(jax.random.key(1)))
    np.testing.assert_array_equal(one(jax.random.key(1))[:1024], classes)
    assert not classes[1000:].any()
    # 3 % come twice, for they are of 23 random bits; a block that did would be 12 %
    assert len(np.unique(classes[:1000])) > 0.95 * 512_000
    # within five deviations of the mean of 512,000 numbers, and of their deviation
    assert abs(classes[:1000].mean()) < 5 * 0.01 / 512_000**0.5
    assert abs(classes[:1000].std() - 0.01) < 5 * 0.01 / (2 * 512_000) ** 0.5


@pytest.mark.parametrize("devices", [1, 3])
def test_a_checkpoint_restores_onto_any_number_of_devices(tmp_path, devices):
    """Padding is cut off or added; classes and momenta are the same, bit for bit, and each device
    has its share of them."""

    def state_on(devices):
        mesh, rows = sharding.make_mesh(devices), padded_classes(100, devices)
        centres = np.zeros((rows, 4), np.float32)
        centres[:100] = np.arange(400).reshape(100, 4)
        state = State(
            jnp.int32(3), {"classes": jnp.asarray(centres)}, {"mean": jnp.ones(2)},
            ({"classes": jnp.asarray(2 * centres)},),
        )  # fmt: skip
        place = sharding.state_sharding(state, mesh)
        return jax.device_put(state, place), place

    saved, _ = state_on(devices)
    rows = {1: 128, 3: 384, 5: 640, 8: 128}
    with Checkpoints(tmp_path, lambda steps, _: {*steps}) as checkpoints:
        checkpoints.save(3, saved)
    with Checkpoints(tmp_path) as checkpoints:
        for others in {1, 3, 5, 8} - {devices}:
            wanted, place = state_on(others)
            got = checkpoints.restore(3, wanted, place, 100)
            jax.tree.map(np.testing.assert_array_equal, got, wanted)
            for leaf in (got.params["classes"], got.opt_state[0]["classes"]):
                assert leaf.shape == (rows[others], 4)
                shares = [shard.data.shape for shard in leaf.addressable_shards]
                assert shares == [(rows[others] // others, 4)] * others
        wanted, place = state_on(8)
        found = rf"\({rows[devices]}, 4\)"
        with pytest.raises(InputError, match=rf"classes is {found}, expected \(128, 4\) for 400"):
            checkpoints.restore(3, wanted, place, 400)  # rows of zeros are no classes
        wide = jax.tree.map(lambda x: jnp.ones((128, 5)) if x.ndim == 2 else x, wanted)
        with pytest.raises(InputError, match=rf"is {found}, expected \(128, 5\) for 100"):
            checkpoints.restore(3, wide, place, 100)


def drawn(label, devices, *, fraction, key=0, classes=CLASSES, rows=ROWS):
    """(rows of the whole class matrix, which are classes, places of the labels) of a sample."""
    mesh = sharding.make_mesh(devices)
    sample = jax.jit(
        partial(draw_sample, rows=rows, classes=classes, fraction=fraction, mesh=mesh)
    )(label, jax.random.key(key))
    index = np.asarray(sample.rows).reshape(devices, -1)
    own = rows // devices
    return (index + own * np.arange(devices)[:, None]).ravel(), *map(np.asarray, sample[1:])


def test_a_sample_holds_every_positive_and_its_share_of_the_others():
    label = problem(1)[2]
    index, real, place = drawn(label, 8, fraction=0.25)
    assert len(index) == 8 * 36  # a quarter of 144
    np.testing.assert_array_equal(index[place], label)
    assert len(set(index)) == len(index)
    assert (np.sort(index) == index).all()
    np.testing.assert_array_equal(real, index < CLASSES)
    # the last device has 92 classes and 52 rows of padding, which it does not need
    assert real.all()
    again, *_ = drawn(label, 8, fraction=0.25)
    other, *_ = drawn(label, 8, fraction=0.25, key=1)
    np.testing.assert_array_equal(index, again)
    assert (index != other).any()


def test_positives_fit_where_all_are_on_one_device():
    """24 labels of one device, whose part would be 2 rows: all are taken, negatives of others."""
    label = np.arange(BATCH, dtype=np.int32) + 144
    index, real, place = drawn(label, 8, fraction=0.01)
    assert len(index) == 8 * BATCH
    np.testing.assert_array_equal(index[place], label)
    np.testing.assert_array_equal(index[BATCH : 2 * BATCH], label)
    assert real.all()
    assert [sample_size(*s) for s in ((144, 0.01, 24), (144, 0.5, 24), (10, 0.1, 24))] == [
        24,
        72,
        10,
    ]


def test_negatives_are_drawn_with_equal_probability():
    """Of 128 classes of one device, 8 positives and 24 of the others, 600 times: each 120 times in
    the mean, with a deviation of 9.8."""
    label = jnp.arange(8)
    mesh = sharding.make_mesh(1)
    draw = jax.jit(
        lambda keys: jax.lax.map(
            lambda key: (
                draw_sample(label, key, rows=128, classes=128, fraction=0.25, mesh=mesh).rows
            ),
            keys,
        )
    )
    counts = np.bincount(np.asarray(draw(jax.random.split(jax.random.key(3), 600))).ravel())
    assert (counts[:8] == 600).all()
    assert np.abs(counts[8:] - 120).max() < 5 * 9.8
    assert 5 < counts[8:].std() < 15


def small_network(dtype="float32"):
    """A convolution, a pool and the head: what stands before the softmax matters little here."""
    return resnet.build(
        "tiny", width=2, embedding=16, dtype=dtype, param_dtype=dtype, dropout=0.0
    ).clone(stages=())


def optimizer(name, rate=0.1):
    return make_optimizer(
        name, lambda _: rate, momentum=0.9, weight_decay=5e-3, decay_norm_and_bias=False, rates=EVEN
    )


def step_of(method, devices, *, dtype="float32", margin=MARGINS[0], tx="sgd", sample=1.0, chunk=0):
    """(mesh, state, update, constants) of the training step of a small network."""
    return begin(
        small_network(dtype), optimizer(tx), CLASSES, method, devices, margin=settings(*margin),
        sample=sample, chunk=chunk, bn_frozen=True, rate=lambda _: 0.1,
    )  # fmt: skip


def batch_of(mesh, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, 112, 112, 3), np.uint8)
    label = problem(1)[2] if seed == 0 else rng.integers(0, CLASSES, BATCH).astype(np.int32)
    return jax.device_put((images, label), sharding.by_example(mesh))


def communicated(text):
    """The shapes that the collectives of a compiled program give."""
    names = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|broadcast"
    found = []
    for line in text.splitlines():
        match = re.match(rf"\s*(?:ROOT )?\S+ = (.*?) (?:{names})(?:-start)?\(.*channel_id", line)
        if match:
            shapes = re.findall(r"\w+\[([\d,]*)\]", match[1])
            found += [tuple(int(n) for n in shape.split(",") if n) for shape in shapes]
    return found


def assert_classes_stay(text, branches, size):
    """No collective has an axis of classes, or the number of elements of logits or class matrix.

    `size`: rows of the class matrix that take part, on a device.
    """
    shapes = communicated(text)
    assert (branches, BATCH, 16) in shapes  # the embeddings are gathered, by what we read
    axes = {ROWS, ROWS // 8, CLASSES, CHUNK, size, 8 * size}
    counts = {n * k for n in (16, branches * BATCH, BATCH) for k in axes}
    for shape in shapes:
        assert not axes & set(shape), shape
        assert int(np.prod(shape)) not in counts, shape


@pytest.mark.parametrize(
    ("method", "margin", "sample", "chunk"),
    [
        ("baseline", 2, 1.0, 0),
        ("bt-7", 0, 0.3, 0),
        ("bt-m", 1, 1.0, 0),
        ("st-7", 1, 0.3, CHUNK),
        ("st-m1", 2, 1.0, CHUNK),
        ("st-m2", 0, 1.0, 0),
        ("st-m2", 1, 1.0, CHUNK),
        ("st-m2", 2, 0.3, 0),
    ],
)
def test_the_compiled_step_moves_no_logits_and_no_class_matrix(method, margin, sample, chunk):
    """Each method and each margin, not all pairs of them: the head sees branches, not methods."""
    mesh, state, update, constants = step_of(
        method, 8, margin=MARGINS[margin], sample=sample, chunk=chunk
    )
    compiled = update.lower(state, *batch_of(mesh), *constants).compile()
    size = sample_size(ROWS // 8, sample, BATCH)
    assert_classes_stay(compiled.as_text(), len(parse_method(method).views), size)


@pytest.mark.parametrize(
    ("method", "margin", "chunk", "dtype", "tolerance"),
    [
        ("baseline", 0, 0, "float64", 1e-12),
        ("st-m2", 0, CHUNK, "float64", 1e-12),
        ("baseline", 2, 0, "float32", 1e-6),  # eight units in the last place of the largest
    ],
)
def test_a_sample_of_every_class_is_the_full_softmax(method, margin, chunk, dtype, tolerance):
    """0.999 of 144 rows, rounded up, are all: losses, parameters and momenta after two steps."""
    states = []
    with jax.enable_x64(dtype == "float64"):
        for sample in (1.0, 0.999):
            mesh, state, update, constants = step_of(
                method, 8, dtype=dtype, margin=MARGINS[margin], sample=sample, chunk=chunk
            )
            # float32 as users compile it: with hosts.FAST some sums round otherwise
            usual = {"xla_cpu_use_fusion_emitters": True} if EMITTERS else {}
            options = FLOAT64 if dtype == "float64" else usual
            update = update.lower(state, *batch_of(mesh), *constants).compile(options)
            found = []
            for seed in range(2):
                state, scalars = update(state, *batch_of(mesh, seed), *constants)
                found.append(scalars)
            states.append(jax.tree.map(np.asarray, (state, found)))
    full, sampled = states
    close(sampled, full, tolerance)


@pytest.mark.parametrize("tx", ["sgd", "adamw"])
def test_only_the_rows_of_the_sample_change(tx):
    """The others keep every bit, momentum and decay included; two runs draw the same."""
    ends = []
    mesh, state, update, constants = step_of("baseline", 8, tx=tx, sample=0.3)
    start = jax.tree.map(np.asarray, state)
    for _ in range(2):
        state = jax.device_put(start, sharding.state_sharding(start, mesh))
        for seed in range(2):
            before = jax.tree.map(np.asarray, state)
            images, label = batch_of(mesh, seed)
            state, scalars = update(state, images, label, *constants)
        ends.append(jax.tree.map(np.asarray, state))
        assert np.isfinite(scalars["loss"])
    after = ends[0]
    moved = (before.params["classes"] != after.params["classes"]).any(1)
    # 44 = ceil(0.3 * 144) of each device; the last has 92 classes
    assert moved.reshape(8, 144).sum(1).tolist() == [44] * 8
    assert moved[np.asarray(label)].all()
    assert not moved[CLASSES:].any()
    kept = [leaf for leaf in jax.tree.leaves(before.opt_state) if leaf.shape == (ROWS, 16)]
    new = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.shape == (ROWS, 16)]
    assert len(kept) == {"sgd": 1, "adamw": 2}[tx]
    for old, now in zip(kept, new, strict=True):
        np.testing.assert_array_equal((old != now).any(1), moved)
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.usefixtures("one_device")
def test_a_sampled_run_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """As a user runs it, 64 rows of 150 classes a step; stopped by a signal after two of four."""
    words = ["train", "--config=configs/large.py:quick", "--config.softmax.chunk=40"]
    words += ["--config.data=faces:identities=150,images=2", "--config.run.benchmark="]
    words += ["--config.batch=16", "--config.model.bn_group=16", "--config.model.width=2"]
    words += ["--config.model.embedding=16", "--config.run.log_every=1", "--config.epochs=0.2"]
    words += ["--config.schedule.warmup_epochs=0", "--config.softmax.sample=0.25"]
    main.run([*words, f"--workdir={tmp_path}/whole"])

    write = log.Log.write

    def write_and_ask(self, row, line):
        write(self, row, line)
        if row["step"] == 1:  # the scalars come one step late
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(log.Log, "write", write_and_ask)
        with pytest.raises(SystemExit):
            main.run([*words, f"--workdir={tmp_path}/parts"])
    assert os.listdir(tmp_path / "parts/checkpoints") == ["2"]
    main.run([*words, f"--workdir={tmp_path}/parts"])
    whole, parts = (
        [json.loads(line)["loss"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("whole/metrics.jsonl", "parts/metrics.jsonl")
    )
    assert len(whole) == 4
    assert whole == parts
