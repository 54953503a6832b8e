"""crfr.data.folders: folders of identity folders, and what in them is no image."""

import os
import pickle
import threading

import numpy as np
import pytest
from packs import encode, picture

from crfr.data.folders import Folder
from crfr.data.records import Source, read_example
from crfr.errors import InputError

FORMS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP"}


def write(root, files: dict[str, bytes]):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


# Written in no order, and sorted by name below.
FILES = {
    "bo/2.jpg": b"bo2",
    "Zoe/b.PNG": b"zoe",
    "bo/10.JPEG": b"bo10",
    "ann/x.webp": b"ann",
    "bo/1.bmp": b"bo1",
    "émile/1.jpg": b"emile",
}
EXPECTED = [
    ("Zoe/b.PNG", 0),
    ("ann/x.webp", 1),
    ("bo/1.bmp", 2),
    ("bo/10.JPEG", 2),
    ("bo/2.jpg", 2),
    ("émile/1.jpg", 3),
]


def contents(source) -> list[tuple[bytes, int]]:
    return [(source[i]["image"], source[i]["label"]) for i in range(len(source))]


def test_identities_and_images_are_in_the_order_of_their_names(tmp_path, capsys):
    source = Folder(write(tmp_path, FILES))
    assert isinstance(source, Source)
    assert (len(source), source.classes) == (6, 4)
    assert contents(source) == [(FILES[name], label) for name, label in EXPECTED]
    assert [source.where(i) for i in range(6)] == [f"{tmp_path}/{name}" for name, _ in EXPECTED]
    assert [source.identity(label) for label in range(4)] == ["Zoe", "ann", "bo", "émile"]
    assert source[np.int64(3)]["label"] == 2
    for index in (-1, 6):
        with pytest.raises(IndexError, match=r"outside 0\.\.5"):
            source[index]
        with pytest.raises(IndexError):
            source.where(index)
    with pytest.raises(TypeError):
        source[1.0]
    assert capsys.readouterr() == ("", "")


def test_every_format_is_decoded(tmp_path):
    files = {
        f"a/{i}.{end}": encode(picture(i), form) for i, (end, form) in enumerate(FORMS.items())
    }
    source = Folder(write(tmp_path, files))
    for index in range(5):
        example = read_example(source, index)
        assert example["image"].shape == (112, 112, 3)
        assert np.abs(example["image"].astype(int) - picture(index)).mean() < 12


def test_names_that_are_no_utf8(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"\xff\xfe")
    os.mkdir(folder)
    with open(os.path.join(folder, b"\xe9.jpg"), "wb") as file:
        file.write(b"x")
    source = Folder(tmp_path)
    assert source[0] == {"image": b"x", "label": 0}
    assert os.fsencode(source.identity(0)) == b"\xff\xfe"


def test_litter_is_ignored_and_other_files_are_named_once(tmp_path, capsys):
    litter = {".DS_Store": b"", "ann/.x.jpg": b"", "ann/Thumbs.db": b"", "bo/desktop.INI": b""}
    write(tmp_path, FILES | litter)
    (tmp_path / ".cache").mkdir()
    assert len(Folder(tmp_path)) == 6
    assert capsys.readouterr().err == ""
    write(tmp_path, {"ann/a.gif": b"", "ann/b.txt": b"", "list.csv": b"", "bo/jpg": b""})
    (tmp_path / "carl").mkdir()
    write(tmp_path, {"dora/notes.md": b""})
    source = Folder(tmp_path)
    assert contents(source) == [(FILES[name], label) for name, label in EXPECTED]
    foreign, empty = capsys.readouterr().err.splitlines()
    assert foreign.startswith(f"crfr: {tmp_path}: 5 files that are no images are ignored: list.csv")
    assert foreign.endswith("and 2 more")
    assert empty == f"crfr: {tmp_path}: 2 folders without images get no label: carl, dora"
    pickle.dumps(source)
    source[0]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.jpg": b"", "ann/1.jpg": b""}, r"a\.jpg: an image that is in no identity's folder"),
        ({"train/ann/1.jpg": b""}, r"train/ann: a folder inside .*: name .*/train if"),
        ({"ann/1.jpg": b"", "ann/more/2.jpg": b""}, "ann/more: a folder inside"),
        ({"ann/1.gif": b""}, "holds no images"),
        ({}, "holds no images"),
    ],
)
def test_other_layouts_are_named(tmp_path, files, words):
    with pytest.raises(InputError, match=words) as error:
        Folder(write(tmp_path / "top", files or {"x": b""}))
    assert "FOLDER/IDENTITY/IMAGE.jpg" in str(error.value)
    assert "\n" not in str(error.value)


def test_links_are_followed_and_broken_ones_named(tmp_path):
    write(tmp_path / "out", {"img.jpg": b"linked", "bo/1.jpg": b"bo"})
    top = write(tmp_path / "top", {"ann/1.jpg": b"ann"})
    (top / "ann/2.jpg").symlink_to(tmp_path / "out/img.jpg")
    (top / "bo").symlink_to(tmp_path / "out/bo")
    assert contents(Folder(top)) == [(b"ann", 0), (b"linked", 0), (b"bo", 1)]
    (top / "ann/3.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(InputError, match=r"ann/3\.jpg: a link to nowhere\.jpg, which does not"):
        Folder(top)
    (top / "ann/3.jpg").unlink()
    (top / "carl").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"carl: a link to .*/gone"):
        Folder(top)


def test_folders_and_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="nowhere: No such file"):
        Folder(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="file: Not a directory"):
        Folder(tmp_path / "file")
    source = Folder(write(tmp_path / "top", FILES))
    (tmp_path / "top/bo/1.bmp").unlink()
    with pytest.raises(InputError, match=r"bo/1\.bmp: No such file .* run the command again"):
        source[2]
    write(tmp_path / "top", {"ann/x.webp": b""})
    with pytest.raises(InputError, match=r"ann/x\.webp: 0 bytes that do not decode"):
        read_example(source, 1)


def test_copies_and_threads_read_the_same(tmp_path):
    files = {f"{i:03}/{j}.jpg": f"{i} {j}".encode() for i in range(40) for j in range(1 + i % 5)}
    source = Folder(write(tmp_path, files))
    expected = contents(source)
    assert [image for image, _ in expected] == [files[name] for name in sorted(files)]
    copy = pickle.loads(pickle.dumps(source))
    assert contents(copy) == expected
    assert copy.classes == 40
    read = []
    threads = [threading.Thread(target=lambda: read.append(contents(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [expected] * 4


def test_many_paths_are_held_compactly(tmp_path):
    files = {f"{i:02}/{j:04}.jpg": b"" for i in range(20) for j in range(100)}
    source = Folder(write(tmp_path, files))
    assert len(pickle.dumps(source)) < 2000 * 20  # 8 bytes of name, 8 of offset
