"""crfr.data.remote: copies of remote files, over fsspec's memory://, file:// and http://."""

import collections
import multiprocessing
import os
import shutil
import threading
from pathlib import Path

import fsspec
import pytest
from serve import serve

from crfr.data import remote
from crfr.data.remote import localize
from crfr.errors import InputError

ROOT = "memory://bucket/faces"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def copied(monkeypatch) -> list[str]:
    """The names of the files that are copied, as they are."""
    names = []
    get_file = fsspec.AbstractFileSystem.get_file

    def count(self, rpath, lpath, **options):
        names.append(rpath.rpartition("/")[2])
        return get_file(self, rpath, lpath, **options)

    monkeypatch.setattr(fsspec.AbstractFileSystem, "get_file", count)
    return names


def put(memory, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        memory.pipe(f"/bucket/faces/{name}", data)


def tree(folder) -> dict[str, bytes]:
    folder = Path(folder)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("spec", ["faces", "a/train.rec", "faces:identities=3,seed=1", "tfds:lfw"])
def test_what_is_no_url_stays(spec, cache):
    assert localize(spec) == spec
    assert not cache.exists()


def test_a_file_is_copied_once_under_its_name(cache, memory, copied):
    put(memory, {"lfw.bin": b"12345"})
    path = localize(f"{ROOT}/lfw.bin")
    assert Path(path).name == "lfw.bin"
    assert Path(path).is_relative_to(cache)
    assert tree(Path(path).parent) == {"lfw.bin": b"12345"}
    assert localize(f"{ROOT}/lfw.bin") == path
    assert copied == ["lfw.bin"]
    assert not list(cache.glob("*.part"))


def test_default_cache(tmp_path, monkeypatch, memory):
    monkeypatch.delenv("CRFR_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    put(memory, {"a.bin": b"1"})
    assert Path(localize(f"{ROOT}/a.bin")).is_relative_to(tmp_path / ".cache/crfr")


def test_a_pack_brings_its_index_and_property(cache, memory, copied):
    put(memory, {"train.rec": b"rec", "train.idx": b"idx", "lfw.bin": b"no"})
    path = localize(f"{ROOT}/train.rec")
    assert tree(Path(path).parent) == {"train.rec": b"rec", "train.idx": b"idx"}
    put(memory, {"property": b"3,112,112"})
    assert localize(f"{ROOT}/train.rec") == path
    assert tree(Path(path).parent)["property"] == b"3,112,112"
    assert copied == ["train.rec", "train.idx", "property"]
    memory.rm("/bucket/faces/property")
    localize(f"{ROOT}/train.rec")
    assert "property" not in tree(Path(path).parent)
    memory.rm("/bucket/faces/train.idx")
    with pytest.raises(InputError, match=r"train\.rec: no train\.idx beside it"):
        localize(f"{ROOT}/train.rec")


FILES = {"a/1.jpg": b"a1", "a/2.jpg": b"a2", "b/c/1.jpg": b"", "x.json": b"{}"}


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_is_copied_whole(cache, memory, copied, slash):
    put(memory, FILES)
    path = localize(ROOT + slash)
    assert Path(path).name == "faces"
    assert tree(path) == FILES
    assert len(copied) == 4
    memory.rm("/bucket/faces/a/1.jpg")
    put(memory, {"d/new.jpg": b"new"})
    assert localize(ROOT + slash) == path
    assert tree(path) == {
        **{name: data for name, data in FILES.items() if name != "a/1.jpg"},
        "d/new.jpg": b"new",
    }
    assert copied[4:] == ["new.jpg"]


def test_only_files_of_an_ending(cache, memory, copied):
    put(memory, FILES | {"lfw.bin": b"lfw"})
    path = localize(ROOT, ".bin")
    assert tree(path) == {"lfw.bin": b"lfw"}
    assert localize(ROOT) == path
    assert tree(path) == FILES | {"lfw.bin": b"lfw"}
    localize(ROOT, ".bin")
    assert tree(path) == FILES | {"lfw.bin": b"lfw"}
    assert len(copied) == 5
    with pytest.raises(InputError, match=r"holds no files that end in \.rec"):
        localize(ROOT, ".rec")


@pytest.mark.parametrize("data", [b"longer than before", b"54321"])
def test_a_changed_file_is_copied_again(cache, memory, data):
    put(memory, {"lfw.bin": b"12345"})
    path = localize(f"{ROOT}/lfw.bin")
    put(memory, {"lfw.bin": data})
    assert Path(localize(f"{ROOT}/lfw.bin")).read_bytes() == data
    Path(path).write_bytes(b"cut")
    assert Path(localize(f"{ROOT}/lfw.bin")).read_bytes() == data
    Path(path).unlink()
    assert Path(localize(f"{ROOT}/lfw.bin")).read_bytes() == data


@pytest.mark.parametrize("failure", [OSError("connection lost"), KeyboardInterrupt()])
def test_an_interrupted_copy_goes_on(cache, memory, monkeypatch, failure):
    put(memory, {f"{i}.jpg": bytes([i]) * 1000 for i in range(5)})
    get_file = fsspec.AbstractFileSystem.get_file
    calls = []

    def fail(self, rpath, lpath, **options):
        calls.append(rpath)
        if len(calls) == 4:
            Path(lpath).write_bytes(b"half")
            raise failure
        return get_file(self, rpath, lpath, **options)

    monkeypatch.setattr(fsspec.AbstractFileSystem, "get_file", fail)
    if isinstance(failure, OSError):
        with pytest.raises(InputError, match="memory://bucket/faces: connection lost; check"):
            localize(ROOT)
    else:
        with pytest.raises(KeyboardInterrupt):
            localize(ROOT)
    (folder,) = cache.glob("*/faces")
    assert sorted(tree(folder)) == ["0.jpg", "1.jpg", "2.jpg"]
    # A journal whose last line a kill has torn costs one file.
    (journal,) = cache.glob("*.jsonl")
    journal.write_text(journal.read_text()[:-9])
    assert tree(localize(ROOT)) == {f"{i}.jpg": bytes([i]) * 1000 for i in range(5)}
    assert [call.rpartition("/")[2] for call in calls[4:]] == ["2.jpg", "3.jpg", "4.jpg"]
    assert len(journal.read_text().splitlines()) == 5


def test_a_file_that_arrives_with_another_size(cache, memory, monkeypatch):
    put(memory, {"lfw.bin": b"12345"})
    with monkeypatch.context() as patch:
        patch.setattr(
            fsspec.AbstractFileSystem,
            "get_file",
            lambda self, rpath, lpath, **options: Path(lpath).write_bytes(b"123"),
        )
        with pytest.raises(InputError, match=r"3 bytes of lfw\.bin arrived, .* has 5; run the"):
            localize(f"{ROOT}/lfw.bin")
    assert not list(cache.glob("*/lfw.bin"))
    assert Path(localize(f"{ROOT}/lfw.bin")).read_bytes() == b"12345"


def test_too_little_space(cache, memory, monkeypatch, copied):
    put(memory, {"a.jpg": b"1234", "b.jpg": b"56"})
    usage = collections.namedtuple("usage", "total used free")(10, 5, 5)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(InputError, match=r"6 bytes are needed, but 5 are free in .*CRFR_CACHE"):
            localize(ROOT)
        assert copied == []
        put(memory, {"b.jpg": b"5"})
        localize(ROOT)
    assert copied == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "a//b", "./b", "a/\0b"])
