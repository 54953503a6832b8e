"""Where a model breaks: how far down in resolution its CR accuracy holds."""

from dataclasses import dataclass

from crfr.report.drawing import stem
from crfr.report.models import Model, Report
from crfr.report.tables import MISSING, Table, named, percent

DROPS = (1, 5, 10)  # points below the accuracy at the highest resolution


@dataclass(frozen=True)
class Break:
    """Resolutions in px of a model's CR accuracy on a benchmark.

    `holds` maps points to the lowest resolution down to which no measured accuracy has fallen by
    as many; the lowest measured one where none has.  `guesses` is the highest from which on down
    50 % lies in the 95 % interval of all; None where the accuracy stays above.
    """

    top: int
    low: int
    accuracy: float
    holds: dict[int, int]
    guesses: int | None


def find_break(model: Model, place: str) -> Break | None:
    """None with fewer than two resolutions."""
    rows = list(model.curve(place, "CR").items())[::-1]  # from the highest down
    if len(rows) < 2:
        return None
    top = rows[0][1].accuracy
    holds = {}
    for points in DROPS:
        holds[points] = rows[0][0]
        for r, row in rows:
            # in whole millionths, so that 99.0 - 89.0 is 10 points and not a little less
            if round(1e6 * (top - row.accuracy)) >= 10_000 * points:
                break
            holds[points] = r
    guesses = None
    for r, row in rows[::-1]:
        if (row.accuracy if row.accuracy_low is None else row.accuracy_low) > 0.5:
            break
        guesses = r
    return Break(rows[0][0], rows[-1][0], top, holds, guesses)


def joined(words: list[str]) -> str:
    """Words as a sentence lists them.

    >>> joined([]), joined(["a"]), joined(["a", "b", "c"])
    ('', 'a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def break_sentences(model: Model, place: str, name: str) -> list[str]:
    """Where the model breaks, in plain words; `name` is what it is called in them."""
    found = find_break(model, place)
    if found is None:
        return []
    parts = []
    for points, r in found.holds.items():
        unit = "point" if points == 1 else "points"
        if r == found.low:
            parts.append(f"by less than {points} {unit} at all measured resolutions")
            break
        parts.append(f"by {points} {unit} or more below {r} px")
    listed = joined(parts)
    told = " (as far as the measured resolutions tell)" if "below" in listed else ""
    first = f"Against {found.top} px, the accuracy of {name} falls {listed}{told}."
    if found.guesses is None:
        second = f"It stays above guessing down to {found.low} px."
    else:
        at = "At" if found.guesses == found.low else "From"
        down = "" if found.guesses == found.low else " down"
        second = (
            f"{at} {found.guesses} px{down} it is guessing: 50 % lies in the 95 % interval of its "
            "accuracy."
        )
    return [first, second]


def break_table(report: Report, place: str) -> Table | None:
    """Where every model breaks; None where none has two resolutions."""
    body = []
    for model in report.models:
        found = find_break(model, place)
        if found is not None:
            held = [
                (f"{r} px" if r > found.low else f"{r} px (lowest measured)",)
                for r in found.holds.values()
            ]
            guess = MISSING if found.guesses is None else f"{found.guesses} px"
            top = f"{percent(found.accuracy)} % at {found.top} px"
            body.append((named(model), (top,), *held, (guess,)))
    if not body:
        return None
    heads = ("model", "accuracy", *(f"within {d} point{'s' * (d > 1)}" for d in DROPS), "guessing")
    note = (
        "CR: the lowest measured resolution down to which accuracy stays within 1, 5 and 10 points "
        "of that at the highest, and the one from which on down it is guessing (50 % lies in the "
        f"95 % interval; {MISSING}: nowhere)"
    )
    title = f"Where each model breaks on {place}"
    return Table(stem("breaks", place), title, note, heads, tuple(body))
