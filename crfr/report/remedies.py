"""What a claim without numbers lacks, and the command that gives it."""

from crfr.report import paper
from crfr.report.models import Report
from crfr.report.specialised import find, specialised


def lacking(report: Report, benchmark: str, methods: tuple[str, ...]) -> list[str]:
    """The methods of a claim, as the paper prints them, of which no model was measured."""

    def there(method: str) -> bool:
        if method in ("bt-r", "st-r"):
            found = list(specialised(report, method[:2]).values())
        else:
            found = [model for model in [find(report, method)] if model]
        return any(model.curve(benchmark, "CR") for model in found)

    return [
        paper.display(m) if m[-2:] != "-r" else m[:2].upper() + "-r"
        for m in methods
        if not there(m)
    ]


def remedy(methods: tuple[str, ...], at: str, absent: list[str]) -> str:
    """What is missing for a claim without numbers, and the command that gives it."""
    names = ",".join(f"{m[:2]}-7" if m in ("bt-r", "st-r") else m for m in methods)
    if absent:
        return (
            f"no {', '.join(absent)}:\ncrfr reproduce --data=SPEC --benchmarks=DIR "
            f"--methods={names} --seeds=0,1,2"
        )
    return (
        f"no distances of pairs (pairs/BENCHMARK.npz) at {at}, or no seed in common:\n"
        "crfr sweep --model=MODEL --benchmark=SPEC --resolutions=all --out=DIR"
    )
