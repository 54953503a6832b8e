"""Any method on a small set of real faces: thousands of images, tens of identities.

    crfr reproduce --config=configs/small.py --data=train.rec --benchmarks=lfw.bin \
        --weights=resnet50_imagenet_keras_notop_fp16.h5
    crfr train --config=configs/small.py:method=st-m1 --config.data=train.rec --workdir=runs/st-m1

The paper's ResNet-50, with an optimizer and a margin for few updates and few identities.  `:tiny`
is the tiny network on a CPU, whose recipe was chosen on held-out identities (docs/reproduce.md);
that of the ResNet-50 has not been tuned.
"""

from ml_collections import ConfigDict

from crfr.recipe import parse_argument, recipe, shrink
from crfr.views.methods import parse_method


def get_config(argument: str | None = None) -> ConfigDict:
    given = parse_argument("small.py", argument, method="baseline", tiny=False, quick=False)
    config = recipe()
    config.method = given["method"]
    if given["quick"]:
        return shrink(config)
    if given["tiny"]:
        config = shrink(config)
        config.epochs = 8.0
    else:
        config.batch, config.model.bn_group = 64, 64
        config.optimizer.name, config.optimizer.weight_decay = "adamw", 0.05
        config.schedule.update({"kind": "cosine", "learning_rate": 5e-4, "warmup_epochs": 1.0})
        config.optimizer.rates.trunk = 0.3
    config.margin.scale, config.margin.margin = 16.0, 0.3
    # ArcFace has a cheap way out where few embeddings are pulled together: all at one point.  With
    # the paper's weights siamese training takes it.
    method = parse_method(config.method)
    if len(method.views) > 1:
        config.distance_weight = 0.08 * method.distance_weight
    config.run.verify_every = 1.0
    return config
