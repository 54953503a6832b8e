"""The paper's claims, each tested by the report's own numbers.

A claim speaks of differences; `evidence` has what was measured of each, with its 95 % interval over
seeds and pairs, and `verdict` decides by these intervals alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from crfr.evaluate.intervals import LEVEL, Mean
from crfr.report import evidence, evidence_own, paper
from crfr.report.beside import lfw
from crfr.report.drawing import stem
from crfr.report.evidence import Part
from crfr.report.evidence_own import BEST, MULTI, OWN
from crfr.report.files import Folder
from crfr.report.formats import escape, prose
from crfr.report.models import Report
from crfr.report.remedies import lacking, remedy
from crfr.report.tables import Table

HOLDS, FAILS, UNDECIDED, UNMEASURED = "holds", "does not hold", "undecided", "not measured"
RULES = (
    "A claim holds where the 95 % interval of every difference that it speaks of lies on its side "
    "of 0. It does not hold where at least one lies wholly on the other side, the more "
    "differences the wider: with m of them each interval then holds 1 − 0.05 / m (Bonferroni), so "
    "that a true claim fails in at most 5 % of cases, however many are looked at. Otherwise it is "
    "undecided. Shown are the 95 % intervals, over seeds and pairs; of one seed over pairs "
    "alone, which leaves out the randomness of training. Ranges of resolutions are means over the "
    "measured ones, or over those that the tables above show where more than twelve were.",
    "Words made exact: accuracy falls towards chance where less than half of what it has above 50 "
    "% at 112 px is left. Distances are compressed where pairs of two people are, on average, less "
    "than half as far apart as the baseline puts them at 112 px. A threshold rises or drops "
    "against that of the same models at 112 px. A specialised model is compared with "
    "each of the models that were not trained for that resolution alone and have a seed in common, "
    "a multi-resolution one among them; the closest is shown.",
)
AGAINST_BASELINE = [(method, "baseline") for method in MULTI]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and where it makes it.

    `side` is the sign that the differences of `parts` have if it is true.  `methods` are those that
    it speaks of (bt-r: any r up to the `highest` in px of its kind), `at` are the resolutions that
    it needs, in words.
    """

    text: str
    where: str
    paper: str
    side: int
    methods: tuple[str, ...]
    at: str
    parts: Callable[[Report, str], list[Part]]
    highest: dict[str, int] = field(default_factory=dict)


def _printed(column: str, *methods: str) -> str:
    """Numbers of the paper's table 2, in words."""
    words = [f"{paper.display(m)} {paper.TABLE_2[m][column]:.2f}" for m in methods]
    return f"{column} {', '.join(words)}"


