"""Losses and states that are not finite: what is skipped, and what stops the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_step import batch_of, setup

from crfr.train.finite import IN_A_ROW, DivergedError, FiniteCheck, all_finite, keep_where
from crfr.train.log import Log
from crfr.train.state import State


@pytest.fixture(scope="module")
def skipping():
    return setup("baseline", 1, 0, on_nan="skip")


def copy(tree):
    return jax.tree.map(np.asarray, tree)


def test_a_step_that_is_not_finite_leaves_everything_but_its_number(skipping):
    mesh, state, update, (key, matrices) = skipping
    # the first step fills momentum and statistics, so that there is something to lose
    state, scalars = update(jax.tree.map(jnp.copy, state), *batch_of(mesh, 0), key, matrices)
    assert float(scalars["skipped"]) == 0
    before = copy(state)
    state, scalars = update(state, *batch_of(mesh, 1), key, matrices * np.nan)
    assert float(scalars["skipped"]) == 1
    assert not np.isfinite(float(scalars["loss"]))
    after = copy(state)
    assert (before.step, after.step) == (1, 2)
    for name in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    optimizers = zip(*map(jax.tree.leaves, (before.opt_state, after.opt_state)), strict=True)
    kinds = set()
    for old, new in optimizers:
        counts = np.issubdtype(new.dtype, np.integer)
        kinds.add(counts)
        np.testing.assert_array_equal(new, old + 1 if counts else old)
    assert kinds == {True, False}
    # and training goes on from there
    state, scalars = update(state, *batch_of(mesh, 2), key, matrices)
    assert float(scalars["skipped"]) == 0
    assert not np.array_equal(state.params["classes"], after.params["classes"])


def test_a_finite_step_is_the_same_with_and_without_skipping(skipping):
    mesh, state, update, constants = skipping
    arguments = (*batch_of(mesh, 0), *constants)
    lowered = [update.lower(state, *arguments).as_text().count("is_finite")]
    same, _ = update(jax.tree.map(jnp.copy, state), *arguments)
    leaves = len(jax.tree.leaves((state.params, state.batch_stats)))
    _, state, update, constants = setup("baseline", 1, 0)
    lowered.append(update.lower(state, *batch_of(mesh, 0), *constants).as_text().count("is_finite"))
    assert lowered[0] == lowered[1] + leaves + 1  # nothing of it is there where it is off
    state, scalars = update(state, *batch_of(mesh, 0), *constants)
    assert "skipped" not in scalars
    # other programs round otherwise
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-5), copy(state), copy(same))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_in_one_array_is_enough(bad):
    tree = {"a": jnp.ones((3, 4)), "b": [jnp.zeros(5), jnp.arange(3)]}
    assert bool(all_finite(tree))
    assert not bool(all_finite({**tree, "c": jnp.zeros(7).at[6].set(bad)}))
    new = {"a": tree["a"] * bad, "b": [tree["b"][0] + 1, tree["b"][1] + 1]}
    kept = keep_where(all_finite(new), new, tree)
    np.testing.assert_array_equal(kept["a"], tree["a"])
    np.testing.assert_array_equal(kept["b"][0], tree["b"][0])
    np.testing.assert_array_equal(kept["b"][1], [1, 2, 3])  # counts go on


def state_with(bad):
    params = {
        "backbone": {"kernel": jnp.ones((3, 3))},
        "classes": jnp.ones((4, 2)).at[1, 1].set(bad),
    }
    return State(jnp.asarray(9), params, {"mean": jnp.ones(3)}, (jnp.zeros(3) * bad,))


def test_the_first_loss_that_is_not_finite_stops_with_its_window():
    check = FiniteCheck("stop", 0)
    for step in (1, 2, 3):
        check.look(step, {"loss": jnp.asarray(1.0)}, lambda: [])
    match = r"loss is nan at step 4, .* between steps 3 and 4; step 2 is the last good checkpoint"
    with pytest.raises(DivergedError, match=match):
        check.look(4, {"loss": jnp.asarray(np.nan)}, lambda: [1, 2])
    # the state was whole at step 4, from which the run went on
    with pytest.raises(DivergedError, match=r"inf at step 5, .* between steps 5 and 5; nothing is"):
        FiniteCheck("stop", 4).look(5, {"loss": np.float32(np.inf)}, lambda: [])


def test_a_state_that_is_not_finite_is_named_with_the_window():
    check = FiniteCheck("stop", 3)
    check.look_at_state(6, state_with(1.0), lambda: [3])
    match = (
        r"\.params\['classes'\] and 1 other arrays are not finite after step 9, which is not "
        r"saved: .* between steps 7 and 9; step 6 is the last good"
    )
    with pytest.raises(DivergedError, match=match):
        check.look_at_state(9, state_with(np.inf), lambda: [3, 6])


def test_skipped_steps_are_counted_and_a_hundred_in_a_row_stop():
    check = FiniteCheck("skip", 0, skipped=5)
    skipped = {"loss": np.float32(np.nan), "skipped": np.float32(1)}
    fine = {"loss": np.float32(1), "skipped": np.float32(0)}
    for step in range(1, IN_A_ROW):
        check.look(step, skipped, lambda: [])
    check.look(IN_A_ROW, fine, lambda: [])
    assert check.skipped == 5 + IN_A_ROW - 1
    for step in range(1, IN_A_ROW):
        check.look(step, skipped, lambda: [])
    with pytest.raises(DivergedError, match="100 steps in a row, up to step 300"):
        check.look(300, skipped, lambda: [200])


def test_a_scalar_that_is_not_finite_is_not_logged(tmp_path):
    with (
        Log(tmp_path, 0) as log,
        pytest.raises(DivergedError, match="distance is inf at step 3: training has diverged"),
    ):
        log.write({"step": 3, "loss": 1.0, "distance": np.inf}, "")
    assert (tmp_path / "metrics.jsonl").read_text() == ""
