"""Checkpoints: every damage to a file is found before a restore, and the one before is used."""

import json
import os
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crfr.errors import InputError
from crfr.train.checkpoint import Checkpoints
from crfr.train.retention import kept

STATE = {"a": jnp.arange(3000.0), "b": {"c": jnp.ones((40, 50))}}
ALL = partial(kept, latest=100, every=0, best=0)


def state_of(step):
    return jax.tree.map(lambda leaf: leaf + step, STATE)


def save(folder, steps, keep=ALL, accuracies=None):
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            accuracy = (accuracies or {}).get(step)
            row = {"benchmark": "lfw", "verification_accuracy": accuracy, "step": step}
            checkpoints.save(step, state_of(step), row if accuracy is not None else None)


def restore(folder, keep=None, asked=None):
    """(the step that is restored, whether its state is the one that was saved)"""
    with Checkpoints(folder, keep) as checkpoints:
        step = checkpoints.choose(asked)
        places = jax.tree.map(lambda leaf: leaf.sharding, STATE)
        found = checkpoints.restore(step, STATE, places)
    jax.tree.map(np.testing.assert_array_equal, found, state_of(step))
    return step


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    save(folder, (3, 6))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of checkpoints of steps 3 and 6, to be damaged."""
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files_of(place):
    return sorted(
        str(path.relative_to(place))
        for path in place.rglob("*")
        if path.is_file() and path.name != "commit_success.txt"
    )


def flip(path, byte):
    data = bytearray(path.read_bytes())
    data[byte % len(data)] ^= 1
    path.write_bytes(data)


def test_the_manifest_lists_every_file_with_what_sha256sum_says(saved):
    import hashlib

    place = saved / "6/default"
    manifest = json.loads((place / "manifest.json").read_text())
    assert set(manifest["files"]) == {*files_of(place)} - {"manifest.json"}
    assert len(manifest["files"]) >= 8
    for name, about in manifest["files"].items():
        data = (place / name).read_bytes()
        assert about == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert restore(saved) == 6


def test_any_flipped_bit_is_found_and_the_step_before_is_used(saved, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in files_of(saved / "6/default"):
        folder = shutil.copytree(saved, tmp_path / "one")
        flip(folder / "6/default" / name, int(rng.integers(1e6)))
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.choose() == 3, name
        said = capsys.readouterr().err
        assert f"6: is damaged ({name}: " in said
        assert "not used, step 3 is used" in said
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt"])
@pytest.mark.parametrize("damage", [os.remove, lambda path: flip(path, 5)])
def test_the_marks_of_orbax_hold_no_data(folder, name, damage):
    """Of what the manifest does not list: the state is right without it, on a disk."""
    marks = list((folder / "6").rglob(name))
    assert marks
    for mark in marks:
        damage(mark)
    assert restore(folder) == 6


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: path.unlink(), "manifest.ocdbt: missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"manifest.ocdbt: [\d,]+ bytes, "),
        (lambda path: flip(path, 50), r"manifest.ocdbt: SHA-256 [0-9a-f]{12}\.\.\., expected"),
    ],
)
def test_a_damaged_step_is_set_aside_and_the_one_before_restores(folder, damage, text, capsys):
    import re

    damage(folder / "6/default/manifest.ocdbt")
    with pytest.raises(InputError, match=rf"6: is damaged \({text}.*another step of \[3, 6\]"):
        restore(folder, asked=6)
    assert restore(folder) == 3  # read only: nothing is moved
    assert sorted(os.listdir(folder)) == ["3", "6"]
    assert restore(folder, ALL) == 3
    said = capsys.readouterr().err
    assert re.search(rf"6: is damaged \({text}.*; set aside as 6.damaged-1, step 3 is used", said)
    assert sorted(os.listdir(folder)) == ["3", "6.damaged-1"]
    save(folder, (6,))  # the run goes on, and comes to this step again
    assert restore(folder) == 6
    assert capsys.readouterr().err == ""


def test_files_that_cannot_be_read(folder, capsys, monkeypatch):
    """A bad disk, or files that go while they are looked at: no traceback, the step before."""
    from crfr.train import manifest

    measure, read = manifest._measure, manifest.read

    def bad(work):
        def fail(path):
            if "/6/" in f"{path}/":
                raise OSError(5, "Input/output error")
            return work(path)

        return fail

    monkeypatch.setattr(manifest, "_measure", bad(measure))
    assert restore(folder) == 3
    assert "_METADATA: cannot be read (Input/output error)" in capsys.readouterr().err
    monkeypatch.setattr(manifest, "read", bad(read))
    assert restore(folder) == 3
    assert "(manifest.json: [Errno 5] Input/output error)" in capsys.readouterr().err
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.accuracies([3, 6]) == {}


def test_where_no_step_is_sound_all_are_named_and_none_is_moved(folder):
    (folder / "6/default/_METADATA").unlink()
    flip(folder / "3/default/manifest.ocdbt", 40)
    with pytest.raises(InputError, match=r"step 6 \(_METADATA: missing\); step 3 \(manifest.ocd"):
        restore(folder, ALL)
    assert sorted(os.listdir(folder)) == ["3", "6"]


def test_steps_without_a_manifest(folder, capsys):
    (folder / "6/default/manifest.json").unlink()
    assert restore(folder) == 3  # the other has one: it was lost
    assert "6: is damaged (manifest.json: missing)" in capsys.readouterr().err
    (folder / "3/default/manifest.json").unlink()
    assert restore(folder, ALL) == 6  # none has one: an older crfr saved them
    assert "6: has no manifest.json; used unchecked" in capsys.readouterr().err
    assert restore(folder, asked=3) == 3
    assert "3: has no manifest.json; used unchecked" in capsys.readouterr().err


def test_a_step_that_is_not_there_and_an_empty_folder(folder, tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint of step 5; there are \[3, 6\]"):
        restore(folder, asked=5)
    with Checkpoints(tmp_path / "new", ALL) as checkpoints:
        assert checkpoints.choose() == 0
    with pytest.raises(InputError, match="no such folder"):
        Checkpoints(tmp_path / "none")


def test_a_manifest_that_cannot_be_written_fails_the_save(folder, monkeypatch):
    from crfr.train import manifest

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", fail)
    with pytest.raises(InputError, match=r"could not be saved .*No space left on device"):
        save(folder, (9,))
    monkeypatch.undo()
    assert restore(folder, ALL) == 6
    save(folder, (9,))
    assert sorted(os.listdir(folder)) == ["3", "6", "9"]  # what the failed save left is gone


def test_no_array_is_padded_or_cut_to_another_shape(folder):
    """Nor one of another name given, nor one that is not there."""
    a, c = STATE["a"], STATE["b"]["c"]
    with Checkpoints(folder) as checkpoints:
        for wanted in ({"a": a, "b": {"c": c[:39]}}, {"a": a, "b": {"d": c}}, {"a": a}):
            places = jax.tree.map(lambda leaf: leaf.sharding, wanted)
            with pytest.raises(InputError, match=r"6: is of another network, .* expected"):
                checkpoints.restore(6, wanted, places)


def test_a_network_is_restored_without_the_rest(tmp_path):
    """Class matrix and optimizer may be of any size: a sweep has no room for them."""
    network = {"params": {"a": {"kernel": jnp.ones((2, 3))}}, "batch_stats": {"m": jnp.arange(3.0)}}
    params = {"backbone": network["params"], "classes": jnp.ones((4, 5))}
    whole = {"params": params, "batch_stats": network["batch_stats"], "opt_state": [params, None]}
    with Checkpoints(tmp_path, ALL) as checkpoints:
        checkpoints.save(1, whole)
    place = jnp.ones(1).sharding
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore_network(1, jax.eval_shape(lambda: network), place)
        jax.tree.map(np.testing.assert_array_equal, found, network)
        other = {**network, "params": {"a": {"kernel": jnp.ones((3, 2))}}}
        with pytest.raises(
            InputError, match=r"1: is of another network, .*kernel is \(2, 3\), expected \(3, 2\)\)"
        ):
            checkpoints.restore_network(1, other, place)


def test_a_process_that_is_lost_during_a_save_is_no_full_disk(folder, monkeypatch):
    """Several processes end with 75 then, and not with "make room"."""
    waits: list[bool] = []
    late = jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out. Id: save:9")

    def commit():
        if waits.pop():
            raise TimeoutError(
                "Timed out while waiting for async_commit_complete barrier."
            ) from late

    def run(*errors):
        waits[:] = [False, False, True]
        with Checkpoints(folder, ALL) as checkpoints:
            monkeypatch.setattr(checkpoints._manager, "wait_until_finished", commit)
            for error in errors:
                raise error
            checkpoints.wait()

    with pytest.raises(TimeoutError):
        run()
    with pytest.raises(KeyError):  # the first error is the one to report
        run(KeyError())


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"latest": 2, "every": 0, "best": 0}, [50, 60]),
        ({"latest": 1, "every": 20, "best": 0}, [20, 40, 60]),
        # 25, 50: 30 is the first at or after the one, 50 is on the other
        ({"latest": 1, "every": 25, "best": 0}, [30, 50, 60]),
        ({"latest": 1, "every": 100, "best": 0}, [60]),
        ({"latest": 1, "every": 0, "best": 1}, [40, 60]),  # of 20 and 40, equally good, the later
        ({"latest": 1, "every": 0, "best": 3}, [20, 40, 50, 60]),
        ({"latest": 1, "every": 0, "best": 9}, [10, 20, 40, 50, 60]),  # 30 was not verified
        ({"latest": 1, "every": 30, "best": 1}, [30, 40, 60]),
    ],
)
def test_which_steps_are_kept(rule, expected):
    steps = [10, 20, 30, 40, 50, 60]
    accuracies = {10: 0.7, 20: 0.9, 40: 0.9, 50: 0.8, 60: 0.6, 70: 1.0}
    assert sorted(kept(steps, accuracies, **rule)) == expected
    assert sorted(kept(reversed(steps), accuracies, **rule)) == expected


def test_what_is_kept_does_not_depend_on_when_the_others_went():
    rng = np.random.default_rng(0)
    for _ in range(100):
        steps = np.unique(rng.integers(1, 200, 25)).tolist()
        accuracies = {step: float(rng.integers(8)) for step in steps if rng.random() < 0.5}
        rule = {"latest": 2, "every": float(rng.uniform(3, 60)), "best": 2}
        there = set()
        for step in steps:
            there = kept([*there, step], accuracies, **rule)
        assert there == kept(steps, accuracies, **rule)


def test_the_best_are_kept_across_restarts_and_can_be_asked_for(tmp_path):
    keep = partial(kept, latest=1, every=0, best=1)
    folder = tmp_path / "checkpoints"
    accuracies = {1: 0.6, 2: 0.9, 3: 0.8, 4: 0.7}
    save(folder, (1, 2, 3), keep, accuracies)
    assert sorted(os.listdir(folder)) == ["2", "3"]
    save(folder, (4, 5), keep, accuracies)
    assert sorted(os.listdir(folder)) == ["2", "5"]
    assert restore(folder, asked="best") == 2
    assert restore(folder) == 5


def test_accuracies_on_another_benchmark_are_not_compared(tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpoints(folder, ALL) as checkpoints:
        for step, name, accuracy in ((1, "easy", 0.99), (2, "lfw", 0.7), (3, "lfw", 0.6)):
            row = {"benchmark": name, "verification_accuracy": accuracy}
            checkpoints.save(step, state_of(step), row)
        checkpoints.wait()
        assert checkpoints.accuracies([1, 2, 3]) == {2: 0.7, 3: 0.6}
        assert checkpoints.accuracies([1]) == {1: 0.99}
    assert restore(folder, asked="best") == 2


def test_a_step_before_the_latest_is_saved_too(folder):
    """Orbax would leave it out without a word."""
    save(folder, (4,))
    assert sorted(os.listdir(folder)) == ["3", "4", "6"]
    with pytest.raises(InputError, match=r"could not be saved .*already exists"):
        save(folder, (4,))


def test_the_best_of_steps_that_nobody_verified(saved):
    with pytest.raises(InputError, match=r"none of the steps \[3, 6\] was verified"):
        restore(saved, asked="best")
