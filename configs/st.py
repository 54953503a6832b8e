"""ST-r: two branches, 112 and r px, and the distance between their embeddings (paper section 5.2).

    crfr train --config=configs/st.py:r=7 --config.data=train.rec --workdir=runs/st-7

The paper on MS1M: 4 h an epoch, ST-5 on LFW 67.86 % at 5 px (table 2, CR).  `:r=7,quick` shrinks
it.
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("st.py", argument, r=7, quick=False)
    config = recipe()
    config.method = f"st-{given['r']}"
    return shrink(config) if given["quick"] else config
