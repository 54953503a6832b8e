"""ST-M2: five branches, 112, 56, 28, 14 and 7 px (paper section 6.2).

    crfr train --config=configs/st_m2.py --config.data=train.rec --workdir=runs/st-m2

The paper on MS1M: 20 h an epoch, LFW 95.62 % at 112 px, 71.84 % at 5 px (table 2, CR).
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("st_m2.py", argument, quick=False)
    config = recipe()
    config.method = "st-m2"
    return shrink(config) if given["quick"] else config
