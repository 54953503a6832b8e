"""The paper's published numbers, as data.

M. Knoche, S. Hörmann, G. Rigoll, "Image Resolution Susceptibility of Face Recognition Models",
2021.  Every accuracy is in % on LFW; the models were trained on MS1M (5.8 M images of 87 k
identities) for 16 epochs (section 3.1).  Methods carry the names that crfr uses.
"""

import re

AUTHORS = "M. Knoche, S. Hörmann, G. Rigoll"
TITLE = "Image Resolution Susceptibility of Face Recognition Models"
YEAR = 2021
TRAINING_IMAGES = "5.8 M"
BENCHMARK = "lfw"

# Table 2, CR accuracy: the protocols, in the paper's order.  The low-resolution image of a pair is
# at one resolution, or at one drawn for each pair from this range (section 6.3).
PROTOCOLS = {
    "112 px": "",
    "all_res": "5–112 px",
    "high_res": "40–112 px",
    "mid_res": "10–40 px",
    "low_res": "5–10 px",
    "5 px": "",
}

# Table 2: hours an epoch and accuracies; None where the paper leaves the cell empty.
TABLE_2: dict[str, dict[str, float | None]] = {
    method: {"hours": hours, **dict(zip(PROTOCOLS, accuracies, strict=True))}
    for method, hours, accuracies in [
        ("baseline", 2.0, (99.23, 96.86, 99.20, 95.89, 77.57, 54.65)),
        ("bt-5", 2.0, (None, None, None, None, None, 69.66)),
        ("bt-m", 2.0, (99.30, 97.72, 99.33, 97.78, 87.17, 71.53)),
        ("st-5", 4.0, (None, None, None, None, None, 67.86)),
        ("st-m1", 4.0, (97.40, 96.76, 97.35, 96.98, 91.50, 76.78)),
        ("st-m2", 20.0, (95.62, 95.07, 95.62, 95.51, 88.72, 71.84)),
    ]
}

# Table 1: (resolution in px, model, accuracy).  The model is the paper's own, or the reference it
# cites.  The printed "97.8%8" of ST-16 is a slip for 97.88%.
TABLE_1: list[tuple[int, str, float]] = [
    (64, "bt-64", 99.38),
    (64, "st-64", 99.35),
    (64, "S-64-sc [32]", 92.83),
    (64, "Talreja et al. [30]", 94.92),
    (32, "bt-32", 99.08),
    (32, "st-32", 98.32),
    (32, "S-32-sc [32]", 89.72),
    (32, "Talreja et al. [30]", 91.08),
    (16, "bt-16", 98.17),
    (16, "st-16", 97.88),
    (16, "S-16-sc [32]", 85.87),
]


METHODS = ("baseline", "bt-r", "bt-m", "st-r", "st-m1", "st-m2")  # in the paper's order


def display(method: str) -> str:
    """A method's name as the paper prints it.

    >>> [display(m) for m in ["baseline", "bt-7", "bt-m", "st-m2", "mine"]]
    ['baseline', 'BT-7', 'BT-M', 'ST-M2', 'mine']
    """
    return method.upper() if re.fullmatch(r"bt-(\d+|m)|st-(\d+|m1|m2)", method) else method


def order(method: str) -> tuple[int, int, str]:
    """A sort key: baseline, BT-r by r, BT-M, ST-r by r, ST-M1, ST-M2 as in the paper, the rest."""
    match = re.fullmatch(r"(bt|st)-(\d+)", method)
    name = f"{match[1]}-r" if match else method
    rank = METHODS.index(name) if name in METHODS else len(METHODS)
    return rank, int(match[2]) if match else 0, method


def is_method(method: str) -> bool:
    """Whether a method is one of the paper's."""
    return order(method)[0] < len(METHODS)
