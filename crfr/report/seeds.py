"""Trainings that differ only in their seed: which they are, and the mean of their rows."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from crfr.evaluate.intervals import sample_std, seed_mean
from crfr.report import paper
from crfr.report.rows import Row, Sweep

FIGURES = (
    *("accuracy", "accuracy_std", "threshold", "positive_distance", "negative_distance"),
    *("eer", "auc", "draws_std"),
)

Group = list[list[Sweep]]  # the trainings of a model by rising seed, each with its sweeps


def _config(sweep: Sweep) -> dict[str, Any]:
    config = (sweep.about["training"] or {}).get("config")
    return config if isinstance(config, dict) else {}


def seed_of(sweep: Sweep) -> int | None:
    """The seed of the training; None where no config or no seed is on record."""
    seed = _config(sweep).get("seed")
    return seed if type(seed) is int else None


def recipe_of(sweep: Sweep) -> str:
    """The config of the training but for its seed and the keys under `run`, as one text."""
    kept = {name: value for name, value in _config(sweep).items() if name not in ("seed", "run")}
    return json.dumps(kept, sort_keys=True)


def key_of(group: Group) -> tuple[str, int | None, str]:
    """(model, step, method) of a model's first training."""
    row = group[0][0].rows[0]
    return row.model, row.step, row.method


def find_groups(sweeps: list[Sweep]) -> list[Group]:
    """The sweeps by model, in the paper's order.

    Trainings are of one model where configs are equal but for the seed and the keys under `run`,
    the method and the step are the same, and no two have the same seed.
    """
    trainings: dict[tuple[str, int | None, str], list[Sweep]] = {}
    for sweep in sweeps:
        row = sweep.rows[0]
        trainings.setdefault((row.model, row.step, row.method), []).append(sweep)
    recipes: dict[tuple[int | None, str, str], list[list[Sweep]]] = {}
    for (_, step, method), found in trainings.items():
        recipes.setdefault((step, method, recipe_of(found[0])), []).append(found)
    groups: list[Group] = []
    for found in recipes.values():
        seeds = [seed_of(training[0]) for training in found]
        if None in seeds or len(set(seeds)) < len(seeds):
            groups += [[training] for training in found]
        else:
            groups.append(sorted(found, key=lambda training: seed_of(training[0]) or 0))
    return sorted(groups, key=lambda group: (paper.order(key_of(group)[2]), key_of(group)[1] or 0))


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of a row over seeds, with its figures' standard deviations over them.

    A figure that one seed has not is None.  The interval of the accuracy is that over seeds and
    pairs (`intervals.seed_mean`), with the mean of the seeds' intervals as that over pairs: all
    judge the same pairs, so that it is rather too wide.  The row of one seed stays as it is.
    """
    if len(rows) == 1:
        return rows[0]
    std: dict[str, float] = {}
    changes: dict[str, Any] = {}

    def mean(name: str, values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        std[name] = sample_std(known)
        return fmean(known)

    for name in FIGURES:
        changes[name] = mean(name, [getattr(row, name) for row in rows])
    changes["tar"] = {
        far: mean(f"tar {far}", [row.tar[far] for row in rows]) for far in rows[0].tar
    }
    widths = [
        row.accuracy_high - row.accuracy_low
        for row in rows
        if row.accuracy_low is not None and row.accuracy_high is not None
    ]
    changes["accuracy_low"] = changes["accuracy_high"] = None
    if len(widths) == len(rows):
        among = seed_mean([row.accuracy for row in rows], 0.0)
        half = math.hypot(among.half, fmean(widths) / 2)
        changes["accuracy_low"] = max(0.0, among.value - half)
        changes["accuracy_high"] = min(1.0, among.value + half)
    return replace(rows[0], **changes, seeds=len(rows), std=std)
