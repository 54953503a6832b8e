"""Checkpoints on Orbax: asynchronous, atomic, the latest few kept."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from crfr.errors import InputError
from crfr.workdir import CHECKPOINTS


class Checkpoints:
    """The checkpoints of a work directory; a context manager that finishes pending saves.

    A step's folder appears under its name only when the save is complete, so a killed or failed
    save leaves the checkpoints before it as they were.
    """

    def __init__(self, workdir: Path, keep: int | None = None, read_only: bool = False):
        self._folder = workdir.resolve() / CHECKPOINTS
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=not read_only, read_only=read_only
        )
        if read_only and not self._folder.is_dir():
            raise InputError(
                f"{workdir}: holds no {CHECKPOINTS} folder; give the --workdir of a training run"
            )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        try:
            self.wait()
        except InputError:
            if kind is None:  # else the error that ends the run is the one to report
                raise
        finally:
            self._manager.close()

    def steps(self) -> list[int]:
        """The steps that can be restored, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any) -> None:
        """Start saving; returns once the arrays are copied off the devices."""
        self._guard(lambda: self._manager.save(step, args=ocp.args.StandardSave(state)))

    def wait(self) -> None:
        """Wait for pending saves; a save that failed is reported here or at the next save."""
        self._guard(self._manager.wait_until_finished)

    def restore(self, step: int, state: Any, sharding: Any) -> Any:
        """The state saved at a step; `state` gives shapes and types, `sharding` the place of each
        leaf.

        Class matrices lose or gain rows of zeros at their end where the number of devices asks for
        other padding (state.py).  All other shapes follow from the run's config and classes.
        """
        target = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            state,
            sharding,
        )
        try:
            # not strict: the rows of the class matrix may be others
            return self._manager.restore(step, args=ocp.args.StandardRestore(target, strict=False))
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise InputError(
                f"{self._folder / str(step)}: does not restore ({_first_line(error)}); use another "
                f"step of {self.steps()}, or delete that folder to fall back to the one before"
            ) from error

    def _guard(self, write: Any) -> None:
        try:
            write()
        # Orbax and TensorStore report a full disk as OSError, ValueError or RuntimeError by turns
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self._folder}: the checkpoint could not be saved ({_first_line(error)}); those "
                "before it are whole: make room or rights there and run the same command again"
            ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
