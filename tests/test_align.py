"""Alignment: the transform by hand and by least squares, sampling against plain resizing, YuNet."""

import hashlib
import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from crfr import main
from crfr.data.alignment import TEMPLATE
from crfr.errors import InputError
from crfr.use import detect
from crfr.use.align import FINEST, align, similarity
from crfr.use.faces import prepare
from crfr.views.degrade import resize_matrix

rng = np.random.default_rng(0)


def placed(scale, angle, shift):
    """The template in a photo: template px times scale, turned by degrees, moved by px."""
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return scale * TEMPLATE @ rotation.T + shift


def smooth(height, width):
    """A colour for every place, with nothing that 4 px could not show."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(9 * x + 4 * y), np.cos(7 * y - 3 * x), np.sin(5 * x * y + 2)]
    return np.rint(127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize(("scale", "angle", "shift"), [(1, 0, (0, 0)), (3.7, 25, (40, 9)), (0.2, -170, (50, 60))])  # fmt: skip  # noqa: E501
def test_the_transform_takes_the_points_to_the_template(scale, angle, shift):
    points = placed(scale, angle, shift)
    matrix = similarity(points)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(1 / scale**2)


def test_the_transform_is_the_least_squares_one():
    """A similarity is linear in (a, b, tx, ty): NumPy's lstsq, on points that fit none."""
    points = placed(1.6, 12, (30, 20)) + rng.normal(0, 4, (5, 2))
    x, y = points.T
    rows = np.concatenate([
        np.stack([x, -y, np.ones(5), np.zeros(5)], axis=1),
        np.stack([y, x, np.zeros(5), np.ones(5)], axis=1),
    ])  # fmt: skip
    a, b, tx, ty = np.linalg.lstsq(rows, TEMPLATE.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity(points), [[a, -b, tx], [b, a, ty]], atol=1e-9)


def test_a_face_is_never_mirrored():
    """Of mirrored points the best transform without a mirror is far off, and has no mirror."""
    matrix = similarity(TEMPLATE * (-1, 1))
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("scale", [3.0, 6.0, 0.5])
def test_an_upright_face_is_resized_as_everything_is(scale):
    """A face at a whole multiple of the template is the antialiased bicubic of its square."""
    side = round(112 * scale)
    photo = rng.integers(0, 256, (side + 160, side + 200, 3), np.uint8)
    # pixel centres are whole numbers: the square's first centre is at 60 + scale / 2 - 0.5
    points = placed(scale, 0, (60 + scale / 2 - 0.5, 40 + scale / 2 - 0.5))
    face, resolution = align(photo, points)
    assert resolution == pytest.approx(min(112, 112 * scale))
    square = photo[40 : 40 + side, 60 : 60 + side].astype(np.float64)
    matrix = resize_matrix(side, 112)
    wanted = np.einsum("oh,hwc,pw->opc", matrix, square, matrix, optimize=True)
    inner = slice(4, -4)  # the photo goes on beyond the square
    # over FINEST the photo is reduced first and sampled then, which blurs noise a little
    atol = 0.02 if scale <= FINEST else 3
    np.testing.assert_allclose(face[inner, inner], np.clip(wanted, 0, 255)[inner, inner], atol=atol)


def test_enlarging_is_keys_kernel():
    """At any place and angle, summed over all pixels of the photo."""
    photo = rng.integers(0, 256, (40, 50, 3), np.uint8)
    face, resolution = align(photo, placed(0.2, 33, (25, 15)))
    assert resolution == pytest.approx(112 * 0.2)
    matrix = similarity(placed(0.2, 33, (25, 15)))
    full = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))
    for x, y in ((50, 60), (20, 90), (100, 100)):
        at_x, at_y = (full @ (x, y, 1))[:2]

        def keys(d):
            d = np.abs(d)
            return np.where(d < 1, 1.5 * d**3 - 2.5 * d**2 + 1,
                            np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))  # fmt: skip

        value = np.einsum(
            "y,x,yxc->c", keys(np.arange(40) - at_y), keys(np.arange(50) - at_x), photo
        )
        np.testing.assert_allclose(face[y, x], np.clip(value, 0, 255), atol=0.01)


