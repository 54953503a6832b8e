"""crfr.urls: what a signed URL holds is neither printed nor written, and may be renewed."""

import sys

import pytest
from packs import encode, picture, write_insightface
from serve import serve

from crfr import environment, main
from crfr.errors import InputError
from crfr.urls import public, unsigned

SECRET = "S3CR3T"
SIGNED = f"X-Amz-Credential=me%2F{SECRET}&X-Amz-Signature={SECRET}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("faces:identities=3", "faces:identities=3"),
        ("data/what?.rec", "data/what?.rec"),
        ("s3://bucket/a.rec?versionId=7", "s3://bucket/a.rec?versionId=7"),
        (f"https://h/a.rec?{SIGNED}", "https://h/a.rec"),
        (f"https://h/a.rec?{SIGNED}: not there", "https://h/a.rec: not there"),
        (f"https://h/a.rec?{SIGNED}+faces", "https://h/a.rec+faces"),
        (f"faces+https://h/a+b.rec?{SIGNED}+./a", "faces+https://h/a+b.rec+./a"),
        (f"https://h/a?{SIGNED}+http://i/b?{SIGNED}+tfds:lfw", "https://h/a+http://i/b+tfds:lfw"),
        (f"https://h/a.bin?{SIGNED},faces:seed=1", "https://h/a.bin,faces:seed=1"),
        (f"https://h/p.txt?{SIGNED}:images=gs://b/c", "https://h/p.txt:images=gs://b/c"),
        (f"https://h/a?x={SECRET},{SECRET}+{SECRET}", "https://h/a"),
        (f"'https://h/a?{SECRET}' and", "'https://h/a' and"),
        (f"url=URL('https://h/a?{SECRET}')", "url=URL('https://h/a')"),
        (f"ftp://me:{SECRET}@h/a", "ftp://h/a"),
        ("abfs://container@account/a", "abfs://container@account/a"),
    ],
)
def test_what_is_shown(text, shown):
    assert public(text) == shown
    assert str(InputError(text)) == shown


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("X-Amz-Algorithm=a&X-Amz-Expires=9&X-Amz-Signature=b&x-amz-security-token=c", ""),
        ("AWSAccessKeyId=a&Signature=b&Expires=1", ""),
        ("X-Goog-Credential=a&X-Goog-Signature=b", ""),
        ("GoogleAccessId=a&Expires=1&Signature=b%3D", ""),
        ("sv=2024-11-04&sr=b&sp=r&st=1&se=2&spr=https&sig=a%2Fb", ""),
        ("Policy=a&Signature=b&Key-Pair-Id=c", ""),
        ("versionId=7&X-Amz-Signature=b", "?versionId=7"),
        ("snapshot=7&sig=b&sv=1", "?snapshot=7"),
        ("sp=page&st=2", "?sp=page&st=2"),  # short names that sign nothing without sig=
        ("a", "?a"),
    ],
)
def test_what_names_the_data(query, kept):
    assert unsigned(f"https://h/a.rec?{query}") == f"https://h/a.rec{kept}"
    assert unsigned(f"s3://h/a.rec?{query}") == f"s3://h/a.rec?{query}"


def test_the_recorded_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/crfr", "train", f"--data=https://h/a.rec?{SIGNED}"])
    assert environment.command() == "crfr train --data=https://h/a.rec"


@pytest.mark.usefixtures("one_device")
def test_commands_show_no_signature_and_go_on_with_a_renewed_one(tmp_path, monkeypatch, capfd):
    pytest.importorskip("aiohttp", reason="fsspec reads http:// through aiohttp")
    monkeypatch.setenv("CRFR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    write_insightface(tmp_path / "web", [[encode(picture(2 * p + n)) for n in (0, 1)] for p in range(4)])  # fmt: skip  # noqa: E501

    def run(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["crfr", *words])
        if code:
            with pytest.raises(SystemExit) as stopped:
                main.main()
            assert stopped.value.code == code
        else:
            main.main()

    out = tmp_path / "out"
    words = ["--config=configs/bt_m.py:quick", f"--workdir={out / 'run'}", "--config.batch=4"]
    words += ["--config.model.bn_group=4", "--config.model.width=4", "--config.run.benchmark="]
    words += ["--config.epochs=1", "--config.schedule.warmup_epochs=0"]
    with serve(tmp_path / "web") as (root, _):
        url = ""
        for part in ("first", "second"):
            url = f"{root}/train.rec?{SIGNED}{part}"
            run("convert", f"--data={url}+faces:identities=2,images=2", f"--out={out / 'raw'}")
            run("train", *words, f"--config.data={url}")
            run("doctor", f"--data={url}", f"--out={out / 'doctor'}")
        run("bench", "input", f"--data={url}", "--batch=2", "--seconds=0.1", "--threads=1",
            f"--out={out / 'bench.json'}")  # fmt: skip
        run("doctor", f"--data={root}/none.rec?{SIGNED}", f"--out={out / 'none'}", code=2)
        run("sweep", f"--model={out / 'run'}", f"--benchmark={root}/none.bin?{SIGNED}",
            f"--out={out / 'sweep'}", code=2)  # fmt: skip
    printed = "".join(capfd.readouterr())
    assert f"{out / 'run'}: finished at step 2" in printed  # not refused
    assert f"{root}/none.bin: not there" in printed
    assert SECRET not in printed
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".json"]) > 4
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert "train.rec" in (out / "raw/manifest.json").read_text()
