"""benchmarks/precision.py: one model's distances in two precisions."""

import numpy as np
import pytest

from benchmarks import precision


@pytest.fixture
def distances():
    rng = np.random.default_rng(0)
    same = np.arange(400) % 2 == 0
    return np.clip(rng.normal(np.where(same, 0.5, 0.8), 0.15, (2, 400)), 0, 2), same


def test_a_model_differs_from_itself_in_nothing(distances):
    first, same = distances
    assert precision.compare(first, first, same, 20) == [(0, 0, 0)] * 3


def test_what_moves_all_distances_alike_costs_nothing_but_at_the_other_s_thresholds(distances):
    first, same = distances
    own, borrowed, anew = precision.compare(first, first + 0.3, same, 20)
    assert own == anew == (0, 0, 0)
    # nearly all pairs of one person lie above the thresholds now, those of two did before
    assert borrowed[0] < -20
    assert borrowed[1] < borrowed[0] < borrowed[2] < 0


def test_resamples_keep_the_size_of_folds():
    fold = np.repeat(np.arange(10), 7)
    for drawn in precision.resamples(fold, 5):
        np.testing.assert_array_equal(fold[drawn], fold)
    assert len({tuple(drawn) for drawn in precision.resamples(fold, 5)}) == 5


def test_the_command_prints_a_row_a_resolution_and_refuses_other_pairs(distances, tmp_path, capsys):
    first, same = distances
    for name, pairs in (("a", same), ("b", same), ("c", ~same)):
        (tmp_path / name / "pairs").mkdir(parents=True)
        arrays = {"CR_A": first[:1], "CR_B": first[1:], "resolutions": [7], "same": pairs}
        np.savez(tmp_path / name / "pairs" / "lfw.npz", **arrays)
    a, b, c = (str(tmp_path / name) for name in "abc")
    precision.main([a, b, "--draws=5"])
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["7", "+0.00"]
    with pytest.raises(SystemExit):
        precision.main([a, c, "--draws=5"])
    assert "have other same: sweep both alike" in capsys.readouterr().err
