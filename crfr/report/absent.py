"""Which of the paper's figures and tables a report has not, and what command would give them."""

from crfr.report import paper
from crfr.report.beside import lfw, table_1
from crfr.report.figures import ZOOMS
from crfr.report.models import FOREIGN, Report
from crfr.report.rows import PROTOCOLS
from crfr.report.training import training_records

SWEEP = "crfr sweep --model=MODEL --benchmark=SPEC --out=DIR"
ALL = "crfr sweep --model=MODEL --benchmark=lfw.bin,agedb_30.bin,cfp_fp.bin --out=DIR"


def absent(report: Report) -> list[tuple[str, str]]:
    """(what is missing and why, the command that gives it), in the paper's order."""
    some = report.benchmarks
    found: list[tuple[str, str]] = []

    def want(there: bool, what: str, command: str) -> None:
        if not there:
            found.append((what, command))

    want(
        bool(report.average),
        "Figs 1, 9 and 12 as averages over benchmarks, and fig. 5: the sweeps have one benchmark, "
        "or none that all of them measured together.",
        ALL,
    )
    want(
        report.analysis is not None,
        "Figs 3 and 4, reduced images and what is lost: no dataset analysis was given.",
        "crfr dataset --benchmark=SPEC --out=DIR, then crfr report --dataset=DIR",
    )
    paired = all(m.pairs.get(b) for m in report.singles for b in some if m.curve(b, "CR"))
    want(
        paired,
        "Figs 7, 10 and 14, distributions of distances, and paired tests: not every model has "
        "pairs/BENCHMARK.npz.",
        SWEEP,
    )
    zoomed = all(
        sum(low <= r <= high for b in some for r in report.resolutions(b)) > 1
        for low, high in ZOOMS
    )
    want(
        zoomed,
        "Fig. 13, near 7 and near 14 px: it needs at least two resolutions from 5 to 9 px, and two "
        "from 10 to 18 px.",
        f"{SWEEP} --resolutions=all",
    )
    trained = [m for m in report.singles if m.method not in FOREIGN]
    verified = any("verification_accuracy" in r for m in trained for r in training_records(m))
    want(
        verified or not trained,
        "Fig. 15, accuracy after each epoch: no metrics.jsonl has verifications.",
        "crfr train --config.run.benchmark=SPEC",
    )
    want(
        lfw(report) is not None,
        "Tables 1 and 2, beside the paper: no benchmark is called lfw.",
        "crfr sweep --model=MODEL --benchmark=lfw.bin --out=DIR",
    )
    want(
        lfw(report) is None or table_1(report) is not None,
        "Table 1: no model was measured at 64, 32 or 16 px.",
        f"{SWEEP} --resolutions=5,7,14,16,28,32,56,64,112",
    )
    want(
        any(paper.is_method(m.method) for m in report.models),
        "The paper’s claims: no model here is of its methods.",
        "crfr reproduce --data=SPEC --benchmarks=DIR --seeds=0,1,2",
    )
    protocols = {p for m in report.models for (_, p, _) in m.drawn}
    want(
        protocols == set(PROTOCOLS),
        "Table 2’s protocols low_res, mid_res, high_res and all_res: not measured.",
        f"{SWEEP} --scenarios=CR,ER,protocols --protocols=FOLDER",
    )
    want(
        any(m.matrices for m in report.singles),
        "The matrix of every pair of resolutions: not measured.",
        f"{SWEEP} --scenarios=CR,ER,matrix",
    )
    want(
        all(b in report.samples for b in some),
        "Sample pairs: some benchmark has no samples/BENCHMARK/.",
        SWEEP,
    )
    return found
