"""What the words and numbers of a page mean, with their place in the paper."""

from crfr.report.models import Report
from crfr.report.rows import AVERAGE

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


def _seeds(report: Report) -> list[tuple[str, str]]:
    """What is said of several seeds; nothing where no model has any."""
    if not any(model.runs for model in report.models):
        return []
    return [
        (
            "Seeds, ±",
            "Trainings whose configs differ only in the seed are one model here. Its numbers are "
            "means over seeds, ± the sample standard deviation (n − 1) over them; every training’s "
            "own rows are in rows.csv. An interval of such a mean holds 95 % of what other seeds "
            "and other pairs would give.",
        ),
        (
            "Difference over seeds",
            "The mean difference of two models, each seed against the same seed, on the same "
            "pairs. Half its 95 % interval is √((t s / √n)² + (1.96 e)²): s is the sample standard "
            "deviation of the n seeds’ differences, t Student’s 97.5 % quantile for n − 1 degrees "
            "of freedom, e the standard error over pairs of their mean. With one seed it is "
            "1.96 e: that leaves out that another seed would train another network. A model "
            "without a seed is compared with every seed of the other.",
        ),
    ]


def glossary(report: Report) -> list[tuple[str, str]]:
    """(term, definition) in plain text, of what a page of this report speaks of."""
    row = next(r for s in report.sweeps for r in s.rows if r.thresholds == report.thresholds)
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
            "Folds",
            "The pairs are cut into ten folds, in order. The threshold that is best on nine is "
            "scored on the tenth (section 3.4). Accuracy is the mean over the ten, and so is the "
            "threshold of a table.",
        ),
        (
            "95 % interval",
            "Percentile bootstrap over pairs: 1,000 seeded draws of the pairs’ held-out verdicts, "
            "with the thresholds of the folds as they are. Pairs that share an image or a person "
            "are taken as independent, so that intervals are somewhat too narrow.",
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
            "TAR at FAR, EER, AUC",
            "The share of pairs of one person that are accepted at the threshold at which that "
            "share of pairs of two people is wrongly accepted; the error rate where both kinds of "
            "error are equally frequent; the probability that a pair of one person is nearer than "
            "one of two. A TAR of fewer than ten wrongly accepted pairs is left out.",
        ),
        (
            "Protocols",
            "low_res, mid_res, high_res, all_res: the first image of a pair stays at 112 px, the "
            "second is reduced to a resolution drawn for that pair (section 6.3). Published: as "
            "the paper’s authors drew them. From files, or with a seed: drawn anew.",
        ),
        (
            "Paired test",
            "Two models judge the same pairs, so that the pairs on which only one is right tell "
            "them apart: the exact sign-flip test asks how probable a difference as large would be "
            "if both were equally good. With many comparisons some come out small by chance; "
            "Holm’s correction allows for that.",
        ),
        (
            "Methods",
            "The baseline is trained on 112 px alone. BT mixes low resolutions into each batch "
            "(section 5.1): BT-r one, BT-M several. ST is siamese (section 5.2): it sees an image "
            "at high and low resolution and pulls the two embeddings together (eqs. 6, 7): ST-r at "
            "one low resolution, ST-M1 at one of several for each image, ST-M2 at all of them "
            "(section 6.2).",
        ),
        *_seeds(report),
    ] + (
        [("Average", f"Benchmark {AVERAGE}: the unweighted mean over {', '.join(report.average)}.")]
        if report.average
        else []
    )
