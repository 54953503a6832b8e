"""Which checkpoints of a run are kept."""

from collections.abc import Iterable, Mapping, Sequence


def ranked(accuracies: Mapping[int, float]) -> list[int]:
    """Steps by falling accuracy; of equals the later one first.

    >>> ranked({10: 0.9, 20: 0.95, 30: 0.9})
    [20, 30, 10]
    """
    return sorted(accuracies, key=lambda step: (accuracies[step], step), reverse=True)


def marks(steps: Sequence[int], every: float) -> list[int]:
    """Of rising steps, the first at or after each multiple of `every` steps, a fraction perhaps.

    A step that is none can be deleted without changing which of the others are.

    >>> marks([5, 10, 13, 15, 20, 25], 10)
    [10, 20]
    """

    def multiples(step: int) -> int:
        return int(step / every + 1e-9)  # the small term: schedule.due has the reason

    before = [0, *steps[:-1]]
    return [s for b, s in zip(before, steps, strict=True) if multiples(s) > multiples(b)]


def kept(
    steps: Iterable[int],
    accuracies: Mapping[int, float],
    *,
    latest: int,
    every: float,
    best: int,
) -> set[int]:
    """The steps of a run that are not deleted: its `latest` last ones, the first at or after each
    multiple of `every` steps (0: none), and the `best` by accuracy (0: none).

    `accuracies` has those of the steps that were verified.

    >>> sorted(kept([10, 20, 30, 40], {10: 0.9, 20: 0.8}, latest=1, every=0, best=1))
    [10, 40]
    """
    rising = sorted(steps)
    known = {step: accuracies[step] for step in rising if step in accuracies}
    regular = marks(rising, every) if every > 0 else []
    return {*rising[-latest:], *regular, *ranked(known)[:best]}
