"""BT-M: each image at one of 7, 14, 28, 56, 112 px (paper section 6.2).

    crfr train --config=configs/bt_m.py --config.data=train.rec --workdir=runs/bt-m

The paper on MS1M: 2 h an epoch, LFW 99.30 % at 112 px, 71.53 % at 5 px (table 2, CR).
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("bt_m.py", argument, quick=False)
    config = recipe()
    config.method = "bt-m"
    return shrink(config) if given["quick"] else config
