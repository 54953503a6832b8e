"""Baseline: ResNet-50 and ArcFace on full-resolution images (paper section 3.1).

    crfr train --config=configs/baseline.py --config.data=train.rec --workdir=runs/baseline

The paper on MS1M (5.8 M images): 2 h an epoch, LFW 99.23 % at 112 px, 54.65 % at 5 px (table 2,
CR). `:quick` is the tiny network on procedural faces, minutes on a CPU.
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("baseline.py", argument, quick=False)
    config = recipe()
    config.method = "baseline"
    return shrink(config) if given["quick"] else config