def test_names_that_lead_elsewhere_are_refused(cache, memory, monkeypatch, name):
    put(memory, {"a.jpg": b"1"})
    entries = {f"/bucket/faces/{name}": {"type": "file", "size": 1}}
    monkeypatch.setattr(type(memory), "find", lambda self, path, detail: entries)
    with pytest.raises(InputError, match="refused"):
        localize(ROOT)
    outside = {"/etc/passwd": {"type": "file", "size": 1}}
    monkeypatch.setattr(type(memory), "find", lambda self, path, detail: outside)
    with pytest.raises(InputError, match="lists '/etc/passwd', which is not in it"):
        localize(ROOT)
    assert not cache.exists()


def test_what_is_not_there(cache, memory):
    for url in (ROOT, f"{ROOT}/lfw.bin"):
        with pytest.raises(InputError, match=f"{url}: not there; check the address"):
            localize(url)
    memory.mkdir("/bucket/faces")
    with pytest.raises(InputError, match="faces: holds no files"):
        localize(ROOT)


def test_protocols_that_are_unknown_or_not_installed(cache, monkeypatch):
    with pytest.raises(InputError, match="foo://a: Protocol not known: foo"):
        localize("foo://a")

    def missing(url):
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    for protocol, extra in {"gs": "gcs", "s3": "s3", "https": "http"}.items():
        with pytest.raises(InputError, match=rf"needs .*: pip install 'crfr\[{extra}\]'"):
            localize(f"{protocol}://a/b")
    with pytest.raises(InputError, match=r"needs a package that is missing: Install it"):
        localize("hdfs://a/b")


