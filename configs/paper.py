"""Any method of the paper by its name, with the paper's recipe: what `crfr reproduce` runs.

    crfr train --config=configs/paper.py:method=st-20 --config.data=train.rec --workdir=runs/st-20

Methods: baseline, bt-R, bt-m, st-R, st-m1, st-m2.  `:method=st-20,quick` shrinks it.
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("paper.py", argument, method="baseline", quick=False)
    config = recipe()
    config.method = given["method"]
    return shrink(config) if given["quick"] else config
