"""Checkpoints on Orbax: asynchronous, atomic, with a manifest that is checked before a restore."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from crfr import agreement
from crfr.errors import InputError, first_line
from crfr.train import manifest, sound
from crfr.train.sharding import of_classes
from crfr.train.state import Shapes, difference
from crfr.workdir import checkpoint_path

SECONDS = 24 * 3600  # that a save may take
Keep = Callable[[Sequence[int], Mapping[int, float]], set[int]]
Verification = Mapping[str, Any]  # benchmark: its name, accuracy: a fraction


class Sealed(ocp.StandardCheckpointHandler):
    """Orbax's handler of trees, which writes the manifest before the step counts as complete.

    Orbax calls `finalize` in process 0 when all processes have written, in the thread that saves.
    """

    verification: Verification | None = None  # of the save under way

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(directory)
        manifest.write(directory, self.verification)


def _barrier(*, key: str, timeout_ms: int) -> None:
    """Orbax's meeting of all processes, but none after a failure: Orbax asks for one in a `finally`
    too, where a process whose save has failed would wait for those that wait for it.
    """
    if (failed := sys.exc_info()[1]) is not None:
        raise failed
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


class Checkpoints:
    """The checkpoints of a run; a context manager that finishes pending saves.

    A step's folder appears under its name, in a bucket is marked as complete, only when the save
    is, manifest included, so a killed or failed save leaves the checkpoints before it as they were.
    `folder` is local or a bucket's.  `keep` tells which steps are not deleted, from all there are
    and the accuracies of those that were verified (retention.py); without it they are read only.
    """

    def __init__(self, folder: str | Path, keep: Keep | None = None):
        self._folder = checkpoint_path(folder)
        if keep is None and not self._folder.is_dir():
            raise InputError(f"{folder}: no such folder; give the --workdir of a training run")
        self._keep = keep
        self._sealed = Sealed()
        self._verified: dict[int, Verification | None] = {}
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        registry.add(manifest.ITEM, ocp.args.StandardSave, self._sealed)
        registry.add(manifest.ITEM, ocp.args.PyTreeRestore, ocp.PyTreeCheckpointHandler())
        options = ocp.CheckpointManagerOptions(
            create=keep is not None,
            read_only=keep is None,
            cleanup_tmp_directories=keep is not None,  # of saves that were killed
            preservation_policy=None if keep is None else self,
            # a folder that cannot be made is reported at once, not after minutes; a slow disk may
            # take its time: the watchdog has the last word
            async_options=ocp.AsyncOptions(
                timeout_secs=SECONDS,
                create_directories_asynchronously=False,
                barrier_sync_fn=_barrier,
            ),
        )
        try:
            self._manager = ocp.CheckpointManager(
                self._folder, options=options, handler_registry=registry
            )
        except OSError as error:
            raise InputError(
                f"{folder}: {error.strerror}; give a --workdir or --config.run.checkpoints that "
                "can be written"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        try:
            self.wait()
        except (InputError, TimeoutError, jax.errors.JaxRuntimeError):
            if kind is None:  # else the error that ends the run is the one to report
                raise
        finally:
            self._manager.close()

    def steps(self) -> list[int]:
        """The steps that are there, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, found: Mapping[str, Any] | None = None) -> None:
        """Start saving; returns once the arrays are copied off the devices.

        `found` is the verification row of this step, where there is one.
        """
        self.wait()  # Orbax would; the manifest of the save before needs its own verification
        verification = found and {
            "benchmark": found["benchmark"],
            "accuracy": found["verification_accuracy"],
        }
        self._sealed.verification = self._verified[step] = verification
        self._guard(lambda: self._manager.save(step, args=ocp.args.StandardSave(state), force=True))

    def wait(self) -> None:
        """Wait for pending saves; a save that failed is reported here or at the next save."""
        self._guard(self._manager.wait_until_finished)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's question after each save, the new step included."""
        del context
        assert self._keep is not None
        steps = [checkpoint.step for checkpoint in checkpoints]
        keep = self._keep(steps, self.accuracies(steps))
        return [step in keep for step in steps]

    def accuracies(self, steps: Sequence[int]) -> dict[int, float]:
        """Of the steps that were verified, on the benchmark of the last of them."""
        for step in steps:
            if step not in self._verified:
                try:
                    found = manifest.read(manifest.place(self._folder, step))
                except (ValueError, OSError):
                    found = None  # is reported when it is to be restored
                self._verified[step] = found and found["verification"]
        known = {step: v for step in sorted(steps) if (v := self._verified[step])}
        last = known[max(known)]["benchmark"] if known else None
        return {step: v["accuracy"] for step, v in known.items() if v["benchmark"] == last}

    def choose(self, asked: int | str | None = None) -> int:
        """The step to restore, the files of which are as its manifest says: the one that is asked
        for ("best": the most accurate), else the latest sound one; 0 where there are none.

        Damaged steps after the latest sound one are named on stderr and, unless read only, set
        aside under another name.  Process 0 looks, all get its answer.  Raises InputError, naming
        the files, where the step that is asked for, or every step, is damaged.
        """
        found, mine = [0], self._keep is not None

        def find() -> None:
            found[0] = sound.find(self._folder, self.steps(), asked, self.accuracies, mine)

        agreement.on_leader(find)
        self._manager.reload()
        return int(agreement.gather(str(found[0]))[0])

    def restore(self, step: int, state: Any, sharding: Any, classes: int = 0) -> Any:
        """The state saved at a step; `state` gives shapes and types, `sharding` the place of each
        leaf.  The step is one of `choose`: no file is checked here.

        Class matrices, of `classes` identities, lose or gain rows of zeros at their end where the
        number of devices asks for other padding (state.py).  Raises InputError where the state has
        other leaves or shapes than what was saved.
        """

        target = _placed(state, sharding)
        # Orbax pads and cuts what it is asked for with `strict=False`
        args = jax.tree_util.tree_map_with_path(
            lambda path, leaf, arg: dataclasses.replace(arg, strict=not of_classes(path, leaf)),
            target,
            ocp.checkpoint_utils.construct_restore_args(target),
        )
        whole = ocp.args.PyTreeRestore(target, restore_args=args)
        return self._restore(step, whole, lambda saved: difference(saved, _shapes(state), classes))

    def restore_network(self, step: int, variables: Any, sharding: Any) -> Any:
        """`params` and `batch_stats` of the backbone alone, as `restore`; nothing else is read."""
        backbone, statistics = variables["params"], variables["batch_stats"]
        named = {"params": {"backbone": backbone}, "batch_stats": statistics}
        target = _placed(named, jax.tree.map(lambda _: sharding, named))
        args = ocp.checkpoint_utils.construct_restore_args(target)
        wanted = _shapes(named)

        def differs(saved: Shapes) -> str | None:
            return difference({path: saved[path] for path in wanted if path in saved}, wanted, 0)

        part = ocp.args.PyTreeRestore(target, restore_args=args, partial_restore=True)
        found = self._restore(step, part, differs)
        return {"params": found["params"]["backbone"], "batch_stats": found["batch_stats"]}

    def _restore(self, step: int, args: Any, differs: Callable[[Shapes], str | None]) -> Any:
        """`differs` tells, of the shapes that were saved, what is not as wanted; None: nothing."""
        try:
            found = differs(_shapes(self._manager.item_metadata(step).tree))
            if not found:
                return self._manager.restore(step, args=args)
        except Exception as error:  # just that is what Orbax raises for an array it cannot read
            kinds = (OSError, ValueError, KeyError, TypeError)
            if type(error) is not Exception and not isinstance(error, kinds):
                raise
            raise InputError(
                f"{self._folder / str(step)}: does not restore ({first_line(error)}); use another "
                f"step of {self.steps()}, or delete that folder to fall back to the one before"
            ) from error
        raise InputError(
            f"{self._folder / str(step)}: is of another network, or of a crfr that kept it "
            f"otherwise ({found}); give the config and the crfr that it was trained with, or train "
            "anew in another folder"
        )

    def _guard(self, write: Any) -> None:
        try:
            write()
        # Orbax and TensorStore report a full disk as OSError, ValueError or RuntimeError by turns
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error.__cause__ or error, jax.errors.JaxRuntimeError):
                raise  # a process that did not come to the barrier: the disk is well
            raise InputError(
                f"{self._folder}: the checkpoint could not be saved ({first_line(error)}); those "
                "before it are whole: make room or rights there and run the same command again"
            ) from error


def _placed(shapes: Any, sharding: Any) -> Any:
    """What Orbax is to restore, and where."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding,
    )


def _shapes(tree: Any) -> Shapes:
    leaves = ocp.tree.to_flat_dict(ocp.tree.serialize_tree(tree, keep_empty_nodes=True))
    return {path: leaf.shape for path, leaf in leaves.items() if hasattr(leaf, "shape")}
