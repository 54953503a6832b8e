"""What was run: for each sweep directory, all one needs to run it again."""

import json
from collections.abc import Iterable

from crfr.report.formats import count, escape
from crfr.report.models import FOREIGN
from crfr.report.rows import Sweep
from crfr.report.tables import MISSING


def duration(seconds: object) -> str:
    """A number of seconds in the two largest units that it fills.

    >>> [duration(s) for s in (0.42, 59, 754, 7384, 200000)]
    ['0.4 s', '59 s', '12 min 34 s', '2 h 3 min', '2 d 7 h']
    """
    if not isinstance(seconds, int | float) or seconds != seconds:
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest, parts = round(seconds), []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, rest = divmod(rest, size)
        if number or parts:
            parts.append(f"{number} {name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def _plain(value: object) -> str:
    """A JSON value in words, escaped: names and values of an object, the parts of a list."""
    if isinstance(value, dict) and set(value) == {"count", "kind"}:  # devices
        return f"{_plain(value['count'])} × {_plain(value['kind'])}"
    if isinstance(value, dict):
        return (
            ", ".join(f"{escape(name)} {_plain(part)}" for name, part in value.items()) or MISSING
        )
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value) or MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None else escape(value)


def _code(value: object) -> str:
    """A command or another text to copy; a command may be a list of its words."""
    text = " ".join(map(str, value)) if isinstance(value, list) else value
    return MISSING if text is None else f"<code>{escape(text)}</code>"


def _training(training: dict, starts: list[dict]) -> list[tuple[str, str]]:
    config = training.get("config")
    seed = config.get("seed") if isinstance(config, dict) else None
    last = starts[-1] if starts else {}
    dates = [
        _plain(start.get("started"))
        + (f", from step {count(start.get('step'))}" if start.get("step") else "")
        for start in starts
    ]
    return [
        ("Trained on", f"{count(last.get('images'))} images, {count(last.get('classes'))} people"),
        ("Training took", duration(training.get("seconds"))),
        ("Started", "<br>".join(dates) or MISSING),
        ("Seed", _plain(seed)),
        ("Training command", _code(last.get("command"))),
    ]


def _total(seconds: Iterable[object]) -> float | None:
    parts = list(seconds)
    return sum(parts) if all(isinstance(part, int | float) for part in parts) else None  # pyright: ignore[reportArgumentType, reportCallIssue]


def _both(name: str, trained: str, swept: str) -> list[tuple[str, str]]:
    """One entry where training and sweep agree, else one for each."""
    if trained == swept:
        return [(name, swept)]
    return [(f"{name}, training", trained), (f"{name}, sweep", swept)]


def provenance(sweep: Sweep, label: str) -> str:
    """A card: the training that led to the model, the sweep, the whole config behind a fold."""
    about, training, starts = sweep.about, sweep.about["training"], sweep.starts
    calls = about["calls"]
    model = f"<code>{escape(about['model'])}</code>"
    model += f", step {count(about['step'])}" if about["step"] is not None else ""
    pairs = [("Model", model), ("Method", _plain(about["method"]))]
    if training:
        pairs += _training(training, starts)
    else:
        unknown = about["method"] in FOREIGN
        pairs += [("Training", "not by crfr" if unknown else "none on record")]
    measured = [
        f"{escape(name)}, {count(benchmark.get('pairs'))} pairs of "
        f"{count(benchmark.get('images'))} images"
        for name, benchmark in about["benchmarks"].items()
    ]
    pairs += [
        ("Measured on", "<br>".join(measured)),
        ("Given as", f"{_plain(about['pixels'])} pixels, {_plain(about['precision'])} precision"),
        ("Sweep took", duration(_total(call["seconds"] for call in calls))),
        *(("Sweep command", _code(call["command"])) for call in calls),
        ("Directory", _code(str(sweep.path))),
    ]
    for name, show in (("commit", _code), ("devices", _plain), ("versions", _plain)):
        swept = ", then ".join(dict.fromkeys(show(call[name]) for call in calls))
        trained = show(starts[-1].get(name)) if starts else swept
        pairs += _both(name.capitalize(), trained, swept)
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs)
    config = ""
    if training:
        text = json.dumps(training.get("config"), indent=2, ensure_ascii=False)
        config = f"<details><summary>Whole config</summary><pre>{escape(text)}</pre></details>"
    return f'<div class="card"><h3>{escape(label)}</h3><dl>{listed}</dl>{config}</div>'
