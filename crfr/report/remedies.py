"""What a claim without numbers lacks, and the command that gives it."""

from crfr.report import paper
from crfr.report.models import Report
from crfr.report.specialised import find, specialised


def lacking(
    report: Report, benchmark: str, methods: tuple[str, ...], highest: dict[str, int]
) -> list[str]:
    """The methods of a claim, as the paper prints them, of which no model was measured.

    Of BT-r and ST-r ("bt", "st") one up to the `highest` r in px has to be there; where a claim is
    about these two alone, one of each for the same r.
    """
    own = {
        kind: {
            r
            for r, model in specialised(report, kind).items()
            if r <= most and model.curve(benchmark, "CR")
        }
        for kind, most in highest.items()
    }

    def there(method: str) -> bool:
        if method in ("bt-r", "st-r"):
            return bool(own[method[:2]])
        model = find(report, method)
        return model is not None and bool(model.curve(benchmark, "CR"))

    def words(method: str) -> str:
        if method in ("bt-r", "st-r"):
            return f"{method[:2].upper()}-r up to {highest[method[:2]]} px"
        return paper.display(method)

    absent = [words(method) for method in methods if not there(method)]
    if not absent and set(methods) == {"bt-r", "st-r"} and not own["bt"] & own["st"]:
        absent = [f"BT-r and ST-r for the same r up to {min(highest.values())} px"]
    return absent


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
