"""The dataset analysis against plain loops over `degrade`."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from crfr.data.benchmarks import Benchmark, load_benchmark
from crfr.errors import InputError
from crfr.evaluate import dataset
from crfr.evaluate.dataset import analyse, analyse_images, compile_sums
from crfr.train import sharding
from crfr.views.degrade import degrade

SIZES = [7, 14, 56]


def benchmark(name="toy", images=21, seed=0, top=256):
    pixels = np.random.default_rng(seed).integers(0, top, (images, 112, 112, 3), np.uint8)
    pairs = np.array([[0, 1], [2, 3]], np.int32)
    return Benchmark(name, pixels, pairs, np.array([True, False]))


def plain(images, resolution, variant="bicubic"):
    """Equations 4 and 5, image by image in float64; and the largest difference of one image."""
    mean, difference, largest = 0.0, 0.0, 0.0
    for image in images:
        low = np.asarray(degrade(image[None], resolution, variant=variant)[0], np.float64)
        mean = mean + image.astype(np.float64)
        difference = difference + np.abs(low - image)
        largest = max(largest, np.abs(low - image).max())
    return mean / len(images), difference / len(images), largest


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch", [8, 12, 64])
def test_means_are_those_of_a_plain_loop(devices, batch):
    images = benchmark().images  # 21: no batch is filled by the last ones
    mesh = sharding.make_mesh(devices)
    sums = compile_sums(SIZES, mesh)
    found = analyse_images(sums, images, mesh=mesh, batch=batch)
    assert sums._cache_size() == 1
    for position, resolution in enumerate(SIZES):
        mean, difference, largest = plain(images, resolution)
        np.testing.assert_allclose(found.mean, mean, atol=1e-5)
        np.testing.assert_allclose(found.difference[position], difference, atol=1e-4)
        np.testing.assert_allclose(found.largest[position], largest, atol=1e-3)


@pytest.mark.parametrize("variant", ["area", "quantize", "noclip"])
def test_variants_of_the_degradation(variant):
    images = benchmark(images=4).images
    mesh = sharding.make_mesh(1)
    found = analyse_images(compile_sums([9], mesh, variant), images, mesh=mesh, batch=4)
    np.testing.assert_allclose(found.difference[0], plain(images, 9, variant)[1], atol=1e-3)


def test_each_device_degrades_its_share_alone():
    def flops(devices):
        sums = compile_sums(SIZES, sharding.make_mesh(devices))
        shapes = (
            jax.ShapeDtypeStruct((16, 112, 112, 3), np.uint8),
            jax.ShapeDtypeStruct((16,), bool),
        )
        return sums.lower(*shapes).compile().cost_analysis()["flops"]

    assert flops(8) < 1.1 / 8 * flops(1)


def test_many_images_lose_no_digits():
    """The same rounding 64 times over, in one batch and in many, against a sum in float64."""
    images = np.repeat(benchmark(images=8, seed=3).images, 64, axis=0)
    mesh = sharding.make_mesh(1)
    expected = plain(images[::64], 7)
    for batch in (16, 512):
        found = analyse_images(compile_sums([7], mesh), images, mesh=mesh, batch=batch)
        np.testing.assert_allclose(found.mean, expected[0], atol=1e-5)
        np.testing.assert_allclose(found.difference[0], expected[1], atol=1e-4)


def run(out, *benchmarks, resolutions=SIZES, **settings):
    mesh = sharding.make_mesh(1)
    return analyse(benchmarks, resolutions, out, mesh=mesh, batch=16, **settings)


def picture(path):
    return np.asarray(Image.open(path)).astype(float)


def test_the_files_are_those_of_the_docs(tmp_path):
    dark = benchmark("dark/er", images=5, seed=1, top=60)
    bright = benchmark()
    summary = run(tmp_path / "out", bright, dark)
    assert json.loads((tmp_path / "out/dataset.json").read_text()) == summary
    assert summary["schema"] == 1
    assert (summary["degradation"], summary["resolutions"]) == ("bicubic", SIZES)
    assert {"command", "commit", "versions"} < summary.keys()
    white = summary["difference_scale"]["white"]
    assert white == max(max(b["max_difference"].values()) for b in summary["benchmarks"].values())
    for each, name in ((bright, "toy"), (dark, "dark%2Fer")):
        folder = tmp_path / "out" / name
        about = summary["benchmarks"][each.name]
        assert about["images"] == len(each.images)
        with np.load(folder / "arrays.npz") as arrays:
            arrays = dict(arrays)
        assert arrays.keys() == {"mean", *(f"difference_{r}" for r in SIZES)}
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
        np.testing.assert_allclose(picture(folder / "mean.png"), arrays["mean"], atol=0.5001)
        np.testing.assert_array_equal(picture(folder / "sample.png"), each.images[0])
        for r in SIZES:
            mean, difference, largest = plain(each.images, r)
            got = arrays[f"difference_{r}"]
            np.testing.assert_allclose(got, difference, atol=1e-4)
            np.testing.assert_allclose(arrays["mean"], mean, atol=1e-5)
            # one scale for all pictures of the call
            shown = picture(folder / f"difference-{r}.png")
            np.testing.assert_allclose(shown * white / 255, got, atol=white / 255 * 0.5001)
            low = degrade(each.images[:1], r)[0]
            np.testing.assert_allclose(picture(folder / f"sample-{r}.png"), low, atol=0.5001)
            assert about["mean_absolute_difference"][str(r)] == pytest.approx(difference.mean())
            assert about["max_difference"][str(r)] == pytest.approx(difference.max())
            assert about["largest_difference"][str(r)] == pytest.approx(largest)
    assert summary["benchmarks"]["toy"]["fingerprint"] != about["fingerprint"]


def test_full_resolution_differs_in_nothing(tmp_path):
    summary = run(tmp_path, benchmark(images=3), resolutions=[112, 112])
    assert summary["resolutions"] == [112]
    assert summary["benchmarks"]["toy"]["max_difference"] == {"112": 0.0}
    assert not picture(tmp_path / "toy/difference-112.png").any()


def test_a_stopped_call_leaves_no_summary_and_a_new_one_no_old_pictures(tmp_path, monkeypatch):
    run(tmp_path, benchmark(images=3), resolutions=[7])
    write, written = dataset.environment.write_atomically, []

    def stop(path, content):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(dataset.environment, "write_atomically", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, benchmark(images=3), resolutions=[9])
    assert not (tmp_path / "dataset.json").exists()
    run(tmp_path, benchmark(images=3), resolutions=[9])
    names = {path.name for path in (tmp_path / "toy").iterdir()}
    pictures = {"mean.png", "sample.png", "difference-9.png", "sample-9.png"}
    assert names == {*pictures, "arrays.npz"}


def test_what_cannot_be_analysed_is_refused(tmp_path):
    toy = benchmark(images=3)
    with pytest.raises(InputError, match=r"resolution 113 px is outside 1\.\.112"):
        run(tmp_path, toy, resolutions=[7, 113])
    with pytest.raises(InputError, match="unknown degradation 'cubic'"):
        run(tmp_path, toy, variant="cubic")
    with pytest.raises(InputError, match="name a benchmark and a resolution"):
        run(tmp_path, toy, resolutions=[])
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out=.*file: Not a directory; choose a writable"):
        run(tmp_path / "file", toy)


def test_faces_lose_more_at_lower_resolutions(tmp_path):
    faces = load_benchmark("faces:identities=5,images=4")
    about = run(tmp_path, faces, resolutions=[7, 14, 28, 56])["benchmarks"][faces.name]
    falling = list(about["mean_absolute_difference"].values())
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] > 0
