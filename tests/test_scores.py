"""Distances and figures by hand: a fake encoder's embeddings, whose angles are known."""

import numpy as np
import pytest

from crfr.evaluate import distances as module
from crfr.evaluate.distances import (
    matrix_distances,
    pair_distances,
    protocol_distances,
    scenario_distances,
)
from crfr.evaluate.matrix import FIGURES, average_matrix, resolution_matrix
from crfr.evaluate.protocols import Protocol
from crfr.evaluate.scores import (
    average_rows,
    bootstrap,
    finish_rows,
    mean_score,
    protocol_lines,
    resample,
    scenario_lines,
    score,
)
from crfr.evaluate.statistics import FARS
from crfr.evaluate.verification import kfold_accuracy


def at(degrees):
    angle = np.deg2rad(np.asarray(degrees, np.float32))
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def apart(*degrees):
    return 1 - np.cos(np.deg2rad(degrees))


def random_embeddings(resolutions):
    """(embeddings of 40 images at each resolution, 60 pairs of them)"""
    rng = np.random.default_rng(0)
    found = {}
    for resolution in resolutions:
        values = rng.standard_normal((40, 16)).astype(np.float32)
        found[resolution] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return found, rng.integers(0, 40, (60, 2)).astype(np.int32)


def test_scenarios_by_hand():
    embeddings = {112: at([0, 60, 90]), 7: at([30, 60, 180])}
    pairs = np.array([[0, 1], [2, 0]], np.int32)
    found = scenario_distances(embeddings, [112, 7], pairs)
    np.testing.assert_allclose(found["CR_A"], [apart(60, 90), apart(30, 180)], atol=1e-6)
    np.testing.assert_allclose(found["CR_B"], [apart(60, 90), apart(60, 60)], atol=1e-6)
    np.testing.assert_allclose(found["ER"], [apart(60, 90), apart(30, 150)], atol=1e-6)
    assert set(scenario_distances({7: embeddings[7]}, [7], pairs, ["ER"])) == {"ER"}
    assert set(scenario_distances(embeddings, [7], pairs, ["CR"])) == {"CR_A", "CR_B"}


def test_protocols_and_the_matrix_by_hand():
    embeddings = {112: at([0, 60, 90]), 7: at([30, 60, 180]), 5: at([10, 20, 40])}
    pairs = np.array([[0, 1], [2, 0]], np.int32)
    drawn = np.array([[112, 7], [5, 112]], np.int32)
    found = protocol_distances(embeddings, drawn, pairs)
    np.testing.assert_allclose(found, apart(60, 40), atol=1e-6)
    matrix = matrix_distances(embeddings, [112, 7, 5], pairs)
    assert matrix.shape == (3, 3, 2)
    np.testing.assert_allclose(matrix[1, 2], apart(20 - 30, 180 - 10), atol=1e-6)  # 7 px, 5 px
    np.testing.assert_allclose(matrix[2, 1], apart(60 - 10, 40 - 30), atol=1e-6)  # 5 px, 7 px