@pytest.mark.parametrize(("scale", "angle"), [(2.5, 40), (6.0, -75), (1.0, 10), (0.6, 160)])
def test_a_smooth_photo_is_sampled_where_the_points_say(scale, angle):
    photo = smooth(900, 1000)
    points = placed(scale, angle, (500, 430))
    face, _ = align(photo, points)
    matrix = similarity(points)
    full = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))
    for x, y in ((20, 30), (56, 56), (100, 70)):
        at_x, at_y = (full @ (x, y, 1))[:2]
        if 3 < at_x < 996 and 3 < at_y < 896:
            nearest = photo[round(at_y), round(at_x)].astype(float)
            np.testing.assert_allclose(face[y, x], nearest, atol=2 + scale / 2)


def test_large_faces_are_antialiased():
    """Stripes of 1 px are grey from afar; a warp that looks at four pixels leaves stripes."""
    photo = np.zeros((1200, 1200, 3), np.uint8)
    photo[:, ::2] = 255
    face, resolution = align(photo, placed(9.3, 7, (60, 60)))
    assert resolution == 112
    assert face[10:-10, 10:-10].std() < 2
    assert face[10:-10, 10:-10].mean() == pytest.approx(127.5, abs=1)


def test_outside_the_photo_is_black():
    photo = np.full((200, 200, 3), 200, np.uint8)
    face, _ = align(photo, placed(1.0, 0, (-56, 0)))
    assert not face[:, :53].any()
    np.testing.assert_allclose(face[:, 59:], 200, atol=0.01)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 2)), "all five points lie at"),
        (np.full((5, 2), np.nan), "five finite points"),
        (TEMPLATE + 5000, "outside the photo"),
        ((TEMPLATE - 30) / 70, "are they in px"),  # as shares of the photo
        (TEMPLATE / 112 * 0.7 + 0.1, "are they in px"),
        (TEMPLATE / 120 + 30, "are they in px"),
    ],
)
def test_landmarks_that_cannot_be_are_refused(points, message):
    with pytest.raises(InputError, match=f"^a.jpg: .*{message}"):
        align(np.zeros((100, 100, 3), np.uint8), points, "a.jpg")


