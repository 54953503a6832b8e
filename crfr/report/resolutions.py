"""Which of many resolutions a figure or a table shows."""

import math

PAPER = (7, 14, 28, 56, 112)  # px, the resolutions of the paper's distributions (section 4.3)


def selected(resolutions: list[int]) -> list[int]:
    """At most six of the rising resolutions: the lowest, and the paper's five or the likes of them.

    >>> selected([5, 6, 7, 14, 28, 56, 112]), selected([8, 16, 32])
    ([5, 7, 14, 28, 56, 112], [8, 16, 32])
    """
    five = [r for r in resolutions if r in PAPER]
    if len(five) < 3:
        five = resolutions[:: -(-len(resolutions) // 5) or 1] + resolutions[-1:]
    return sorted({*resolutions[:1], *five})


def chosen(resolutions: list[int], most: int) -> list[int]:
    """At most `most` of the rising resolutions, about even in octaves, both ends among them.

    >>> chosen(list(range(5, 113)), 10)
    [5, 7, 10, 14, 20, 28, 40, 56, 79, 112]
    """
    if len(resolutions) <= most:
        return resolutions
    low, high = math.log2(resolutions[0]), math.log2(resolutions[-1])
    targets = [low + (high - low) * i / (most - 1) for i in range(most)]
    return sorted({min(resolutions, key=lambda r: abs(math.log2(r) - t)) for t in targets})