@pytest.mark.parametrize("block", [1, 200, 2**20])
def test_the_matrix_holds_cr_and_er(monkeypatch, block):
    """Its diagonal is ER, its column of 112 px CR_A and its row CR_B, in blocks of any size.

    Equal to the last bit but where two orders of float64 sums fall to either side of a float32.
    """
    monkeypatch.setattr(module, "AT_ONCE", block)
    sizes = [112, 9, 8, 7]
    embeddings, pairs = random_embeddings(sizes)
    matrix = matrix_distances(embeddings, sizes, pairs)
    found = scenario_distances(embeddings, sizes, pairs)
    for name, part in (
        ("ER", matrix[range(4), range(4)]),
        ("CR_A", matrix[:, 0]),
        ("CR_B", matrix[0]),
    ):
        np.testing.assert_array_max_ulp(found[name], part, 1)
    np.testing.assert_array_max_ulp(
        pair_distances(embeddings[9], embeddings[7], pairs), matrix[1, 3], 1
    )
    same = np.arange(60) % 2 == 0
    weights = resample("b", 60)
    cells = resolution_matrix(matrix, sizes, same, "exact", weights, {})
    lines = scenario_lines(found, sizes, same, "exact")
    rows = finish_rows({}, lines, bootstrap(lines, weights))
    by = {(row["scenario"], row["resolution"]): row for row in rows}
    for place, r in enumerate(sizes):
        for name in ("accuracy", "threshold", "eer", "auc", "accuracy_low", "accuracy_high"):
            assert cells[name][place, place] == pytest.approx(by["ER", r][name], abs=1e-6)
            assert cells[name][place, 0] == pytest.approx(by["CR_A", r][name], abs=1e-6)
            assert cells[name][0, place] == pytest.approx(by["CR_B", r][name], abs=1e-6)
            if name.startswith("accuracy_"):
                continue  # an interval of a mean is no mean of intervals
            both = (cells[name][place, 0] + cells[name][0, place]) / 2
            assert both == pytest.approx(by["CR", r][name], abs=1e-6)
    assert set(cells) == {*FIGURES, "tar", "far_threshold", "resolutions", "fars"}
    assert cells["tar"].shape == (len(FARS), 4, 4)
    assert np.isnan(cells["tar"][1:]).all()  # 30 negatives support no FAR of 0.01
    assert np.isnan(cells["far_threshold"]).all()


def test_figures_by_hand():
    same = np.arange(400) % 2 == 0
    found = score(np.where(same, 0.2, 0.8), same, "exact")
    assert found.figures == {
        "accuracy": 1.0,
        "accuracy_std": 0.0,
        "threshold": 0.5,
        "positive_distance": pytest.approx(0.2),
        "negative_distance": pytest.approx(0.8),
        "tar": {"0.1": 1.0, "0.01": None, "0.001": None, "0.0001": None},
        "tar_reason": found.figures["tar_reason"],
        "eer": 0.0,
        "auc": 1.0,
        "val": None,
        "pairs": 400,
    }
    assert "200 negatives" in found.figures["tar_reason"]
    assert found.verdicts.tolist() == [1.0] * 400


def test_rows_of_a_resolution_by_hand():
    same = np.arange(40) % 2 == 0
    distances = {
        "CR_A": np.where(same, 0.2, 0.8),  # perfect, threshold 0.5
        "CR_B": np.where(same, 0.8, 0.2),  # reversed: calling all one class is best
        "ER": np.where(same, 0.1, 0.3),
    }
    distances = {name: values[None].astype(np.float32) for name, values in distances.items()}
    lines = scenario_lines(distances, [7], same, "exact")
    listed = finish_rows({"model": "m"}, lines, bootstrap(lines, resample("b", 40)))
    rows = {r["scenario"]: r for r in listed}
    assert list(rows) == ["CR", "CR_A", "CR_B", "ER"]
    assert rows["CR_A"]["accuracy"] == 1.0
    assert rows["CR_B"]["accuracy"] == 0.5
    assert rows["CR"]["accuracy"] == 0.75
    assert rows["CR"]["threshold"] == (rows["CR_A"]["threshold"] + rows["CR_B"]["threshold"]) / 2
    assert rows["CR"]["positive_distance"] == pytest.approx(0.5)
    assert rows["CR"]["auc"] == 0.5
    assert rows["ER"]["threshold"] == pytest.approx(0.2)
    assert rows["ER"]["negative_distance"] == pytest.approx(0.3)
    assert {r["pairs"] for r in rows.values()} == {40}
    assert all(r["resolution"] == 7 and r["model"] == "m" for r in rows.values())
    # CR_A is certain; of CR_B each pair is right or wrong, of CR half or wholly right
    assert (rows["CR_A"]["accuracy_low"], rows["CR_A"]["accuracy_high"]) == (1, 1)
    width = {n: rows[n]["accuracy_high"] - rows[n]["accuracy_low"] for n in ("CR", "CR_B")}
    assert width["CR"] == pytest.approx(width["CR_B"] / 2, abs=1e-6)
    # binomial, of 40 pairs with 20 right: 0.5 +- 1.96 sqrt(0.25 / 40)
    assert width["CR_B"] == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), rel=0.1)
    alone = scenario_lines({"ER": distances["ER"]}, [7], same, "exact")
    assert [line.key["scenario"] for line in alone] == ["ER"]


