"""ST-M1: two branches, 112 px and one of 7, 14, 28, 56 for each image (paper section 6.2).

    crfr train --config=configs/st_m1.py --config.data=train.rec --workdir=runs/st-m1

The paper on MS1M: 4 h an epoch, LFW 97.40 % at 112 px, 76.78 % at 5 px (table 2, CR).
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("st_m1.py", argument, quick=False)
    config = recipe()
    config.method = "st-m1"
    return shrink(config) if given["quick"] else config
