"""crfr.load: embeddings of images of any size, the public examples, what is refused."""

import subprocess
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import crfr
from crfr.data.alignment import TEMPLATE
from crfr.data.photos import ORIENTATION
from crfr.errors import InputError
from crfr.evaluate.embed import embed_images, make_embed
from crfr.train import sharding
from crfr.use import faces, pixels
from crfr.use import model as using
from crfr.views.degrade import bank, resize_matrix

rng = np.random.default_rng(0)


def noise(height, width):
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny):
    return crfr.load(tiny / "runs/tiny")


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (20, 33), (112, 112), (150, 90), (301, 47)])
def test_resizing_is_jax_image_resize(size):
    image = noise(*size)
    wanted = jax.image.resize(image.astype(jnp.float32), (112, 112, 3), "cubic", antialias=True)
    np.testing.assert_allclose(pixels.resize(image), np.clip(wanted, 0, 255), atol=2e-3)


def test_large_images_are_resized_in_parts(monkeypatch):
    image = noise(301, 47)
    whole = pixels.resize(image)
    monkeypatch.setattr(pixels, "AT_ONCE", 3 * 47 * 10)
    np.testing.assert_allclose(pixels.resize(image), whole, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 2**15), (2**15, 1), (20, 2**15)])
def test_long_images_take_little_memory(shape):
    """The matrix of the longest side in float64, with what lies about while it is made, is 150 MB;
    and as many images are resized at once as there are cores.
    """
    image = noise(*shape)
    tracemalloc.start()
    try:
        found = pixels.resize(image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 120e6
    assert pixels._kept.cache_info().currsize * pixels.KEPT * 4 <= 2**26
    rows, columns = (resize_matrix(side, 112) for side in shape)
    wanted = np.einsum("oh,hwc,pw->opc", rows, image, columns, optimize=True)
    np.testing.assert_allclose(found, np.clip(wanted, 0, 255), atol=2e-3)


def test_matrices_of_large_sides_are_not_kept():
    before = pixels._kept.cache_info()
    assert pixels._matrix(10_000, 112).shape == (112, 10_000)
    assert pixels._kept.cache_info() == before
    assert pixels._matrix(9_000, 112) is pixels._matrix(9_000, 112)


def test_a_stored_image_embeds_as_the_calibration_reduces_it(model):
    """An image saved at 20 px is what the degradation `quantize` makes of one of 112 px."""
    image = noise(112, 112)
    down = bank("cubic")[1][19, :20]
    small = np.einsum("oh,hwc,pw->opc", down, image.astype(np.float64), down)
    stored = np.rint(np.clip(small, 0, 255)).astype(np.uint8)
    mesh = sharding.make_mesh()
    embed = make_embed(model.encoder, mesh, variant="quantize")
    wanted = embed_images(embed, image[None], 20, mesh=mesh, batch=8)
    found = model.embed(stored)
    assert found.resolution.tolist() == [20]
    np.testing.assert_allclose(found.embedding, wanted, atol=2e-5)


def test_inputs_of_all_forms_give_the_same(model, tmp_path):
    images = [noise(30, 30) for _ in range(3)]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    wanted = model.embed(np.stack(images))
    assert wanted.embedding.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(wanted.embedding, axis=1), 1, atol=1e-6)
    for given in (
        images,
        paths,
        [str(path) for path in paths],
        [paths[0], *images[1:]],
        [Image.fromarray(image) for image in images],
        [Image.open(path) for path in paths],
    ):
        np.testing.assert_allclose(model.embed(given).embedding, wanted.embedding, atol=1e-6)
    assert model.embed(paths).names == tuple(map(str, paths))
    assert len(model.embed(Image.fromarray(images[0]))) == 1
    single = model.embed(images[1])
    assert single.names == ("image 0",)
    np.testing.assert_allclose(single.embedding[0], wanted.embedding[1], atol=1e-6)
    assert model.embed(paths[2])[0].names == (str(paths[2]),)


def test_several_faces_of_one_opened_photo(model, tmp_path):
    """Its pixels are read at its first use, by whichever thread comes first."""
    photo, points = noise(600, 800), TEMPLATE + 40 * np.arange(8)[:, None, None]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    wanted = model.embed([photo] * 8, align=points)
    for _ in range(5):
        found = model.embed([Image.open(tmp_path / "photo.png")] * 8, align=points)
        np.testing.assert_allclose(found.embedding, wanted.embedding, atol=1e-6)