def test_several_draws_give_their_mean_and_spread():
    same = np.arange(40) % 2 == 0
    perfect, reversed_ = np.where(same, 0.2, 0.8), np.where(same, 0.8, 0.2)
    draws = np.stack([perfect, reversed_]).astype(np.float32)
    protocol = Protocol("low_res", "seeded", "seed 3", np.full((2, 40, 2), 7, np.int32))
    lines = protocol_lines([protocol], {"low_res": draws}, same, "exact")
    (row,) = finish_rows({}, lines, bootstrap(lines, resample("b", 40)))
    assert (row["scenario"], row["resolution"], row["drawn"]) == ("low_res", None, "seeded")
    assert row["source"] == "seed 3"
    assert (row["draws"], row["draw_accuracies"]) == (2, [1.0, 0.5])
    assert (row["accuracy"], row["draws_std"]) == (0.75, 0.25)


def test_a_mean_has_a_tar_only_where_all_have_one():
    same = np.arange(4000) % 2 == 0
    distance = np.where(same, 0.2, 0.8)
    many, few = score(distance, same, "exact"), score(distance[:400], same[:400], "exact")
    assert many.figures["tar"]["0.01"] == 1.0
    few = few._replace(verdicts=many.verdicts)
    mean = mean_score([many, few]).figures
    assert mean["tar"] == {"0.1": 1.0, "0.01": None, "0.001": None, "0.0001": None}
    assert "200 negatives" in mean["tar_reason"]


def test_the_insightface_mode_has_their_tar_too():
    rng = np.random.default_rng(0)
    same = np.arange(6000) % 2 == 0
    distance = np.clip(rng.normal(np.where(same, 0.4, 0.9), 0.15), 0, 2).astype(np.float32)
    found = score(distance, same, "insightface").figures
    assert found["val"]["far"] == pytest.approx(1e-3, abs=1e-3)
    assert 0.5 < found["val"]["tar"] < 1
    assert found["accuracy"] == kfold_accuracy(distance, same, thresholds="insightface")[0]


def test_the_average_is_unweighted_and_of_what_all_have():
    rows, draws = [], []
    for name, pairs, good in (("a", 40, 30), ("b", 400, 360)):
        same = np.arange(pairs) % 2 == 0
        right = np.arange(pairs) < good
        distance = np.where(same == right, 0.2, 0.8)[None].astype(np.float32)
        sizes = [7] if name == "a" else [7, 5]
        found = {"ER": np.repeat(distance, len(sizes), axis=0)}
        lines = scenario_lines(found, sizes, same, "exact")
        draws.append(bootstrap(lines, resample(name, pairs)))
        common = {"benchmark": name, "average_of": None, "thresholds": "exact"}
        rows.append(finish_rows(common, lines, draws[-1]))
    (mean,) = average_rows(rows, draws)
    assert (mean["benchmark"], mean["average_of"]) == ("average", ["a", "b"])
    assert mean["resolution"] == 7
    accuracies = [part[0]["accuracy"] for part in rows]
    assert mean["accuracy"] == pytest.approx(np.mean(accuracies))
    assert mean["pairs"] == 440
    assert mean["accuracy_low"] < mean["accuracy"] < mean["accuracy_high"]
    # independent resamples: half the root of the summed squares
    widths = [part[0]["accuracy_high"] - part[0]["accuracy_low"] for part in rows]
    width = mean["accuracy_high"] - mean["accuracy_low"]
    assert width == pytest.approx(np.hypot(*widths) / 2, rel=0.15)


