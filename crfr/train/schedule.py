"""Steps, cadences and the learning rate.  Step n means n finished updates."""

import math

import optax

from crfr.errors import InputError, unknown


def steps_of(epochs: float, images: int, batch: int) -> int:
    """The step that completes `epochs` passes over `images` examples; batches cross epoch ends."""
    return math.ceil(epochs * images / batch - 1e-9)  # 1.1 * 100 / 10 is 11.000000000000002


def due(step: int, every: float, total: int) -> bool:
    """Whether what happens every `every` steps, and after the last, happens after this one.

    `every` may be a fraction (an epoch of 100 images is 3.125 batches of 32): then it happens after
    the step that completes each multiple.  0 is after the last step only.
    """
    if step == total or every <= 0:
        return step == total
    # the small term keeps a multiple that is not exact in binary on its own step
    return int(step / every + 1e-9) > int((step - 1) / every + 1e-9)


def learning_rate(
    kind: str, base: float, drops: tuple[int, ...], factor: float, warmup: int, total: int
) -> optax.Schedule:
    """The learning rate of each update.

    "steps": `base`, multiplied by `factor` after each step of `drops` (the paper: 0.1 after epochs
    9 and 13).  "cosine": `base` to 0 over `total` steps.  Both rise linearly over the first
    `warmup` steps.
    """
    if warmup >= total:
        raise InputError(f"schedule.warmup_epochs covers {warmup} of {total} steps: give less")
    if kind == "steps":
        if drops and drops[0] <= warmup:
            raise InputError(
                f"schedule.drops begin at step {drops[0]}, inside the {warmup} steps of "
                "schedule.warmup_epochs: drop later or warm up for less"
            )
        if list(drops) != sorted(set(drops)):
            raise InputError(
                f"schedule.drops fall on steps {list(drops)}: give rising, distinct epochs"
            )
        main = optax.piecewise_constant_schedule(base, {step - warmup: factor for step in drops})
    elif kind == "cosine":
        main = optax.cosine_decay_schedule(base, total - warmup)
    else:
        raise unknown("schedule.kind", kind, ("steps", "cosine"))
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, base, warmup), main], [warmup])