def test_an_unusable_cache(tmp_path, memory, monkeypatch):
    put(memory, {"a.bin": b"1"})
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(InputError, match=r"a\.bin: .*Not a directory.* check"):
        localize(f"{ROOT}/a.bin")


def test_files_of_another_folder_of_this_host(cache, tmp_path):
    files = {"a/1.jpg": os.urandom(100_000), "a/2.jpg": os.urandom(3)}
    for name, data in files.items():
        path = tmp_path / "remote" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    path = localize(f"file://{tmp_path}/remote")
    assert tree(path) == files
    assert path != f"{tmp_path}/remote"


def copy_in_process(url: str, results) -> None:
    results.put(tree(localize(url)))


def test_processes_take_turns(cache, tmp_path):
    files = {f"{i:03}.jpg": os.urandom(20_000) for i in range(50)}
    (tmp_path / "remote").mkdir()
    for name, data in files.items():
        (tmp_path / "remote" / name).write_bytes(data)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    url = f"file://{tmp_path}/remote"
    processes = [context.Process(target=copy_in_process, args=(url, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [files] * 3
    (journal,) = cache.glob("*.jsonl")
    assert len(journal.read_text().splitlines()) == 50  # each was copied once


def test_a_process_that_waits_says_so(cache, memory, capfd):
    put(memory, {"a.bin": b"1"})
    path = localize(f"{ROOT}/a.bin")
    (lock,) = cache.glob("*.lock")
    done = []
    with remote._locked(lock, "elsewhere"):
        thread = threading.Thread(target=lambda: done.append(localize(f"{ROOT}/a.bin")))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join()
    assert done == [path]
    assert "waiting for another process that copies memory://bucket" in capfd.readouterr().err


def test_a_web_server(cache, tmp_path):
    pytest.importorskip("aiohttp", reason="fsspec reads http:// through aiohttp")
    files = {"train.rec": os.urandom(300_000), "train.idx": b"1\t0\n", "property": b"1,112,112"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with serve(tmp_path) as (root, _):
        path = localize(f"{root}/train.rec?signature=secret")
        assert tree(Path(path).parent) == files
        assert Path(path).name == "train.rec"
        before = Path(path).stat().st_ino
        assert localize(f"{root}/train.rec?signature=secret") == path
        assert Path(path).stat().st_ino == before
        for name in ("nowhere.bin", "private.bin"):
            with pytest.raises(InputError, match=rf"{root}/{name}: ") as error:
                localize(f"{root}/{name}?signature=secret")
            assert "secret" not in str(error.value)


def test_a_renewed_signature_is_the_same_copy(cache, tmp_path):
    pytest.importorskip("aiohttp", reason="fsspec reads http:// through aiohttp")
    (tmp_path / "lfw.bin").write_bytes(b"12345")
    with serve(tmp_path) as (root, asked):
        url = f"{root}/lfw.bin?versionId=1&X-Amz-Signature="
        path = localize(url + "first")
        assert localize(url + "second") == path
        assert [request for request in asked if request.startswith("GET")] == [
            "GET /lfw.bin?versionId=1&X-Amz-Signature=first"
        ]
        assert localize(url.replace("=1", "=2") + "first") != path