def test_landmarks_are_those_of_the_upright_photo(model, tmp_path):
    """A photo taken sideways: its EXIF (6) says to turn it clockwise."""
    upright, exif = noise(300, 200), Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(np.rot90(upright)).save(tmp_path / "x.png", exif=exif)
    points = TEMPLATE * 0.9 + (60, 150)
    wanted, found = (model.embed(one, align=points) for one in (upright, tmp_path / "x.png"))
    np.testing.assert_allclose(found.embedding, wanted.embedding, atol=1e-6)
    assert found.notes == (("turned by EXIF orientation 6",),)


def test_batches_change_nothing(model, monkeypatch):
    images = [noise(15 + i, 15 + i) for i in range(11)]
    whole = model.embed(images)
    monkeypatch.setattr(using, "BATCH", 4)
    parts = model.embed(images)
    np.testing.assert_allclose(parts.embedding, whole.embedding, atol=1e-6)
    assert parts.names == whole.names == tuple(f"image {i}" for i in range(11))
    assert parts.resolution.tolist() == list(range(15, 26))


def test_the_resolution_is_the_shorter_side_unless_somebody_knows_better(model):
    images = [noise(20, 20), noise(300, 112), noise(400, 60), noise(1, 1)]
    assert model.embed(images).resolution.tolist() == [20, 112, 60, 1]
    assert model.embed(images, resolution=12.5).resolution.tolist() == [12.5] * 4
    assert model.embed(images, resolution=[9, 8, 7, 6]).resolution.tolist() == [9, 8, 7, 6]


def test_faces_are_picked_and_joined(model):
    four = model.embed([noise(10 + i, 10 + i) for i in range(4)])
    assert four[-1].names == ("image 3",)
    assert four[1:3].resolution.tolist() == [11, 12]
    with pytest.raises(IndexError, match="face 4 of 4"):
        four[4]


def test_distances_are_cosine_distances(model):
    two = model.embed([noise(40, 40), noise(40, 40)])
    a, b = two.embedding.astype(np.float64)
    assert model.distance(two[0], two[1]) == pytest.approx(1 - a @ b, abs=1e-7)
    assert model.distance(two[0], two[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((5, 5), np.uint8), r"shape \[5, 5\]: give uint8 RGB"),
        (np.zeros((5, 5, 3), np.float32), r"image 0: an array of float32 \[5, 5, 3\]"),
        (np.zeros((5, 5, 4), np.uint8), r"an array of uint8 \[5, 5, 4\]"),
        (np.zeros((0, 5, 3), np.uint8), r"an array of uint8 \[0, 5, 3\]"),
        ([], "no images"),
        (Image.new("F", (4, 4)), r"image 0: an image of Pillow that does not decode \(mode F\)"),
        ("/no/such.jpg", "/no/such.jpg: No such file"),
    ],
)
def test_bad_input(model, images, message):
    with pytest.raises(InputError, match=message):
        model.embed(images)


def test_more_bad_input(model):
    image = noise(20, 20)
    with pytest.raises(InputError, match="image 1: is a int; give uint8 RGB"):
        faces._checked("image 1", 3)
    for nothing in (None, 3.5):
        message = f"give uint8 RGB .* or a path, or several of them, not {type(nothing).__name__}"
        with pytest.raises(InputError, match=message):
            faces.listed(nothing)
    with pytest.raises(InputError, match=r"resolution 0\.5 px is outside 1..112"):
        model.embed(image, resolution=0.5)
    with pytest.raises(InputError, match=r"\[2\] resolutions for 1 images"):
        model.embed(image, resolution=[7, 8])
    with pytest.raises(InputError, match=r"landmarks of shape \[1, 4, 2\] for 1 images"):
        model.embed(image, align=np.zeros((4, 2)))
    with pytest.raises(InputError, match="2 faces where one is compared"):
        model.distance(model.embed([image, image]), image)


def test_a_diverged_model_is_refused(tmp_path, monkeypatch):
    (tmp_path / "diverged.py").write_text(
        "import numpy as np\ndef embed(images):\n    return np.full((len(images), 3), np.nan)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="image 0: diverged:embed gives an embedding that is not"):
        crfr.load("diverged:embed").embed(noise(9, 9))


def test_a_model_of_somebody_else_gets_what_it_wants(tmp_path, monkeypatch):
    """A function gets uint8 of 112 px: the rounded image."""
    (tmp_path / "theirs.py").write_text(
        "def embed(images):\n    return images.reshape(len(images), -1)[:, :6].astype(float) + 1\n"
    )
    monkeypatch.chdir(tmp_path)
    image = noise(50, 50)
    found = crfr.load("theirs:embed").embed(image).embedding[0]
    wanted = np.rint(pixels.resize(image)).ravel()[:6] + 1
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-6)


def test_naming_load_costs_no_jax():
    code = "import sys, crfr; assert 'load' in dir(crfr); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
