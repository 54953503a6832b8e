"""Indexes and searches: folders of all sorts of files, top-k against NumPy, scores, refusals."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import crfr
from crfr import main
from crfr.errors import InputError
from crfr.use import kept, search
from crfr.use.faces import Faces
from crfr.use.index import Index, read_index, write_index
from crfr.use.search import by_distance, by_resolution, nearest, nearest_by_faiss, search_index

rng = np.random.default_rng(0)


def unit(rows, width=16):
    vectors = rng.standard_normal((rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def rows():
    embedding = unit(1003)
    embedding[700:710] = embedding[3]  # ties
    slope = rng.uniform(5, 15, 1003).astype(np.float32)
    offset = rng.uniform(-10, -5, 1003).astype(np.float32)
    slope[700:710], offset[700:710] = slope[3], offset[3]
    return embedding, slope, offset


@pytest.mark.parametrize(
    ("block", "top"), [(1, 3), (100, 1), (100, 10), (1003, 10), (100, 1003), (5000, 2000)]
)
def test_top_k_is_numpy_s(rows, block, top):
    embedding, slope, offset = rows
    query = embedding[3]
    found = nearest(query, embedding, slope, offset, top, block=block)
    score = slope * (embedding @ query) + offset
    order = np.argsort(-score.astype(np.float64), kind="stable")[:top]
    np.testing.assert_allclose(found.score, score[order], atol=1e-5)
    if top <= 10:
        assert sorted(found.rows) == sorted(order)
    assert len({*found.rows.tolist()}) == min(top, 1003)


def test_of_equal_rows_the_first_come_first(rows):
    found = nearest(rows[0][3], *rows, 11, block=64)
    ties = [row for row in found.rows.tolist() if row == 3 or 700 <= row < 710]
    assert len(ties) > 5
    assert ties == sorted(ties)


@pytest.mark.parametrize("block", [100, 2000])
def test_rows_without_a_number_come_last(rows, block):
    embedding, slope, offset = (array.copy() for array in rows)
    embedding[[0, 500, 1002], 2] = np.nan
    query = embedding[3]
    found = nearest(query, embedding, slope, offset, 1003, block=block)
    score = slope * (embedding @ query) + offset
    wanted = np.sort(score[~np.isnan(score)])[::-1]
    np.testing.assert_allclose(found.score[:1000], wanted, atol=1e-5)
    assert (found.score[1000:] == -np.inf).all()


def test_an_index_with_a_row_without_a_number_is_searched():
    embedding, sizes = unit(20), np.full(20, 50, np.float32)
    embedding[4, 1] = np.nan
    for faiss in (False, True):
        if faiss:
            pytest.importorskip("faiss", reason="needs faiss-cpu, the extra faiss")
        found = search_index(one(embedding[7], 50), index_of(embedding, sizes), None, 20, faiss=faiss)  # fmt: skip  # noqa: E501
        assert found.hits[0].path == b"7"
        assert sorted(int(hit.path) for hit in found.hits) == sorted({*range(20)} - {4})


def test_more_rows_than_a_block_against_numpy():
    """Of the length that `crfr search` takes: the rest of the second block is no row."""
    assert search.BLOCK < 70_000 < 2 * search.BLOCK
    drawn = np.random.default_rng(1)
    embedding = drawn.standard_normal((70_000, 8)).astype(np.float32)
    query = embedding[0]
    ends = [65_535, 65_536, 69_999]  # of both blocks
    embedding[ends] = query + np.float32([[0.1], [0.2], [0.3]]) * embedding[ends]
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    sizes = drawn.uniform(7, 112, 70_000).astype(np.float32)
    found = search_index(one(query, 50), index_of(embedding, sizes), None, 20)
    distance = 1 - embedding.astype(np.float64) @ query
    wanted = np.argsort(distance, kind="stable")[:20]
    assert [int(hit.path) for hit in found.hits] == wanted.tolist()
    np.testing.assert_allclose([hit.distance for hit in found.hits], distance[wanted], atol=1e-6)
    assert [hit.resolution for hit in found.hits] == sizes[wanted].tolist()
    assert {*ends} <= {*wanted.tolist()}


def test_faiss_finds_the_same(rows):
    pytest.importorskip("faiss", reason="needs faiss-cpu, the extra faiss")
    embedding, slope, offset = (array[:600] for array in rows)  # without ties
    for query in unit(5):
        ours = nearest(query, embedding, slope, offset, 20)
        theirs = nearest_by_faiss(query, embedding, slope, offset, 20)
        assert ours.rows.tolist() == theirs.rows.tolist()
        np.testing.assert_allclose(ours.score, theirs.score, atol=1e-5)


def test_without_faiss_the_extra_is_named(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install 'crfr\[faiss\]'"):
        nearest_by_faiss(rows[0][0], *rows, 3)


@pytest.fixture(scope="module")
def model(tiny):
    return crfr.load(tiny / "runs/tiny")


def one(embedding, resolution):
    return Faces(embedding[None], np.float32([resolution]), np.int32([-1]), ("q",), ((),))


def index_of(embedding, resolution, **about):
    record = {"model": "m", "step": 1, "model_fingerprint": "f"} | about
    return Index(embedding, resolution, [b"%d" % i for i in range(len(embedding))], record)


def test_scores_are_standard_deviations_below_the_mean_of_impostors(model):
    table = model.calibration
    embedding, sizes = unit(50), rng.uniform(7, 112, 50).astype(np.float32)
    query = unit(1)[0]
    found = search_index(one(query, 20), index_of(embedding, sizes), table, 50)
    assert (found.ranked, found.left_out, found.reason) == ("score", 0, None)
    scores = []
    for hit in found.hits:
        row = int(hit.path)
        distance = 1 - float(embedding[row].astype(float) @ query.astype(float))
        mean = float(table.interpolate(table.impostors["mean"], 20.0, float(sizes[row])))
        std = float(table.interpolate(table.impostors["std"], 20.0, float(sizes[row])))
        assert hit.distance == pytest.approx(distance, abs=1e-6)
        assert hit.score == pytest.approx((mean - distance) / std, rel=1e-3, abs=1e-3)
        assert hit.decision.threshold == table.at(20, float(sizes[row])).threshold
        scores.append(hit.score)
    assert scores == sorted(scores, reverse=True)


def test_rows_outside_the_calibrated_range_are_left_out_and_counted(model):
    embedding = unit(6)
    sizes = np.float32([3, 112, 6.5, 50, 7, 1])
    for faiss in (False, True):
        if faiss:
            pytest.importorskip("faiss", reason="needs faiss-cpu, the extra faiss")
        index = index_of(embedding, sizes)
        found = search_index(one(embedding[0], 50), index, model.calibration, 10, faiss=faiss)
        assert sorted(hit.path for hit in found.hits) == [b"1", b"3", b"4"]
        assert found.left_out == 3


def test_without_thresholds_or_outside_them_rows_are_listed_by_distance(model):
    embedding, sizes = unit(9), np.full(9, 50, np.float32)
    index = index_of(embedding, sizes)
    for table, size, reason in (
        (None, 50, "the model has no thresholds"),
        (model.calibration, 3, "3 px is outside the calibrated 7..112 px"),
    ):
        found = search_index(one(embedding[4], size), index, table, 9)
        assert (found.ranked, found.reason) == ("distance", reason)
        wanted = np.argsort(-(embedding.astype(float) @ embedding[4]))
        assert [int(hit.path) for hit in found.hits] == wanted.tolist()
        assert found.hits[0].score == pytest.approx(0, abs=1e-6)
        assert all(h.decision is None or h.decision.same is None for h in found.hits)


def test_blocks_bound_what_is_on_the_device(rows, monkeypatch):
    shapes = set()
    merge = search._merge

    def spy(query, embedding, *rest):
        shapes.add(embedding.shape)
        return merge(query, embedding, *rest)

    monkeypatch.setattr(search, "_merge", spy)
    nearest(rows[0][0], *rows, 5, block=128)
    assert shapes == {(128, 16)}


def image(path, side=30):
    Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path, "PNG")


@pytest.fixture
def folder(tmp_path):
    """Images, others, damage, and names that are not UTF-8."""
    place = os.fsencode(tmp_path) + b"/photos"
    os.makedirs(place + b"/inner/deep")
    os.makedirs(place + b"/.hidden")
    for number, name in enumerate(
        (
            b"a.png",
            b"inner/z.PNG",
            b"inner/deep/b.jpeg",
            b"caf\xe9 \xff.png",
            "日本\n語.png".encode(),
        )
    ):
        image(os.fsdecode(place + b"/" + name), 20 + number)
    image(os.fsdecode(place + b"/.hidden/c.png"))
    image(os.fsdecode(place + b"/.d.png"))
    Path(os.fsdecode(place + b"/cut.jpg")).write_bytes(b"\xff\xd8 no jpeg")
    Path(os.fsdecode(place + b"/empty.gif")).write_bytes(b"")
    Path(os.fsdecode(place + b"/notes.txt")).write_text("no image")
    os.symlink("nowhere.png", place + b"/link.png")
    os.mkfifo(place + b"/pipe.jpg")
    return Path(os.fsdecode(place))


WANTED = [
    b"a.png",
    b"caf\xe9 \xff.png",
    "日本\n語.png".encode(),
    b"inner/z.PNG",
    b"inner/deep/b.jpeg",
]


STRANGE = {
    "a\nb": "a\\x0ab",
    "c\x1b[2Jd": "c\\x1b[2Jd",
    "e\u2028f": "e\\u2028f",
    "g\u202eh": "g\\u202eh",
}


@pytest.mark.parametrize(("name", "shown"), STRANGE.items())
def test_names_of_unreadable_files_are_one_line_and_said_once(name, shown, tmp_path, tiny, capsys):
    """Whatever they do to a terminal: break lines, clear it, turn the text around."""
    run, place = f"--model={tiny}/runs/tiny", tmp_path / "photos"
    place.mkdir()
    image(place / "fine.png")
    damaged = place / f"{name}.png"
    damaged.write_bytes(b"damaged")
    why = "7 bytes that do not decode as a JPEG, PNG, BMP, WebP or GIF image (none of these formats); it is damaged or something else: convert it, or copy it again"  # noqa: E501
    main.run(["embed", str(place), run, f"--out={tmp_path}/x.npz"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"left out: {place}/{shown}.png: {why}"
    record = read_index(tmp_path / "x.npz").about["unreadable"]
    assert record == [{"path": f"{place}/{shown}.png", "error": why}]
    with pytest.raises(InputError) as caught:
        main.run(["verify", str(place / "fine.png"), str(damaged), run])
    assert str(caught.value) == f"{place}/{shown}.png: {why}"
    (place / "fine.png").unlink()
    with pytest.raises(InputError) as caught:
        main.run(["embed", str(place), run, f"--out={tmp_path}/y.npz"])
    assert str(caught.value).endswith(f"can be used; {place}/{shown}.png: {why}")
    image(damaged, 30)
    main.run(["verify", str(damaged), str(damaged), run])
    assert capsys.readouterr().out.splitlines()[0] == f"{place}/{shown}.png   30 px"


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_a_folder_becomes_an_index(folder, tiny, ending, model, capsys):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow, the extra parquet")
    out = folder.parent / f"index.{ending}"
    main.run(["embed", str(folder), f"--model={tiny}/runs/tiny", f"--out={out}"])
    said = capsys.readouterr()
    assert f"{out}: 5 faces, 4 unreadable" in said.out
    for name, why in (
        ("cut.jpg", "do not decode"),
        ("empty.gif", "0 bytes"),
        ("link.png", "No such"),
        ("pipe.jpg", "is a pipe, a socket or a device"),
    ):
        assert any(f"{name}: " in line and why in line for line in said.err.splitlines())
    assert "left out: 1 files that are not called like images" in said.err
    index = read_index(out)
    inside = os.fsencode(folder)
    assert index.paths == [inside + b"/" + name for name in WANTED]
    assert index.resolution.tolist() == [20, 23, 24, 21, 22]
    paths = [os.fsdecode(path) for path in index.paths]
    np.testing.assert_allclose(index.embedding, model.embed(paths).embedding, atol=1e-6)
    assert index.about["model_fingerprint"] == model.encoder.fingerprint
    assert index.about["detector_fingerprint"] is None
    assert len(index.about["unreadable"]) == 4
    assert [Path(p).name for p in index.about["others"]] == ["notes.txt"]
    assert {"versions", "commit", "command", "schema", "time"} <= {*index.about}
    query = f"{os.fsdecode(inside)}/{os.fsdecode(WANTED[1])}"
    main.run(["search", query, str(out), f"--model={tiny}/runs/tiny", "--top=2", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["ranked"] == "score"
    assert len(found["hits"]) == 2
    assert found["hits"][0]["path"].endswith("caf\\xe9 \\xff.png")
    assert found["hits"][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert found["hits"][0]["same"] is True
    main.run(["search", query, str(out), f"--model={tiny}/runs/tiny", "--top=1"])
    said = capsys.readouterr().out.splitlines()
    assert said[1:3] == ["listed by score", "rank    score  distance  threshold  decision      px  path"]  # fmt: skip  # noqa: E501
    assert said[3].split()[0] == "1"
    query = f"{os.fsdecode(inside)}/{os.fsdecode(WANTED[2])}"  # with a line break in its name
    main.run(["search", query, str(out), f"--model={tiny}/runs/tiny", "--top=1"])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4
    assert all("日本\\x0a語.png" in line for line in (said[0], said[3]))


def test_parquet_is_for_other_programs(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, the extra parquet")
    faces = Faces(
        unit(2, 3), np.float32([7, 9]), np.int32([1, 2]), ("a", os.fsdecode(b"\xff")),
        (("x", "y"), ()),
    )  # fmt: skip
    write_index(
        tmp_path / "i.parquet", faces, {"model": "m", "step": None, "model_fingerprint": "f"}
    )
    table = parquet.read_table(tmp_path / "i.parquet").to_pydict()
    assert table["path"] == ["a", "\\xff"]
    assert table["path_bytes"] == [b"a", b"\xff"]
    assert table["notes"] == ["x; y", ""]
    assert table["found"] == [1, 2]
    np.testing.assert_array_equal(np.float32(table["embedding"]), faces.embedding)


def test_names_that_end_in_zeros_and_many_batches_come_back(tmp_path):
    names = tuple(f"{i}\n" for i in range(200))
    faces = Faces(unit(200), np.ones(200, np.float32), np.zeros(200, np.int32), names, ((),) * 200)
    write_index(tmp_path / "i.npz", faces, {"model": "m", "step": None, "model_fingerprint": "f"})
    assert read_index(tmp_path / "i.npz").paths == [os.fsencode(name) for name in names]


def test_bad_indexes_and_those_of_another_model_are_refused(tmp_path, tiny, capsys):
    image(tmp_path / "q.png")
    faces = Faces(unit(2, 3), np.float32([7, 9]), np.int32([1, 2]), ("a", "b"), ((), ()))
    about = {"model": "theirs", "step": 3, "model_fingerprint": "other"}
    path = tmp_path / "i.npz"
    write_index(path, faces, about)
    query = ["search", str(tmp_path / "q.png"), str(path), f"--model={tiny}/runs/tiny"]
    with pytest.raises(
        InputError, match=r"was made by another model \(theirs@3, fingerprint other"
    ):
        main.run(query)
    whole = path.read_bytes()
    for damage in (b"", b"PK", whole[: len(whole) // 2], whole[:200] + b"x" * 30 + whole[230:]):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"i\.npz: .*make it again with crfr embed"):
            read_index(path)
    locked = bytearray(whole)
    for header, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        locked[locked.index(header) + at] |= 1  # says that it is encrypted
    packed = bytearray(whole)
    for header, at in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
        packed[packed.index(header) + at] = 97  # in a way that nobody knows
    for damage in (locked, packed):
        path.write_bytes(damage)
        with pytest.raises(
            InputError, match=r"i\.npz: is no index .*make it again with crfr embed"
        ):
            read_index(path)
    np.savez(path, embedding=np.zeros(3))
    with pytest.raises(InputError, match="is no index"):
        read_index(path)
    for name, message in (("no.npz", "no such file"), ("q.png", r"is called FILE\.npz or")):
        with pytest.raises(InputError, match=message):
            read_index(tmp_path / name)
    with pytest.raises(InputError, match=r"called FILE\.npz or FILE\.parquet"):
        main.run(["embed", str(tmp_path), "--model=x", "--out=y.csv"])


def test_a_place_that_cannot_be_written_is_found_before_the_work(folder, tiny, monkeypatch):
    from crfr import apply

    run = ["embed", str(folder), f"--model={tiny}/runs/tiny"]
    (folder / "file").write_text("")
    (folder / "x.npz").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(apply, "load", lambda *_: pytest.fail("loads a model"))
        for place, message in (("file/x.npz", "choose a writable place"), ("x.npz", "is a folder")):
            with pytest.raises(InputError, match=message):
                main.run([*run, f"--out={folder}/{place}"])
    new = folder.parent / "new/deep/x.npz"
    main.run([*run, f"--out={new}"])
    assert [path.name for path in new.parent.iterdir()] == ["x.npz"]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'crfr\[parquet\]', or take FILE\.npz"):
        main.run(["embed", str(tmp_path), "--model=x", "--out=y.parquet"])


def test_folders_without_any_use(tmp_path, tiny):
    words = [f"--model={tiny}/runs/tiny", f"--out={tmp_path}/x.npz"]
    with pytest.raises(InputError, match="no such folder"):
        main.run(["embed", str(tmp_path / "no"), *words])
    with pytest.raises(InputError, match=r"holds no images \(\.jpg, "):
        main.run(["embed", str(tmp_path), *words])
    (tmp_path / "a.jpg").write_bytes(b"no")
    with pytest.raises(
        InputError, match=r"none of its 1 images can be used; .*a\.jpg: 2 bytes that"
    ):
        main.run(["embed", str(tmp_path), *words])


def test_by_distance_is_minus_the_distance():
    slope, offset = by_distance(3)
    vectors = unit(3)
    np.testing.assert_allclose(
        slope * (vectors @ vectors[0]) + offset, -(1 - vectors @ vectors[0]), atol=1e-6
    )


def test_many_images_stream_through_in_order(tmp_path, tiny, model, monkeypatch):
    from crfr.use import folder as folders

    for number in range(11):
        image(tmp_path / f"{number:02}.png", 10 + number)
    (tmp_path / "05b.png").write_bytes(b"damaged")
    (tmp_path / "99.png").write_bytes(b"damaged, and the last one")
    monkeypatch.setattr(folders, "BATCH", 4)
    faces, unreadable, _ = folders.embed_folder(model, tmp_path)
    assert faces.resolution.tolist() == list(range(10, 21))
    assert [Path(name).name for name in unreadable] == ["05b.png", "99.png"]


def test_one_bad_embedding_and_one_image_without_memory_stop_nothing(tmp_path, monkeypatch, capsys):
    """A function that gives NaN for black images, and 0 for white ones; one in the first batch,
    one that has its batch for itself.
    """
    from crfr.use import folder as folders

    (tmp_path / "partly.py").write_text(
        "import numpy as np\n"
        "def embed(images):\n"
        "    found = images.reshape(len(images), -1)[:, :8].astype(float)\n"
        "    found[found.min(1) == 255] = 0\n"
        "    found[images.max((1, 2, 3)) == 0] = np.nan\n"
        "    return found\n"
    )
    monkeypatch.chdir(tmp_path)
    os.mkdir("photos")
    for number in range(9):
        image(f"photos/{number}.png", 112)
    for number, grey in ((1, 0), (8, 255), (6, 0)):
        Image.new("L", (112, 112), grey).save(f"photos/{number}.png")
    monkeypatch.setattr(folders, "BATCH", 4)
    monkeypatch.setattr(folders, "SECONDS", -1)
    prepare = folders.prepare

    def prepared(name, *arguments, **options):
        if name == "photos/4.png":
            raise MemoryError("Unable to allocate 1. TiB")
        return prepare(name, *arguments, **options)

    monkeypatch.setattr(folders, "prepare", prepared)
    main.run(["embed", "photos", "--model=partly:embed", "--out=x.npz"])
    said = capsys.readouterr()
    why = "partly:embed gives an embedding that is not finite or zero; "
    lines = said.err.splitlines()
    assert [line.split(": ", 2)[1] for line in lines] == [f"photos/{n}.png" for n in (1, 4, 6, 8)]
    assert all(why in lines[place] for place in (0, 2, 3))
    assert "photos/4.png: does not fit into memory (Unable to allocate 1. TiB); scale" in lines[1]
    assert "x.npz: 5 faces, 4 unreadable" in said.out
    index = read_index(tmp_path / "x.npz")
    assert index.paths == [b"photos/%d.png" % number for number in (0, 2, 3, 5, 7)]
    assert np.isfinite(index.embedding).all()
    for number in (0, 2, 3, 5, 7):
        os.remove(f"photos/{number}.png")
    with pytest.raises(
        InputError, match=rf"none of its 4 images can be used; photos/1\.png: {why}"
    ):
        main.run(["embed", "photos", "--model=partly:embed", "--out=y.npz"])


def test_faces_are_taken_by_any_whole_number():
    faces = Faces(unit(3, 4), np.float32([7, 8, 9]), np.int32([1, 2, 3]), tuple("abc"), ((),) * 3)
    for number in (1, np.int64(1), np.uint8(1), -2, np.int32(-2)):
        assert faces[number].names == ("b",)
        assert faces[number].embedding.shape == (1, 4)
    assert faces[np.int64(-1)].names == ("c",)
    assert faces[1:].names == ("b", "c")
    for number in (3, -4, np.int64(3)):
        with pytest.raises(IndexError, match=f"face {number} of 3"):
            faces[number]
    with pytest.raises(TypeError):
        faces[1.0]


def test_a_killed_embed_goes_on(tmp_path, tiny, model, monkeypatch, capsys):
    """A part a batch here; one image has changed since, one is new, one part is damaged."""
    from crfr.use import folder as folders

    photos, out = tmp_path / "photos", tmp_path / "x.npz"
    photos.mkdir()
    for number in range(10):
        image(photos / f"{number}.png", 10 + number)
    run = ["embed", str(photos), f"--model={tiny}/runs/tiny", f"--out={out}"]
    main.run([*run[:-1], f"--out={tmp_path}/wanted.npz"])

    monkeypatch.setattr(folders, "BATCH", 2)
    monkeypatch.setattr(folders, "SECONDS", -1)
    with monkeypatch.context() as patch:

        def killed(*arguments):
            if len([*(tmp_path / "x.npz.partial").iterdir()]) == 3:
                raise KeyboardInterrupt
            return embed_faces(*arguments)

        embed_faces = folders.Model.embed_faces
        patch.setattr(folders.Model, "embed_faces", killed)
        with pytest.raises(KeyboardInterrupt):
            main.run(run)
    parts = sorted((tmp_path / "x.npz.partial").iterdir())
    assert [read_index(part).paths[0][-5:] for part in parts] == [b"0.png", b"2.png", b"4.png"]
    parts[1].write_bytes(b"PK")
    image(photos / "4.png", 50)
    image(photos / "00.png", 51)
    read = []
    with monkeypatch.context() as patch:
        prepare = folders.prepare
        patch.setattr(folders, "prepare", lambda n, *a, **k: (read.append(n), prepare(n, *a, **k))[1])  # fmt: skip  # noqa: E501
        main.run(run)
    names = ("00", "2", "3", "4", "6", "7", "8", "9")  # 0, 1 and 5 were kept
    assert sorted(Path(name).stem for name in read) == [*names]
    assert not (tmp_path / "x.npz.partial").exists()
    found, wanted = read_index(out), read_index(tmp_path / "wanted.npz")
    order = [os.fsencode(photos / f"{name}.png") for name in ("0", "00", *range(1, 10))]
    assert found.paths == order
    assert found.resolution.tolist() == [10, 51, 11, 12, 13, 50, 15, 16, 17, 18, 19]
    for name in ("0", "2", "5", "9"):
        path = os.fsencode(photos / f"{name}.png")
        np.testing.assert_allclose(
            found.embedding[found.paths.index(path)],
            wanted.embedding[wanted.paths.index(path)],
            atol=1e-6,
        )


@pytest.mark.parametrize("change", ["model_fingerprint", "detector_fingerprint", "folder"])
def test_faces_made_otherwise_are_not_kept(change, tmp_path):
    file = tmp_path / "a.png"
    image(file)
    faces = Faces(unit(1, 3), np.float32([7]), np.int32([2]), (str(file),), (("x", "y"),))
    made = dict.fromkeys(("model", "step", "model_fingerprint", "detector_fingerprint", "folder"))
    kept.write_part(tmp_path, faces, [kept.stamp(str(file))], made)
    (same,) = kept.read_parts(tmp_path, made)
    assert (same.names, same.notes, same.found.tolist()) == (faces.names, faces.notes, [2])
    np.testing.assert_array_equal(same.embedding, faces.embedding)
    assert kept.read_parts(tmp_path, made | {change: "other"}) == []


def test_scores_need_a_range(model):
    slope, offset = by_resolution(model.calibration, 112.0, np.float32([7, 112]))
    assert slope.dtype == offset.dtype == np.float32
    assert np.isfinite([slope, offset]).all()