LOW = _printed("low_res", "baseline", *MULTI)
TOP = _printed("112 px", "baseline", *MULTI)
FIVE = _printed("5 px", "baseline", "bt-5", "st-5")
CLAIMS = (
    Claim(
        "The baseline falls towards chance in CR at very low resolution",
        "figs 1, 5; table 2",
        f"slightly above 50 % below 10 px; 5 px {paper.TABLE_2['baseline']['5 px']:.2f}, "
        f"112 px {paper.TABLE_2['baseline']['112 px']:.2f}",
        -1, ("baseline",), "112 px and one of at most 10 px", evidence.falls,
    ),
    Claim(
        "At very low resolution the baseline’s ER is above its CR",
        "fig. 5, section 4.3", "yes, most on LFW",
        +1, ("baseline",), "one of at most 10 px, in CR and ER", evidence.equal_above_cross,
    ),
    Claim(
        "BT-r beats the baseline below about 40 px, each at its own r",
        "fig. 9; table 2", f"from about 50 % to 70 at 5 to 8 px; {FIVE}",
        +1, ("baseline", "bt-r"), "r below 40 px", partial(evidence_own.own_r, kind="bt"),
        {"bt": OWN - 1},
    ),
    Claim(
        "ST-r beats the baseline below about 40 px, each at its own r",
        "fig. 9; table 2", f"from about 50 % to 70 at 5 to 8 px; {FIVE}",
        +1, ("baseline", "st-r"), "r below 40 px", partial(evidence_own.own_r, kind="st"),
        {"st": OWN - 1},
    ),
    Claim(
        "BT-r beats ST-r below about 40 px, each at its own r",
        "fig. 9; tables 1, 2", f"slightly; {_printed('5 px', 'bt-5', 'st-5')}",
        +1, ("bt-r", "st-r"), "an r below 40 px that both were trained for",
        evidence_own.bt_against_st,
        {"bt": OWN - 1, "st": OWN - 1},
    ),
    Claim(
        "Specialised models are best at their own r",
        "fig. 13", "BT-5 to 9, ST-5 to 8 and BT-10 to 18 are best at each",
        +1, ("bt-r", "st-r", *MULTI), "r up to 18 px (ST-r: 8 px)",
        evidence_own.best_at_own_r, BEST,
    ),
    Claim(
        "Multi-resolution models beat the baseline below 13 px",
        "fig. 12; table 2", f"yes, ST-M1 by almost 25 points at 7 px; {LOW}",
        +1, ("baseline", *MULTI), "below 13 px",
        partial(evidence.ranges, methods=AGAINST_BASELINE, below=13),
    ),
    Claim(
        "Multi-resolution models lose to the baseline above 28 px",
        "fig. 12", f"yes, ST-M1 by about 8 points at 56 px; but table 2, which is LFW: {TOP}",
        -1, ("baseline", *MULTI), "above 28 px",
        partial(evidence.ranges, methods=AGAINST_BASELINE, above=28),
    ),
    Claim(
        "ST-M1 beats BT-M below about 16 px",
        "fig. 12; table 2", f"yes; {_printed('low_res', 'st-m1', 'bt-m')}",
        +1, ("bt-m", "st-m1"), "below 16 px",
        partial(evidence.ranges, methods=[("st-m1", "bt-m")], below=16),
    ),
    Claim(
        "ST-M1 loses to BT-M above about 16 px",
        "fig. 12; table 2", f"yes; {_printed('high_res', 'st-m1', 'bt-m')}",
        -1, ("bt-m", "st-m1"), "above 16 px",
        partial(evidence.ranges, methods=[("st-m1", "bt-m")], above=16),
    ),
    Claim(
        "ST-M2 is no better than ST-M1",
        "table 2", f"worse in all columns; {_printed('all_res', 'st-m2', 'st-m1')}",
        -1, ("st-m1", "st-m2"), "any r",
        partial(evidence.ranges, methods=[("st-m2", "st-m1")]),
    ),
    Claim(
        "BT-r and ST-r compress distances at 7 px",
        "fig. 10", "to almost 0 to 0.1, both kinds of pairs",
        -1, ("baseline", "bt-7", "st-7"), "7 and 112 px",
        partial(evidence.compressed, methods=("bt-7", "st-7"), resolutions=[7]),
    ),
    Claim(
        "BT-M does not compress distances at 7 px",
        "fig. 14", "they are larger there than at all others",
        +1, ("baseline", "bt-m"), "7 and 112 px",
        partial(evidence.compressed, methods=("bt-m",), resolutions=[7]),
    ),
    Claim(
        "ST-M1 and ST-M2 compress distances at every r (of 7, 14, 28, 56, 112 px)",
        "fig. 14", "at most about 0.1",
        -1, ("baseline", "st-m1", "st-m2"), "112 px and others",
        partial(evidence.compressed, methods=("st-m1", "st-m2")),
    ),
    Claim(
        "The baseline’s best CR threshold rises towards low r",
        "fig. 11", "yes",
        +1, ("baseline",), "112 px and one of at most 10 px", evidence.baseline_threshold,
    ),
    Claim(
        "BT-r’s best CR threshold drops, from about 9 px on",
        "fig. 11", "a significant drop at 9 px",
        -1, ("bt-r",), "r up to 9 px, and 112 px",
        partial(evidence.own_thresholds, kind="bt", highest=9), {"bt": 9},
    ),
    Claim(
        "ST-r’s best CR threshold drops, from about 12 px on",
        "fig. 11", "a significant drop at about 12 px",
        -1, ("st-r",), "r up to 12 px, and 112 px",
        partial(evidence.own_thresholds, kind="st", highest=12), {"st": 12},
    ),
)  # fmt: skip


def verdict(differences: list[Mean], side: int) -> str:
    """What the intervals say of a claim whose differences have the sign `side` if it is true.

    That all lie on its side needs no correction for their number; that one lies on the other does.
    """
    if not differences:
        return UNMEASURED
    level = 1 - (1 - LEVEL) / len(differences)
    if any(side * d.value < 0 and abs(d.value) > d.half_at(level) for d in differences):
        return FAILS
    clear = all(side * d.value > 0 and abs(d.value) > d.half for d in differences)
    return HOLDS if clear else UNDECIDED


def claim_table(report: Report, benchmark: str) -> Table:
    """A line a claim: where it is made, the paper's numbers, ours, and the verdict."""
    body = []
    for claim in CLAIMS:
        parts = claim.parts(report, benchmark)
        differences = [part.difference for part in parts if part.difference]
        said = verdict(differences, claim.side)
        absent = lacking(report, benchmark, claim.methods, claim.highest)
        lines = [part.words for part in parts if part.words]
        lines += [] if differences else [remedy(claim.methods, claim.at, absent)]
        if parts and absent:
            lines.append(f"without {', '.join(absent)}, not measured")
        side = "" if said == UNMEASURED else f"claimed: {'below' if claim.side < 0 else 'above'} 0"
        here, told = ("\n".join(lines),), (said, side, "best")
        body.append(((claim.text,), (claim.where,), (claim.paper,), here, told))
    heads = ("claim", "where", "the paper", "measured here", "verdict")
    note = "accuracies in %, differences in points with half their 95 % interval"
    title = f"The paper’s claims on {benchmark}"
    return Table(stem("claims", benchmark), title, note, heads, tuple(body), "side")


def claims_section(report: Report, folder: Folder) -> str:
    """The claims on LFW, or else on the first benchmark, those on others behind a fold; empty
    where no model is of the paper's methods."""
    if not any(paper.is_method(model.method) for model in report.models):
        return ""
    first = lfw(report) or report.benchmarks[0]
    others = [name for name in report.benchmarks if name != first]
    where = f"Tested on {first}"
    where += "." if lfw(report) else "; LFW, of which the paper’s numbers are, was not measured."
    rules = "".join(f'<p class="note">{prose(words)}</p>' for words in (where, *RULES))
    more = "".join(
        f"<details><summary>On {escape(name)}</summary>{folder.table(claim_table(report, name))}"
        "</details>"
        for name in others
    )
    table = folder.table(claim_table(report, first))
    return (
        f'<section id="claims" class="claims"><h2>The paper’s claims</h2>{rules}{table}{more}'
        "</section>"
    )
