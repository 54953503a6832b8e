"""Which checkpoint to restore: the latest one the files of which are as its manifest says."""

import sys
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from crfr.errors import InputError
from crfr.train import manifest
from crfr.train.retention import ranked

SHOWN = 3  # faults of one step that a message names


def find(
    folder: epath.Path,
    steps: Sequence[int],
    asked: int | str | None,
    accuracies: Callable[[Sequence[int]], Mapping[int, float]],
    set_aside: bool,
) -> int:
    """The step to restore: `asked`, a step or "best" by the `accuracies` of steps, or the latest
    sound one, as `check` and `latest` do.
    """
    if asked is None:
        return latest(folder, steps, set_aside=set_aside)
    if asked == "best":
        order = ranked(accuracies(steps))
        if not order:
            raise InputError(
                f"{folder}: none of the steps {steps or 'there'} was verified on a benchmark, so "
                "none is the best; give a step"
            )
        asked = order[0]
    check(folder, steps, int(asked))
    return int(asked)


def check(folder: epath.Path, steps: Sequence[int], step: int) -> None:
    """Raise InputError where a step is not among the `steps` of a folder, or is damaged.

    One without a manifest passes: it cannot be checked, and was asked for.
    """
    if step not in steps:
        raise InputError(f"{folder}: no checkpoint of step {step}; there are {steps or 'none'}")
    faults = manifest.faults(manifest.place(folder, step))
    if faults is None:
        _say(f"{folder / str(step)}: has no {manifest.FILE}; used unchecked")
    elif faults:
        raise InputError(
            f"{folder / str(step)}: is damaged ({_listed(faults)}); use another step of {steps}"
        )


def latest(folder: epath.Path, steps: Sequence[int], *, set_aside: bool) -> int:
    """The latest sound step of a folder; 0 where there are none.

    Damaged ones after it are named on stderr and, with `set_aside`, renamed.  A step without a
    manifest was saved by a crfr that wrote none, or has lost it: the latest of these is used where
    no step has a sound one, and a line says so.  Raises InputError, naming the files, where all
    are damaged; nothing is renamed then.
    """
    damaged: dict[int, str] = {}
    bare: list[int] = []
    chosen = 0
    for step in sorted(steps, reverse=True):
        faults = manifest.faults(manifest.place(folder, step))
        if faults == []:
            chosen = step
            break
        if faults is None:
            bare.append(step)
        damaged[step] = _listed([f"{manifest.FILE}: missing"] if faults is None else faults)
    if not chosen and bare:
        chosen = bare[0]
        _say(f"{folder / str(chosen)}: has no {manifest.FILE}; used unchecked")
    if not chosen and damaged:
        named = "; ".join(f"step {step} ({text})" for step, text in damaged.items())
        raise InputError(
            f"{folder}: no checkpoint is sound: {named}; bring one back from a copy, or move them "
            "away to begin anew"
        )
    for step, text in damaged.items():
        if step > chosen:
            done = f"set aside as {_set_aside(folder, step)}" if set_aside else "not used"
            _say(f"{folder / str(step)}: is damaged ({text}); {done}, step {chosen} is used")
    return chosen


def _set_aside(folder: epath.Path, step: int) -> str:
    """Rename a step's folder, so that it is neither restored nor deleted; its new name."""
    count = 1
    while (target := folder / f"{step}.damaged-{count}").exists():
        count += 1
    try:
        (folder / str(step)).rename(target)
    except OSError as error:
        raise InputError(
            f"{folder / str(step)}: is damaged, and cannot be renamed to {target.name} "
            f"({error.strerror}); move it away and run the same command again"
        ) from error
    return target.name


def _listed(faults: Sequence[str]) -> str:
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return ", ".join(faults[:SHOWN]) + more


def _say(text: str) -> None:
    print(f"crfr: {text}", file=sys.stderr, flush=True)
