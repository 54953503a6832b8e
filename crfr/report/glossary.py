"""What the words and numbers of a page mean, with their place in the paper."""

from crfr.report.rows import Row

THRESHOLDS = {
    "exact": "every threshold that can change a decision is tried: the midpoints of neighbouring "
    "distances, one below and one above all",
    "insightface": "InsightFace’s grid is tried: squared Euclidean distance, 0 to 4, steps of 0.01",
    "knoche": "the grid of the paper’s authors is tried: cosine distance, 0 to 2, steps of 0.001",
}
DEGRADATIONS = {
    "bicubic": "antialiased bicubic interpolation both ways, as in the paper",
    "bilinear": "antialiased bilinear interpolation both ways",
    "area": "the mean over areas",
    "quantize": "antialiased bicubic interpolation, the small image rounded as saving it would",
    "noclip": "antialiased bicubic interpolation whose overshoot is kept",
}


def glossary(row: Row) -> list[tuple[str, str]]:
    """(term, definition) in plain text; `row` has the conditions that all rows share."""
    thresholds = THRESHOLDS.get(row.thresholds, "")
    degradation = DEGRADATIONS.get(row.degradation, "")
    return [
        (
            "Accuracy",
            "The share of photo pairs judged correctly as one person or two, (TP + TN) / N "
            "(section 3.4, eq. 3 with its slip mended). Guessing gives 50 %.",
        ),
        (
            "Resolution",
            "The side, in px, of the image after it was reduced; 112 px is the untouched face. A "
            f"reduced image is enlarged to 112 px again (eq. 1). Here: {row.degradation}"
            f"{degradation and ': ' + degradation} (section 3.3).",
        ),
        (
            "CR, cross-resolution",
            "One image of a pair is reduced, the other stays at 112 px: CR_A reduces the first of "
            "each pair, CR_B the second, CR is the mean of both (section 3.4).",
        ),
        ("ER, equal-resolution", "Both images of a pair are reduced alike (section 4)."),
        (
            "Cosine distance",
            "1 minus the cosine of the angle between the embeddings of two images (eq. 2, whose "
            "squared norms are slips): 0 is the same direction, 1 is unrelated. A pair nearer than "
            "the threshold is taken for one person.",
        ),
        (
            "Folds and spread",
            "The pairs are cut into ten folds, in order. The threshold that is best on nine is "
            "scored on the tenth (section 3.4). Accuracy is the mean over the ten, the spread (±) "
            "their standard deviation, the threshold of a table the mean of the ten.",
        ),
        (
            "Thresholds",
            f"Mode: {row.thresholds}{thresholds and ': ' + thresholds}. They are found on the nine "
            "training folds alone.",
        ),
        (
            "Flip",
            "The embedding of an image is added to that of its mirror image."
            if row.flip
            else "Off: each image is embedded once, without its mirror image.",
        ),
        (
            "Methods",
            "The baseline is trained on 112 px alone. BT mixes low resolutions into each batch "
            "(section 5.1): BT-r one, BT-M several. ST is siamese (section 5.2): it sees an image "
            "at high and low resolution and pulls the two embeddings together (eqs. 6, 7): ST-r at "
            "one low resolution, ST-M1 at one of several for each image, ST-M2 at all of them "
            "(section 6.2).",
        ),
    ]
