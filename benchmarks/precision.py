"""One model swept twice, as in float32 and bfloat16: what the second changes in CR accuracy.

    python benchmarks/precision.py runs/float32 runs/bfloat16 --benchmark=lfw

In points, second less first, with 95 % intervals over the pairs.  Two computations of one model
agree on nearly every distance, but a fold's best threshold may lie elsewhere among many that are
nearly as good, and then all pairs in between change sides at once.  An interval at fixed thresholds
(docs/evaluation.md's paired test) leaves that out.  So two others stand here: both models at the
thresholds of the first, and each with thresholds of its own that are chosen anew in each resample.
"""

import argparse
from pathlib import Path

import numpy as np

from crfr.evaluate.arrays import pairs_file, read_arrays
from crfr.evaluate.statistics import interval, paired_test, resampling
from crfr.evaluate.verification import fold_of, kfold

DIRECTIONS = ("CR_A", "CR_B")
COLUMNS = ("resolution", "each at its own", "at the first's", "chosen anew")


def resamples(fold, draws):
    """Indices [draws p] of pairs, drawn within each fold, so that folds keep their sizes."""
    rng = np.random.default_rng(0)
    of_fold = [np.flatnonzero(fold == k) for k in np.unique(fold)]
    return [np.concatenate([rng.choice(of, len(of)) for of in of_fold]) for _ in range(draws)]


def compare(first, second, same, draws):
    """(difference, low, high) of each of the three ways, in points.

    first, second: distances [direction p] of the same pairs.
    """
    fold, weights = fold_of(len(same)), resampling(len(same))
    verdicts = [[kfold(distance, same) for distance in model] for model in (first, second)]
    own = [np.mean([verdict.correct for verdict in model], 0) for model in verdicts]
    thresholds = [verdict.fold_thresholds[fold] for verdict in verdicts[0]]
    borrowed = np.mean([(d < t) == same for d, t in zip(second, thresholds, strict=True)], 0)

    def accuracy(model, drawn):
        return np.mean([kfold(distance[drawn], same[drawn]).accuracy for distance in model])

    anew = [accuracy(second, d) - accuracy(first, d) for d in resamples(fold, draws)]
    tests = [paired_test(scores, own[0], weights) for scores in (own[1], borrowed)]
    found = [(test["difference"], test["low"], test["high"]) for test in tests]
    low, high = interval(np.array([anew]))
    found.append((found[0][0], float(low[0]), float(high[0])))
    return [tuple(100 * number for number in numbers) for numbers in found]


def make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path, help="the folder of a sweep")
    parser.add_argument("second", type=Path, help="the same model's, in another precision")
    parser.add_argument("--benchmark", default="lfw")
    parser.add_argument("--draws", type=int, default=1000)
    return parser


def main(arguments=None):
    parser = make_parser()
    flags = parser.parse_args(arguments)
    files = [pairs_file(folder, flags.benchmark) for folder in (flags.first, flags.second)]
    first, second = map(read_arrays, files)
    for file, pairs in zip(files, (first, second), strict=True):
        if not {*DIRECTIONS, "resolutions", "same"} <= pairs.keys():
            parser.error(f"{file}: not there, or without CR: crfr sweep --scenarios=CR")
    for name in ("resolutions", "same"):
        if not np.array_equal(first[name], second[name]):
            parser.error(f"{flags.first} and {flags.second} have other {name}: sweep both alike")
    print(" ".join(f"{column:>20}" for column in COLUMNS))
    for place in np.argsort(first["resolutions"]):
        models = [[np.float64(m[name][place]) for name in DIRECTIONS] for m in (first, second)]
        found = compare(*models, first["same"], flags.draws)
        cells = [f"{d:+.2f} [{low:+.2f} {high:+.2f}]" for d, low, high in found]
        print(" ".join(f"{cell:>20}" for cell in (first["resolutions"][place], *cells)), flush=True)


if __name__ == "__main__":
    main()
