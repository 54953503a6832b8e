"""Fine-tuning: ST-M1 on new identities, from a crfr checkpoint or imported weights.

    crfr train --config=configs/finetune.py --config.init.weights=runs/bt-m-ms1m \
        --config.data=mine/train.rec --workdir=runs/mine

The class matrix is made anew; the trunk learns at a tenth of the rate, and BatchNorm keeps the
statistics that it came with.  docs/finetune.md has what can be started from.
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("finetune.py", argument, quick=False)
    config = recipe()
    config.method = "st-m1"
    config.epochs = 4.0
    config.schedule.drops = (2, 3)
    config.optimizer.rates.trunk = 0.1
    config.model.bn_frozen = True
    return shrink(config) if given["quick"] else config
