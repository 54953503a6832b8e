"""The stream: a pure function of seed and step, the same for any number of processes."""

import itertools

import grain
import numpy as np
import pytest
from absl import flags

from crfr.data.batches import shuffled, train_batches
from crfr.errors import InputError


class Numbered:
    """A source whose label is the index, 26 images, so that batches of 4 cross epoch ends."""

    classes = 26

    def __init__(self, size=112):
        self.size = size

    def __len__(self):
        return 26

    def __getitem__(self, index):
        return {"image": np.full((self.size, self.size, 3), index, np.uint8), "label": int(index)}

    def where(self, index):
        return f"numbered, item {index}"

    def identity(self, label):
        return str(label)


def labels(steps, batch=4, **settings):
    stream = train_batches(Numbered(), batch=batch, threads=2, **{"seed": 1, **settings})
    return np.stack([b["label"] for b in itertools.islice(stream, steps)])


def test_an_epoch_is_a_permutation_and_no_tail_is_lost():
    seen = labels(26).ravel()  # four epochs
    epochs = seen.reshape(4, 26)
    for epoch in epochs:
        assert sorted(epoch) == list(range(26))
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize(("count", "batch", "seed"), [(26, 4, 1), (300, 7, 2**32 - 1), (1, 1, 0)])
def test_the_order_is_that_of_grain_s_own_shuffle(count, batch, seed):
    """So that runs that began before indices were drawn by the batch go on with their order."""
    whole = grain.MapDataset.range(count).shuffle(seed=seed).repeat().batch(batch)
    for number in range(3 * count // batch + 2):
        found = shuffled(count, seed, number * batch, (number + 1) * batch)
        np.testing.assert_array_equal(found, whole[number])
        assert found.dtype == np.int64


def test_examples_keep_their_images_and_types():
    example = next(train_batches(Numbered(), batch=4, seed=1))
    assert example["image"].shape == (4, 112, 112, 3)
    assert example["image"].dtype == np.uint8
    assert example["label"].dtype == np.int32
    np.testing.assert_array_equal(example["image"][:, 5, 7, 1], example["label"])


@pytest.mark.parametrize("processes", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_processes(processes):
    whole = labels(7)
    parts = [labels(7, process=p, processes=processes) for p in range(processes)]
    for step in range(7):
        together = np.concatenate([part[step] for part in parts])
        np.testing.assert_array_equal(together, whole[step])


@pytest.mark.parametrize("start", [1, 6, 9])
def test_a_resumed_stream_goes_on_where_it_stopped(start):
    np.testing.assert_array_equal(labels(5, start=start), labels(5 + start)[start:])


def test_the_seed_decides():
    np.testing.assert_array_equal(labels(5), labels(5))
    assert (labels(5) != labels(5, seed=2)).any()


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="26 images are less than a batch of 27"):
        train_batches(Numbered(), batch=27, seed=0)
    with pytest.raises(InputError, match="batch 4 does not divide by 3 processes"):
        train_batches(Numbered(), batch=4, seed=0, processes=3)
    with pytest.raises(InputError, match=r"numbered, item .* 96x96"):
        next(train_batches(Numbered(96), batch=4, seed=0))


class Holes(Numbered):
    """Some images are no images, one after another and at the end."""

    def __init__(self, holes):
        super().__init__()
        self.holes = holes

    def __getitem__(self, index):
        return super().__getitem__(index) | ({"image": b"no"} if index in self.holes else {})


def test_an_unreadable_image_is_an_error_that_names_it():
    stream = train_batches(Holes({7}), batch=13, seed=1, threads=1)
    with pytest.raises(InputError, match=r"item 7: .*tolerate some: crfr convert --skip-unr"):
        list(itertools.islice(stream, 2))


def test_as_many_as_are_tolerated_are_replaced_by_the_next_and_named(capfd):
    settings = {"batch": 26, "seed": 1, "threads": 2}
    whole = next(train_batches(Numbered(), **settings))["label"]
    stream = train_batches(Holes({7, 8, 25}), skip_unreadable=3, **settings)
    for _ in range(2):
        got = next(stream)
    assert capfd.readouterr().err.count("skipped") == 3  # each once, however often it comes up
    got = next(train_batches(Holes({7, 8, 25}), skip_unreadable=3, **settings))
    expected = [{7: 9, 8: 9, 25: 0}.get(label, label) for label in whole.tolist()]
    assert got["label"].tolist() == expected
    np.testing.assert_array_equal(got["image"][:, 0, 0, 0], expected)
    with pytest.raises(InputError, match="2 tolerated before it"):
        next(train_batches(Holes({7, 8, 25}), skip_unreadable=2, **settings))


def test_a_source_of_unreadable_images_is_an_error():
    with pytest.raises(InputError, match="no image of the source can be read"):
        next(train_batches(Numbered(96), batch=4, seed=1, skip_unreadable=1000))


def test_worker_processes_read_the_same_batches():
    flags.FLAGS.mark_as_parsed()  # as the command line does; Grain reads them
    np.testing.assert_array_equal(labels(5, workers=2), labels(5))
