"""BT-r: a random half of each batch at r px, the other half at 112 (paper section 5.1).

    crfr train --config=configs/bt.py:r=7 --config.data=train.rec --workdir=runs/bt-7

The paper on MS1M: 2 h an epoch, BT-5 on LFW 69.66 % at 5 px (table 2, CR).  `:r=7,quick` shrinks
it.
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("bt.py", argument, r=7, quick=False)
    config = recipe()
    config.method = f"bt-{given['r']}"
    return shrink(config) if given["quick"] else config
