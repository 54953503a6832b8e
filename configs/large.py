"""Any method on millions of identities: the softmax over a tenth of the classes in each step.

    crfr train --config=configs/large.py:method=st-m1 --config.data=train.rec --workdir=runs/large

Partial FC (An et al. 2022), whose authors found a tenth to cost little accuracy; not tried here on
such data.  docs/scaling.md says from which size on, and what to set on how many devices.
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("large.py", argument, method="baseline", quick=False)
    config = recipe()
    config.method = given["method"]
    config.batch = 1024
    config.schedule.learning_rate = 0.08  # of the paper's 0.01 at 128, in proportion
    config.schedule.warmup_epochs = 0.5
    config.softmax.sample = 0.1
    return shrink(config) if given["quick"] else config
