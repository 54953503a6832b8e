"""s3:// and gs:// through s3fs and gcsfs, against servers on this host that speak the protocols.

The servers' packages are no part of the test group, being large: docs/data.md says how this is run.
"""

import os
import pickle

import numpy as np
import pytest
from packs import encode, picture, write_insightface

from crfr.data.benchmarks import load_benchmark, load_benchmarks
from crfr.data.records import open_source, read_example
from crfr.errors import InputError

WHY = "pip install s3fs gcsfs 'moto[server]' gcp-storage-emulator"


@pytest.fixture
def s3(monkeypatch):
    """An S3 server with an empty bucket: the file system of s3fs, and the URL."""
    s3fs = pytest.importorskip("s3fs", reason=WHY)
    moto = pytest.importorskip("moto.server", reason=WHY)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("bucket")
    yield fs, "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def gs(monkeypatch):
    """A server of Google Cloud Storage: the file system of gcsfs, and the URL."""
    # the emulator speaks no gRPC; gcsfs looks when it is imported
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    gcsfs = pytest.importorskip("gcsfs", reason=WHY)
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason=WHY)
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    port = server._api._httpd.server_address[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield gcsfs.GCSFileSystem(token="anon", project="none"), "gs://bucket"
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.stop()


# The packages' own warnings: unclosed sockets of clients that live as long as the process.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("store", ["s3", "gs"])
def test_what_is_on_a_store_is_read_as_on_a_disk(store, request, tmp_path, monkeypatch):
    fs, root = request.getfixturevalue(store)
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "cache"))
    people = [[encode(picture(3 * person + n)) for n in range(3)] for person in range(4)]
    (tmp_path / "pack").mkdir()
    local = {"train.rec": write_insightface(tmp_path / "pack", people)}
    local |= {name: tmp_path / "pack" / name for name in ("train.idx", "property")}
    for person, images in enumerate(people):
        for number, image in enumerate(images):
            path = tmp_path / f"set/person{person}/{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
            local[str(path.relative_to(tmp_path))] = path
    names = [f"person{p}\t{a}\t{b}" for p in range(4) for a, b in ((1, 2), (2, 3), (1, 3))]
    names += [f"person{p}\t{n}\tperson{(p + 1) % 4}\t1" for p in range(4) for n in (1, 2, 3)]
    for person in range(4):
        for number in (1, 2, 3):
            name = f"person{person}/person{person}_{number:04d}.jpg"
            fs.pipe(f"bucket/lfw/{name}", people[person][number - 1])
    fs.pipe("bucket/lfw/pairs.txt", "\n".join(names).encode())
    fs.pipe("bucket/bins/toy.bin", benchmark_of(people))
    for name, path in local.items():
        fs.pipe(f"bucket/data/{name}", path.read_bytes())
    if store == "s3":  # the console makes such objects for folders; gs's emulator cannot
        fs.pipe("bucket/data/set/", b"")

    pack = open_source(f"{root}/data/train.rec")
    folder = open_source(f"{root}/data/set")
    expected = open_source(str(local["train.rec"]))
    assert (len(pack), len(folder), pack.classes, folder.classes) == (12, 12, 4, 4)
    for index in range(12):
        image = read_example(expected, index)["image"]
        np.testing.assert_array_equal(read_example(pack, index)["image"], image)
        np.testing.assert_array_equal(read_example(folder, index)["image"], image)
    copies = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".rec", ".jpg")]
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in copies}
    assert len(open_source(f"{root}/data/train.rec+{root}/data/set")) == 24
    for path in copies:
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == before[path]
    assert len(copies) == 13

    assert len(load_benchmark(f"{root}/bins/toy.bin").pairs) == 12
    assert [b.name for b in load_benchmarks(f"{root}/bins")] == ["toy"]
    benchmark = load_benchmark(f"{root}/lfw/pairs.txt")
    assert (benchmark.name, len(benchmark.pairs), len(benchmark.images)) == ("lfw-pairs", 24, 12)

    fs.pipe("bucket/data/train.rec", local["train.rec"].read_bytes() + b"more")
    with pytest.raises(InputError, match="copy the pack again"):
        open_source(f"{root}/data/train.rec")  # copied again
    for url in (f"{root}/none.rec", f"{root}/none", f"{root[:5]}nobucket-{os.getpid()}/a.rec"):
        with pytest.raises(InputError, match=f"{url}: .*check the address"):
            open_source(url)


def benchmark_of(people: list[list[bytes]]) -> bytes:
    images = [image for person in people for image in person]
    pairs = [(i, (i + 1) % 12) for i in range(12)]
    truths = [a // 3 == b // 3 for a, b in pairs]
    return pickle.dumps(([images[i] for pair in pairs for i in pair], truths))