class FakeNet:
    """Finds what it was told, in px of an image of 640 px, in the manner of cv2.FaceDetectorYN."""

    def __init__(self, faces):
        self.faces, self.sizes, self.size = faces, [], None

    def setInputSize(self, size):
        self.size = size

    def detect(self, image):
        assert image.shape == (self.size[1], self.size[0], 3)
        self.sizes.append(max(self.size))
        if not len(self.faces) or max(self.size) < self.faces[0][0]:
            return 1, None
        return 1, np.array([row for _, row in self.faces], np.float32)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A detector that is none, and an OpenCV that only resizes."""

    def resize(photo, size, interpolation):
        return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))

    class Sighted(FakeNet):
        """Two faces in every photo that is not black."""

        def detect(self, image):
            self.faces = [(0, row(20, 30, 0.4)), (0, row(200, 100, 1.5))] if image.any() else []
            return super().detect(image)

    log = types.SimpleNamespace(getLogLevel=lambda: 3, setLogLevel=lambda _: 3, LOG_LEVEL_ERROR=2)
    opencv = types.SimpleNamespace(
        resize=resize,
        INTER_AREA=3,
        error=type("error", (Exception,), {}),
        __version__="0",
        utils=types.SimpleNamespace(logging=log),
        FaceDetectorYN=types.SimpleNamespace(create=lambda *_: Sighted([])),
    )
    monkeypatch.setitem(sys.modules, "cv2", opencv)

    def make(*faces):
        import threading

        return detect.Detector(tmp_path, "f", FakeNet(faces), threading.Lock())

    return make


def row(x, y, scale):
    """Box, points and score of an upright face."""
    points = TEMPLATE * scale + (x, y)
    return [x, y, 112 * scale, 112 * scale, *points.ravel(), 0.9]


def test_the_largest_of_several_faces_is_taken_with_a_note(fake):
    photo = smooth(400, 600)
    small, large = row(20, 30, 0.4), row(200, 100, 1.5)
    detector = fake((0, small), (0, large))
    found = detect.find_face(detector, photo, "x")
    assert found.count == 2
    np.testing.assert_allclose(found.points, TEMPLATE * 1.5 + (200, 100), rtol=1e-5)
    face = prepare("x", photo, detector=detector)
    assert (face.resolution, face.found) == (112, 2)
    assert face.notes == ("2 faces, of which the largest is taken",)
    only = prepare("x", photo, detector=fake((0, small)))
    assert only.resolution == pytest.approx(112 * 0.4, rel=1e-4)
    assert (only.found, only.notes) == (1, ())


def test_large_photos_are_shown_small_first_and_points_come_back(fake):
    photo = smooth(1600, 3200)
    detector = fake((0, row(100, 50, 1.0)))
    found = detect.find_face(detector, photo, "x")
    assert detector.net.sizes == [640]
    wanted = ((TEMPLATE + (100, 50)) + 0.5) * 5 - 0.5
    np.testing.assert_allclose(found.points, wanted, rtol=1e-5)
    hidden = fake((1600, row(100, 50, 1.0)))
    detect.find_face(hidden, photo, "x")
    assert hidden.net.sizes == [640, 1600]


def test_no_face_is_an_error(fake):
    detector = fake()
    with pytest.raises(InputError, match=r"^x: no face found \(900 x 700 px\)"):
        detect.find_face(detector, smooth(700, 900), "x")
    assert detector.net.sizes == [640, 900]


@pytest.mark.usefixtures("fake")
def test_commands_take_photos(tiny, tmp_path, capsys):
    """verify, embed and search with a detector; one photo has two faces, another none."""
    (tmp_path / "photos").mkdir()
    two, none = tmp_path / "photos/two.png", tmp_path / "photos/none.png"
    Image.fromarray(smooth(400, 600)).save(two)
    Image.fromarray(np.zeros((400, 600, 3), np.uint8)).save(none)
    for name in ("yunet.onnx", "other.onnx"):
        (tmp_path / name).write_text(name)
    run, by = f"--model={tiny}/runs/tiny", f"--detector={tmp_path}/yunet.onnx"
    note = "2 faces, of which the largest is taken"

    main.run(["verify", run, by, str(two), str(two)])
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"{two}   112 px   {note}"] * 2
    assert said[2] == "distance   0.0000"
    with pytest.raises(InputError, match=r"none\.png: no face found \(600 x 400 px\)"):
        main.run(["verify", run, by, str(two), str(none)])

    photos, crops = tmp_path / "photos.npz", tmp_path / "crops.npz"
    main.run(["embed", str(tmp_path / "photos"), run, by, f"--out={photos}"])
    said = capsys.readouterr()
    assert f"left out: {none}: no face found" in said.err
    assert said.out.splitlines()[0] == "1 photos with several faces, of which the largest is taken"
    assert f"{photos}: 1 faces, 1 unreadable" in said.out
    with np.load(photos) as arrays:
        assert (arrays["found"].tolist(), arrays["notes"].tolist()) == ([2], [note])
        fingerprint = json.loads(str(arrays["about"]))["detector_fingerprint"]
    assert fingerprint == hashlib.sha256(b"yunet.onnx").hexdigest()[:16]
    main.run(["search", str(two), str(photos), run, by, "--json"])
    (hit,) = json.loads(capsys.readouterr().out)["hits"]
    assert (hit["path"], hit["resolution"]) == (str(two), 112)
    assert hit["distance"] == pytest.approx(0, abs=1e-6)

    main.run(["embed", str(tmp_path / "photos"), run, f"--out={crops}"])
    for index, more, message in (
        (photos, [], rf"with a detector \(fingerprint {fingerprint}\).* give that one"),
        (photos, [f"--detector={tmp_path}/other.onnx"], "another detector .*give that one"),
        (crops, [by], "without a detector, .*give an aligned crop without --detector"),
    ):
        with pytest.raises(InputError, match=message):
            main.run(["search", str(two), str(index), run, *more])


def test_without_opencv_the_extra_is_named(monkeypatch, tmp_path):
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"pip install 'crfr\[align\]', or give aligned crops"):
        detect.load_detector(file)
    with pytest.raises(InputError, match="no such file; did you mean"):
        detect.load_detector(tmp_path / "yunit.onnx")


@pytest.fixture
def yunet(shared_data):
    pytest.importorskip("cv2", reason="needs opencv-python-headless, the extra align")
    return detect.load_detector(shared_data / "models/yunet_2023mar_int8bq.onnx")


def test_yunet_finds_the_faces_of_photos(yunet, shared_data, capfd):
    """Alone, among black, in a large photo, and turned by a few degrees; by several threads."""
    paths = sorted((shared_data / "photos").glob("*.jpg"))[:6]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda p: prepare(str(p), p, detector=yunet), paths))
    assert all(face.found == 1 for face in found)
    photo = np.asarray(Image.open(paths[2]).convert("RGB"))
    points = detect.find_face(yunet, photo, "x").points
    wide = np.zeros((2400, 3000, 3), np.uint8)
    wide[1000 : 1000 + len(photo), 700 : 700 + photo.shape[1]] = photo
    far = detect.find_face(yunet, wide, "x").points
    assert np.abs(far - points - (700, 1000)).max() < 12
    large = np.asarray(Image.fromarray(photo).resize((photo.shape[1] * 8, photo.shape[0] * 8)))
    near = detect.find_face(yunet, large, "x").points
    # YuNet sees the face at 434 px now, at 234 before, and finds a corner of the mouth 9 px away
    assert np.abs(near / 8 - points).max() < 0.06 * 234
    assert capfd.readouterr().err == ""


def test_yunet_counts_two_people_and_takes_the_larger(yunet, shared_data):
    """Two photos side by side, the one at half the size, in both orders."""
    paths = [shared_data / f"photos/{name}.jpg" for name in ("Andy_Samberg_0", "gal_gadot_0")]
    first, second = (Image.open(path).convert("RGB") for path in paths)
    half = second.resize((second.width // 2, second.height // 2))
    alone = detect.find_face(yunet, np.asarray(first), "x").points
    for shift, (left, right) in ((0, (first, half)), (half.width, (half, first))):
        both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)))
        both.paste(left, (0, 0))
        both.paste(right, (left.width, 0))
        face = prepare("x", np.asarray(both), detector=yunet)
        assert face.found == 2
        assert face.notes == ("2 faces, of which the largest is taken",)
        points = detect.find_face(yunet, np.asarray(both), "x").points
        # beside another face a point of this one, 59 px tall, was found up to 3.4 px away
        assert np.abs(points - alone - (shift, 0)).max() < 0.1 * np.ptp(alone, axis=0).max()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (16, 16), (31, 33)])
def test_yunet_takes_photos_of_any_size(yunet, shape):
    with pytest.raises(InputError, match="no face found"):
        detect.find_face(yunet, np.full((*shape, 3), 90, np.uint8), "x")


def test_a_network_that_opencv_cannot_run_is_named(fake):
    import cv2

    detector = fake()

    def broken(image):
        raise cv2.error("(-215) shapes\n differ")

    detector.net.detect = broken
    with pytest.raises(
        InputError, match=r"faces by it in 60 x 40 px .*shapes differ\); take face_"
    ):
        detect.find_face(detector, smooth(40, 60), "x")


def test_opencv_refuses_another_network(yunet, shared_data):
    with pytest.raises(InputError, match=r"sface\S*\.onnx: OpenCV .*; take face_detection_yunet"):
        detect.load_detector(shared_data / "models/sface_2021dec_int8bq.onnx")


@pytest.mark.usefixtures("fake")
def test_a_detector_is_built_once_for_a_file_as_it_is(tmp_path):
    file = tmp_path / "yunet.onnx"
    file.write_text("one")
    first = detect.load_detector(file)
    assert detect.load_detector(str(file)) is first
    file.write_text("another")
    second = detect.load_detector(file)
    assert second is not first
    assert second.fingerprint == hashlib.sha256(b"another").hexdigest()[:16]


def test_opencv_refuses_what_is_no_detector(yunet, tmp_path):
    file = tmp_path / "other.onnx"
    file.write_bytes(b"no model")
    with pytest.raises(InputError, match="cannot load it as a YuNet detector"):
        detect.load_detector(file)