def test_a_fold_of_one_kind_has_no_insightface_tar():
    same = np.arange(400) < 200
    distance = np.where(same, 0.2, 0.8)
    found = score(distance, same, "insightface").figures
    assert found["val"]["tar"] is None
    assert "fold" in found["val"]["reason"]
    mean = mean_score([score(distance, same, "insightface")] * 2).figures
    assert mean["val"] == found["val"]


def test_benchmarks_of_one_size_are_resampled_apart():
    """With errors at the same places, shared resamples would make the average's interval as wide
    as each one's; apart, it is narrower by the root of two."""
    same = np.arange(400) % 2 == 0
    distance = np.where(same == (np.arange(400) < 300), 0.2, 0.8)[None].astype(np.float32)
    rows, draws = [], []
    for name in ("a", "b"):
        lines = scenario_lines({"ER": distance}, [7], same, "exact")
        draws.append(bootstrap(lines, resample(name, 400)))
        common = {"benchmark": name, "average_of": None, "thresholds": "exact"}
        rows.append(finish_rows(common, lines, draws[-1]))
    (mean,) = average_rows(rows, draws)
    one, both = (r["accuracy_high"] - r["accuracy_low"] for r in (rows[0][0], mean))
    assert both == pytest.approx(one / np.sqrt(2), rel=0.1)
    np.testing.assert_array_equal(resample("a", 400), resample("a", 400))


def test_a_matrix_keeps_the_cells_that_are_known(monkeypatch):
    from crfr.evaluate import matrix as measured

    sizes = [112, 9, 8, 7]
    embeddings, pairs = random_embeddings(sizes)
    distances, same = matrix_distances(embeddings, sizes, pairs), np.arange(60) % 2 == 0
    weights, calls = resample("b", 60), []
    whole = resolution_matrix(distances, sizes, same, "exact", weights, {})
    part = resolution_matrix(distances[::3, ::3], [112, 7], same, "exact", weights, {})
    kfold = measured.kfold
    monkeypatch.setattr(measured, "kfold", lambda *a, **k: calls.append(1) or kfold(*a, **k))
    merged = resolution_matrix(distances, sizes, same, "exact", weights, part)
    assert len(calls) == 16 - 4
    for name, array in whole.items():
        np.testing.assert_array_equal(merged[name], array)


def test_the_average_matrix_is_unweighted_and_of_shared_resolutions():
    def made(sizes, value, width):
        shape = (len(sizes), len(sizes))
        arrays = {name: np.full(shape, value) for name in FIGURES}
        arrays |= {"accuracy_low": np.full(shape, value - width)}
        arrays |= {"accuracy_high": np.full(shape, value + width)}
        arrays |= {n: np.full((len(FARS), *shape), value) for n in ("tar", "far_threshold")}
        return arrays | {"resolutions": np.array(sizes), "fars": np.array(FARS)}

    first = made([112, 9, 7], 0.8, 0.03)
    first["accuracy"][0, 2] = 0.7  # first image at 112 px, second at 7
    mean = average_matrix([first, made([112, 7], 0.6, 0.04)])
    assert mean["resolutions"].tolist() == [112, 7]
    np.testing.assert_allclose(mean["accuracy"], [[0.7, 0.65], [0.7, 0.7]])
    assert mean["accuracy_high"][0, 0] == pytest.approx(0.7 + np.hypot(0.03, 0.04) / 2)
    assert mean["tar"].shape == (len(FARS), 2, 2)


def test_equal_embeddings_have_distance_zero_and_no_less():
    """Rounding would put some at -1e-7, under a grid's threshold of 0."""
    embeddings, _ = random_embeddings([112, 7])
    pairs = np.repeat(np.arange(40), 2).reshape(-1, 2).astype(np.int32)
    found = scenario_distances(embeddings, [112], pairs)
    assert all((values >= 0).all() and (values < 1e-6).all() for values in found.values())
